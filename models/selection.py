"""Best-of-N: by an exact verifier that stops at the first success, and by score.

Both are exact expectations over samples without replacement of the recorded draws, the
order statistics of pass@k (Chen et al. 2021, arXiv:2107.03374): no replay, no noise of one.
"""

import numpy as np
from scipy.special import gammaln

from planner.models.coverage import none_correct
from planner.models.curves import ProblemCurves
from planner.models.errors import InputError
from planner.models.lengths import Recorded
from planner.models.prediction import Array


def verified_curves(recorded: Recorded, n: tuple[int, ...]) -> ProblemCurves:
    """Draws of at most n that stop at the first that an exact verifier accepts.

    With S_j the probability that the first j draws all fail, E[draws] is the sum of S_j
    over j < n. Wrong and right draws cost the mean of their own kind.

    Raises:
        InputError: n below 1 or above the draws of every problem.
    """
    _check_n(recorded, n)
    samples = recorded.n_samples.astype(float)
    right = recorded.n_correct.astype(float)
    # past a problem's own draws: fails as often as its draws do, S = 0 or 1
    every = np.arange(n[-1], dtype=float)
    fail = _fail(right, samples, every)
    index = np.asarray(n) - 1
    draws = np.cumsum(fail, axis=1)[:, index]
    squares = np.cumsum((2 * every + 1) * fail, axis=1)[:, index]  # E[draws^2]
    accuracy = 1 - _fail(right, samples, np.asarray(n, dtype=float))
    any_mean, any_var = recorded.tokens_by_problem()
    right_mean, _ = recorded.tokens_by_problem(recorded.correct)
    wrong_mean, _ = recorded.tokens_by_problem(~recorded.correct)
    right_mean = np.where(np.isnan(right_mean), any_mean, right_mean)[:, None]
    wrong_mean = np.where(np.isnan(wrong_mean), any_mean, wrong_mean)[:, None]
    tokens = (draws - accuracy) * wrong_mean + accuracy * right_mean
    variance = np.maximum(squares - draws**2, 0) * wrong_mean**2 + draws * any_var[:, None]
    return ProblemCurves(n, accuracy, draws, tokens, variance)


def scored_curves(recorded: Recorded, n: tuple[int, ...]) -> ProblemCurves:
    """The best-scored of n draws, whether right or not; all n are made.

    P(the r-th best of m recorded draws is the best of n random ones) = C(m - r, n - 1) /
    C(m, n). Equal scores share it, as the earliest of a random order does; a draw without
    score is never chosen.

    Raises:
        InputError: n below 1 or above the draws of every problem.
    """
    _check_n(recorded, n)
    present = recorded.present
    score = np.where(present & ~np.isnan(recorded.score), recorded.score, -np.inf)
    order = np.argsort(-score, axis=1, kind="stable")
    ranked = np.take_along_axis(score, order, 1)
    correct = np.take_along_axis(recorded.correct & present, order, 1).astype(float)
    correct = np.where(np.isneginf(ranked), 0.0, _tie_means(ranked, correct))
    m = recorded.n_samples[:, None, None].astype(float)
    below = (
        m - 1.0 - np.arange(score.shape[1], dtype=float)[None, :, None]
    )  # draws ranked lower
    most = np.minimum(np.asarray(n, dtype=float)[None, None, :], m)
    chosen = np.exp(_log_choose(below, most - 1) - _log_choose(m, most))
    accuracy = np.einsum("pr,prg->pg", correct, chosen)
    mean, variance = recorded.tokens_by_problem()
    draws = np.tile(np.asarray(n, dtype=float), (len(accuracy), 1))
    return ProblemCurves(
        n, accuracy, draws, draws * mean[:, None], draws * variance[:, None]
    )


def _fail(right: Array, samples: Array, k: Array) -> Array:
    """P(k draws are all wrong); past a problem's own draws, of as many as it has."""
    out = none_correct(right, samples, k)
    short = samples < k.max(initial=0)
    if short.any():
        out[short] = np.where(
            k <= samples[short, None],
            out[short],
            (right[short] == 0)[:, None].astype(float),
        )
    return out


def _tie_means(ranked: Array, correct: Array) -> Array:
    """Mean of `correct` within runs of equal scores, row by row."""
    rows, width = ranked.shape
    starts = np.ones(ranked.shape, dtype=bool)
    starts[:, 1:] = ranked[:, 1:] != ranked[:, :-1]
    run = np.cumsum(starts.ravel()) - 1
    mean = np.bincount(run, correct.ravel()) / np.bincount(run)
    return np.asarray(mean[run].reshape(rows, width))


def _log_choose(m: Array, k: Array) -> Array:
    """Log C(m, k); minus infinity where k > m."""
    possible = (k <= m) & (m >= 0)
    top = np.where(possible, m, 0.0)
    low = np.where(possible, k, 0.0)
    value = gammaln(top + 1) - gammaln(low + 1) - gammaln(top - low + 1)
    return np.where(possible, value, -np.inf)


def _check_n(recorded: Recorded, n: tuple[int, ...]) -> None:
    width = recorded.correct.shape[1]
    if not n or n[0] < 1 or n[-1] > width:
        raise InputError(f"best-of-N needs n in 1..{width}, got {n}")
