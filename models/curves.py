"""What a policy gave on recorded draws, problem by problem, at each number of draws."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from planner.models.errors import InputError
from planner.models.prediction import Array


@dataclass(frozen=True, eq=False)
class ProblemCurves:
    """One policy at each n of a grid; arrays are (n_problems, n_grid)."""

    n: tuple[int, ...]  # most draws the policy may make; rising
    accuracy: Array  # P(the answer is correct)
    draws: Array  # expected draws made
    output_tokens: Array  # expected total over the draws made
    output_tokens_var: Array  # of that total, on one problem

    def __post_init__(self) -> None:
        if any(
            later <= earlier for earlier, later in zip(self.n, self.n[1:], strict=False)
        ):
            raise InputError(f"n must rise, got {self.n}")

    def rows(self, which: NDArray[np.int64] | NDArray[np.bool_]) -> "ProblemCurves":
        """Some of the problems."""
        return ProblemCurves(
            self.n, self.accuracy[which], self.draws[which], self.output_tokens[which],
            self.output_tokens_var[which],
        )  # fmt: skip

    def tokens_sd(self) -> Array:
        """Standard deviation of the total tokens between prompts, (n_grid,).

        Within and between problems: what one request of a random prompt may take.
        """
        between = self.output_tokens.var(axis=0)
        return np.asarray(np.sqrt(between + self.output_tokens_var.mean(axis=0)))

    @classmethod
    def stack(cls, parts: list[Self]) -> "ProblemCurves":
        """Problems of several tables with one grid, one below the other.

        Raises:
            InputError: The grids differ.
        """
        if len({part.n for part in parts}) != 1:
            raise InputError("curves to stack need one grid of n")
        return ProblemCurves(
            parts[0].n, *(
                np.concatenate([getattr(part, name) for part in parts])
                for name in ("accuracy", "draws", "output_tokens", "output_tokens_var")
            ),
        )  # fmt: skip


def powers_of_two(n_max: int) -> tuple[int, ...]:
    """1, 2, 4, ... up to n_max, and n_max itself."""
    grid = [1]
    while grid[-1] * 2 <= n_max:
        grid.append(grid[-1] * 2)
    return tuple(grid) if grid[-1] == n_max else (*grid, n_max)
