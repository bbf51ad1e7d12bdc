"""One fixed setting for every prompt: what a plan must beat, and dots in its report."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from planner.models.artifact import StrategyName
from planner.models.errors import NotMeasuredError
from planner.models.prediction import Array
from planner.options import Ints, OptionTable, Point
from planner.plan import Option

Setting = tuple[str, int, float, int]  # model, max_tokens, temperature, n


@dataclass(frozen=True, eq=False, kw_only=True)
class Uniform:
    """One model, n, max_tokens and temperature for all groups."""

    setting: Setting
    rows: Ints  # (n_groups,), of the table
    accuracy: float
    cost: float  # expected, a prompt

    @property
    def label(self) -> str:
        """For a report's legend."""
        model, cap, temperature, n = self.setting
        return f"{model} n={n} max_tokens={cap} T={temperature:g}"


def uniform_settings(
    table: OptionTable, shares: Array, verified: Mapping[str, bool], unit: str
) -> list[Uniform]:
    """Every setting that all groups with a share have.

    n = 1 is one draw. Above it, the strategy of a task is best_of_n where an exact verifier
    can run (`verified`), else best_of_n_scored or self_consistency, whichever did better in
    calibration.
    """
    cost = table.column(unit)
    at: dict[Setting, dict[str, dict[int, int]]] = {}
    for row, p in enumerate(table.points):
        o = p.option
        setting = (o.model, o.max_tokens, o.temperature, o.n)
        if np.isfinite(cost[row]):
            of = at.setdefault(setting, {})
            of.setdefault(o.strategy, {})[int(table.group[row])] = row
    tasks: dict[str, list[int]] = {}
    for g, (task, _) in enumerate(table.groups):
        if shares[g] > 0:
            tasks.setdefault(task, []).append(g)
    found: list[Uniform] = []
    for setting, by_strategy in at.items():
        rows = np.full(len(shares), -1, np.intp)
        for task, members in tasks.items():
            options = [
                [by_strategy[s][g] for g in members]
                for s in _strategies(setting[3], verified.get(task, False))
                if s in by_strategy and all(g in by_strategy[s] for g in members)
            ]
            if options:
                rows[members] = max(
                    options, key=lambda r: shares[members] @ table.accuracy[r]
                )
        used = shares > 0
        if (rows[used] >= 0).all():
            found.append(
                Uniform(
                    setting=setting, rows=rows,
                    accuracy=float(shares[used] @ table.accuracy[rows[used]]),
                    cost=float(shares[used] @ cost[rows[used]]),
                )
            )  # fmt: skip
    return found


def _strategies(n: int, verified: bool) -> tuple[StrategyName, ...]:
    if n == 1:
        return ("single",)
    return ("best_of_n",) if verified else ("best_of_n_scored", "self_consistency")


def best_uniform(
    settings: Iterable[Uniform], budget: float
) -> tuple[Uniform, float] | None:
    """The setting that answers most prompts right, and the share of prompts it can answer.

    A setting whose expected cost fits answers all. Where none fits, the budget pays for a
    share of the prompts, and the rest count as wrong.

    Args:
        settings: From `uniform_settings`.
        budget: Expected cost a prompt that must not be passed.
    """
    listed = list(settings)
    fitting = [u for u in listed if u.cost <= budget * (1 + 1e-12)]
    if fitting:
        return max(fitting, key=lambda u: (u.accuracy, -u.cost)), 1.0
    if not listed:
        return None
    best = max(listed, key=lambda u: u.accuracy / u.cost)
    return best, budget / best.cost


def fill_budget(
    table: OptionTable,
    shares: Array,
    verified: Mapping[str, bool],
    settings: Iterable[Uniform],
    *,
    unit: str,
    budget: float,
) -> OptionTable:
    """The table with, for every model, cap and temperature, the largest n that fits.

    Measured n are powers of two or so; without this, a fixed setting would leave up to half
    of its budget unused, and be too easy to beat.
    """
    brackets: dict[Setting, list[Uniform]] = {}
    for u in settings:
        brackets.setdefault((*u.setting[:3], 0), []).append(u)
    added: list[Point] = []
    for (model, cap, temperature, _), family in brackets.items():
        family.sort(key=lambda u: u.setting[3])
        fits = [u for u in family if u.cost <= budget]
        over = [u for u in family if u.cost > budget]
        if not fits or not over:
            continue
        low, high = fits[-1], over[0]
        n_low, n_high = low.setting[3], high.setting[3]
        # linear in n, a step short: the exact cost is checked when the setting is chosen
        n = int(n_low + (n_high - n_low) * (budget - low.cost) / (high.cost - low.cost))
        for tried in range(max(n - 1, n_low + 1), min(n + 2, n_high)):
            for g, group in enumerate(table.groups):
                strategies = _strategies(tried, verified.get(group[0], False))
                for strategy in strategies if shares[g] > 0 else ():
                    option = Option(
                        model=model, strategy=strategy, n=tried,
                        max_tokens=cap, temperature=temperature,
                    )  # fmt: skip
                    try:
                        added += table.read(group, [option])
                    except NotMeasuredError:
                        continue
    return table.with_points(added) if added else table
