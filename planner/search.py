"""Optuna over the settings that no grid holds: any token cap, temperature and n.

Each group is searched at the budget's current shadow price for the option worth most,
accuracy less a quarter of its standard deviation (a guard against luck) less price times
cost. What is found joins the table, and the allocation is solved again.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from planner.candidates import fast_enough
from planner.limits import Slo
from planner.models.artifact import StrategyName
from planner.models.cost import UNITS
from planner.models.errors import NotMeasuredError
from planner.options import OptionTable, Point, expected_cost
from planner.plan import Option

if TYPE_CHECKING:
    from optuna import Trial

_GUARD = 0.25  # of a standard deviation of the accuracy
SEARCH_TRIALS = 360  # over all groups: some two seconds of one core
_KEPT = 3  # a group
_FAMILIES = 4  # models and strategies searched a group: those that look best as measured
_WORTHWHILE = 1e-3  # accuracy; less is not worth leaving what was measured for


def search_options(
    table: OptionTable,
    unit: str,
    price: float,
    rng: np.random.Generator,
    *,
    groups: Sequence[int] | None = None,
    trials: int = SEARCH_TRIALS,
    slo: Slo | None = None,
) -> OptionTable:
    """The table with the off-grid options that are worth more than any measured one.

    Args:
        table: Measured options.
        unit: Of the budget.
        price: Shadow price, accuracy a prompt for one unit a prompt.
        rng: Seeds the samplers.
        groups: Indices of the groups to search; None: all.
        trials: Over all groups.
        slo: Latency targets that what is found must meet.
    """
    wanted = range(len(table.groups)) if groups is None else groups
    each = max(trials // max(len(wanted), 1), 10)
    found: list[Point] = []
    with _quiet():
        for g in wanted:
            seed = int(rng.integers(2**31))
            found += _search_group(table, g, unit, price, seed, each, slo)
    return table.with_points(found) if found else table


@dataclass(frozen=True)
class _Family:
    """One model and strategy, and the ranges its measured options span."""

    model: str
    strategy: StrategyName
    ns: list[int]  # measured, rising, as the others
    caps: list[int]
    temperatures: list[float]

    @property
    def is_point(self) -> bool:
        """Whether there is nothing to vary."""
        return len(self.ns) == len(self.caps) == len(self.temperatures) == 1


def _families(table: OptionTable, g: int) -> dict[str, _Family]:
    """Families of a group by name; "single" is any strategy's n = 1."""
    options = [
        p.option
        for p in (table.points[row] for row in table.rows_of[g].tolist())
        if p.origin == "grid"
    ]
    found = {}
    for model, strategy in dict.fromkeys((o.model, o.strategy) for o in options):
        own = [o for o in options if (o.model, o.strategy) == (model, strategy)]
        single = any((o.model, o.strategy) == (model, "single") for o in options)
        found[f"{model} {strategy}"] = _Family(
            model,
            strategy,
            sorted({o.n for o in own} | ({1} if single else set())),
            sorted({o.max_tokens for o in own}),
            sorted({o.temperature for o in own}),
        )
    return found


def _search_group(
    table: OptionTable,
    g: int,
    unit: str,
    price: float,
    seed: int,
    trials: int,
    slo: Slo | None,
) -> list[Point]:
    import optuna

    column = UNITS.index(unit)
    rows = table.rows_of[g]
    values = (
        table.accuracy[rows]
        - _GUARD * table.accuracy_sd[rows]
        - price * table.cost[rows, column]
    )
    every = _families(table, g)
    starts: dict[str, Option] = {}  # the best measured option of each family, best first
    for i in np.argsort(-values).tolist():
        option = table.points[int(rows[i])].option
        family = every.get(name := f"{option.model} {option.strategy}")
        if np.isfinite(values[i]) and family is not None and not family.is_point:
            starts.setdefault(name, option)
    families = {name: every[name] for name in list(starts)[:_FAMILIES]}
    if not families:
        return []
    nothing = table.take(np.zeros(0, np.intp))
    points: dict[Option, tuple[float, Point]] = {}

    def worth(trial: "Trial") -> float:
        name = trial.suggest_categorical("family", list(families))
        family = families[name]
        model = family.model
        option = Option(
            model=model,
            strategy=family.strategy,
            n=_whole(trial, f"n of {name}", family.ns),
            max_tokens=_whole(trial, f"max_tokens of {model}", family.caps),
            temperature=_real(trial, f"temperature of {model}", family.temperatures),
        )
        try:
            (point,) = table.read(table.groups[g], [option])
        except NotMeasuredError as error:
            raise optuna.TrialPruned(str(error)) from None
        cost = float(expected_cost([point], table.cost_models)[0, column])
        if not np.isfinite(cost):
            raise optuna.TrialPruned(f"{model} has no cost in {unit}")
        if slo is not None and not fast_enough(nothing.with_points([point]), slo)[0]:
            raise optuna.TrialPruned(f"{option} is slower than the target")
        value = point.accuracy - _GUARD * point.accuracy_sd - price * cost
        if point.origin == "optuna":
            points[option] = (value, point)
        return value

    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(
            seed=seed, n_ei_candidates=8, n_startup_trials=8, constant_liar=False
        ),
    )
    for name, family in families.items():
        for n in _around(starts[name].n, family.ns):
            tried = starts[name].model_copy(update={"n": n})
            study.enqueue_trial(_parameters(tried), skip_if_exists=True)
    study.optimize(worth, n_trials=trials)
    least = float(np.nanmax(values)) + _WORTHWHILE
    ranked = sorted(points.values(), key=lambda pair: -pair[0])
    return [point for value, point in ranked[:_KEPT] if value > least]


def _around(n: int, grid: list[int]) -> list[int]:
    """n, and half-way (in log n) to the measured n on both sides of it."""
    near = [m for m in grid if m < n][-1:] + [m for m in grid if m > n][:1]
    return sorted({n, *(round((n * m) ** 0.5) for m in near)})


def _whole(trial: "Trial", name: str, grid: list[int]) -> int:
    if len(grid) == 1:
        return grid[0]
    return int(trial.suggest_int(name, grid[0], grid[-1], log=True))


def _real(trial: "Trial", name: str, grid: list[float]) -> float:
    if len(grid) == 1:
        return grid[0]
    # two decimals: nobody sets a temperature finer, and equal settings meet
    value = round(float(trial.suggest_float(name, grid[0], grid[-1])), 2)
    return min(max(value, grid[0]), grid[-1])


def _parameters(option: Option) -> dict[str, object]:
    family = f"{option.model} {option.strategy}"
    return {
        "family": family,
        f"n of {family}": option.n,
        f"max_tokens of {option.model}": option.max_tokens,
        f"temperature of {option.model}": option.temperature,
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna logs every trial unless told not to; its level is the caller's again after."""
    import optuna

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(level)
