"""Choosing as prompts start, by what the budget still allows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np

from planner.allocate import Pacer
from planner.catalogue import Catalogue
from planner.ledger import Ledger
from planner.models.artifact import Cell, Laws
from planner.models.cost import Cost
from planner.models.prediction import Array
from planner.models.records import Problem
from planner.models.shapes import Shapes
from planner.options import GroupKey
from planner.plan import Option

Running = Mapping[str, tuple[int, Cost]]  # problem id -> attempts and cost so far

_PRIOR = 10  # prompts; fewer than these say little about the laws' error


def draws_to_come(failing: Array, n: int, failed: int) -> float:
    """Expected draws yet to be made by a prompt that draws until one is right.

    A prompt that still runs is likely a hard one: the sum over j from `failed` to n - 1 of
    the chance that its first j draws fail, given that the first `failed` did.

    Args:
        failing: Chance that the first j draws of a prompt fail, j = 0, 1, ..., n or more.
        n: Most draws.
        failed: Draws made, none of them right.
    """
    return float(failing[failed:n].sum() / failing[failed]) if failed < n else 0.0


@dataclass(frozen=True, eq=False)
class _Shape:
    """What decides how long a prompt that runs will go on; of one measured setting."""

    cell: Cell
    most: int  # draws of any option
    spread: float  # of a draw's output tokens: variance over squared mean

    @classmethod
    def of(cls, cell: Cell, most: int) -> Self:
        first = next((c for c in cell.curves if c.strategy == "single"), cell.curves[0])
        mean = max(first.output_tokens[0], 1.0)
        return cls(cell, most, (first.output_tokens_sd[0] / mean) ** 2)

    @cached_property
    def failing(self) -> Array:
        """Chance that the first j draws of a prompt fail, j = 0 .. most."""
        shapes = Shapes.of(np.array(self.cell.coverage.shapes))
        return np.asarray(shapes.unsolved(np.arange(self.most + 1.0)).mean(axis=0))


@dataclass
class _Started:
    """A prompt that was started."""

    option: Option
    expected: float  # cost
    shape: _Shape
    ended_before: int  # prompts that had ended when it started


class Pace:
    """The best use of what is left, prompt by prompt.

    What the started prompts have spent, and what they will likely still spend given that
    they have not ended, add up to an honest forecast at any time. (What ended prompts cost
    is none: the cheap ones end first.) Where the forecast leaves what the laws expected,
    expectations of the prompts to come move with it, as if `_PRIOR` prompts had cost just
    what was expected.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        laws: Laws,
        problems: Sequence[Problem],
        groups: Sequence[GroupKey],
        ledger: Ledger,
        reserve: float,
    ) -> None:
        """Prepare.

        Args:
            catalogue: Options in the budget's unit.
            laws: Where the catalogue is from.
            problems: Of the run.
            groups: Of the problems.
            ledger: Of the run.
            reserve: Share of the budget kept back to the end.
        """
        self._catalogue, self._ledger = catalogue, ledger
        self._total = ledger.budget.total
        self._groups = {p.problem_id: g for p, g in zip(problems, groups, strict=True)}
        counts = [0] * len(catalogue.groups)
        for group in groups:
            counts[catalogue.index[group]] += 1
        self._pacer = Pacer(catalogue.ladder, counts, reserve=reserve * self._total)
        self._shapes: dict[tuple[str, GroupKey], list[_Shape]] = {}
        most = max(forecast.option.n for forecast in catalogue.forecasts)
        for cell in laws.cells:
            key = (cell.model, (cell.task, cell.difficulty))
            self._shapes.setdefault(key, []).append(_Shape.of(cell, most))
        self._started: dict[str, _Started] = {}
        self._expected = 0.0  # cost of all that were started

    def choose(self, problem: Problem, prompts_left: int, running: Running) -> Option:
        """The option of a prompt that starts.

        Args:
            problem: The prompt.
            prompts_left: Not started, this one included.
            running: Prompts that were started and have not ended.
        """
        unit, group = self._catalogue.unit, self._groups[problem.problem_id]
        spent = self._ledger.spent.in_unit(unit)
        ended = len(self._started) - len(running)
        to_come = sum(
            self._to_come(self._started[name], tries, ended, len(running))
            for name, (tries, _) in running.items()
        )
        prior = _PRIOR * self._total / len(self._groups)
        ratio = (spent + to_come + prior) / (self._expected + prior)
        left = self._total - spent - ratio * to_come
        row = self._pacer.choose(self._catalogue.index[group], left / ratio, prompts_left)
        forecast = self._catalogue.forecasts[row]
        self._started[problem.problem_id] = _Started(
            forecast.option, forecast.cost[unit], self._shape(forecast.option, group), ended
        )
        self._expected += forecast.cost[unit]
        return forecast.option

    @staticmethod
    def _to_come(prompt: _Started, tries: int, ended: int, running: int) -> float:
        """Cost that a prompt that runs is expected to add to what is settled."""
        option, shape = prompt.option, prompt.shape
        if option.strategy == "best_of_n":
            whole = draws_to_come(shape.failing, option.n, 0)
            part = draws_to_come(shape.failing, option.n, tries) / whole
            one_draw = prompt.expected / whole
        else:
            part = max(1 - tries / option.n, 0.0)
            one_draw = prompt.expected / option.n
        # A draw that still runs when others have come and gone is a long one: one met in
        # passing has mean (1 + spread). It turns from fresh to that as the batch changes.
        age = min((ended - prompt.ended_before) / max(running, 1), 1.0)
        return prompt.expected * part + one_draw * shape.spread * age

    def _shape(self, option: Option, group: GroupKey) -> _Shape:
        """Of the measured setting nearest to the option's."""
        return min(
            self._shapes[option.model, group],
            key=lambda s: (
                abs(s.cell.temperature - option.temperature),
                abs(s.cell.max_tokens - option.max_tokens),
            ),
        )
