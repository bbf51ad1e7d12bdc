"""Verifiers that err: what accepting, resampling and generative verification can reach.

ROC points are pairs (F, T): the shares of wrong and of correct draws that score above a
threshold; pi is the share of correct draws. All is of one problem unless said otherwise.
"""

from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv, betaln, gammaln

from planner.models.coverage import WEAK_PRIOR, CoverageLaw
from planner.models.errors import InputError
from planner.models.prediction import Array

_SUCCESS_NODES = 64  # equal shares of the problems that a Beta is summed over


def best_of_n(
    pi: float, false_rate: ArrayLike, true_rate: ArrayLike, n: ArrayLike
) -> Array:
    """Accuracy of the best-scored of n draws, (n_n,), for a ROC of straight pieces.

    Exact: the best draw lies on a piece with the chance that all n lie below its top less
    that all lie below its foot, and is correct there with the piece's own precision
    (ROC-n-reroll, Dorner et al. 2026, arXiv:2507.12399).

    Args:
        pi: Share of correct draws.
        false_rate: F of the ROC's corners, rising from 0 to 1.
        true_rate: T of the same.
        n: Draws, 1 or more.

    Raises:
        InputError: pi outside [0, 1], n below 1, or no ROC from (0, 0) to (1, 1).
    """
    f, t = _roc(pi, false_rate, true_rate)
    points = np.atleast_1d(np.asarray(n, dtype=float))
    if not (points >= 1).all():
        raise InputError("best-of-N needs n >= 1")
    above = np.clip(pi * t + (1 - pi) * f, 0, 1)[:, None]
    lands = (1 - above[:-1]) ** points - (1 - above[1:]) ** points
    right, all_ = pi * np.diff(t), np.diff(above[:, 0])
    precision = np.divide(right, all_, out=np.zeros_like(right), where=all_ > 0)
    return np.asarray(precision @ lands)


def ceiling(pi: ArrayLike, slope: ArrayLike) -> Array:
    """Accuracy as draws grow without end, pi m / (pi m + 1 - pi).

    The same for best-of-N and for rejection sampling (arXiv:2507.12399).

    Args:
        pi: Share of correct draws.
        slope: m, the ROC's slope at its origin, 0 or more; inf where no wrong draw scores
            as high as the best correct ones.

    Raises:
        InputError: pi outside [0, 1], or a negative slope.
    """
    p, m = np.broadcast_arrays(np.asarray(pi, dtype=float), np.asarray(slope, dtype=float))
    if not ((p >= 0) & (p <= 1) & (m >= 0)).all():
        raise InputError("a ceiling needs 0 <= pi <= 1 and slope >= 0")
    odds = np.divide(p, 1 - p, out=np.full(p.shape, np.inf), where=p < 1)
    odds = np.where((p > 0) & (m > 0), odds * np.where(p > 0, m, 0.0), 0.0)
    return np.asarray(
        1 / (1 + np.divide(1, odds, out=np.full(p.shape, np.inf), where=odds > 0))
    )


class Rejection(NamedTuple):
    """Draw until one scores above a threshold."""

    accuracy: Array  # of the draw accepted; NaN where none ever is
    draws: Array  # expected; inf where none ever is


def rejection_sampling(
    pi: ArrayLike, false_rate: ArrayLike, true_rate: ArrayLike
) -> Rejection:
    """Accuracy and expected draws at one ROC point (arXiv:2507.12399).

    Raises:
        InputError: An argument outside [0, 1].
    """
    p, f, t = (np.asarray(x, dtype=float) for x in (pi, false_rate, true_rate))
    if not all(((x >= 0) & (x <= 1)).all() for x in (p, f, t)):
        raise InputError("rejection sampling needs pi, F and T in [0, 1]")
    right, accepted = np.broadcast_arrays(p * t, p * t + (1 - p) * f)
    some = accepted > 0
    return Rejection(
        np.divide(right, accepted, out=np.full(some.shape, np.nan), where=some),
        np.divide(1, accepted, out=np.full(some.shape, np.inf), where=some),
    )


