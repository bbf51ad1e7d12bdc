"""The vote itself: counts of draws from known answer distributions, and who wins."""

from dataclasses import dataclass

import numpy as np

from planner.models.prediction import Array

_CANDIDATES = 6  # answers of a side that may win; the others are single votes
_EXACT = 32  # new votes up to which counts are multinomial; beyond, normal and rounded


@dataclass(frozen=True, eq=False)
class Side:
    """The right answers of many problems, or the wrong ones; rows are problems."""

    share: Array  # (rows, K), of all draws, answers that may win
    begun: Array  # (rows, K), votes they start with
    rest: Array  # (rows,), share of all other answers, each drawn at most once

    @classmethod
    def of(cls, share: Array, begun: Array, rest: Array) -> "Side":
        """Keep the answers that may win; the others join the rest."""
        keep = min(_CANDIDATES, share.shape[1])
        scale = np.maximum(begun.sum(axis=1, keepdims=True), 1.0)
        top = np.argpartition(-(share + begun / scale), keep - 1, axis=1)[:, :keep]
        kept = np.take_along_axis(share, top, 1)
        lost = np.maximum(share.sum(axis=1) - kept.sum(axis=1), 0.0)
        return cls(kept, np.take_along_axis(begun, top, 1), rest + lost)


def run_votes(
    right: Side, wrong: Side, new_votes: Array, rng: np.random.Generator
) -> Array:
    """Hold one vote in each row, and go on with it.

    Args:
        right: Right answers.
        wrong: Wrong answers.
        new_votes: Draws made beyond those the sides start with, (rows, n_points),
            rising along a row; infinity asks for the winner in the long run.
        rng: For the draws.

    Returns:
        P(the winner is right) given the counts, (rows, n_points): ties are shared.
    """
    k = right.share.shape[1] + 1  # columns of the right side
    share = np.concatenate(
        [right.share, right.rest[:, None], wrong.share, wrong.rest[:, None]], axis=1
    )
    silent = np.maximum(1 - share.sum(axis=1, keepdims=True), 0.0)
    chance = np.concatenate([share, silent], axis=1)
    chance /= chance.sum(axis=1, keepdims=True)
    none = np.zeros((len(share), 1))
    begun = np.concatenate([right.begun, none, wrong.begun, none], axis=1)
    counts, made = np.zeros_like(share), np.zeros(len(share))
    out = np.empty(new_votes.shape)
    for j, total in enumerate(new_votes.T):
        if np.isinf(total).all():
            modal = share.copy()
            modal[:, [k - 1, -1]] = 0.0
            out[:, j] = _right_share(modal, np.ones_like(modal), k)
            continue
        more = total - made
        if more.max(initial=0) <= _EXACT:
            counts += rng.multinomial(more.astype(np.int64), chance)[:, :-1]
        else:
            # independent Poisson counts, near normal, given their total: the multinomial
            mean = more[:, None] * chance
            noise = rng.standard_normal(mean.shape) * np.sqrt(mean)
            noise -= chance * noise.sum(axis=1, keepdims=True)
            counts += np.maximum(np.rint(mean + noise), 0.0)[:, :-1]
        made = total
        votes, each = begun + counts, np.ones_like(counts)
        for rest in (k - 1, -1):  # so many answers with one vote
            each[:, rest] = counts[:, rest]
            votes[:, rest] = np.minimum(counts[:, rest], 1.0)
        out[:, j] = _right_share(votes, each, k)
    return out


def _right_share(votes: Array, each: Array, k: int) -> Array:
    """Share of the most voted answers that are right, the first k columns; (rows,)."""
    best = votes.max(axis=1, keepdims=True)
    winners = np.where((votes == best) & (best > 0), each, 0.0)
    total = winners.sum(axis=1)
    return np.asarray(winners[:, :k].sum(axis=1) / np.maximum(total, 1.0))
