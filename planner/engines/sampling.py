"""Choosing the next token of many draws at once.

Each draw owns a slot. Its uniforms are drawn when it is admitted, from a counter-based
generator (Philox, Salmon et al. 2011) keyed by the request's seed and the draw's index, so
that what it samples does not depend on what else runs. Token j is where the cumulative
distribution first exceeds uniform j.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.engines.base import Request

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Slots:
    """State of the draws under way, one row each; arrays are written in place.

    Threads may work on disjoint slots at the same time.
    """

    emitted: Ints  # output tokens so far
    limit: Ints  # max_tokens
    beta: Floats  # 1 / temperature; 0 for greedy
    top_p: Floats
    with_logprobs: Bools
    enders: Bools  # (slots, vocabulary): tokens after which the draw may be over
    uniforms: NDArray[np.float64]  # (slots, max_positions)
    tokens: NDArray[np.int32]  # (slots, max_positions)
    logprobs: Floats  # (slots, max_positions); nats at temperature 1

    @classmethod
    def empty(cls, count: int, vocabulary: int, max_positions: int) -> "Slots":
        """Memory of the wide arrays is taken by the system only where it is used."""
        return cls(
            emitted=np.zeros(count, np.int64),
            limit=np.ones(count, np.int64),
            beta=np.ones(count, np.float32),
            top_p=np.ones(count, np.float32),
            with_logprobs=np.zeros(count, np.bool_),
            enders=np.zeros((count, vocabulary), np.bool_),
            uniforms=np.empty((count, max_positions), np.float64),
            tokens=np.empty((count, max_positions), np.int32),
            logprobs=np.empty((count, max_positions), np.float32),
        )

    def start(
        self, slot: int, request: Request, seed: int, index: int, enders: Bools
    ) -> None:
        """Give a slot to draw `index` of a request."""
        self.emitted[slot] = 0
        self.limit[slot] = request.max_tokens
        self.beta[slot] = 1 / request.temperature if request.temperature else 0
        self.top_p[slot] = request.top_p
        self.with_logprobs[slot] = request.logprobs
        self.enders[slot] = enders
        if request.temperature:
            key = np.array([seed, index], np.uint64)
            rng = np.random.Generator(np.random.Philox(key=key))
            rng.random(out=self.uniforms[slot, : request.max_tokens])

    def last(self, slots: Ints) -> Ints:
        """The newest token of each slot."""
        newest: Ints = self.tokens[slots, self.emitted[slots] - 1].astype(np.int64)
        return newest

    def append(self, slots: Ints, logits: Floats) -> Bools:
        """Choose and store the next token of some slots.

        Args:
            slots: (R,), distinct.
            logits: (R, vocabulary).

        Returns:
            (R,), true where the draw is over or a stop string may be complete.
        """
        emitted, beta = self.emitted[slots], self.beta[slots]
        chosen = np.zeros(len(slots), np.int64)
        sampled = beta > 0
        if not sampled.all():
            chosen[~sampled] = logits[~sampled].argmax(1)
        if sampled.any():
            rows = slice(None) if sampled.all() else np.flatnonzero(sampled)
            at = slots[rows]
            weights = _weights(logits[rows], beta[rows])
            top_p = self.top_p[at]
            if (top_p < 1).any():
                weights = _nucleus(weights, top_p)
            cumulative = weights.cumsum(1, dtype=np.float64)
            threshold = self.uniforms[at, emitted[rows]] * cumulative[:, -1]
            chosen[rows] = (cumulative > threshold[:, None]).argmax(1)
        wanted = self.with_logprobs[slots]
        if wanted.any():
            at = slots[wanted]
            self.logprobs[at, emitted[wanted]] = _logprobs(logits[wanted], chosen[wanted])
        self.tokens[slots, emitted] = chosen
        emitted += 1
        self.emitted[slots] = emitted
        over: Bools = self.enders[slots, chosen] | (emitted == self.limit[slots])
        return over


def _weights(logits: Floats, beta: Floats) -> Floats:
    """Probabilities up to a factor, the largest 1."""
    # Shift first: logits / temperature may overflow at a temperature near 0.
    shifted: Floats = logits - logits.max(1, keepdims=True)
    with np.errstate(over="ignore"):
        shifted *= beta[:, None]
    np.exp(shifted, out=shifted)
    return shifted


def _nucleus(weights: Floats, top_p: Floats) -> Floats:
    """Zero all but the fewest likeliest tokens that hold top_p (arXiv:1904.09751)."""
    order = np.argsort(-weights, axis=1, kind="stable")
    ranked = np.take_along_axis(weights, order, 1).astype(np.float64)
    before = ranked.cumsum(1) - ranked
    keep = np.empty(weights.shape, np.bool_)
    share = top_p[:, None].astype(np.float64)
    np.put_along_axis(keep, order, before < share * ranked.sum(1, keepdims=True), 1)
    return np.where(keep | (top_p[:, None] >= 1), weights, np.float32(0))


def _logprobs(logits: Floats, chosen: Ints) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(1, keepdims=True)
    at = shifted[np.arange(len(chosen)), chosen]
    logprobs: NDArray[np.float64] = at - np.log(np.exp(shifted).sum(1))
    return logprobs
