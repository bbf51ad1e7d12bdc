"""Best-of-N: by an exact verifier that stops at the first success, and by score.

Both are exact expectations over samples without replacement of the recorded draws, the
order statistics of pass@k (Chen et al. 2021, arXiv:2107.03374): no replay, no noise of one.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, gammaln

from planner.models.coverage import none_correct
from planner.models.curves import ProblemCurves
from planner.models.errors import InputError, NotMeasuredError
from planner.models.lengths import IntArray, Recorded
from planner.models.prediction import Array

_REPLAYED = 2**19  # draws replayed by choices that have no closed form


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
    correct = ranked_correct(recorded)
    m = recorded.n_samples[:, None, None].astype(float)
    below = (
        m - 1.0 - np.arange(correct.shape[1], dtype=float)[None, :, None]
    )  # draws ranked lower
    most = np.minimum(np.asarray(n, dtype=float)[None, None, :], m)
    chosen = np.exp(_log_choose(below, most - 1) - _log_choose(m, most))
    accuracy = np.einsum("pr,prg->pg", correct, chosen)
    mean, variance = recorded.tokens_by_problem()
    draws = np.tile(np.asarray(n, dtype=float), (len(accuracy), 1))
    return ProblemCurves(
        n, accuracy, draws, draws * mean[:, None], draws * variance[:, None]
    )


def pooled_auc(recorded: Recorded) -> float:
    """P(a correct draw scores above a wrong one), all problems together; ties count half.

    Overstates selection: it rewards scores that only tell easy problems from hard ones.

    Raises:
        NotMeasuredError: No correct, or no wrong, draw has a score.
    """
    scored = recorded.present & ~np.isnan(recorded.score)
    area = _auc(recorded.score[scored], recorded.correct[scored])
    if np.isnan(area):
        raise NotMeasuredError("an AUC needs scores of correct and of wrong draws")
    return area


def within_problem_auc(recorded: Recorded) -> float:
    """The same within one problem, the mean over problems with draws of both kinds.

    Raises:
        NotMeasuredError: No problem has both.
    """
    scored = recorded.present & ~np.isnan(recorded.score)
    rows = zip(recorded.score, recorded.correct, scored, strict=True)
    areas = np.array([_auc(score[use], right[use]) for score, right, use in rows])
    if np.isnan(areas).all():
        raise NotMeasuredError("no problem has scores of correct and of wrong draws")
    return float(np.nanmean(areas))


def _auc(score: Array, correct: NDArray[np.bool_]) -> float:
    """Mann and Whitney's area; NaN where one kind is missing."""
    right, wrong = int(correct.sum()), int((~correct).sum())
    if not right or not wrong:
        return float("nan")
    _, code, count = np.unique(score, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[code]
    return float((rank[correct].sum() - right * (right + 1) / 2) / (right * wrong))


def best_of_majority_curves(
    recorded: Recorded, n: tuple[int, ...], share: float, rng: np.random.Generator
) -> ProblemCurves:
    """Best-scored of the draws whose answer has at least this share of the n votes.

    Best-of-Majority (arXiv:2510.03199). Where no answer has the share, the best-scored of
    those with most votes. From replays in random order, without replacement; ties by
    order of drawing.

    Raises:
        InputError: n below 1 or above the draws of a problem; share outside [0, 1].
    """
    if not 0 <= share <= 1:
        raise InputError(f"the share of votes must be in [0, 1], got {share}")

    def choose(answer: IntArray, score: Array) -> IntArray:
        votes = _sum_alike(answer, np.ones(answer.shape))
        enough = np.minimum(share * answer.shape[1], votes.max(axis=1, keepdims=True))
        usable = (votes >= enough - 1e-9) & (answer >= 0)
        return np.asarray(np.where(usable, score, -np.inf).argmax(axis=1))

    return _replayed(recorded, n, choose, rng)


def weighted_vote_curves(
    recorded: Recorded, n: tuple[int, ...], rng: np.random.Generator
) -> ProblemCurves:
    """The answer whose draws sum to the largest weight, sigmoid of their score each.

    Scores are log-odds, so that a weight is the verifier's chance that the draw is right; a
    draw without score or answer has none. Replays as in `best_of_majority_curves`.

    Raises:
        InputError: n below 1 or above the draws of a problem.
    """

    def choose(answer: IntArray, score: Array) -> IntArray:
        return np.asarray(_sum_alike(answer, expit(score)).argmax(axis=1))

    return _replayed(recorded, n, choose, rng)


def _replayed(
    recorded: Recorded,
    n: tuple[int, ...],
    choose: Callable[[IntArray, Array], IntArray],
    rng: np.random.Generator,
) -> ProblemCurves:
    """Accuracy of a choice among the first n draws of random orders; all n are made."""
    _check_n(recorded, n)
    if n[-1] > recorded.n_samples.min():
        raise InputError(
            f"problem {int(recorded.n_samples.argmin())} has {recorded.n_samples.min()} "
            f"draws; a replay of {n[-1]} needs as many"
        )
    p, width = recorded.correct.shape
    replays = int(np.clip(_REPLAYED // max(p * width, 1), 8, 256))
    own = np.repeat(recorded.n_samples, replays)[:, None]
    key = rng.random((p * replays, width)) + 2.0 * (np.arange(width) >= own)
    order = np.argsort(key, axis=1)[:, : n[-1]]
    row = np.repeat(np.arange(p), replays)[:, None]
    score = np.where(np.isnan(recorded.score), -np.inf, recorded.score)[row, order]
    answer, right = recorded.answer[row, order], recorded.correct[row, order]
    every = np.arange(len(order))
    accuracy = np.empty((p, len(n)))
    for j, most in enumerate(n):
        at = choose(answer[:, :most], score[:, :most])
        voted = answer[every, at] >= 0
        hit = right[every, at] & voted & ~np.isneginf(score[every, at])
        accuracy[:, j] = hit.reshape(p, replays).mean(axis=1)
    mean, variance = recorded.tokens_by_problem()
    draws = np.tile(np.asarray(n, dtype=float), (p, 1))
    return ProblemCurves(
        n, accuracy, draws, draws * mean[:, None], draws * variance[:, None]
    )


def _sum_alike(answer: IntArray, weight: Array) -> Array:
    """Sum of the weights of a row's equal answers, at each of them; -1 without answer."""
    rows = len(answer)
    kinds = int(answer.max(initial=0)) + 1
    code = np.arange(rows)[:, None] * kinds + np.maximum(answer, 0)
    voting = np.where(answer >= 0, weight, 0.0)
    total = np.bincount(code.ravel(), voting.ravel(), rows * kinds)
    return np.where(answer >= 0, total[code], -1.0)


def ranked_correct(recorded: Recorded) -> Array:
    """Whether the r-th best-scored draw of each problem is correct, (n_problems, n_draws).

    Equal scores share what is right among them; draws without score come last, as wrong.
    """
    present = recorded.present
    score = np.where(present & ~np.isnan(recorded.score), recorded.score, -np.inf)
    order = np.argsort(-score, axis=1, kind="stable")
    ranked = np.take_along_axis(score, order, 1)
    correct = np.take_along_axis(recorded.correct & present, order, 1).astype(float)
    return np.where(np.isneginf(ranked), 0.0, _tie_means(ranked, correct))


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
