"""One budget over many prompts: which option each group gets, and the price of more.

A multiple-choice knapsack. Its linear relaxation is solved exactly: of each group only the
upper concave hull of (cost, accuracy) can be optimal, and the steps along all hulls are
taken in order of accuracy gained per unit of cost until the budget ends. At most one group
is split between two options. The slope of the step the budget ends in is the shadow price.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from planner.models.errors import InfeasibleError, InputError
from planner.models.prediction import Array
from planner.options import Ints

_TINY = 1e-12  # accuracy; smaller steps are rounding


def hull(cost: Array, accuracy: Array) -> Ints:
    """Positions on the upper concave hull, from the cheapest to the most accurate.

    Args:
        cost: Shape (n,), finite.
        accuracy: Shape (n,).
    """
    order = undominated(cost, accuracy)
    kept: list[int] = []
    for i in order.tolist():
        while len(kept) >= 2:
            a, b = kept[-2], kept[-1]
            rise_kept = (accuracy[b] - accuracy[a]) * (cost[i] - cost[a])
            if rise_kept > (accuracy[i] - accuracy[a]) * (cost[b] - cost[a]):
                break
            kept.pop()
        kept.append(i)
    return np.array(kept, np.intp)


def undominated(cost: Array, accuracy: Array) -> Ints:
    """Positions that no other beats at no more cost; cost and accuracy both rise."""
    order = np.lexsort((-accuracy, cost))
    best = np.maximum.accumulate(accuracy[order])
    first = np.ones(len(order), bool)
    first[1:] = accuracy[order][1:] > best[:-1] + _TINY
    return np.asarray(order[first])


@dataclass(frozen=True, eq=False, kw_only=True)
class Allocation:
    """What each group gets; rows number the options the ladder was built from."""

    choices: tuple[
        tuple[tuple[int, float], ...], ...
    ]  # a group: (row, share of its prompts)
    shadow_price: float  # accuracy a prompt for one more unit a prompt; 0: budget not bound
    accuracy: float  # expected, a prompt
    spend: float  # expected, a prompt


@dataclass(frozen=True, eq=False, kw_only=True)
class Ladder:
    """The hulls of all groups, and the steps along them, steepest first."""

    rows: tuple[Ints, ...]  # a group: its hull, cost rising
    base_cost: Array  # (n_groups,), of the cheapest option
    base_accuracy: Array
    group: Ints  # (n_steps,), whose step it is
    d_cost: Array  # (n_steps,), of one prompt
    d_accuracy: Array

    @classmethod
    def of_options(cls, group: Ints, cost: Array, accuracy: Array, n_groups: int) -> Self:
        """Build the hulls.

        Args:
            group: Group of each option, (n_options,).
            cost: Expected cost a prompt in the budget's unit, (n_options,).
            accuracy: Expected accuracy, (n_options,).
            n_groups: Number of groups.

        Raises:
            InputError: A group has no option.
        """
        rows: list[Ints] = []
        for g in range(n_groups):
            own = np.flatnonzero((group == g) & np.isfinite(cost))
            if not len(own):
                raise InputError(f"group {g} has no option with a known cost")
            rows.append(own[hull(cost[own], accuracy[own])])
        whose = np.repeat(np.arange(n_groups), [len(r) - 1 for r in rows])
        d_cost = np.concatenate([np.diff(cost[r]) for r in rows])
        d_accuracy = np.concatenate([np.diff(accuracy[r]) for r in rows])
        # stable: steps of a group stay in the order of its hull
        order = np.argsort(-d_accuracy / d_cost, kind="stable")
        return cls(
            rows=tuple(rows),
            base_cost=np.array([cost[r[0]] for r in rows]),
            base_accuracy=np.array([accuracy[r[0]] for r in rows]),
            group=whose[order],
            d_cost=d_cost[order],
            d_accuracy=d_accuracy[order],
        )

    def cheapest(self, weights: Array) -> float:
        """Cost when every group gets its cheapest option."""
        return float(weights @ self.base_cost)

    def dearest(self, weights: Array) -> float:
        """Cost when every group gets its most accurate option."""
        return float(weights @ self.base_cost + weights[self.group] @ self.d_cost)

    def allocate(self, weights: Array, budget: float) -> Allocation:
        """The exact optimum of the relaxation.

        Args:
            weights: Prompts of each group, or their shares; (n_groups,).
            budget: For all of `weights` together.

        Raises:
            InfeasibleError: The cheapest options cost more.
        """
        steps = weights[self.group] * self.d_cost
        total = self.cheapest(weights) + np.cumsum(steps)
        least = self.cheapest(weights)
        if least > budget * (1 + 1e-12):
            raise InfeasibleError("budget", budget, least)
        taken = int(np.searchsorted(total, budget, side="right"))
        levels = np.bincount(self.group[:taken], minlength=len(self.rows))
        choices = [
            ((int(r[k]), 1.0),) for r, k in zip(self.rows, levels.tolist(), strict=True)
        ]
        accuracy = weights @ self.base_accuracy
        accuracy += weights[self.group[:taken]] @ self.d_accuracy[:taken]
        spend = float(total[taken - 1]) if taken else least
        price = 0.0
        if taken < len(steps):
            g = int(self.group[taken])
            price = float(self.d_accuracy[taken] / self.d_cost[taken])
            part = max((budget - spend) / float(steps[taken]), 0.0)
            if part > 0:
                r, k = self.rows[g], int(levels[g])
                choices[g] = ((int(r[k]), 1 - part), (int(r[k + 1]), part))  # type: ignore[assignment]
                accuracy += part * weights[g] * self.d_accuracy[taken]
                spend = budget
        whole = float(weights.sum())
        return Allocation(
            choices=tuple(choices), shadow_price=price,
            accuracy=float(accuracy) / whole, spend=spend / whole,
        )  # fmt: skip


class Pacer:
    """Picks as prompts come, from what is left: solves the rest anew for each.

    Holds the counts of one run; prompts of a group may come in any order. A split group
    alternates so that its shares come out right whatever the order.
    """

    def __init__(self, ladder: Ladder, counts: Sequence[int], *, reserve: float) -> None:
        """Args: `reserve` is kept back to the end, in the budget's unit."""
        self._ladder = ladder
        self._left = np.array(counts, float)
        self._credit = [0.0] * len(counts)
        self._reserve = reserve

    def choose(self, group: int, remaining: float, prompts_left: int) -> int:
        """Row of the option the next prompt gets.

        Args:
            group: The prompt's group.
            remaining: Budget not spent and not expected to be spent by running prompts.
            prompts_left: Prompts not started, this one included.
        """
        left, ladder = self._left, self._ladder
        left[group] = max(left[group], 1.0)
        total = float(left.sum())
        # a caller that left prompts out (already answered) keeps the groups' shares
        scale = prompts_left / total if prompts_left > 0 else 1.0
        spare = (remaining - self._reserve) / scale - float(left @ ladder.base_cost)
        left_of = left[ladder.group]
        left[group] -= 1.0
        rows = ladder.rows[group]
        if spare <= 0 or len(rows) == 1:
            return int(rows[0])
        steps = np.cumsum(left_of * ladder.d_cost)
        taken = int(steps.searchsorted(spare, side="right"))
        level = int((ladder.group[:taken] == group).sum())
        if taken < len(steps) and int(ladder.group[taken]) == group:
            before = float(steps[taken - 1]) if taken else 0.0
            self._credit[group] += (spare - before) / (float(steps[taken]) - before)
            if self._credit[group] >= 1 - 1e-9:
                self._credit[group] -= 1.0
                level += 1
        return int(rows[level])