def rejection_at_budget(
    pi: float, false_rate: ArrayLike, true_rate: ArrayLike, draws: ArrayLike
) -> Array:
    """Accuracy of rejection sampling that expects this many draws, (n_draws,).

    The threshold accepts one draw in `draws`. On a concave ROC never below best-of-N at as
    many draws: N times a concave function's mean is at most N times it at the mean.

    Raises:
        InputError: As `best_of_n`.
    """
    f, t = _roc(pi, false_rate, true_rate)
    points = np.atleast_1d(np.asarray(draws, dtype=float))
    if not (points >= 1).all():
        raise InputError("rejection sampling makes at least one draw")
    return np.asarray(points * np.interp(1 / points, pi * t + (1 - pi) * f, pi * t))


@dataclass(frozen=True, kw_only=True)
class ImperfectTest:
    """Resample until a test that errs accepts (Stroebl et al. 2024, arXiv:2411.17501).

    Problems are of several kinds, each with its success rate.
    """

    completeness: float  # P(accept | correct)
    soundness: float  # P(reject | wrong)
    success: tuple[float, ...]  # of a draw, by kind of problem
    shares: tuple[float, ...]  # of the kinds; sum to 1

    def __post_init__(self) -> None:
        chances = (self.completeness, self.soundness, *self.success, *self.shares)
        if not all(0 <= x <= 1 for x in chances) or len(self.success) != len(self.shares):
            raise InputError("a test needs chances in [0, 1], and one share a kind")
        if abs(sum(self.shares) - 1) > 1e-9:
            raise InputError(f"the shares of the kinds sum to {sum(self.shares):g}, not 1")

    @property
    def rejected(self) -> Array:
        """Chance that one draw is rejected, by kind."""
        r = np.array(self.success)
        return np.asarray((1 - self.completeness) * r + self.soundness * (1 - r))

    @property
    def accepted_accuracy(self) -> Array:
        """Accuracy of accepted draws, by kind; resampling cannot lift it. NaN: none is."""
        r = np.array(self.success)
        return rejection_sampling(r, 1 - self.soundness, self.completeness).accuracy

    def belief(self, attempt: ArrayLike) -> Array:
        """Shares of the kinds among problems that reach an attempt, (n, kinds).

        NaN where none does.
        """
        before = np.atleast_1d(np.asarray(attempt, dtype=float))[:, None] - 1
        reach = np.array(self.shares) * self.rejected**before
        total = reach.sum(axis=1, keepdims=True)
        blank = np.full(reach.shape, np.nan)
        return np.asarray(np.divide(reach, total, out=blank, where=total > 0))

    def value(self, attempts: ArrayLike, false_positive: float, draw: float = 0.0) -> Array:
        """Expected value of at most so many attempts; a correct answer is worth 1.

        Args:
            attempts: K, 0 or more.
            false_positive: Value of a wrong answer accepted, below 0 where it does harm.
            draw: Cost of one attempt.

        Raises:
            InputError: Attempts not whole or below 0, or a value that is not finite.
        """
        most = np.atleast_1d(np.asarray(attempts, dtype=float))
        if not ((most >= 0) & (most % 1 == 0)).all():
            raise InputError("attempts must be whole numbers from 0")
        if not np.isfinite([false_positive, draw]).all():
            raise InputError("the values of a wrong answer and of an attempt are finite")
        r, rejected = np.array(self.success), self.rejected
        right, fluke = self.completeness * r, (1 - self.soundness) * (1 - r)
        # attempts made of each kind: 1 + b + ... + b^(K - 1), b the chance of rejection
        ends = rejected < 1
        left = np.where(ends, 1 - rejected, 1.0)
        made = np.where(ends, (1 - rejected ** most[:, None]) / left, most[:, None])
        gain = right + false_positive * fluke - draw
        return np.asarray(made @ (np.array(self.shares) * gain))

    def best_attempts(
        self, false_positive: float, draw: float = 0.0, *, most: int = 1024
    ) -> int:
        """K with the largest value, the smallest of equals; `most` when it still rises.

        Raises:
            InputError: As `value`.
        """
        return int(np.argmax(self.value(np.arange(most + 1), false_positive, draw)))


class Split(NamedTuple):
    """How one budget is best spent."""

    solutions: int
    verifications: int  # of each solution
    accuracy: float


class Exponents(NamedTuple):
    """Of the best split in the budget."""

    solutions: float
    verifications: float


