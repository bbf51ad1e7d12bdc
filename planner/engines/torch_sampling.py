"""Choosing the next token of many draws at once, on torch tensors.

Token by inverse CDF, as in the embedded engine: where the cumulative probability first
exceeds the draw's uniform number.
"""

from collections.abc import Sequence
from typing import Any

import torch

from planner.engines.base import Request

_COLDEST = 1e-30  # temperatures below are this one: 1 / 1e-30 is still a float32


def sample(
    logits: Any, requests: Sequence[Request], uniforms: Sequence[float]
) -> tuple[list[int], list[float]]:
    """A token for each row, and its log-probability at temperature 1, in nats.

    Args:
        logits: Float32; shape (rows, vocabulary).
        requests: Of each row: its temperature and top_p.
        uniforms: Of each row, in [0, 1).
    """
    device = logits.device

    def column(values: Sequence[float], dtype: Any = torch.float32) -> Any:
        return torch.tensor(values, dtype=dtype, device=device)[:, None]

    greedy = torch.tensor([r.temperature == 0 for r in requests], device=device)
    scale = column([max(r.temperature, _COLDEST) if r.temperature else 1 for r in requests])
    shifted = logits - logits.amax(-1, keepdim=True)  # first: the quotient may overflow
    weights = torch.softmax(shifted / scale, -1)
    if any(r.top_p < 1 for r in requests):
        weights = _nucleus(weights, column([r.top_p for r in requests]))
    cumulative = weights.cumsum(-1, dtype=torch.float64)
    threshold = column(uniforms, torch.float64) * cumulative[:, -1:]
    drawn = torch.searchsorted(cumulative, threshold, right=True)[:, 0]
    tokens = torch.where(greedy, logits.argmax(-1), drawn.clamp(max=logits.shape[-1] - 1))
    logprobs = torch.log_softmax(logits, -1).gather(-1, tokens[:, None])[:, 0]
    return tokens.tolist(), logprobs.tolist()


def _nucleus(weights: Any, top_p: Any) -> Any:
    """Zero all but the likeliest tokens that hold a share top_p (arXiv:1904.09751)."""
    ranked, order = weights.sort(dim=-1, descending=True, stable=True)
    beyond = (ranked.cumsum(-1) - ranked >= top_p) & (top_p < 1)
    return torch.zeros_like(weights).scatter(-1, order, ranked.masked_fill(beyond, 0))
