"""How many draws, or rounds of revision, are still useful.

The test-time scaling performance model (TTSPM, arXiv:2505.20522) lets each of N parallel
draws, or sequential rounds of rethinking, succeed with one chance p on every problem:

    F(N) = F_max (1 - (1 - p)**N)            gain(N) = F(N + 1) - F(N) = F_max p (1 - p)**N
    N* = ceil(ln(eps / (F_max p)) / ln(1 - p))    where gain(N*) <= eps for the first time

Chances differ between problems, and the hard ones go on gaining long after the typical one
is solved. With p ~ Beta over the problems, gain(N) falls as a power of N, not exponentially
(arXiv:2502.17578): `UsefulDraws` finds the N* of that, which may be far larger.

Rethinking also breaks right answers. `RevisionLaw` is the Markov chain of both: a problem
wrong is fixed with chance q, right is broken with chance r, and its accuracy tends to
q / (q + r) from either side, so that more rounds may hurt. q and r differ by problem.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from planner.models.coverage import WEAK_PRIOR, CoverageLaw, pass_at_k
from planner.models.errors import FitError, InputError
from planner.models.fitting import weigh_problems
from planner.models.lengths import BoolArray
from planner.models.prediction import Array, Prediction

_DRAWS = 400
_RATES = np.geomspace(1e-5, 0.999, 800)  # candidates for p
_LONGEST = 2.0**40  # N* beyond it is not told apart


@dataclass(frozen=True)
class Ttspm:
    """The published model: one chance for all problems."""

    ceiling: float  # F_max
    rate: float  # p_x of a parallel draw, p_rethink of a sequential round

    def __post_init__(self) -> None:
        if not (0 < self.ceiling <= 1 and 0 < self.rate < 1):
            raise InputError(
                f"TTSPM needs 0 < ceiling <= 1 and 0 < rate < 1, got {self.ceiling}, "
                f"{self.rate}"
            )

    @classmethod
    def fit(cls, n: ArrayLike, accuracy: ArrayLike) -> Self:
        """Least squares through accuracies measured at several n.

        Args:
            n: Draws or rounds, shape (n_points,).
            accuracy: Same shape.

        Raises:
            InputError: Not two or more different n, or an accuracy outside [0, 1].
            FitError: Accuracy is zero throughout.
        """
        points, y = np.asarray(n, dtype=float), np.asarray(accuracy, dtype=float)
        if points.shape != y.shape or len(np.unique(points)) < 2 or points.min() < 1:
            raise InputError("TTSPM needs the accuracy at two or more different n >= 1")
        if not ((y >= 0) & (y <= 1)).all():
            raise InputError("accuracies must be in [0, 1]")
        if not y.any():
            raise FitError("no draw is right: TTSPM's rate is not known; draw more")
        reached = -np.expm1(points * np.log1p(-_RATES[:, None]))
        ceiling = np.minimum((reached @ y) / (reached**2).sum(axis=1), 1.0)
        best = int(((ceiling[:, None] * reached - y) ** 2).sum(axis=1).argmin())
        return cls(float(ceiling[best]), float(_RATES[best]))

    def accuracy(self, n: ArrayLike) -> Array:
        """F(N)."""
        return np.asarray(
            -self.ceiling * np.expm1(np.asarray(n, float) * np.log1p(-self.rate))
        )

    def gain(self, n: ArrayLike) -> Array:
        """What draw N + 1 adds."""
        return np.asarray(
            self.ceiling * self.rate * (1 - self.rate) ** np.asarray(n, float)
        )

    def saturation(self, smallest_gain: float) -> int:
        """N*, the first N whose next draw adds no more than that.

        Raises:
            InputError: A gain that is not positive.
        """
        _check_gain(smallest_gain)
        first = self.ceiling * self.rate
        if smallest_gain >= first:
            return 0
        return int(np.ceil(np.log(smallest_gain / first) / np.log1p(-self.rate) - 1e-9))


@dataclass(frozen=True, eq=False)
class UsefulDraws:
    """Success chances that differ between problems; posterior of each problem's Beta.

    Serves parallel draws (right ones of those made) and rounds that never break an answer
    (problems fixed, of the rounds they were wrong in).
    """

    law: CoverageLaw
    n_correct: Array  # (P,)
    n_samples: Array

    @classmethod
    def fit(cls, n_correct: ArrayLike, n_samples: ArrayLike) -> Self:
        """Fit the chances, with a weak prior: counts that say little give wide answers.

        Args:
            n_correct: Successes of each problem, (P,).
            n_samples: Tries of each problem, same shape.

        Raises:
            InputError: Not 0 <= n_correct <= n_samples, or no try at all.
        """
        c, n = (np.atleast_1d(np.asarray(v, dtype=float)) for v in (n_correct, n_samples))
        return cls(CoverageLaw.fit(c, n, WEAK_PRIOR), c, n)

    def predict(self, n: ArrayLike, rng: np.random.Generator) -> Prediction:
        """F(N): share of these problems solved within N tries.

        Raises:
            InputError: n below 0.
        """
        points = np.atleast_1d(np.asarray(n, dtype=float))
        if not (points >= 0).all():
            raise InputError("numbers of tries cannot be negative")
        log_miss = np.log1p(-self.chances(rng))
        missed = [np.exp(k * log_miss).mean(axis=1) for k in points]
        return Prediction(1 - np.stack(missed, axis=1), "1", points > self.n_samples.max())

    def saturation(self, smallest_gain: ArrayLike, rng: np.random.Generator) -> Prediction:
        """N* of each smallest gain, in draws: the first whose next adds no more.

        Raises:
            InputError: A gain that is not positive.
        """
        gains = np.atleast_1d(np.asarray(smallest_gain, dtype=float))
        for gain in gains:
            _check_gain(float(gain))
        chance = self.chances(rng)
        log_miss = np.log1p(-chance)

        def gain_at(n: Array) -> Array:
            return np.asarray((chance * np.exp(n[:, None] * log_miss)).mean(axis=1))

        out = np.empty((_DRAWS, len(gains)))
        for i, gain in enumerate(gains):
            low, high = np.full(_DRAWS, -1.0), np.full(_DRAWS, _LONGEST)
            while (high - low > 1).any():  # gain(low) > smallest >= gain(high)
                middle = np.floor((low + high) / 2)
                more = gain_at(np.maximum(middle, 0.0)) > gain
                low, high = np.where(more, middle, low), np.where(more, high, middle)
            out[:, i] = high
        return Prediction(out, "draws", np.median(out, axis=0) > self.n_samples.max())

    def chances(self, rng: np.random.Generator) -> Array:
        """Draws of every problem's chance from its posterior, (n_draws, P)."""
        a, b = self.law.shapes(rng, _DRAWS)
        p = rng.beta(a + self.n_correct, b + self.n_samples - self.n_correct)
        return np.asarray(np.minimum(p, 1 - 1e-12))


