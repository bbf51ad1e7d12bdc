"""What a backtest says: error by method, how often intervals held, what more draws buy.

Means are over the redraws of a set, then over sets, then over benchmarks, so that no set
counts for more than another because it was redrawn or forecast more often.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from planner.models.errors import NotMeasuredError

OURS, FLAT = "inferplan", "no_extrapolation"
MACRO = "mean of benchmarks"
SLACK = 1e-9  # an observed 1.0 against a bound of 1.0 that was summed otherwise
_SET = ["benchmark", "model"]
_REDRAW = [*_SET, "n_train", "redraw"]
_FACTORS = ((3.0, "up to 3x"), (30.0, "about 10x"), (300.0, "about 100x"))
_BEYOND = "about 1000x and more"
_LEAST_SLOPE = 0.1  # halving then takes a thousandfold; a flatter width is not extrapolated


@dataclass(frozen=True)
class Errors:
    """Mean |error| of pass@n."""

    sizes: tuple[int, ...]  # draws a problem fitted to
    of: dict[tuple[str, str], tuple[float, ...]]  # (benchmark, method): one a size, or NaN
    partial: frozenset[tuple[str, str]]  # could not be fitted to some of those redraws

    @property
    def benchmarks(self) -> tuple[str, ...]:
        """Their mean last, where there are several."""
        return tuple(dict.fromkeys(benchmark for benchmark, _ in self.of))

    def methods(self, benchmark: str) -> tuple[str, ...]:
        """Ours first."""
        return tuple(m for b, m in self.of if b == benchmark)

    def best_published(self, benchmark: str, size: int) -> tuple[str, float]:
        """The published law with the least error, and that error.

        Raises:
            NotMeasuredError: None could be fitted.
        """
        at = self.sizes.index(size)
        known = {
            m: error[at] for (b, m), error in self.of.items()
            if b == benchmark and m != OURS and not np.isnan(error[at])
        }  # fmt: skip
        if not known:
            raise NotMeasuredError(f"{benchmark}: no published law fits {size} draws")
        return min(known.items(), key=lambda item: item[1])


class Held(NamedTuple):
    """How often our 90 % intervals held the truth at one extrapolation."""

    factor: str
    n_forecasts: int
    n_sets: int
    share: float  # mean over sets


class Halving(NamedTuple):
    """How many more draws a problem halve the width of our interval of coverage at n."""

    benchmark: str
    n_train: int
    width: float  # now, mean over sets
    more: int | None  # None: no number of draws that the data speak of
    measured: bool  # the halved width was seen; else it is the fitted law's


def at_the_end(rows: pd.DataFrame) -> pd.DataFrame:
    """Forecasts at k = n only.

    Args:
        rows: Columns as in a backtest's JSON.
    """
    return rows[rows["k"] == rows.groupby(_SET)["k"].transform("max")]


def with_success(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of redraws with a correct draw: those that published laws can be fitted to."""
    fitted = ~rows["method"].isin([OURS, FLAT])
    seen = rows.loc[fitted, _REDRAW].drop_duplicates()
    return rows.merge(seen, on=_REDRAW)


def errors(rows: pd.DataFrame) -> Errors:
    """Mean |error| of pass@n of every method, on redraws with a correct draw."""
    judged = with_success(at_the_end(rows))
    keys = ["benchmark", "method", "n_train"]
    error = (judged["predicted"] - judged["truth"]).abs()
    of_set = error.groupby([judged[c] for c in [*_SET, "method", "n_train"]]).mean()
    table = of_set.groupby(keys).mean().unstack("n_train")
    count = judged.groupby(keys).size().unstack("n_train")
    benchmarks = list(dict.fromkeys(judged["benchmark"]))
    methods = [OURS, *(m for m in dict.fromkeys(judged["method"]) if m != OURS)]
    if len(benchmarks) > 1:
        by_method = table.groupby("method")
        known = by_method.count()  # a mean of fewer benchmarks is another quantity
        macro = by_method.mean().where(known.eq(known.loc[OURS]))
        total = count.groupby("method").sum()
        for part in (macro, total):
            part.index = pd.MultiIndex.from_product([[MACRO], part.index])
        table, count = pd.concat([table, macro]), pd.concat([count, total])
        benchmarks.append(MACRO)
    values, counts = _by_pair(table), _by_pair(count.reindex(table.index))
    pairs = [(b, m) for b in benchmarks for m in methods if (b, m) in values]
    return Errors(
        tuple(int(n) for n in table.columns),
        {pair: values[pair] for pair in pairs},
        frozenset(p for p in pairs if np.any(np.less(counts[p], counts[p[0], OURS]))),
    )


