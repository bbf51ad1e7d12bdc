"""FLOP and bytes of engine steps, from a model's dimensions.

Attention and KV terms are those of Kinetics (arXiv:2506.05333): 4 FLOP a head, head
dimension, layer and (query, key) pair; K and V of every cached token read by every decode
step. Two terms that the paper leaves out are added, since without them its cost is a tenth
of what servers measure: weight reads, shared by the rows of a batch, and the prefill.

Matrix products only: norms, rotary embeddings, softmax and sampling are left out, and so
are activations and embedding rows, which stay in the processor's caches.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from planner.models.errors import InputError
from planner.models.prediction import Array
from planner.models.specs import Architecture


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """One step of the engine, all rows of the batch together."""

    flop: float
    weight_bytes: float  # read once, however many rows
    kv_bytes: float  # cache, read and written

    @property
    def moved_bytes(self) -> float:
        """Weights and KV."""
        return self.weight_bytes + self.kv_bytes


def _layer_parameters(arch: Architecture) -> int:
    """Parameters of all layers' projections."""
    query = arch.hidden * arch.heads * arch.head_dim
    key = arch.hidden * arch.kv_heads * arch.head_dim
    return arch.layers * (2 * query + 2 * key + 3 * arch.hidden * arch.intermediate)


def parameters(arch: Architecture) -> int:
    """Parameters, the norms' and the embedding's included; a tied embedding counts once."""
    norms = (2 * arch.layers + 1) * arch.hidden
    tables = 1 if arch.tied_embeddings else 2
    return _layer_parameters(arch) + norms + tables * arch.vocabulary * arch.hidden


def read_bytes(arch: Architecture) -> float:
    """Weights that a step reads: of the input embedding it needs a few rows only."""
    table = 0 if arch.tied_embeddings else arch.vocabulary * arch.hidden
    return (parameters(arch) - table) * arch.weight_bytes


def kv_bytes_per_token(arch: Architecture) -> float:
    """K and V of one token in all layers."""
    return 2 * arch.layers * arch.kv_heads * arch.head_dim * arch.kv_bytes


def attention_flop_per_pair(arch: Architecture) -> float:
    """Score and weighted sum of one (query, key) pair in all layers."""
    return 4.0 * arch.layers * arch.heads * arch.head_dim


def head_flop(arch: Architecture) -> float:
    """The output projection of one token."""
    return 2.0 * arch.vocabulary * arch.hidden


def prefill_step(arch: Architecture, *, batch: int, prompt_tokens: int) -> StepCost:
    """Prefill of `batch` prompts; logits of the last token only.

        flop = batch (2 N T + head + pair T (T + 1) / 2),   kv = batch 2 T kv_token

    N are the layers' parameters; every cached token is written, and read by the attention.

    Raises:
        InputError: batch or prompt_tokens is not at least 1.
    """
    if batch < 1 or prompt_tokens < 1:
        raise InputError(f"need batch and prompt_tokens >= 1, got {batch}, {prompt_tokens}")
    t = prompt_tokens
    pairs = t * (t + 1) / 2
    flop = 2.0 * _layer_parameters(arch) * t + head_flop(arch)
    return StepCost(
        flop=batch * (flop + attention_flop_per_pair(arch) * pairs),
        weight_bytes=read_bytes(arch),
        kv_bytes=batch * 2 * t * kv_bytes_per_token(arch),
    )


def decode_step(arch: Architecture, *, batch: int, context_tokens: int) -> StepCost:
    """One token for each of `batch` rows that have `context_tokens` in the cache.

        flop = batch (2 N + head + pair (context + 1)),   kv = batch (context + 1) kv_token

    The cache is read, and the new token's K and V are written.

    Raises:
        InputError: batch is not at least 1, or context_tokens is negative.
    """
    if batch < 1 or context_tokens < 0:
        raise InputError(f"need batch >= 1, context >= 0, got {batch}, {context_tokens}")
    flop = 2.0 * _layer_parameters(arch) + head_flop(arch)
    return StepCost(
        flop=batch * (flop + attention_flop_per_pair(arch) * (context_tokens + 1)),
        weight_bytes=read_bytes(arch),
        kv_bytes=batch * (context_tokens + 1) * kv_bytes_per_token(arch),
    )


def decode_steps(output_tokens: ArrayLike) -> Array:
    """Decode steps of draws: the prefill gives the first token, each step one more."""
    return np.asarray(np.maximum(np.asarray(output_tokens, float) - 1, 0.0), float)


def cached_tokens(prompt_tokens: ArrayLike, output_tokens: ArrayLike) -> Array:
    """Cached tokens that the decode steps of draws see, added over their steps.

    The contexts are prompt, prompt + 1, ...: n prompt + n (n - 1) / 2 over n steps.
    """
    steps = decode_steps(output_tokens)
    return np.asarray(steps * np.asarray(prompt_tokens, float) + steps * (steps - 1) / 2)


def draw_steps(
    arch: Architecture, prompt_tokens: ArrayLike, output_tokens: ArrayLike, *, batch: int
) -> tuple[Array, Array]:
    """Total FLOP and moved bytes of draws that each prefill their prompt, then decode.

    Args:
        arch: The model.
        prompt_tokens: Shape (n,), at least 1; expectations need not be whole.
        output_tokens: Shape (n,); the first of them comes from the prefill.
        batch: Rows that share every reading of the weights.

    Returns:
        FLOP (n,) and bytes (n,), the share of one row.

    Raises:
        InputError: batch is not at least 1.
    """
    if batch < 1:
        raise InputError(f"batch must be at least 1, got {batch}")
    prompt = np.asarray(prompt_tokens, float)
    steps = decode_steps(output_tokens)
    cached = cached_tokens(prompt, output_tokens) + steps  # the new token attends to itself
    pairs = prompt * (prompt + 1) / 2 + cached
    flop = (
        2.0 * _layer_parameters(arch) * (prompt + steps)
        + head_flop(arch) * (1 + steps)
        + attention_flop_per_pair(arch) * pairs
    )
    kv = kv_bytes_per_token(arch) * (2 * prompt + cached)
    return np.asarray(flop), np.asarray((1 + steps) * read_bytes(arch) / batch + kv)
