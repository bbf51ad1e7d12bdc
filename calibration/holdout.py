"""How far the laws are off: fitted to a part of the measurements, judged on the rest."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from planner.calibration.cells import Measured, fit_cells
from planner.calibration.draws import DrawTable, IntArray
from planner.models.artifact import Cell, HoldoutRow
from planner.models.counts import CountTable
from planner.models.coverage import none_correct, pass_at_k
from planner.models.curves import ProblemCurves
from planner.models.errors import FitError
from planner.models.forecast import PopulationLaw, fit_coverage
from planner.models.latency import LatencyLaw
from planner.models.lengths import Recorded
from planner.models.prediction import Array, Prediction
from planner.models.shapes import P, Shapes

_DRAWS = 400  # of the predictive distribution
_EARLY_SHARE = 4  # forecasts in k are fitted to one draw in four
_LEAST_DRAWS = 8  # of a problem, for such a forecast to mean anything
_MIN_HALF = 4  # problems a half


def fresh_problems(
    measured: Sequence[Measured], n_problems: int, rng: np.random.Generator
) -> list[HoldoutRow]:
    """Fit to half of each task's problems, predict the other half; classes pooled.

    The interval is of what the judged problems show: it holds their number and, for
    coverage, the number of their draws.

    Args:
        measured: Under the largest cap only.
        n_problems: Problems in all; DrawTable.problem indexes them.
        rng: For the halves, and the predictive draws.
    """
    fitted_half = np.full(n_problems, -1, dtype=np.int64)
    for task in sorted({m.table.task for m in measured}):
        of_task = np.unique(
            np.concatenate([m.table.problem for m in measured if m.table.task == task])
        )
        fitted_half[rng.permutation(of_task)[: len(of_task) // 2]] = 0
    judged = [(m, np.flatnonzero(fitted_half[m.table.problem] < 0)) for m in measured]
    enough = [
        (m, rows) for m, rows in judged
        if min(len(rows), len(m.table.problem) - len(rows)) >= _MIN_HALF
    ]  # fmt: skip
    cells = fit_cells([m for m, _ in enough], fitted_half, rng)
    rows: list[HoldoutRow] = []
    for cell, (m, others) in zip(cells, enough, strict=True):
        fitted = np.flatnonzero(fitted_half[m.table.problem] >= 0)
        rows += _judge_coverage(cell, m.recorded.rows(others), rng)
        for curve in cell.curves:
            if (own := m.compared.get(curve.strategy)) is None:
                continue
            rows += _judge_curve(cell, curve.strategy, own, fitted, others)
    return rows


def further_draws(
    tables: Sequence[DrawTable], rng: np.random.Generator
) -> list[HoldoutRow]:
    """Fit coverage to the first quarter of the draws, forecast pass@n on all of them."""
    long = [
        t for t in tables
        if t.recorded.n_samples.min() >= _LEAST_DRAWS and t.temperature > 0
    ]  # fmt: skip
    if not long:
        return []
    parts = [
        t.recorded.first(int(t.recorded.n_samples.min()) // _EARLY_SHARE) for t in long
    ]
    # draws at several temperatures are different draws: all tables of a task are paired
    tasks = {task: g for g, task in enumerate(sorted({t.task for t in long}))}
    counts = CountTable.of(
        np.concatenate([part.n_correct for part in parts]),
        np.concatenate([part.n_samples for part in parts]),
        cell=np.repeat(np.arange(len(long)), [len(t.problem) for t in long]),
        problem=np.concatenate([t.problem for t in long]),
        benchmark=[tasks[t.task] for t in long],
    )
    rows = []
    for table, forecast in zip(long, fit_coverage(counts), strict=True):
        n = int(table.recorded.n_samples.min())
        solved = table.recorded.first(n).n_correct > 0
        draws = forecast.predict_measured(n, n, rng, size=_DRAWS).draws[:, 0]
        rows.append(
            _row(
                table, "coverage_further_draws", n, draws, float(solved.mean()), len(solved)
            )
        )
    return rows


def held_out_timings(
    timings: pd.DataFrame, law_of: dict[str, LatencyLaw], rng: np.random.Generator
) -> list[HoldoutRow]:
    """Fit each model's latency law to two thirds of the timed shapes, predict the others.

    Args:
        timings: Columns as in records.Timing.
        law_of: The law fitted to all of a model's timings; says machine and ceilings.
        rng: For the split.
    """
    rows = []
    for model, whole in law_of.items():
        own = timings[(timings["model"] == model) & (timings["machine"] == whole.machine)]
        shapes = own.groupby(["phase", "batch", "context_tokens"])["seconds"]
        table = shapes.agg(["median", "size"]).reset_index()
        out = rng.random(len(table)) < 1 / 3
        key = ["phase", "batch", "context_tokens"]
        kept = own.merge(table.loc[~out, key], on=key)
        try:
            law = LatencyLaw.fit(
                kept["phase"].to_numpy(), kept["batch"].to_numpy(),
                kept["context_tokens"].to_numpy(), kept["seconds"].to_numpy(),
                architecture=whole.architecture, machine=whole.machine,
                flop_per_s=whole.flop_per_s, bytes_per_s=whole.bytes_per_s,
                source=whole.source,
            )  # fmt: skip
        except FitError:
            continue  # too few shapes to do without some; the law of all of them stands
        judged = table[out]
        if not len(judged):
            continue
        predicted = law.predict_step(
            judged["phase"].to_numpy(), judged["batch"].to_numpy(),
            judged["context_tokens"].to_numpy(), rng,
        )  # fmt: skip
        low, high = predicted.interval()
        rows += [
            HoldoutRow(
                model=model, task="", quantity="latency", n=int(batch),
                predicted=float(mean), low=float(lo), high=float(hi),
                observed=float(seconds), n_problems=int(repeats),
            )
            for batch, mean, lo, hi, seconds, repeats in zip(
                judged["batch"], predicted.mean, low, high, judged["median"],
                judged["size"], strict=True,
            )
        ]  # fmt: skip
    return rows


def _judge_coverage(
    cell: Cell, judged: Recorded, rng: np.random.Generator
) -> list[HoldoutRow]:
    """Pass@k of the judged problems against draws of just such problems from the law."""
    n = judged.n_samples
    grid = [k for k in (1, 2, 4, 8, 16, 32, 64, 128) if k <= n.min()]
    observed = pass_at_k(judged.n_correct, n, grid).mean(axis=0)
    rates = _rates(PopulationLaw.from_fit(cell.coverage), len(n), rng)
    count = rng.binomial(n, rates)
    # pass@k of every possible count, then looked up
    tables = {
        int(m): 1 - none_correct(
            np.arange(m + 1.0), np.full(int(m) + 1, float(m)), np.asarray(grid, dtype=float)
        )
        for m in np.unique(n)
    }  # fmt: skip
    each = np.stack([tables[int(m)][count[:, i]] for i, m in enumerate(n)], axis=1)
    draws = each.mean(axis=1)  # (n_draws, n_k)
    return [
        _row(cell, "coverage", k, draws[:, j], float(observed[j]), len(n))
        for j, k in enumerate(grid)
    ]


def _rates(law: PopulationLaw, n_problems: int, rng: np.random.Generator) -> Array:
    """Success rates of problems that the law may stand for, (n_draws, n_problems)."""
    shapes = Shapes.of(law.theta[rng.integers(len(law.theta), size=_DRAWS)])
    upto = np.cumsum(np.column_stack([shapes.hopeless, shapes.weight]), axis=1)
    rates = np.concatenate([[0.0], P])
    at = [np.searchsorted(row, rng.random(n_problems) * row[-1]) for row in upto]
    return np.asarray(rates[np.array(at)])


def _judge_curve(
    cell: Cell, strategy: str, own: ProblemCurves, fitted: IntArray, judged: IntArray
) -> list[HoldoutRow]:
    """Accuracy of a strategy on the judged problems against the cell's curve."""
    curve = next(c for c in cell.curves if c.strategy == strategy)
    rows = []
    for j, n in enumerate(curve.n):
        seen = own.accuracy[fitted, j]
        # one more problem, of the largest variance: seen alike need not mean all alike
        between = (((seen - seen.mean()) ** 2).sum() + 0.25) / (len(seen) + 1)
        sd = float(np.hypot(curve.accuracy_sd[j], np.sqrt(between / len(judged))))
        mean = curve.accuracy[j]
        rows.append(
            HoldoutRow(
                model=cell.model, task=cell.task, quantity=strategy, n=n, predicted=mean,
                low=max(mean - 1.645 * sd, 0.0), high=min(mean + 1.645 * sd, 1.0),
                observed=float(own.accuracy[judged, j].mean()), n_problems=len(judged),
            )
        )  # fmt: skip
    return rows


def _row(
    of: Cell | DrawTable,
    quantity: str,
    n: int,
    draws: Array,
    observed: float,
    n_problems: int,
) -> HoldoutRow:
    prediction = Prediction(draws[:, None], "1", np.zeros(1, dtype=bool))
    low, high = prediction.interval()
    return HoldoutRow(
        model=of.model, task=of.task, quantity=quantity, n=n,
        predicted=float(prediction.mean[0]), low=float(low[0]), high=float(high[0]),
        observed=observed, n_problems=n_problems,
    )  # fmt: skip
