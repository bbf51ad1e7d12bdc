"""What a mix of options will give on fresh prompts, free of the winner's curse.

The option that looks best is partly lucky, so its estimate is too high. How much too high
comes from the coupled bootstrap (Oliveira, Lei and Tibshirani 2021, arXiv:2111.09447): with
estimates x = truth + noise and w a fresh draw of the noise, x + tau w and x - w / tau are
independent given the truth, so choosing by the first and judging by the second is honest.
What the choice c(x + tau w) owes to luck is E[w at c(x + tau w)] / tau; w and -w are used
in pairs, so that a choice that noise cannot change is charged exactly nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from planner.allocate import Allocation
from planner.models.cost import UNITS
from planner.models.prediction import Array
from planner.options import Z90, Ints, OptionTable, cost_quantile
from planner.plan import Interval

_TAU = 0.3  # small: the rule that is judged is all but the rule that is used


@dataclass(frozen=True, eq=False, kw_only=True)
class Mix:
    """Options and the share of all prompts each serves."""

    rows: Ints  # (n_parts,)
    weights: Array  # (n_parts,), adding to 1

    @classmethod
    def of(cls, allocation: Allocation, shares: Array) -> "Mix":
        """The mix of an allocation; `shares` of the groups, adding to 1."""
        parts = [
            (row, share * part)
            for choice, share in zip(allocation.choices, shares.tolist(), strict=True)
            for row, part in choice
            if share * part > 0
        ]
        return cls(
            rows=np.array([row for row, _ in parts], np.intp),
            weights=np.array([weight for _, weight in parts]),
        )


def optimism(
    table: OptionTable,
    unit: str,
    shares: Array,
    budget: float,
    price: float,
    *,
    n_draws: int = 200,
) -> Array:
    """By how much the options that a budget's allocation picks are overrated, (n_groups,).

    Args:
        table: The options that were compared.
        unit: Of the costs.
        shares: Of the groups, adding to 1.
        budget: Expected cost a prompt that the allocation kept to.
        price: Its shadow price; 0 where the budget did not bind.
        n_draws: Draws of the noise, each used with both signs; at most the table's.
    """
    groups = [
        _Contest.of(table, rows, table.column(unit), n_draws) for rows in table.rows_of
    ]
    luck = np.zeros(len(groups))
    for sign in (1.0, -1.0):
        seen = [g.accuracy + sign * _TAU * g.noise for g in groups]
        for draw_share, lam in _prices(groups, seen, shares, budget, price):
            for g, (contest, estimate) in enumerate(zip(groups, seen, strict=True)):
                won = contest.winners(estimate, lam)
                noise = np.take_along_axis(contest.noise, won[:, None], axis=1)[:, 0]
                luck[g] += sign * float(np.mean(draw_share * noise)) / (2 * _TAU)
    return luck


@dataclass(frozen=True, eq=False)
class _Contest:
    """The options of one group that a draw of the noise may put first."""

    accuracy: Array  # (n_rows,)
    cost: Array  # (n_rows,)
    noise: Array  # (n_draws, n_rows)

    @classmethod
    def of(cls, table: OptionTable, rows: Ints, cost: Array, n_draws: int) -> "_Contest":
        rows = rows[np.isfinite(cost[rows])]
        rows = rows[np.argsort(cost[rows], kind="stable")]
        reach = 4 * _TAU * table.accuracy_sd[rows]
        beaten = np.maximum.accumulate(table.accuracy[rows] - reach)
        rows = rows[table.accuracy[rows] + reach >= beaten]
        return cls(table.accuracy[rows], cost[rows], table.offsets(rows)[:n_draws])

    def winners(self, estimate: Array, price: Array) -> Ints:
        """Position of the option worth most at each draw's price, (n_draws,)."""
        return np.asarray(np.argmax(estimate - price[:, None] * self.cost, axis=1))