@dataclass(frozen=True, eq=False)
class RevisionLaw:
    """Answers that are revised round by round, wrong to right and right to wrong."""

    correct: BoolArray  # (P, chains, rounds), the first attempt is round 1
    fixing: UsefulDraws  # chances q, from rounds that began wrong
    breaking: UsefulDraws  # chances r, from rounds that began right

    @classmethod
    def fit(cls, correct: ArrayLike) -> Self:
        """Count the changes.

        Args:
            correct: Whether each round's answer was right, (P, chains, rounds).

        Raises:
            InputError: Not three dimensions, or fewer than two rounds.
        """
        right = np.asarray(correct)
        if right.dtype != bool or right.ndim != 3 or right.shape[2] < 2 or not right.size:
            raise InputError("revisions need booleans (problems, chains, rounds >= 2)")
        before, after = right[:, :, :-1], right[:, :, 1:]

        def change(start: BoolArray, end: BoolArray) -> UsefulDraws:
            tries = start.sum(axis=(1, 2))
            if not tries.any():  # never seen: the prior alone
                return UsefulDraws(
                    CoverageLaw(WEAK_PRIOR.mean, WEAK_PRIOR.covariance, 0),
                    np.zeros(len(tries)), np.zeros(len(tries)),
                )  # fmt: skip
            return UsefulDraws.fit((start & end).sum(axis=(1, 2)), tries)

        return cls(right, change(~before, after), change(before, ~after))

    def predict(self, rounds: ArrayLike, rng: np.random.Generator) -> Prediction:
        """Accuracy of the answer after each number of rounds, on problems of this kind.

        Raises:
            InputError: Rounds below 1 or not whole.
        """
        points = np.atleast_1d(np.asarray(rounds, dtype=float))
        if not (np.isfinite(points) & (points >= 1)).all() or (points % 1).any():
            raise InputError(f"rounds must be whole numbers from 1, got {points.tolist()}")
        measured = self.correct.shape[2]
        share = self.correct.mean(axis=1)  # (P, rounds)
        weight, surely = weigh_problems(len(share), _DRAWS, rng)
        q, r = (side.chances(rng) for side in (self.fixing, self.breaking))
        limit = q / np.maximum(q + r, 1e-300)
        last = share[:, -1]
        columns = []
        for n in points.astype(int):
            if n <= measured:
                columns.append(weight @ share[:, n - 1])
            else:
                # the sign matters: an answer may alternate, 1 - q - r < 0
                kept = (1 - q - r) ** (n - measured)
                columns.append((weight * (limit + (last - limit) * kept)).sum(axis=1))
        draws = np.clip(np.stack(columns, axis=1) + surely, 0.0, 1.0)
        return Prediction(draws, "1", points > measured)


def measured_saturation(
    n_correct: ArrayLike, n_samples: ArrayLike, smallest_gain: float
) -> int:
    """N* of the unbiased pass@k curve; the last k when its gain is still larger.

    Raises:
        InputError: A gain that is not positive, or bad counts.
    """
    _check_gain(smallest_gain)
    n = int(np.min(n_samples))
    curve = pass_at_k(n_correct, n_samples, np.arange(1, n + 1)).mean(axis=0)
    small = np.diff(curve, prepend=0.0) <= smallest_gain
    return int(small.argmax()) if small.any() else n


def _check_gain(gain: float) -> None:
    if not gain > 0:
        raise InputError(f"the smallest gain must be positive, got {gain}")