@dataclass(frozen=True, kw_only=True)
class GenerativeVerifier:
    """Solutions, each judged by several sampled verdicts, over many problems.

    A problem is solved with chance p ~ Beta(success). Verdicts on one solution are alike:
    each says yes with that solution's own rate q ~ Beta(yes_if_correct) or
    Beta(yes_if_wrong), so that more verdicts only make q known. Cost in solutions is
    S (1 + ratio V) (Singhi et al. 2025, arXiv:2504.01005).
    """

    success: tuple[float, float]  # shapes of Beta
    yes_if_correct: tuple[float, float]
    yes_if_wrong: tuple[float, float]
    shared_wrong: float = 1.0  # chance that a wrong solution gives the top wrong answer

    def __post_init__(self) -> None:
        shapes = (*self.success, *self.yes_if_correct, *self.yes_if_wrong)
        if not all(0 < x < np.inf for x in shapes) or not 0 <= self.shared_wrong <= 1:
            raise InputError("a verifier needs positive shapes and a share in [0, 1]")

    @classmethod
    def fit(cls, yes: ArrayLike, verdicts: ArrayLike, correct: ArrayLike) -> Self:
        """Fit to verdicts of recorded solutions.

        Args:
            yes: Verdicts that said yes, (n_problems, n_solutions).
            verdicts: Verdicts given, likewise.
            correct: Whether the solution is correct, likewise.

        Raises:
            InputError: Shapes differ, no solution, or not 0 <= yes <= verdicts.
        """
        y, v = np.asarray(yes, dtype=float), np.asarray(verdicts, dtype=float)
        right = np.asarray(correct, dtype=bool)
        if y.ndim != 2 or not y.size or y.shape != v.shape or y.shape != right.shape:
            raise InputError(
                "verdicts need three arrays of one shape (problems, solutions)"
            )
        shapes = []
        for c, n in (
            (right.sum(axis=1), np.full(len(right), right.shape[1])),
            (y[right], v[right]),
            (y[~right], v[~right]),
        ):
            if not len(c) or not np.sum(n):
                raise InputError("a fit needs verdicts on correct and on wrong solutions")
            a, b = np.exp(CoverageLaw.fit(c, n, WEAK_PRIOR).log_shape).tolist()
            shapes.append((a, b))
        return cls(success=shapes[0], yes_if_correct=shapes[1], yes_if_wrong=shapes[2])

    def best_of_n(self, solutions: ArrayLike, verifications: int) -> Array:
        """Mean accuracy of the solution with most yes verdicts; ties at random. (n_s,).

        Raises:
            InputError: Fewer than one solution, or a negative number of verdicts.
        """
        s = self._solutions(solutions, verifications)
        p = self._success_nodes()[:, None]
        right = p * self._yes(self.yes_if_correct, verifications)[::-1]
        both = right + (1 - p) * self._yes(self.yes_if_wrong, verifications)[::-1]
        below = np.clip(1 - np.cumsum(both, axis=1), 0, 1)[:, :, None]
        upto = np.concatenate([np.ones((len(p), 1, 1)), below[:, :-1]], axis=1)
        precision = np.divide(right, both, out=np.zeros_like(right), where=both > 0)
        lands = upto**s - below**s
        return np.asarray(np.einsum("pk,pks->s", precision, lands) / len(p))

    def pooled(self, solutions: ArrayLike, verifications: int) -> Array:
        """Mean accuracy of the answer with the largest summed weight; (n_s,).

        A solution weighs (yes + 1/2) / (V + 1), so that V = 0 is the plain majority vote.
        The correct answer is against the top wrong one; other wrong answers are taken to
        differ from each other and never to win.

        Raises:
            InputError: Not whole numbers of solutions from 1, or negative verdicts.
        """
        s = self._solutions(solutions, verifications)
        if (s % 1).any() or np.isinf(s).any():
            raise InputError("a vote needs whole numbers of solutions")
        v, p = verifications, self._success_nodes()[:, None]
        weight = 2 * np.arange(v + 1) + 1
        step = np.zeros((len(p), 4 * v + 3))  # correct less wrong, of one solution
        centre = 2 * v + 1
        step[:, centre + weight] = p * self._yes(self.yes_if_correct, v)
        wrong = (1 - p) * self._yes(self.yes_if_wrong, v)
        step[:, centre - weight] += self.shared_wrong * wrong
        rest = (1 - self.shared_wrong) * (1 - p[:, 0])
        step[:, centre] = rest
        out = []
        for n in s.astype(np.int64).tolist():
            length = 1 << (n * 2 * centre + 1).bit_length()
            spectrum = np.fft.rfft(step, length, axis=1) ** n
            total = np.fft.irfft(spectrum, length, axis=1)
            wins = total[:, n * centre + 1 : 2 * n * centre + 1].sum(axis=1)
            tie = np.maximum(total[:, n * centre] - rest**n, 0.0)
            out.append(float(np.mean(wins + tie / 2)))
        return np.array(out)

    def best_split(
        self,
        budget: float,
        ratio: float,
        *,
        max_solutions: int = 1_000_000,
        max_verifications: int = 64,
    ) -> Split:
        """Most accurate best-of-N that costs at most `budget` solutions.

        Args:
            budget: In solutions drawn.
            ratio: Cost of one verification in solutions.
            max_solutions: Most solutions.
            max_verifications: Most verdicts of one solution.

        Raises:
            InputError: The budget does not pay one solution, or ratio is not positive.
        """
        if not 1 <= budget < np.inf or not ratio > 0:
            raise InputError("a split needs a finite budget >= 1 and ratio > 0")
        most = min(max_verifications, int((budget - 1) / ratio + 1e-9))
        best = Split(1, 0, float(self.best_of_n(1, 0)[0]))
        for v in range(1, most + 1):
            s = min(max_solutions, int(budget / (1 + ratio * v) + 1e-9))
            accuracy = float(self.best_of_n(s, v)[0])
            if accuracy > best.accuracy + 1e-12:
                best = Split(s, v, accuracy)
        return best

    def exponents(
        self,
        budgets: ArrayLike,
        ratio: float,
        *,
        max_solutions: int = 1_000_000,
        max_verifications: int = 64,
    ) -> Exponents:
        """Slopes of log S and log V of the best split against the log of the budget.

        Raises:
            InputError: Fewer than two budgets at which verifying pays.
        """
        costs = np.atleast_1d(np.asarray(budgets, dtype=float))
        splits = [
            self.best_split(
                c, ratio, max_solutions=max_solutions, max_verifications=max_verifications
            )
            for c in costs.tolist()
        ]
        pays = np.array([split.verifications > 0 for split in splits])
        if pays.sum() < 2:
            raise InputError("exponents need two budgets or more at which verifying pays")
        x = np.log(costs[pays]) - np.log(costs[pays]).mean()
        s, v, _ = np.log(np.array(splits)[pays]).T
        return Exponents(float(x @ s / (x @ x)), float(x @ v / (x @ x)))

    def _success_nodes(self) -> Array:
        level = (np.arange(_SUCCESS_NODES) + 0.5) / _SUCCESS_NODES
        return np.asarray(betaincinv(*self.success, level))

    @staticmethod
    def _yes(shapes: tuple[float, float], v: int) -> Array:
        """Beta-binomial chances of 0..v yes verdicts."""
        k, (a, b) = np.arange(v + 1.0), shapes
        log = gammaln(v + 1) - gammaln(k + 1) - gammaln(v - k + 1)
        return np.asarray(np.exp(log + betaln(a + k, b + v - k) - betaln(a, b)))

    @staticmethod
    def _solutions(solutions: ArrayLike, verifications: int) -> Array:
        s = np.atleast_1d(np.asarray(solutions, dtype=float))
        if not (s >= 1).all() or verifications < 0:
            raise InputError("need at least one solution, and no fewer than 0 verdicts")
        return s


def _roc(
    pi: float, false_rate: ArrayLike, true_rate: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The ROC's corners, checked."""
    f, t = np.asarray(false_rate, dtype=float), np.asarray(true_rate, dtype=float)
    ends = f.ndim == 1 and f.shape == t.shape and len(f) > 1 and [f[0], t[0]] == [0, 0]
    if (
        not ends
        or [f[-1], t[-1]] != [1, 1]
        or not (np.diff(f) >= 0).all()
        or not (np.diff(t) >= 0).all()
    ):
        raise InputError("a ROC rises from (0, 0) to (1, 1)")
    if not 0 <= pi <= 1:
        raise InputError(f"pi must be in [0, 1], got {pi:g}")
    return f, t
