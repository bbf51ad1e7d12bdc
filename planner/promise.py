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
from planner.options import Z90, Ints, OptionTable
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


def optimism(table: OptionTable, unit: str, price: float) -> Array:
    """By how much each group's best-looking option is overrated, (n_groups,).

    Args:
        table: The options that were compared.
        unit: Of the costs.
        price: Accuracy that one unit of cost must buy; options are ranked by accuracy
            minus price times cost.
    """
    worth = table.accuracy - price * table.column(unit)
    overrated = np.zeros(len(table.groups))
    for g, own in enumerate(table.rows_of):
        rows = own[np.isfinite(worth[own])]
        if len(rows) < 2:
            continue
        noise = table.offsets(rows)
        nudge = _TAU * noise
        draw = np.arange(len(noise))
        up = noise[draw, np.argmax(worth[rows] + nudge, axis=1)]
        down = noise[draw, np.argmax(worth[rows] - nudge, axis=1)]
        overrated[g] = max(float(np.mean(up - down)) / (2 * _TAU), 0.0)
    return overrated


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
    rng: np.random.Generator | None = None,
) -> Interval:
    """Accuracy of a mix, over the laws' uncertainty; 90 %.

    Args:
        table: The options.
        mix: What serves whom.
        overrated: Of each group, as `optimism` gives it.
        n_prompts: Fresh prompts it must hold for; None: the mean of endless prompts.
        rng: Source of the prompts' draws; needed with n_prompts.
    """
    parts = accuracy_draws(table, mix, overrated)
    total = parts @ mix.weights
    if n_prompts is not None and rng is not None:
        counts = whole_counts(mix.weights.tolist(), n_prompts)
        total = rng.binomial(counts, parts).sum(axis=1) / n_prompts
    low, high = np.quantile(total, [0.05, 0.95]).tolist()
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
    """Standard deviation of the cost between prompts, read from its 95th percentile."""
    at = UNITS.index(unit)
    return np.asarray(table.cost_p95[rows, at] - table.cost[rows, at]).clip(0.0) / Z90


def spend_interval(
    table: OptionTable, mix: Mix, unit: str, *, n_prompts: int, cap: float
) -> Interval:
    """Total spend on fresh prompts, 90 %; never above the cap, since the ledger refuses.

    Two spreads: between prompts, which averages out, and of the measured mean, which does
    not.
    """
    sd = cost_sd(table, mix.rows, unit)
    problems = np.array([table.points[i].n_problems for i in mix.rows.tolist()])
    mean = n_prompts * float(mix.weights @ table.column(unit)[mix.rows])
    between = n_prompts * float(mix.weights @ sd**2)
    of_mean = n_prompts**2 * float(
        np.sum((mix.weights * sd) ** 2 / np.maximum(problems, 1))
    )
    half = Z90 * float(np.sqrt(between + of_mean))
    mean = min(mean, cap)
    return Interval(mean=mean, low=max(mean - half, 0.0), high=min(mean + half, cap))
