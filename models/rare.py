"""Success rates too small for a fixed number of draws: draw until enough succeed.

PassUntil (arXiv:2310.03262) draws a problem until r successes have come, N draws in all.
Then

    (r - 1) / (N - 1)                       is the unbiased estimate of p of least variance
    C(N - 1 - k, r - 1) / C(N - 1, r - 1)   that of (1 - p)**k

(Haldane 1945; the general rule - sequences that begin as asked, over all sequences that end
there - is that of Girshick, Mosteller and Savage 1946). c / N is too high, and so is the
pass@k that takes N for a number fixed beforehand. Where the draws ran out before r
successes, N was fixed after all, and the same rule gives c / N and C(N - k, c) / C(N, c).

Laws of coverage (`planner.models.forecast`) take such counts as they are: the rule that
ended the drawing is no part of their likelihood.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betaincinv

from planner.models.counts import CountTable
from planner.models.coverage import none_correct
from planner.models.errors import FitError, InputError
from planner.models.prediction import Array, Prediction

_DRAWS = 1000


@dataclass(frozen=True, eq=False)
class RareSuccess:
    """Problems drawn until r successes, or to a cap."""

    n_correct: Array  # (n_problems,), at most r
    n_samples: Array  # (n_problems,)
    r: int

    @classmethod
    def fit(cls, n_correct: ArrayLike, n_samples: ArrayLike, *, r: int) -> Self:
        """Check the counts.

        Args:
            n_correct: Successes of each problem; r where the drawing ended at the r-th,
                fewer where it ended at a cap.
            n_samples: Draws of each problem, the last success included; a scalar serves
                for all.
            r: Successes that ended the drawing.

        Raises:
            InputError: No problem, or not whole counts with 0 <= n_correct <= r and
                n_correct <= n_samples.
            FitError: r = 1: one success leaves no unbiased estimate but 0 or 1.
        """
        table = CountTable.of(n_correct, n_samples)
        if not len(table.n_correct):
            raise InputError("rare success needs at least one problem")
        if table.n_correct.max() > r:
            raise InputError(f"a problem drawn until {r} successes cannot have more")
        if not r >= 2:
            raise FitError("draw until 2 successes or more; one leaves the rate open")
        return cls(table.n_correct.astype(float), table.n_samples.astype(float), r)

    @property
    def rate(self) -> Array:
        """Unbiased estimate of each problem's success rate."""
        ended = self.n_correct == self.r
        return np.asarray(
            (self.n_correct - ended) / np.maximum(self.n_samples - ended, 1.0)
        )

    def pass_at_k(self, k: ArrayLike) -> Array:
        """Unbiased pass@k of each problem, (n_problems, n_k); k up to the draws made.

        Raises:
            InputError: k below 1, or above what a problem's draws can say.
        """
        points = np.atleast_1d(np.asarray(k, dtype=float))
        ended = self.n_correct == self.r
        left, inside = self.n_samples - ended, self.n_correct - ended
        enough = left.min(initial=np.inf, where=~ended)
        if points.size and not (points.min() >= 1 and points.max() <= enough):
            raise InputError(
                f"pass@k of problems stopped by the cap needs 1 <= k <= {enough:g}; "
                "beyond, fit a coverage law"
            )
        out = np.zeros((len(left), len(points)))
        for j, x in enumerate(points):
            # more failures in front than the draws have room for: no sequence begins so
            out[:, j] = none_correct(inside, left, np.array([x]))[:, 0]
        return 1 - out

    def interval(self, level: float = 0.9) -> tuple[Array, Array]:
        """Equal-tailed interval of each rate; holds at least `level` of the time."""
        tail = (1 - level) / 2
        c, n, ended = self.n_correct, self.n_samples, self.n_correct == self.r
        low = np.where(c > 0, betaincinv(np.maximum(c, 1.0), n - c + 1, tail), 0.0)
        # the last draw of those that ended was a success whatever the rate is
        first = np.where(ended, c, c + 1)
        open_end = n - c > 0
        high = betaincinv(first, np.maximum(n - c, 1.0), 1 - tail)
        return low, np.where(open_end, high, 1.0)

    def predict(
        self, k: ArrayLike, rng: np.random.Generator, *, size: int = _DRAWS
    ) -> Prediction:
        """Coverage of these problems at k draws, each judged by its own counts alone.

        Raises:
            InputError: k below 1.
        """
        points = np.atleast_1d(np.asarray(k, dtype=float))
        if points.size and not points.min() >= 1:
            raise InputError(f"coverage needs k >= 1, got {points.min():g}")
        # Jeffreys' prior of a binomial; of draws until r, its own differs by 1/2 in c
        p = rng.beta(
            self.n_correct + 0.5, self.n_samples - self.n_correct + 0.5,
            (size, len(self.n_correct)),
        )  # fmt: skip
        p = np.minimum(p, 1 - 1e-15)
        draws = np.stack([-np.expm1(x * np.log1p(-p)).mean(axis=1) for x in points], axis=1)
        return Prediction(draws, "1", points > self.n_samples.max())


def successes_needed(relative_sd: float) -> int:
    """R that brings the standard error of a rate below `relative_sd` times the rate.

    The variance of (r - 1) / (N - 1) is below p**2 / (r - 2), and tends to it as p falls.

    Raises:
        InputError: relative_sd not positive.
    """
    if not 0 < relative_sd < np.inf:
        raise InputError(f"a relative standard error is positive, got {relative_sd:g}")
    return 2 + int(np.ceil(relative_sd**-2 - 1e-9))
