"""Votes of draws whose answer distribution is known, or whose draws are not independent."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betainc

from planner.models.errors import FitError, InputError
from planner.models.lengths import Recorded
from planner.models.prediction import Array, Prediction

_BOOTSTRAP = 1000


def effective_votes(n: ArrayLike, rho: float) -> Array:
    """Independent votes worth as much as n correlated ones, n / (1 + (n - 1) rho).

    Kish's design effect: never more than 1 / rho, however many are made.

    Raises:
        InputError: n below 1, or rho outside [0, 1].
    """
    points = np.atleast_1d(np.asarray(n, dtype=float))
    if not (points >= 1).all():
        raise InputError("a vote needs n >= 1 draws")
    if not 0 <= rho <= 1:
        raise InputError(f"the correlation of votes must be in [0, 1], got {rho}")
    return points if rho == 0 else 1 / (rho + (1 - rho) / points)


def vote_correlation(
    recorded: Recorded, batch: NDArray[np.int64], rng: np.random.Generator
) -> Prediction:
    """Correlation of draws of one batch (run, seed, shared prefix), beyond their problem's.

    With A_in the chance that two draws of a problem agree within a batch and A_out across
    batches, rho = (A_in - A_out) / (1 - A_out), by the Bayesian bootstrap over problems.
    Draws of one batch alone cannot tell it from an easy problem.

    Args:
        recorded: Draws; a draw without answer agrees with none.
        batch: Batch of each draw, the shape of `recorded.answer`.
        rng: For the bootstrap.

    Raises:
        InputError: Batches of another shape.
        FitError: No problem has two draws in a batch, and none has two batches, or all
            draws agree.
    """
    if batch.shape != recorded.answer.shape:
        raise InputError("each draw needs one batch")
    voting = recorded.present & (recorded.answer >= 0)
    pair = voting[:, :, None] & voting[:, None, :]
    pair &= ~np.eye(voting.shape[1], dtype=bool)
    same = pair & (batch[:, :, None] == batch[:, None, :])
    agree = recorded.answer[:, :, None] == recorded.answer[:, None, :]
    inside, outside = same.sum(axis=(1, 2)), (pair & ~same).sum(axis=(1, 2))
    both = (inside > 0) & (outside > 0)
    if both.sum() < 2:
        raise FitError(
            "correlation needs two or more problems with several batches, one of them with"
            " several draws; draw in more batches, or give rho"
        )
    a_in = (same & agree).sum(axis=(1, 2))[both] / inside[both]
    a_out = (pair & ~same & agree).sum(axis=(1, 2))[both] / outside[both]
    weight = rng.dirichlet(np.ones(len(a_in)), _BOOTSTRAP)
    rest = 1 - weight @ a_out
    if rest.min() <= 1e-9:
        raise FitError("all draws agree, so that their correlation cannot be seen")
    rho = np.clip((weight @ (a_in - a_out)) / rest, 0.0, 1.0)
    return Prediction(rho[:, None], "1", np.zeros(1, dtype=bool))


def vote_error_bound(p_right: ArrayLike, p_wrong: ArrayLike, n: ArrayLike) -> Array:
    """Chernoff's bound on P(a wrong answer gets as many votes), (1 - (√r - √w)²)^n.

    Args:
        p_right: Probability r of the right answer, above that of every wrong one.
        p_wrong: Probability w of the likeliest wrong answer; with m of them the error is
            at most m times the bound.
        n: Votes; the three broadcast.

    Raises:
        InputError: Not probabilities of exclusive answers, w above r, or n below 1.
    """
    r, w, votes = (np.asarray(x, dtype=float) for x in (p_right, p_wrong, n))
    if not ((w >= 0) & (w <= r) & (r + w <= 1 + 1e-12)).all() or not (votes >= 1).all():
        raise InputError("the bound needs 0 <= p_wrong <= p_right, sum at most 1, n >= 1")
    return np.asarray((1 - (np.sqrt(r) - np.sqrt(w)) ** 2) ** votes)


def two_class_vote(n: ArrayLike, share_easy: float, p_easy: float, p_hard: float) -> Array:
    """Accuracy of the vote where problems are of two kinds and answers two.

    share * I_p1((n + 1)/2, (n + 1)/2) + (1 - share) * I_p2(same), Chen et al. 2024
    (arXiv:2403.02419); exact for odd n. Not monotone if p_hard < 1/2 < p_easy.

    Raises:
        InputError: Not probabilities, or n below 1.
    """
    points = np.atleast_1d(np.asarray(n, dtype=float))
    if not (points >= 1).all() or not all(
        0 <= p <= 1 for p in (share_easy, p_easy, p_hard)
    ):
        raise InputError("two-class votes need probabilities in [0, 1] and n >= 1")
    half = (points + 1) / 2
    easy, hard = betainc(half, half, p_easy), betainc(half, half, p_hard)
    return np.asarray(share_easy * easy + (1 - share_easy) * hard)


def two_class_best_n(share_easy: float, p_easy: float, p_hard: float) -> float:
    """Votes with the highest (or lowest) accuracy of `two_class_vote`; not rounded.

    n* = 2 ln[s (2 p1 - 1) / ((1 - s)(1 - 2 p2))] / ln[p2 (1 - p2) / (p1 (1 - p1))], the
    best n where p1 + p2 > 1, as easy problems then settle sooner, else the worst
    (arXiv:2403.02419). A result below 1 means that the curve has no turning point.

    Raises:
        InputError: Not p_hard < 1/2 < p_easy inside (0, 1), a share of 0 or 1, or
            p_easy + p_hard = 1, where the curve is monotone.
    """
    if not (0 < p_hard < 0.5 < p_easy < 1 and 0 < share_easy < 1):
        raise InputError("a turning point needs p_hard < 1/2 < p_easy and both kinds")
    if p_easy + p_hard == 1:
        raise InputError("with p_easy + p_hard = 1 the curve is monotone")
    odds = share_easy * (2 * p_easy - 1) / ((1 - share_easy) * (1 - 2 * p_hard))
    ratio = p_hard * (1 - p_hard) / (p_easy * (1 - p_easy))
    return float(2 * np.log(odds) / np.log(ratio))
