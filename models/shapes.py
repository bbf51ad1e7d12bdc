"""Shapes: how the success rates p of a benchmark's problems are distributed.

A shape has four parameters: the tail exponent a, the mean m, a bend g and the share h of
hopeless problems. Among the others the density of log p is proportional to

    p**a * (1 - p)**b * exp(-g / 2 * log(p / 0.01)**2),    b = a (1 - m) / m

Without bend and hopeless problems that is Beta(a, b), whose 1 - coverage(k) falls as k**-a
(Levi 2024, arXiv:2410.16377; Schaeffer et al. 2025, arXiv:2502.17578). The bend makes it
fall faster the further it goes, as where every problem can be solved; hopeless problems
(p = 0) make it level off. Few draws cannot tell which of the two a set does, so that a
forecast has to hold both.

Rates live on a fixed grid of x = -log(1 - p), on which every sum over a shape is a matrix
product: (1 - p)**k = exp(-k x).
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from planner.models.prediction import Array

N_PARAMETERS = 4  # columns of theta: log a, logit m, log g, logit h
_STEP = 0.12
_LOG_X = np.arange(np.log(1e-8), np.log(25.0), _STEP)
X: Array = np.exp(_LOG_X)  # (n_nodes,)
P: Array = -np.expm1(-X)
_LOG_P = np.log(P)
# the log density is linear in a, b and g / 2: one matrix product for many shapes
_SLOPES = np.stack([_LOG_P, -X, -((_LOG_P - np.log(0.01)) ** 2)])  # (3, n_nodes)
_BASE = _LOG_X - _LOG_P + np.log(_STEP)
_FAR = 12.0  # on |log b|: beyond it a shape is a point or a step


@dataclass(frozen=True, eq=False)
class Shapes:
    """Many shapes at once."""

    weight: Array  # (n_shapes, n_nodes), share of the problems at each rate
    hopeless: Array  # (n_shapes,), share at p = 0; the rows of both sum to 1

    @classmethod
    def of(cls, theta: Array) -> Self:
        """Shapes of parameters (n_shapes, 4)."""
        log_a = np.clip(theta[:, 0], -6.0, 4.0)
        a = np.exp(log_a)
        b = np.exp(np.clip(log_a - theta[:, 1], -_FAR, _FAR))
        bend = np.exp(np.clip(theta[:, 2], -30.0, 3.0)) / 2
        log_w = np.stack([a, b, bend], axis=1) @ _SLOPES + _BASE
        # what lies beyond the grid goes to its ends
        low = a * _LOG_X[0] - np.log(a) + bend * _SLOPES[2, 0]
        high = -b * X[-1] - np.log(b) + bend * _SLOPES[2, -1]
        log_w[:, 0] = np.logaddexp(log_w[:, 0], low)
        log_w[:, -1] = np.logaddexp(log_w[:, -1], high)
        log_w -= log_w.max(axis=1, keepdims=True)
        weight = np.exp(log_w, out=log_w)
        weight /= weight.sum(axis=1, keepdims=True)
        hopeless = 1 / (1 + np.exp(-np.clip(theta[:, 3], -40.0, 40.0)))
        return cls(weight * (1 - hopeless)[:, None], hopeless)

    def take(self, which: NDArray[np.integer[Any]]) -> Self:
        """Some of the shapes, by index."""
        return type(self)(self.weight[which], self.hopeless[which])

    def mean(self, share: Array) -> Self:
        """The one shape that they mix to with these shares, (n_shapes,)."""
        return type(self)((share @ self.weight)[None], np.array([share @ self.hopeless]))

    def likelihood(self, binomial: Array, none: Array) -> Array:
        """P(c of n draws are right) under each shape, (n_shapes, n_pairs).

        Args:
            binomial: Of `binomial(c, n)`, (n_nodes, n_pairs).
            none: Whether c = 0, (n_pairs,).
        """
        return np.asarray(self.weight @ binomial + self.hopeless[:, None] * none)

    def unsolved(self, k: Array) -> Array:
        """Mean of (1 - p)**k over the problems of each shape, (n_shapes, n_k)."""
        return np.asarray(self.weight @ np.exp(-np.outer(X, k)) + self.hopeless[:, None])

    def draws_to_success(self, n: Array) -> Array:
        """Mean draws made, at most n, to the first success; (n_shapes, n_n)."""
        until = np.expm1(-np.outer(X, n)) / np.expm1(-X)[:, None]
        return np.asarray(self.weight @ until + self.hopeless[:, None] * n)


def binomial(c: Array, n: Array) -> Array:
    """P(c of n draws are right) at every rate of the grid, (n_nodes, n_pairs)."""
    ways = gammaln(n + 1) - gammaln(c + 1) - gammaln(n - c + 1)
    return np.asarray(np.exp(ways + c * _LOG_P[:, None] - (n - c) * X[:, None]))