def _prices(
    groups: list[_Contest], seen: list[Array], shares: Array, budget: float, price: float
) -> list[tuple[Array, Array]]:
    """Of each draw, the two prices between which its budget ends, and the weight of each.

    Bisection: at the low price the draw's allocation costs too much, at the high one it
    fits; the weights make it cost the budget.
    """
    n_draws = len(seen[0])

    def spend(lam: Array) -> Array:
        total = np.zeros(n_draws)
        for contest, estimate, share in zip(groups, seen, shares.tolist(), strict=True):
            if share > 0:
                total += share * contest.cost[contest.winners(estimate, lam)]
        return total

    low, high = np.zeros(n_draws), np.full(n_draws, 30 * price)
    if price <= 0:
        return [(np.ones(n_draws), low)]
    for step in range(12):
        # the first steps on a log scale: the draws' prices lie around the given one
        middle = np.where(low > 0, np.sqrt(low * high), high / 30 if step else price)
        over = spend(middle) > budget
        low, high = np.where(over, middle, low), np.where(over, high, middle)
    dear, cheap = spend(low), spend(high)
    gap = np.where(dear > cheap, dear - cheap, 1.0)
    part = np.where(dear > budget, np.clip((budget - cheap) / gap, 0.0, 1.0), 1.0)
    return [(part, low), (1 - part, high)]


def accuracy_draws(table: OptionTable, mix: Mix, overrated: Array) -> Array:
    """Draws of the accuracy of each part of a mix, (n_draws, n_parts), in [0, 1]."""
    centre = table.accuracy[mix.rows] - overrated[table.group[mix.rows]]
    return np.asarray(np.clip(centre + table.offsets(mix.rows), 0.0, 1.0))


def accuracy_interval(
    table: OptionTable,
    mix: Mix,
    overrated: Array,
    *,
    n_prompts: int | None = None,
    cost_effect: float = 0.0,
    rng: np.random.Generator | None = None,
) -> Interval:
    """Accuracy of a mix, over the laws' uncertainty; 90 %.

    Args:
        table: The options.
        mix: What serves whom.
        overrated: Of each group, as `optimism` gives it.
        n_prompts: Fresh prompts it must hold for; None: the mean of endless prompts.
        cost_effect: Standard deviation of what a misjudged mean cost will do to accuracy:
            the run keeps to its budget by taking cheaper options for what is left.
        rng: Source of the prompts' draws; needed with n_prompts.
    """
    parts = accuracy_draws(table, mix, overrated)
    total = parts @ mix.weights
    if n_prompts is not None and rng is not None:
        counts = whole_counts(mix.weights.tolist(), n_prompts)
        total = rng.binomial(counts, parts).sum(axis=1) / n_prompts
        total = total + cost_effect * rng.standard_normal(len(total))
    low, high = np.clip(np.quantile(total, [0.05, 0.95]), 0.0, 1.0).tolist()
    centre = np.clip(table.accuracy[mix.rows] - overrated[table.group[mix.rows]], 0.0, 1.0)
    mean = float(centre @ mix.weights)
    return Interval(mean=mean, low=min(low, mean), high=max(high, mean))


def whole_counts(weights: Sequence[float], total: int) -> Ints:
    """Whole numbers in proportion to weights, adding to `total`; largest remainders."""
    exact = np.asarray(weights, float) / sum(weights) * total
    counts = np.floor(exact).astype(np.intp)
    missing = total - int(counts.sum())
    counts[np.argsort(counts - exact, kind="stable")[:missing]] += 1
    return counts


def cost_sd(table: OptionTable, rows: Ints, unit: str) -> Array:
    """Standard deviation of the cost between prompts, read from its quantiles at +-1."""
    points, at = [table.points[i] for i in rows.tolist()], UNITS.index(unit)
    low, high = (cost_quantile(points, table.cost_models, z)[:, at] for z in (-1.0, 1.0))
    return np.asarray(np.maximum(high - low, 0.0) / 2)


def mean_cost_sd(table: OptionTable, mix: Mix, unit: str) -> float:
    """Standard deviation of the mix's mean cost, as an estimate from few problems."""
    problems = np.array([table.points[i].n_problems for i in mix.rows.tolist()])
    own = mix.weights * cost_sd(table, mix.rows, unit) / np.sqrt(np.maximum(problems, 1))
    return float(np.sqrt(np.sum(own**2)))


def spend_interval(
    table: OptionTable, mix: Mix, unit: str, *, n_prompts: int, cap: float
) -> Interval:
    """Total spend on fresh prompts, 90 %; never above the cap, since the ledger refuses.

    Two spreads: between prompts, which averages out, and of the measured mean, which does
    not.
    """
    sd = cost_sd(table, mix.rows, unit)
    mean = n_prompts * float(mix.weights @ table.column(unit)[mix.rows])
    between = n_prompts * float(mix.weights @ sd**2)
    of_mean = (n_prompts * mean_cost_sd(table, mix, unit)) ** 2
    half = Z90 * float(np.sqrt(between + of_mean))
    mean = min(mean, cap)
    return Interval(mean=mean, low=max(mean - half, 0.0), high=min(mean + half, cap))
