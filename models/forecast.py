"""Coverage beyond the draws made: pass@k of every cell of a table of counts.

This thin version fits the pooled beta-binomial; see `fit_coverage`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from planner.models.counts import CountTable
from planner.models.coverage import CoverageLaw, fit_pooled
from planner.models.errors import InputError
from planner.models.prediction import Array, Prediction

_DRAWS = 1000


@dataclass(frozen=True, eq=False)
class CoverageForecast:
    """What one cell's problems, and others of their kind, will show at k draws."""

    law: CoverageLaw
    n_correct: Array  # (n_problems,)
    n_samples: Array

    def predict(
        self, k: ArrayLike, rng: np.random.Generator, *, size: int = _DRAWS
    ) -> Prediction:
        """Expected coverage of these very problems at k draws each, k >= 1.

        Raises:
            InputError: k below 1.
        """
        return self._predict(k, rng, size, None)

    def predict_measured(
        self, k: ArrayLike, n: int, rng: np.random.Generator, *, size: int = _DRAWS
    ) -> Prediction:
        """What the unbiased pass@k of these problems will read once n draws are made.

        The draws behind the fit are among the n. Wider than `predict`: n draws are noisy.

        Raises:
            InputError: k below 1 or above n, or n below the draws made.
        """
        return self._predict(k, rng, size, n)

    def predict_new(
        self, k: ArrayLike, rng: np.random.Generator, *, size: int = _DRAWS
    ) -> Prediction:
        """Mean coverage over new problems of the same kind."""
        return self.law.predict(k, rng, size=size)

    def _predict(
        self, k: ArrayLike, rng: np.random.Generator, size: int, n: int | None
    ) -> Prediction:
        points = np.atleast_1d(np.asarray(k, dtype=float))
        if points.size and points.min() < 1:
            raise InputError(f"coverage needs k >= 1, got {points.min():g}")
        a, b = self.law.shapes(rng, size)
        p = rng.beta(a + self.n_correct, b + self.n_samples - self.n_correct)
        draws = np.stack([1 - ((1 - p) ** x).mean(axis=1) for x in points], axis=1)
        return Prediction(draws, "1", points > self.n_samples.max())


def fit_coverage(table: CountTable) -> tuple[CoverageForecast, ...]:
    """Fit every cell of a table at once; cells of a benchmark lend each other strength.

    Returns:
        One forecast a cell, in the order of the table's cells.
    """
    laws = fit_pooled(table.n_correct, table.n_samples, table.cell, table.benchmark)
    return tuple(
        CoverageForecast(
            law, table.n_correct[rows].astype(float), table.n_samples[rows].astype(float)
        )
        for law, rows in ((laws[i], table.rows(i)) for i in range(table.n_cells))
    )
