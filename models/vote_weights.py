"""Weights of votes (a verifier's score, a confidence), by problem and answer.

    weight of a draw = mean of its side + problem's effect + answer's effect + noise

each normal, with variances by moments. What helps the vote is that right answers outweigh
wrong ones of the same problem; how problems differ moves both alike.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from planner.models.answers import sum_by_answer
from planner.models.errors import FitError, InputError
from planner.models.lengths import Recorded
from planner.models.prediction import Array


@dataclass(frozen=True, eq=False)
class SideWeights:
    """Mean weight of each answer's votes on one side: normal, cut at 0."""

    total: Array  # (P, K), sum of the weights so far
    mean: Array  # (P, K + 1), of a vote; the last of an unseen answer
    sd: Array  # (P, K + 1)
    spread: float  # of one vote around its answer's mean

    def draw(self, rng: np.random.Generator, unseen: int) -> Array:
        """Weights (P, K + unseen + 1), the last for any other answer."""
        column = np.minimum(
            np.arange(self.total.shape[1] + unseen + 1), self.total.shape[1]
        )
        mean, sd = self.mean[:, column], self.sd[:, column]
        return np.maximum(mean + sd * rng.standard_normal(mean.shape), 1e-9)


@dataclass(frozen=True, eq=False)
class VoteWeights:
    """Fitted weights of right and wrong votes."""

    right: SideWeights
    wrong: SideWeights

    @classmethod
    def fit(cls, recorded: Recorded, weight: Array) -> Self:
        """Fit the means and variances.

        Args:
            recorded: Draws.
            weight: Of each draw, (P, N), at least 0; only draws with an answer count.

        Raises:
            InputError: Weights of another shape, negative, or missing for a vote.
            FitError: No right vote, or no wrong one: how the two differ is unknown.
        """
        voting = recorded.present & (recorded.answer >= 0)
        if weight.shape != voting.shape or not (weight[voting] >= 0).all():
            raise InputError("every draw with an answer needs a weight of at least 0")
        weight = np.where(voting, weight, 0.0)
        counts = sum_by_answer(recorded, voting.astype(float))
        totals = sum_by_answer(recorded, weight)
        squares = sum_by_answer(recorded, weight**2)
        if not (counts[0].any() and counts[1].any()):
            raise FitError("weighted votes need right and wrong draws to learn from")
        centre = [t.sum() / n.sum() for n, t in zip(counts, totals, strict=True)]
        votes = sum(n.sum(axis=1) for n in counts)
        off = sum(
            (t - m * n).sum(axis=1) for n, t, m in zip(counts, totals, centre, strict=True)
        )
        residual = off / np.maximum(votes, 1)
        everything = sum(
            (q - 2 * m * t + m * m * n).sum()
            for n, t, q, m in zip(counts, totals, squares, centre, strict=True)
        )
        variance = everything / votes.sum()
        # of the problems' effects: what their means vary by beyond one draw's share of it
        seen = votes > 0
        between = max(float(np.mean(residual[seen] ** 2 - variance / votes[seen])), 0.0)
        effect = residual * between / (between + variance / np.maximum(votes, 1) + 1e-300)
        sides = [
            _side(n, t, q, m + effect)
            for n, t, q, m in zip(counts, totals, squares, centre, strict=True)
        ]
        return cls(sides[0], sides[1])


def _side(counts: Array, total: Array, square: Array, expected: Array) -> SideWeights:
    """Shrink each answer's mean to what its problem and side lead one to expect."""
    some, many = counts > 0, counts > 1
    mean = total / np.maximum(counts, 1)
    within = np.where(many, square - counts * mean**2, 0.0).sum()
    noise = float(max(within, 0.0) / max((counts - 1)[many].sum(), 1))
    off = np.where(some, mean - expected[:, None], 0.0)
    scatter = float(max((off**2)[some].mean() - (noise / counts[some]).mean(), 0.0))
    kept = np.where(some, scatter / (scatter + noise / np.maximum(counts, 1) + 1e-300), 0.0)
    unseen = expected[:, None]
    return SideWeights(
        total,
        np.concatenate([unseen + kept * off, unseen], axis=1),
        np.sqrt(np.concatenate([(1 - kept) * scatter, 0 * unseen + scatter], axis=1)),
        float(np.sqrt(noise)),
    )