def _by_pair(table: pd.DataFrame) -> dict[tuple[str, str], tuple[float, ...]]:
    return {
        (str(key[0]), str(key[1])): tuple(map(float, row))
        for key, row in zip(table.index.tolist(), table.to_numpy(float), strict=True)
    }


def without_success(rows: pd.DataFrame) -> tuple[int, float]:
    """Redraws of sets without a correct draw: how many, and our mean |error| there."""
    own = at_the_end(rows)
    own = own[own["method"] == OURS]
    seen = with_success(at_the_end(rows))
    seen = seen.loc[seen["method"] == OURS, _REDRAW]
    left = own.merge(seen, on=_REDRAW, how="left", indicator=True)
    left = left[left["_merge"] == "left_only"]
    error = (left["predicted"] - left["truth"]).abs()
    return len(left), float(error.mean()) if len(left) else 0.0


def held(rows: pd.DataFrame) -> tuple[Held, ...]:
    """How often our intervals held, by how far k lies beyond the draws fitted to."""
    own = rows[rows["method"] == OURS]
    inside = (own["low"] <= own["truth"] + SLACK) & (own["truth"] <= own["high"] + SLACK)
    label = own["k"].div(own["n_train"]).map(factor_name)
    return tuple(
        Held(name, int(mine.sum()), int(own[mine].groupby(_SET).ngroups),
             float(inside[mine].groupby([own[mine][c] for c in _SET]).mean().mean()))
        for name in [*(n for _, n in _FACTORS), _BEYOND]
        if (mine := label == name).any()
    )  # fmt: skip


def factor_name(factor: float) -> str:
    """Which class of extrapolation k / n_train falls into."""
    return next((name for most, name in _FACTORS if factor <= most), _BEYOND)


def halvings(widths: pd.DataFrame, sizes: Sequence[int]) -> tuple[Halving, ...]:
    """What halves the interval of every benchmark, from each of the sizes.

    Args:
        widths: Columns benchmark, model, n_train, n, width.
        sizes: Training sizes that were asked for; `widths` may hold larger ones too.
    """
    return tuple(
        _halving(str(benchmark), own, size)
        for benchmark, own in widths[widths["width"] > 0].groupby("benchmark", sort=False)
        for size in sizes
        if (own["n_train"] == size).any()
    )


def _halving(benchmark: str, widths: pd.DataFrame, size: int) -> Halving:
    table = widths.pivot_table(index="model", columns="n_train", values="width")
    table = table[table[size].notna()]
    now = float(table[size].mean())
    # ratios within a set, so that sets that end early do not change the mix
    ratio = np.log(table.div(table[size], axis=0)).mean()
    n = np.log(np.asarray(ratio.index, dtype=float))
    y, target = ratio.to_numpy(float), -np.log(2)
    beyond = np.flatnonzero((n > np.log(size)) & (y <= target))
    if len(beyond):
        j = int(beyond[0])
        at = np.interp(-target, [-y[j - 1], -y[j]], [n[j - 1], n[j]])
        return Halving(benchmark, size, now, round(float(np.exp(at))) - size, True)
    slope = -float(np.polyfit(n, y, 1)[0]) if len(n) > 1 else 0.0
    if slope < _LEAST_SLOPE:
        return Halving(benchmark, size, now, None, False)
    return Halving(benchmark, size, now, round(size * (2 ** (1 / slope) - 1)), False)
