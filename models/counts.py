"""Counts of correct draws: what every coverage law is fitted to.

A *cell* is one model (at one temperature) on one benchmark. Cells of a benchmark share its
problems, so that one model's draws say something about another's.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from planner.models.errors import InputError
from planner.models.prediction import Array

IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class CountTable:
    """One row a problem of a cell."""

    n_correct: IntArray  # (n_rows,)
    n_samples: IntArray  # (n_rows,)
    cell: IntArray  # (n_rows,), 0..n_cells - 1
    problem: IntArray  # (n_rows,), which problem of the cell's benchmark
    benchmark: IntArray  # (n_cells,), of each cell

    @classmethod
    def of(
        cls,
        n_correct: ArrayLike,
        n_samples: ArrayLike,
        *,
        cell: ArrayLike | None = None,
        problem: ArrayLike | None = None,
        benchmark: ArrayLike | None = None,
    ) -> "CountTable":
        """Check and complete a table.

        Args:
            n_correct: Correct draws of each row.
            n_samples: Draws of each row; a scalar serves for all.
            cell: Of each row; one cell by default.
            problem: Of each row; by default every row is a problem of its own.
            benchmark: Of each cell; one benchmark by default.

        Raises:
            InputError: Not whole counts with 0 <= n_correct <= n_samples, n_samples < 1, a
                row of a cell twice, a cell without a row, or lengths that differ.
        """
        c = np.atleast_1d(np.asarray(n_correct, dtype=float))
        n = np.broadcast_to(np.asarray(n_samples, dtype=float), c.shape)
        bad = ~((c >= 0) & (c <= n) & (n >= 1) & (c % 1 == 0) & (n % 1 == 0))
        if c.ndim != 1 or bad.any():
            row = int(bad.argmax()) if c.ndim == 1 else 0
            raise InputError(
                f"row {row}: need whole counts with 0 <= n_correct <= n_samples and at "
                "least one sample"
            )
        cells = np.zeros(len(c), np.int64) if cell is None else np.asarray(cell, np.int64)
        size = int(cells.max(initial=-1)) + 1
        groups = (
            np.zeros(size, np.int64)
            if benchmark is None
            else np.asarray(benchmark, np.int64)
        )
        problems = np.arange(len(c)) if problem is None else np.asarray(problem, np.int64)
        if cells.shape != c.shape or problems.shape != c.shape or len(groups) != size:
            raise InputError("a row needs one cell and one problem, a cell one benchmark")
        if len(np.unique(cells)) != size:
            raise InputError("every cell needs at least one problem")
        pairs = np.stack([cells, problems], axis=1)
        if len(np.unique(pairs, axis=0)) != len(pairs):
            raise InputError("a problem stands twice in one cell; add its counts up first")
        return cls(c.astype(np.int64), n.astype(np.int64), cells, problems, groups)

    @property
    def n_cells(self) -> int:
        """How many cells."""
        return len(self.benchmark)

    def rows(self, cell: int) -> IntArray:
        """Row numbers of one cell."""
        return np.flatnonzero(self.cell == cell)

    def pass_at_1(self) -> Array:
        """Share of correct draws of each cell, the mean over its problems; (n_cells,)."""
        rate = self.n_correct / self.n_samples
        size = np.bincount(self.cell, minlength=self.n_cells)
        return np.asarray(np.bincount(self.cell, rate, self.n_cells) / size)


def distinct_counts(n_correct: ArrayLike, n_samples: ArrayLike) -> tuple[Array, IntArray]:
    """Distinct (c, n), (n_distinct, 2), and which of them each problem shows."""
    both = np.stack([np.asarray(n_correct), np.asarray(n_samples)], axis=1)
    distinct, code = np.unique(both, axis=0, return_inverse=True)
    return distinct.astype(float), np.asarray(code.reshape(-1), dtype=np.int64)


def coverage_points(k: ArrayLike) -> Array:
    """Draws k to forecast coverage at, (n_k,).

    Raises:
        InputError: One is below 1 or not finite.
    """
    points = np.atleast_1d(np.asarray(k, dtype=float))
    if not (np.isfinite(points) & (points >= 1)).all():
        raise InputError(f"coverage needs finite k >= 1, got {points.tolist()}")
    return points
