"""What a mix of options will give on fresh prompts, and what it will spend.

The option that looks best is partly lucky, so the arg max over raw estimates promises too
much (the winner's curse). The laws' estimates are shrunk toward what their siblings give
before they get here, which takes the luck out: on real draws a further correction made the
promises too low (benchmarks/promise_calibration.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from planner.allocate import Allocation
from planner.models.cost import UNITS
from planner.models.prediction import Array
from planner.options import Z90, Ints, OptionTable, cost_quantile
from planner.plan import Interval


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


def accuracy_interval(
    table: OptionTable,
    mix: Mix,
    *,
    n_prompts: int | None = None,
    cost_effect: float = 0.0,
    rng: np.random.Generator | None = None,
) -> Interval:
    """Accuracy of a mix, over the laws' uncertainty; 90 %.

    Args:
        table: The options.
        mix: What serves whom.
        n_prompts: Fresh prompts it must hold for; None: the mean of endless prompts.
        cost_effect: Standard deviation of what a misjudged mean cost will do to accuracy:
            the run keeps to its budget by taking cheaper options for what is left.
        rng: Source of the prompts' draws; needed with n_prompts.
    """
    parts = table.accuracy_draws(mix.rows)
    total = parts @ mix.weights
    if n_prompts is not None and rng is not None:
        counts = whole_counts(mix.weights.tolist(), n_prompts)
        total = rng.binomial(counts, parts).sum(axis=1) / n_prompts
        total = total + cost_effect * rng.standard_normal(len(total))
    low, high = np.clip(np.quantile(total, [0.05, 0.95]), 0.0, 1.0).tolist()
    mean = float(table.accuracy[mix.rows] @ mix.weights)
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
