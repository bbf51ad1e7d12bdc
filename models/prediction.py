"""What every law returns."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.models.errors import InputError

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Prediction:
    """Draws of one quantity, so that any interval or tail can be read off."""

    draws: Array  # (n_draws, n_points), in `unit`
    unit: str  # "1" for a probability, else "s", "usd", "flop", "tokens"
    extrapolated: NDArray[np.bool_]  # (n_points,): beyond what was measured

    def __post_init__(self) -> None:
        if self.draws.ndim != 2 or not np.isfinite(self.draws).all():
            raise InputError(f"draws must be finite and 2-d, got {self.draws.shape}")
        if self.extrapolated.shape != self.draws.shape[1:]:
            raise InputError("one extrapolated flag a point")

    @property
    def mean(self) -> Array:
        """Mean of the draws, (n_points,)."""
        return np.asarray(self.draws.mean(axis=0))

    @property
    def median(self) -> Array:
        """Median of the draws, (n_points,): what errs least where a law is lopsided."""
        return np.asarray(np.median(self.draws, axis=0))

    def interval(self, level: float = 0.9) -> tuple[Array, Array]:
        """Equal-tailed interval, two arrays (n_points,)."""
        tail = (1 - level) / 2
        low, high = np.quantile(self.draws, [tail, 1 - tail], axis=0)
        return low, high
