"""Recommendations worked out ahead, so that asking for one is a look-up."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from planner.allocate import Ladder, undominated
from planner.models.errors import InfeasibleError
from planner.options import GroupKey
from planner.plan import Forecast, Interval, Option


@dataclass(frozen=True)
class Recommendation:
    """One option for a prompt, what it should give and cost, and why."""

    option: Option
    task: str
    difficulty: int  # class, 0 is the easiest
    accuracy: Interval  # of the group's mean, 90 %
    cost: dict[str, float]  # expected, in every unit that is known
    cost_p95: dict[str, float]  # 95th percentile between prompts
    extrapolated: tuple[str, ...]  # what lies beyond the measurements; empty: nothing
    unit: str  # of the budget
    runner_up: Option | None  # the next better one, which the budget did not allow
    runner_up_accuracy: float | None
    runner_up_cost: float | None  # 95th percentile, in `unit`

    @property
    def why(self) -> str:
        """One sentence."""
        chosen = (
            f"{self.option} is the most accurate option measured on {self.task} class"
            f" {self.difficulty} whose cost stays within the budget for 95 % of prompts"
        )
        if self.runner_up is None:
            return f"{chosen}; a larger budget would buy no more accuracy."
        return (
            f"{chosen}; {self.runner_up} would raise accuracy from"
            f" {self.accuracy.mean:.3f} to {self.runner_up_accuracy:.3f} but can cost"
            f" {self.runner_up_cost:.3g} {self.unit}."
        )


@dataclass(frozen=True, eq=False)
class Shelf:
    """One group's recommendations; cost_p95 and accuracy both rise."""

    costs: list[float]  # cost_p95
    entries: list[Recommendation]

    def best(self, budget: float, unit: str) -> Recommendation:
        """The most accurate whose cost_p95 fits.

        Raises:
            InfeasibleError: Even the cheapest costs more.
        """
        at = bisect_right(self.costs, budget)
        if not at:
            raise InfeasibleError(f"budget a prompt in {unit}", budget, self.costs[0])
        return self.entries[at - 1]


@dataclass(frozen=True, eq=False)
class Catalogue:
    """All groups' options in one unit: shelves to look up, a ladder to allocate with."""

    unit: str
    groups: tuple[GroupKey, ...]
    index: dict[GroupKey, int]
    shelves: dict[GroupKey, Shelf]
    ladder: Ladder  # its rows number `forecasts`
    forecasts: tuple[Forecast, ...]
    group_of: tuple[int, ...]  # of each forecast

    @classmethod
    def of(cls, unit: str, fronts: Mapping[GroupKey, Sequence[Forecast]]) -> Self:
        """Sort out the options of every group, but for those without a cost in `unit`."""
        groups = tuple(fronts)
        forecasts = tuple(f for g in groups for f in fronts[g] if unit in f.cost)
        group_of = tuple(
            i for i, g in enumerate(groups) for f in fronts[g] if unit in f.cost
        )
        group = np.array(group_of, np.intp)
        accuracy = np.array([f.accuracy.mean for f in forecasts])
        cost = np.array([f.cost[unit] for f in forecasts])
        p95 = np.array([f.cost_p95[unit] for f in forecasts])
        shelves: dict[GroupKey, Shelf] = {}
        for i, key in enumerate(groups):
            own = np.flatnonzero(group == i)
            rising = own[undominated(p95[own], accuracy[own])].tolist()
            following = [*rising[1:], None]
            shelves[key] = Shelf(
                costs=p95[rising].tolist(),
                entries=[
                    recommendation(
                        key, unit, forecasts[a], None if b is None else forecasts[b]
                    )
                    for a, b in zip(rising, following, strict=True)
                ],
            )
        return cls(
            unit=unit, groups=groups, index={g: i for i, g in enumerate(groups)},
            shelves=shelves, ladder=Ladder.of_options(group, cost, accuracy, len(groups)),
            forecasts=forecasts, group_of=group_of,
        )  # fmt: skip

    def entry(self, row: int) -> Recommendation:
        """The recommendation of a row of the ladder; its runner-up is the next step up."""
        g = self.group_of[row]
        steps = self.ladder.rows[g].tolist()
        at = steps.index(row)
        above = self.forecasts[steps[at + 1]] if at + 1 < len(steps) else None
        return recommendation(self.groups[g], self.unit, self.forecasts[row], above)


def recommendation(
    group: GroupKey, unit: str, chosen: Forecast, runner_up: Forecast | None
) -> Recommendation:
    """What a forecast says, as advice."""
    return Recommendation(
        option=chosen.option, task=group[0], difficulty=group[1], accuracy=chosen.accuracy,
        cost=chosen.cost, cost_p95=chosen.cost_p95, extrapolated=chosen.extrapolated,
        unit=unit, runner_up=None if runner_up is None else runner_up.option,
        runner_up_accuracy=None if runner_up is None else runner_up.accuracy.mean,
        runner_up_cost=None if runner_up is None else runner_up.cost_p95[unit],
    )  # fmt: skip
