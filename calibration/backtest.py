"""Backtest of coverage forecasts on counts whose end is known.

Of the n draws of every problem n_train are taken at random without replacement, the laws
are fitted to those alone, and forecast pass@k at k = n and at the powers of ten in between.
The truth is the unbiased pass@k of all draws. Our forecast sees all sets of a redraw at
once, as a user's table would be; the published laws see one set each, as published.
"""

import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from planner.calibration.counts_file import NamedCounts, SetName
from planner.models.counts import CountTable, IntArray
from planner.models.coverage import pass_at_k
from planner.models.coverage_baselines import PUBLISHED_LAWS, Observed
from planner.models.errors import FitError, InputError
from planner.models.forecast import CoverageForecast, fit_coverage
from planner.models.prediction import Array

OURS = "inferplan"
DEFAULT_SIZES = (8, 16, 32)
_CUT_SHORT = 0.5  # of a set's median draws: a problem with fewer is left out
_WIDTH_REDRAWS, _WIDTH_DOUBLINGS = 2, 8
Progress = Callable[[int, int], None]


class Row(NamedTuple):
    """One forecast, and what came true."""

    benchmark: str
    model: str
    method: str
    n_train: int
    redraw: int
    k: int
    predicted: float
    low: float | None  # of the 90 % interval; None: the method gives none
    high: float | None
    truth: float


class Width(NamedTuple):
    """Mean width of our 90 % interval of a set's expected coverage at n draws."""

    benchmark: str
    model: str
    n_train: int  # draws a problem fitted to
    n: int
    width: float


