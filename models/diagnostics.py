"""How far the laws are off on what their fits never saw."""

from collections.abc import Sequence

import numpy as np

from planner.models.artifact import HoldoutRow
from planner.models.errors import NotMeasuredError


def coverage_abs_error(rows: Sequence[HoldoutRow]) -> float:
    """Mean |predicted - observed| pass@k, on fresh problems and on further draws.

    Raises:
        NotMeasuredError: No such row.
    """
    chosen = [row for row in rows if row.quantity.startswith("coverage")]
    return abs_error(chosen)


def abs_error(rows: Sequence[HoldoutRow]) -> float:
    """Mean |predicted - observed|, in the rows' own unit.

    Raises:
        NotMeasuredError: No row.
    """
    _need(rows)
    return float(np.mean([abs(row.predicted - row.observed) for row in rows]))


def interval_coverage(rows: Sequence[HoldoutRow]) -> float:
    """Share of the rows whose 90 % interval holds what was observed; latency aside.

    Raises:
        NotMeasuredError: No such row.
    """
    chosen = [row for row in rows if row.quantity != "latency"]
    _need(chosen)
    slack = 1e-9  # an observed 1.0 against a bound of 1.0 that was summed otherwise
    held = [row.low - slack <= row.observed <= row.high + slack for row in chosen]
    return float(np.mean(held))


def by_quantity(rows: Sequence[HoldoutRow]) -> dict[str, tuple[HoldoutRow, ...]]:
    """Rows of each quantity, in the order they first occur."""
    grouped: dict[str, list[HoldoutRow]] = {}
    for row in rows:
        grouped.setdefault(row.quantity, []).append(row)
    return {quantity: tuple(listed) for quantity, listed in grouped.items()}


def _need(rows: Sequence[HoldoutRow]) -> None:
    if not rows:
        raise NotMeasuredError("no held-out row; measure at least two problems of a task")
