"""Which problem of which cell gets the next draws, and when there are enough.

The quantity is the coverage of these very problems at k draws, the mean over cells (k = 1
is the accuracy of one draw). Under the pooled beta-binomial, problem i of a cell fails k
times with chance (1 - p_i)^k, p_i ~ Beta(a + c_i, b + n_i - c_i), and (a, b) is uncertain
too. Whether m further draws of problem i succeed at all, z_i, then takes from the variance
of the quantity Q, exactly and on average,

    Cov(Q, z_i)^2 / (P(z_i = 1) P(z_i = 0)),

which counts what z_i says of the problem and what it says of all others through (a, b).
Draws go where that falls most for a draw. A single draw of a hard problem says next to
nothing, so m runs over a ladder and the least concave majorant prices it, as in the
knowledge gradient of Frazier and Powell (2010, doi:10.1287/deca.1100.0184). With (a, b)
known and every p_i too this is the oracle of Kazdan et al. (arXiv:2510.05197, theorem 1),
b_i ~ sqrt(p_i (1 - p_i)^(2 k - 1)).

The choice looks at counts only and never at a draw to come, so likelihood fits of the
counts stay right (the design is ignorable). Plain means of n_correct / n_samples do not:
every problem gets a first stage of `first` draws that such means can be taken over.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln

from planner.models.counts import CountTable, IntArray
from planner.models.coverage import CoverageLaw, fit_pooled
from planner.models.errors import InputError
from planner.models.forecast import fit_coverage
from planner.models.prediction import Array

_ROUND = 0.5  # a round adds at most this share of the draws made: few rounds, little waste
_LEAST_ROUND = 0.05  # and at least this, so that the last stretch does not crawl
_LADDER = (1, 2, 4, 8)  # steps looked ahead
_NODES = 5  # a side, of the quadrature over (log a, log b)


@dataclass(frozen=True)
class Width:
    """The 90 % interval of one quantity, the mean over the cells of a table."""

    k: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """Width of the interval."""
        return self.high - self.low


@dataclass(frozen=True, eq=False)
class Spending:
    """The next round."""

    widest: Width  # of the quantities asked for
    add: IntArray  # (n_rows,), draws to make of each row; all 0 when done
    reached: bool  # the target width


def next_round(
    table: CountTable,
    *,
    ks: Sequence[int],
    until_width: float,
    n_max: int,
    step: int,
    rng: np.random.Generator,
) -> Spending:
    """What to draw next; nothing once every interval is narrow enough, or all drawn.

    Args:
        table: Every problem with its first stage drawn.
        ks: Coverage at each of these is to be known; the widest decides.
        until_width: Of the 90 % interval, in (0, 1).
        n_max: Most draws of a problem.
        step: Draws of a problem are added in steps of so many.
        rng: For the intervals; the choice of problems uses none.

    Raises:
        InputError: A setting out of its range.
        FitError: The counts cannot be fitted.
    """
    if not 0 < until_width < 1:
        raise InputError(f"until_width must be between 0 and 1, got {until_width:g}")
    widest = max(widths(table, ks, rng), key=lambda w: w.value)
    none = np.zeros(len(table.cell), np.int64)
    if widest.value <= until_width:
        return Spending(widest, none, True)
    made = int(table.n_samples.sum())
    share = (until_width / widest.value) ** 2
    add = allocate(
        table,
        k=widest.k,
        quota=max(int(_ROUND * made), step),
        n_max=n_max,
        step=step,
        least=max(int(_LEAST_ROUND * made), step),
        enough=1 - share,
    )
    return Spending(widest, add, False)


def widths(
    table: CountTable, ks: Sequence[int], rng: np.random.Generator
) -> tuple[Width, ...]:
    """Interval of the mean over cells of coverage at each k, by the forecast that fits use.

    Raises:
        InputError: No k, or one below 1.
        FitError: The counts cannot be fitted.
    """
    if not ks:
        raise InputError("which coverage is to be known? give at least one k")
    forecasts = fit_coverage(table)
    total = sum(forecast.predict(list(ks), rng).draws for forecast in forecasts)
    low, high = np.quantile(np.asarray(total) / len(forecasts), [0.05, 0.95], axis=0)
    return tuple(Width(*w) for w in zip(ks, low.tolist(), high.tolist(), strict=True))


def allocate(
    table: CountTable,
    *,
    k: int,
    quota: int,
    n_max: int,
    step: int,
    least: int = 0,
    enough: float = 1.0,
) -> IntArray:
    """Draws to add to each row, so that the variance of mean coverage at k falls most.

    Deterministic. Of equals, the row with fewer draws comes first, then the earlier one.

    Args:
        table: Counts so far.
        k: Of the coverage to be known.
        quota: Draws to share out; the last of them may stay unused.
        n_max: Most draws of a row, in all.
        step: Rows get whole steps, and what is left below n_max.
        least: Draws to share out even when `enough` is reached.
        enough: Share of the variance expected to go, after which to stop early.

    Raises:
        InputError: k, step or quota below 1.
        FitError: The counts cannot be fitted.
    """
    if min(k, step, quota) < 1:
        raise InputError(f"need k, step and quota >= 1, got {k}, {step} and {quota}")
    ladder = step * np.array(_LADDER)
    before = np.concatenate([[0], ladder[:-1]])
    # rows of a cell with the same counts are worth the same: price each kind once
    kinds, kind, size = np.unique(
        np.stack([table.cell, table.n_correct, table.n_samples], axis=1),
        axis=0, return_inverse=True, return_counts=True,
    )  # fmt: skip
    laws = fit_pooled(table.n_correct, table.n_samples, table.cell, table.benchmark)
    slope, variance = _slopes(kinds, size, laws, k, ladder)
    room = np.clip(n_max - kinds[:, 2, None] - before, 0, np.diff(ladder, prepend=0))
    # (kind, rung) by falling slope, ties to fewer draws; a kind's rungs stay in order, as
    # its slopes fall and the sort is stable
    flat_slope = np.where(room > 0, slope, -1.0).ravel()
    order = np.lexsort((np.repeat(kinds[:, 2], len(ladder)), -flat_slope))
    order = order[room.ravel()[order] > 0]
    of_kind, draws = order // len(ladder), room.ravel()[order]
    spent = np.cumsum(draws * size[of_kind])
    gone = np.cumsum(flat_slope[order] * draws * size[of_kind]) / max(variance, 1e-300)
    if not len(order):
        return np.zeros(len(table.cell), np.int64)
    limit = np.interp(enough, np.append(0.0, gone), np.append(0, spent))
    quota = min(quota, max(int(limit), least, 1))
    # every row of a kind, until the rung that the quota ends in
    whole = spent <= quota
    per_kind = np.bincount(of_kind[whole], draws[whole], len(kinds)).astype(np.int64)
    add = per_kind[kind.ravel()]
    left = quota - int(spent[whole][-1] if whole.any() else 0)
    if left and not whole.all():
        last = int(np.argmin(whole))
        rows = np.flatnonzero(kind.ravel() == of_kind[last])
        some = rows[: -(-left // int(draws[last]))]
        # whole rungs, but for the last row, which takes the steps that are left
        each = np.full(len(some), draws[last])
        rest = left - int(draws[last]) * (len(some) - 1)
        each[-1] = min(int(draws[last]), -(-rest // step) * step)
        add[some] += each
    return add


def _slopes(
    kinds: IntArray, size: IntArray, laws: Sequence[CoverageLaw], k: int, ladder: IntArray
) -> tuple[Array, float]:
    """Variance that a draw takes on each rung of the ladder, (kinds, rungs); and in all.

    Slopes fall along the ladder. Variance is of the mean over cells of P(k draws fail).
    """
    cell, m = kinds[:, 0], len(laws)
    shapes, weight = _nodes(laws)
    c, n = kinds[:, 1, None].astype(float), kinds[:, 2, None].astype(float)
    a, b = shapes[cell, :, 0] + c, shapes[cell, :, 1] + n - c
    fail = _all_fail(a, b, k)  # (kinds, nodes)
    problems = np.bincount(cell, size, m)
    mean = np.zeros((m, len(weight)))
    np.add.at(mean, cell, fail * size[:, None])
    mean /= problems[:, None]
    off = mean - (mean @ weight)[:, None]
    own = np.maximum(_all_fail(a, b, 2 * k) - fail**2, 0.0) @ weight
    variance = off**2 @ weight + np.bincount(cell, own * size, m) / problems**2
    gain = [np.zeros(len(kinds))]
    for draws in ladder.tolist():
        none = _all_fail(a, b, draws)
        within = (_all_fail(a, b, k + draws) - fail * none) @ weight / problems[cell]
        chance = none @ weight
        moved = within + (off[cell] * none) @ weight
        gain.append(moved**2 / np.maximum(chance * (1 - chance), 1e-300))
    rungs = np.concatenate([[0], ladder])
    curve = np.maximum.accumulate(np.stack(gain, axis=1), axis=1)
    # slope of the least concave majorant: min over starts of the best chord across a rung
    slope = np.full((len(kinds), len(ladder)), np.inf)
    for j in range(len(ladder)):
        for start in range(j + 1):
            chords = (curve[:, j + 1 :] - curve[:, start, None]) / (
                rungs[j + 1 :] - rungs[start]
            )
            slope[:, j] = np.minimum(slope[:, j], chords.max(axis=1))
    return slope / m**2, float(variance.sum()) / m**2


def _nodes(laws: Sequence[CoverageLaw]) -> tuple[Array, Array]:
    """(a, b) at the nodes of a normal quadrature, (cells, nodes, 2), and their weights."""
    z, w = np.polynomial.hermite_e.hermegauss(_NODES)
    grid = np.stack(np.meshgrid(z, z, indexing="ij"), axis=-1).reshape(-1, 2)
    weight = np.outer(w, w).ravel() / w.sum() ** 2
    factor = np.linalg.cholesky(np.stack([x.covariance for x in laws]) + 1e-15 * np.eye(2))
    centre = np.stack([law.log_shape for law in laws])[:, None]
    shape = centre + np.einsum("mij,qj->mqi", factor, grid)
    return np.exp(np.clip(shape, -20, 20)), np.asarray(weight)


def _all_fail(a: Array, b: Array, k: int) -> Array:
    """P(k draws fail) when p ~ Beta(a, b)."""
    log_fail = gammaln(b + k) - gammaln(b) - gammaln(a + b + k) + gammaln(a + b)
    return np.asarray(np.exp(np.minimum(log_fail, 0.0)))
