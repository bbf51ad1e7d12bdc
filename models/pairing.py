"""What one model's draws on a problem say about another model's success there.

A problem that strong models never solve is likely hopeless for the others too. Each
problem has one hidden ease z ~ N(0, 1); the success rate of a model on it is the quantile
of the model's shape at Phi(r z + sqrt(1 - r**2) e), e ~ N(0, 1): a one-factor normal copula
(the item response of Sloth, arXiv:2412.06540, with the margins left free). Ease lives on a
grid.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp, ndtr, ndtri

from planner.models.counts import IntArray
from planner.models.prediction import Array
from planner.models.shapes import Shapes

EASE: Array = np.linspace(-3.2, 3.2, 17)
_LOG_EASE: Array = -(EASE**2) / 2 - logsumexp(-(EASE**2) / 2)
_LOADINGS = (0.0, 0.4, 0.6, 0.75, 0.85, 0.92, 0.97)


class Seen(NamedTuple):
    """The counts of one cell, as indices into its distinct pairs (c, n)."""

    binomial: Array  # (n_nodes, n_pairs)
    none: Array  # (n_pairs,), whether c = 0
    pair: IntArray  # (n_problems,), of each problem
    problem: IntArray  # (n_problems,), shared by the cells of the benchmark


def given_ease(shapes: Shapes, loading: float) -> Shapes:
    """Shapes of the problems of each ease; rows are (shape, ease), the ease fastest."""
    edges = np.cumsum(
        np.concatenate([shapes.hopeless[:, None], shapes.weight[:, :-1]], axis=1), axis=1
    )
    z = ndtri(np.clip(edges, 1e-12, 1 - 1e-12))[:, None, :] - loading * EASE[:, None]
    below = ndtr(z / np.sqrt(1 - loading**2))
    weight = np.diff(below, axis=2, append=1.0)
    nodes = weight.shape[2]
    return Shapes(weight.reshape(-1, nodes), below[:, :, 0].ravel())


def loading_of(means: Sequence[Shapes], seen: Sequence[Seen]) -> float:
    """The loading under which the cells' counts are likeliest together."""
    problems = 1 + max(int(s.problem.max()) for s in seen)
    likely = [
        logsumexp(_messages(means, seen, r, problems) + _LOG_EASE, axis=1).sum()
        for r in _LOADINGS
    ]
    return _LOADINGS[int(np.argmax(likely))]


def ease_from_others(
    means: Sequence[Shapes], seen: Sequence[Seen], loading: float
) -> list[Array]:
    """P(ease) of each cell's problems by the counts of all other cells, (problems, 17).

    Args:
        means: The shape of each cell, one row each.
        seen: The counts of each cell.
        loading: From `loading_of`.
    """
    problems = 1 + max(int(s.problem.max()) for s in seen)
    total = _messages(means, seen, loading, problems) + _LOG_EASE
    others = []
    for mean, own in zip(means, seen, strict=True):
        log_share = total[own.problem] - _log_table(mean, own, loading).T[own.pair]
        others.append(np.exp(log_share - logsumexp(log_share, axis=1, keepdims=True)))
    return others


def log_likelihood(shapes: Shapes, seen: Seen, ease: Array, loading: float) -> Array:
    """Of one cell's counts under each shape, with what the others say of ease; (n_shapes,).

    Args:
        shapes: Candidates.
        seen: The cell's counts.
        ease: Of `ease_from_others`.
        loading: Of the copula.
    """
    out = np.zeros(len(shapes.hopeless))
    order = np.argsort(seen.pair, kind="stable")
    pairs, first = np.unique(seen.pair[order], return_index=True)
    groups = np.split(order, first[1:])
    for part in np.array_split(np.arange(len(out)), max(1, len(out) // 64)):
        tables = given_ease(shapes.take(part), loading).likelihood(seen.binomial, seen.none)
        tables = np.maximum(tables, 1e-300).reshape(len(part), len(EASE), -1)
        for pair, members in zip(pairs, groups, strict=True):
            out[part] += np.log(tables[:, :, pair] @ ease[members].T).sum(axis=1)
    return out


def _messages(
    means: Sequence[Shapes], seen: Sequence[Seen], loading: float, problems: int
) -> Array:
    """Log likelihood of all counts of each problem at each ease, (problems, 17)."""
    out = np.zeros((problems, len(EASE)))
    for mean, own in zip(means, seen, strict=True):
        out[own.problem] += _log_table(mean, own, loading).T[own.pair]
    return out


def _log_table(mean: Shapes, seen: Seen, loading: float) -> Array:
    """Log P(pair | ease), (17, n_pairs)."""
    table = given_ease(mean, loading).likelihood(seen.binomial, seen.none)
    return np.log(np.maximum(table, 1e-300))