@dataclass(frozen=True)
class Backtest:
    """All forecasts, the interval widths, and what was left out and why."""

    rows: tuple[Row, ...]
    widths: tuple[Width, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Set:
    """A set whose problems all have at least n draws."""

    name: SetName
    benchmark: int
    n_correct: IntArray
    n_samples: IntArray
    problem: IntArray
    n: int  # of the problem with the fewest draws

    def points(self, n_train: int) -> list[int]:
        """Where to forecast: the powers of ten between n_train and n, and n."""
        tens = [10**e for e in range(1, 10)]
        return [*(k for k in tens if n_train < k < self.n), self.n]

    def truth(self, points: Sequence[int]) -> list[float]:
        """Unbiased pass@k of all draws, the mean over problems."""
        each = pass_at_k(self.n_correct, self.n_samples, points)
        return [float(x) for x in each.mean(axis=0)]

    def drawn(self, n_train: int, rng: np.random.Generator) -> IntArray:
        """Correct ones among n_train of each problem's draws."""
        wrong = self.n_samples - self.n_correct
        return np.asarray(rng.hypergeometric(self.n_correct, wrong, n_train), np.int64)


def backtest(
    counts: NamedCounts,
    *,
    n_train: Sequence[int] = DEFAULT_SIZES,
    redraws: int,
    seed: int,
    workers: int = 1,
    progress: Progress | None = None,
) -> Backtest:
    """Forecast every set from every training size, `redraws` times each.

    A published law has no row where it cannot be fitted; ours always has one. Widths of
    intervals are also taken at twice, four times, ... the largest size, up to all draws,
    so that what more draws buy is seen in the data.

    Args:
        counts: The sets. Problems with fewer than half of their set's median draws are
            left out and noted; n of a set is the least number of draws of the rest.
        n_train: Draws a problem to fit to; sets with no more draws are left out and noted.
        redraws: How often the training draws are drawn anew.
        seed: Of every redraw; a redraw is the same whatever else is asked for.
        workers: Processes that share the fits; the rows are the same.
        progress: Told how many fits are done, of how many.

    Raises:
        InputError: No training size leaves a set anything to forecast.
        FitError: Our fit does not converge.
    """
    sizes = sorted(set(n_train))
    if not sizes or sizes[0] < 1 or redraws < 1:
        raise InputError("a backtest needs n_train and redraws of at least 1")
    sets, notes = _sets(counts)
    most = max(s.n for s in sets)
    used = [size for size in sizes if size < most]
    if most < 2:
        raise InputError(
            "every set has a problem with a single draw: nothing is left to forecast; "
            "give at least 2 draws of every problem, better 16"
        )
    if not used:
        raise InputError(
            f"no set has more than {most} draws of every problem, so that a fit to "
            f"{sizes[0]} leaves nothing to forecast; give a smaller n_train"
        )
    for size in sizes:
        if short := [str(s.name) for s in sets if s.n <= size]:
            notes.append(f"n_train {size}: no more draws than that, skipped: {_few(short)}")
    jobs = [_Job(size, redraw, True) for size in used for redraw in range(redraws)]
    jobs += [
        _Job(size, redraw, False)
        for size in _further(used[-1], most)
        for redraw in range(min(redraws, _WIDTH_REDRAWS))
    ]
    rows: list[Row] = []
    widths: dict[tuple[SetName, int, int], list[float]] = {}
    for done, (fresh, seen) in enumerate(_carried_out(sets, jobs, seed, workers)):
        rows += fresh
        for key, width in seen:
            widths.setdefault(key, []).append(width)
        if progress is not None:
            progress(done + 1, len(jobs))
    return Backtest(
        tuple(rows),
        tuple(
            Width(*name, size, n, float(np.mean(values)))
            for (name, size, n), values in widths.items()
        ),
        tuple(notes),
    )


class _Job(NamedTuple):
    """One fit to all sets."""

    size: int
    redraw: int
    judged: bool  # else only the widths of the intervals are wanted


_Done = tuple[list[Row], list[tuple[tuple[SetName, int, int], float]]]


def _carried_out(
    sets: Sequence[_Set], jobs: Sequence[_Job], seed: int, workers: int
) -> Iterator[_Done]:
    """What each job gives, in order. Fresh processes: threads share one interpreter."""
    carry_out = partial(_carry_out, sets, seed)
    if workers == 1:
        yield from map(carry_out, jobs)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        # Ctrl-C is for this process alone, which then stops the workers. They inherit the
        # mask, so that it holds before their first line too.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            done = pool.map(carry_out, jobs)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        yield from done


def _carry_out(sets: Sequence[_Set], seed: int, job: _Job) -> _Done:
    size, redraw, judged = job
    rng = np.random.default_rng([seed, size, redraw])
    drawn = [(s, s.drawn(size, rng)) for s in sets if size < s.n + (not judged)]
    rows: list[Row] = []
    widths = []
    with threadpool_limits(1, "blas"):  # threads slow small products down
        for (s, c), forecast in zip(drawn, _fitted(drawn, size), strict=True):
            if judged:
                points = s.points(size)
                ours = forecast.predict_measured(points, s.n, rng)
                at = (size, redraw, points, s.truth(points))
                rows += _rows(s.name, OURS, *at, ours.median, *ours.interval())
                for name, mean in _published(c, size, points):
                    rows += _rows(s.name, name, *at, mean)
            if redraw < _WIDTH_REDRAWS:
                low, high = forecast.predict([s.n], rng).interval()
                widths.append(((s.name, size, s.n), float(high[0] - low[0])))
    return rows, widths


def _sets(counts: NamedCounts) -> tuple[list[_Set], list[str]]:
    """The sets, without problems that were cut short; and a note on each of those."""
    table, notes, sets = counts.table, [], []
    for cell, name in enumerate(counts.sets):
        rows = table.rows(cell)
        n = table.n_samples[rows]
        kept = rows[n >= _CUT_SHORT * np.median(n)]
        least = int(table.n_samples[kept].min())
        if len(kept) < len(rows):
            notes.append(
                f"{name}: {len(rows) - len(kept)} of {len(rows)} problems left out, with "
                f"{n.min()} draws or more where the median has {np.median(n):g}"
            )
        sets.append(
            _Set(
                name, int(table.benchmark[cell]), table.n_correct[kept],
                table.n_samples[kept], table.problem[kept], least,
            )
        )  # fmt: skip
    return sets, notes


def _further(largest: int, most: int) -> list[int]:
    """Twice, four times, ... the largest training size; all draws, if they come next."""
    sizes = [largest * 2**doubling for doubling in range(1, _WIDTH_DOUBLINGS + 1)]
    return sorted({min(size, most) for size in sizes})


def _fitted(
    drawn: Sequence[tuple[_Set, IntArray]], size: int
) -> tuple[CoverageForecast, ...]:
    """Our forecast of each set, all fitted at once."""
    groups = {g: i for i, g in enumerate(dict.fromkeys(s.benchmark for s, _ in drawn))}
    table = CountTable.of(
        np.concatenate([c for _, c in drawn]),
        size,
        cell=np.repeat(np.arange(len(drawn)), [len(c) for _, c in drawn]),
        problem=np.concatenate([s.problem for s, _ in drawn]),
        benchmark=[groups[s.benchmark] for s, _ in drawn],
    )
    return fit_coverage(table)


def _published(
    n_correct: IntArray, size: int, points: Sequence[int]
) -> Iterator[tuple[str, Array]]:
    """Forecasts of the published laws that can be fitted."""
    observed = Observed.of(n_correct, size)
    for law in PUBLISHED_LAWS:
        try:
            forecast = law.forecast(observed, points)
        except FitError:
            continue
        yield law.name, forecast


def _rows(
    name: SetName,
    method: str,
    size: int,
    redraw: int,
    points: Sequence[int],
    truth: Sequence[float],
    mean: Array,
    low: Array | None = None,
    high: Array | None = None,
) -> Iterator[Row]:
    for i, k in enumerate(points):
        yield Row(
            name.benchmark, name.model, method, size, redraw, k, float(mean[i]),
            None if low is None else float(low[i]),
            None if high is None else float(high[i]), truth[i],
        )  # fmt: skip


def _few(names: Sequence[str]) -> str:
    """The first of many names."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return "; ".join(names[:5]) + more
