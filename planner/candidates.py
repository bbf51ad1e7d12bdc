"""Which options may compete: those of known cost in the budget's unit, and fast enough."""

import numpy as np
from numpy.typing import NDArray

from planner.limits import Slo
from planner.models.errors import InfeasibleError, NotMeasuredError
from planner.models.prediction import Array
from planner.options import Ints, OptionTable


def candidates(
    table: OptionTable, unit: str, slo: Slo | None = None
) -> tuple[OptionTable, list[str]]:
    """The options whose cost is known in a unit and that meet a slo; notes on the others.

    Raises:
        NotMeasuredError: No model, or a group without any, has the unit.
        InfeasibleError: No option of a group is fast enough.
    """
    known = np.isfinite(table.column(unit))
    models = sorted({p.option.model for p in table.points})
    with_unit = {table.points[i].option.model for i in np.flatnonzero(known).tolist()}
    lacking = [m for m in models if m not in with_unit]
    needs = "prices" if unit == "usd" else "an architecture and timings"
    if not with_unit:
        raise NotMeasuredError(
            f"a budget in {unit} needs {needs} of at least one model; none of"
            f" {', '.join(models)} has them"
        )
    notes = (
        [f"models without {needs} are left out: {', '.join(lacking)}"] if lacking else []
    )
    keep = known
    if slo is not None:
        fast = fast_enough(table, slo)
        if dropped := int((known & ~fast).sum()):
            notes.append(f"the latency target rules out {dropped} options")
        keep = known & fast
    for g, own in enumerate(table.rows_of):
        if not known[own].any():
            task, difficulty = table.groups[g]
            raise NotMeasuredError(
                f"a budget in {unit} needs {needs}: no model measured on task {task!r}"
                f" class {difficulty} has them"
            )
        if slo is not None and not keep[own].any():
            _raise_too_slow(table, slo, own[known[own]])
    return table.take(np.flatnonzero(keep)), notes


def _targets(table: OptionTable, slo: Slo) -> list[tuple[str, float, Array]]:
    """Name, target and prediction of each latency the slo limits."""
    listed: list[tuple[str, float, Array]] = []
    if slo.latency_s is not None:
        name = f"latency_s at percentile {slo.percentile:g}"
        listed.append((name, slo.latency_s, table.latency_s(slo.percentile)))
    if slo.ttft_s is not None or slo.tpot_s is not None:
        first, each = table.token_times_s()
        if slo.ttft_s is not None:
            listed.append(("ttft_s", slo.ttft_s, first))
        if slo.tpot_s is not None:
            listed.append(("tpot_s", slo.tpot_s, each))
    return listed


def fast_enough(table: OptionTable, slo: Slo) -> NDArray[np.bool_]:
    """Which options meet a slo, (n_options,).

    Raises:
        NotMeasuredError: No option's latency is known.
    """
    fast = np.ones(len(table), bool)
    for name, target, predicted in _targets(table, slo):
        if not np.isfinite(predicted).any():
            raise NotMeasuredError(
                f"{name} cannot be predicted: no model has timings; run `planner calibrate`"
            )
        fast &= np.where(np.isfinite(predicted), predicted, np.inf) <= target
    return fast


def _raise_too_slow(table: OptionTable, slo: Slo, rows: Ints) -> None:
    for name, target, predicted in _targets(table, slo):
        least = float(np.nanmin(predicted[rows]))
        if least > target:
            raise InfeasibleError(name, target, least)
    # each target can be met, but not all by one option: the first says so
    name, target, predicted = _targets(table, slo)[0]
    raise InfeasibleError(f"all targets, {name}", target, float(np.nanmax(predicted[rows])))
