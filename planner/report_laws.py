"""Figures of the laws beside what was measured: pass@k, step times, held-out error."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from planner.models.artifact import Cell, HoldoutRow, Laws
from planner.models.coverage import pass_at_k
from planner.models.forecast import PopulationLaw
from planner.models.latency import LatencyLaw
from planner.models.prediction import Array
from planner.options import Z90, cost_models
from planner.report_page import escape, percent
from planner.report_style import Palette, band, figure, log_axis, rgba

_BEYOND = 8  # times: curves are drawn to this many times the largest k measured


def k_grid(largest: int) -> list[int]:
    """1, 2, 3, 4, 6, 8, 12, ... up to `largest`, itself included."""
    grid = sorted({int(2**e) for e in range(30)} | {int(3 * 2**e) for e in range(29)})
    return sorted({k for k in grid if k < largest} | {largest})


def measured_coverage(samples: pd.DataFrame) -> tuple[list[int], Array, Array]:
    """Mean pass@k of one model, task and temperature, and its standard error over problems.

    k stops where fewer than nine in ten of the problems have that many draws: the mean
    would be that of another set of problems.
    """
    counts = samples.groupby("problem_id")["correct"].agg(["sum", "size"])
    c, n = counts["sum"].to_numpy(int), counts["size"].to_numpy(int)
    grid = k_grid(int(np.quantile(n, 0.1, method="lower")))
    mean, error = [], []
    for k in grid:
        values = pass_at_k(c[n >= k], n[n >= k], k)[:, 0]
        mean.append(values.mean())
        error.append(
            values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
        )
    return grid, np.array(mean), np.array(error)


def law_coverage(
    cells: Sequence[Cell], rng: np.random.Generator
) -> tuple[list[int], Array, Array, Array, int]:
    """A task's curve from the laws of its classes, weighted by their problems.

    Returns:
        k, mean, low and high of a 90 % interval, and the largest k measured.
    """
    k_max = min(cell.coverage.k_max for cell in cells)
    grid = sorted({*k_grid(k_max), *k_grid(_BEYOND * k_max)})
    total = sum(cell.n_problems for cell in cells)
    draws = sum(
        cell.n_problems
        / total
        * PopulationLaw.from_fit(cell.coverage).predict(grid, rng).draws
        for cell in cells
    )
    low, high = np.quantile(draws, [0.05, 0.95], axis=0)
    return grid, np.mean(draws, axis=0), low, high, k_max


def temperatures(laws: Laws) -> list[float]:
    """Temperatures with laws, the one with most cells first, the warmer of equals."""
    every = [cell.temperature for cell in laws.cells]
    return sorted(set(every), key=lambda t: (-every.count(t), -t))


def coverage(
    laws: Laws,
    samples: pd.DataFrame,
    task: str,
    temperature: float,
    palette: Palette,
    rng: np.random.Generator,
) -> go.Figure:
    """pass@k of every model on a task: measured, and the law; extrapolation dashed."""
    plot = figure("k, draws a problem", "pass@k")
    log_axis(plot)
    plot.update_yaxes(tickformat=".0%", range=[-0.03, 1.03])
    ticks = [4**e for e in range(10)]
    plot.update_xaxes(
        tickvals=ticks, ticktext=[f"{t:,}" for t in ticks], dtick=None, minor=None
    )
    for model in palette.models:
        colour = palette.colour(model)
        cells = [
            c
            for c in laws.cells
            if c.model == model and c.task == task and c.temperature == temperature
        ]
        # one cap a curve: a draw past the cap counts as wrong
        cells = [c for c in cells if c.max_tokens == max(x.max_tokens for x in cells)]
        if cells:
            grid, mean, low, high, k_max = law_coverage(cells, rng)
            inside = [i for i, k in enumerate(grid) if k <= k_max]
            beyond = [i for i, k in enumerate(grid) if k >= k_max]
            plot.add_trace(band(grid, low.tolist(), high.tolist(), colour))
            for part, dash in ((inside, "solid"), (beyond, "dash")):
                plot.add_trace(
                    go.Scatter(
                        x=[grid[i] for i in part],
                        y=mean[part],
                        mode="lines",
                        line={"color": colour, "width": 2, "dash": dash},
                        hoverinfo="skip",
                    )
                )
        rows = samples[
            (samples["model"] == model)
            & (samples["task"] == task)
            & np.isclose(samples["temperature"], temperature)
        ]
        if len(rows) == 0:
            continue
        ks, value, error = measured_coverage(rows)
        plot.add_trace(
            go.Scatter(
                x=ks,
                y=value,
                mode="markers",
                error_y={
                    "type": "data",
                    "array": np.nan_to_num(Z90 * error),
                    "width": 0,
                    "thickness": 1.2,
                    "color": rgba(colour, 0.7),
                },
                marker={"color": colour, "symbol": palette.symbol(model), "size": 7},
                text=[
                    f"{escape(model)}: measured pass@{k} {percent(v)}"
                    for k, v in zip(ks, value, strict=True)
                ],
                hovertemplate="%{text}<extra></extra>",
            )
        )
    return plot


def latency_laws(laws: Laws) -> dict[str, LatencyLaw]:
    """The latency law of every model that has one."""
    kept = {name: costs.latency for name, costs in cost_models(laws).items()}
    return {name: law for name, law in kept.items() if law is not None}


def typical(
    law: LatencyLaw, phase: ArrayLike, batch: ArrayLike, context: ArrayLike,
    rng: np.random.Generator,
) -> Array:  # fmt: skip
    """The law's own curve, without the spread of the fit; seconds, (n_points,)."""
    sure = replace(law, residual_sd=0.0, covariance=1e-12 * law.covariance)
    return sure.predict_step(phase, batch, context, rng).mean


def latency(
    laws: Laws,
    timings: pd.DataFrame,
    phase: str,
    palette: Palette,
    rng: np.random.Generator,
) -> go.Figure:
    """Step time against batch (decode) or batch x prompt (prefill); the law with its band.

    One context a model keeps the plot legible: the one timed at most batches.
    """
    decode = phase == "decode"
    plot = figure(
        "rows of the step" if decode else "prompt tokens of the step", "time of the step"
    )
    log_axis(plot)
    log_axis(plot, "yaxis")
    plot.update_yaxes(ticksuffix="s", minexponent=0)
    rows = timings[timings["phase"] == phase]
    fitted = latency_laws(laws)
    for model in palette.models:
        own = rows[rows["model"] == model]
        if len(own) == 0:
            continue
        colour = palette.colour(model)
        shapes = own.groupby("context_tokens")["batch"].nunique()
        context = int(shapes.index[int(np.argmax(shapes.to_numpy()))])
        shown = own[own["context_tokens"] == context]
        medians = shown.groupby("batch")["seconds"].median()
        batches = medians.index.to_numpy(int)
        scale = 1 if decode else context
        law = fitted.get(model)
        if law is not None:
            grid = np.unique(np.geomspace(1, 4 * batches.max(), 14).astype(int))
            predicted = law.predict_step(phase, grid, context, rng)
            low, high = predicted.interval()
            mean = typical(law, phase, grid, context, rng)
            measured = ~predicted.extrapolated
            x = (grid * scale).tolist()
            plot.add_trace(band(x, low.tolist(), high.tolist(), colour))
            edge = int(np.flatnonzero(measured)[-1]) if measured.any() else 0
            for part, dash in ((slice(0, edge + 1), "solid"), (slice(edge, None), "dash")):
                plot.add_trace(
                    go.Scatter(
                        x=x[part],
                        y=mean[part],
                        mode="lines",
                        hoverinfo="skip",
                        line={"color": colour, "width": 2, "dash": dash},
                    )
                )
        plot.add_trace(
            go.Scatter(
                x=batches * scale,
                y=medians.to_numpy(),
                mode="markers",
                marker={"color": colour, "symbol": palette.symbol(model), "size": 7},
                text=[
                    f"{escape(model)}, batch {b}, {context} tokens: measured "
                    f"{1e3 * s:.3g} ms"
                    for b, s in zip(batches, medians.to_numpy(), strict=True)
                ],
                hovertemplate="%{text}<extra></extra>",
            )
        )
    return plot


def latency_check(
    laws: Laws, timings: pd.DataFrame, palette: Palette, rng: np.random.Generator
) -> go.Figure:
    """Law over measurement of every shape that was timed, all contexts and batches."""
    plot = figure("measured time of the step", "law / measured")
    log_axis(plot)
    plot.update_xaxes(ticksuffix="s", minexponent=0)
    reach = 1.5
    plot.add_shape(
        type="line",
        x0=0,
        x1=1,
        xref="paper",
        y0=1,
        y1=1,
        name="fg",
        line={"width": 1, "dash": "dot"},
    )
    for model, law in latency_laws(laws).items():
        own = timings[timings["model"] == model]
        medians = own.groupby(["phase", "batch", "context_tokens"])["seconds"].median()
        if len(medians) == 0:
            continue
        shapes = medians.index.to_frame()
        predicted = typical(
            law,
            shapes["phase"].to_numpy(str),
            shapes["batch"].to_numpy(int),
            shapes["context_tokens"].to_numpy(int),
            rng,
        )
        ratio = predicted / medians.to_numpy()
        reach = max(reach, 1.1 * ratio.max(), 1.1 / ratio.min())
        plot.add_trace(
            go.Scatter(
                x=medians.to_numpy(),
                y=ratio,
                mode="markers",
                marker={
                    "color": palette.colour(model),
                    "symbol": palette.symbol(model),
                    "size": 7,
                    "opacity": 0.8,
                },
                text=[
                    f"{escape(model)} {phase}, batch {batch}, {context} tokens: law is "
                    f"{value:.2f} \u00d7 measured"
                    for (phase, batch, context), value in zip(
                        medians.index, ratio, strict=True
                    )
                ],
                hovertemplate="%{text}<extra></extra>",
            )
        )
    ticks = [
        t
        for t in (0.1, 0.2, 0.5, 0.67, 0.8, 1, 1.25, 1.5, 2, 5, 10)
        if 1 / reach <= t <= reach
    ]
    plot.update_yaxes(
        type="log",
        range=[-np.log10(reach), np.log10(reach)],
        tickvals=ticks,
        ticktext=[f"{t:g}" for t in ticks],
    )
    return plot


def holdout(rows: Sequence[HoldoutRow], palette: Palette) -> go.Figure:
    """Predicted against observed on samples the fit never saw."""
    plot = figure("predicted", "observed, held out")
    plot.update_xaxes(tickformat=".0%", range=[-0.03, 1.03])
    plot.update_yaxes(tickformat=".0%", range=[-0.03, 1.03])
    plot.add_shape(
        type="line", x0=0, y0=0, x1=1, y1=1, name="fg", line={"width": 1, "dash": "dot"}
    )
    for model in palette.models:
        own = [r for r in rows if r.model == model]
        if not own:
            continue
        colour = palette.colour(model)
        plot.add_trace(
            go.Scatter(
                x=[r.predicted for r in own],
                y=[r.observed for r in own],
                mode="markers",
                marker={"color": colour, "symbol": palette.symbol(model), "size": 7},
                error_x={
                    "type": "data",
                    "symmetric": False,
                    "thickness": 1,
                    "width": 0,
                    "color": rgba(colour, 0.45),
                    "array": [max(r.high - r.predicted, 0) for r in own],
                    "arrayminus": [max(r.predicted - r.low, 0) for r in own],
                },
                text=[
                    f"{escape(r.model)}, {escape(r.task)}, {escape(r.quantity)} at n = "
                    f"{r.n}<br>"
                    f"predicted {percent(r.predicted)} "
                    f"({100 * r.low:.1f}\u2013{100 * r.high:.1f}), "
                    f"observed {percent(r.observed)}"
                    for r in own
                ],
                hovertemplate="%{text}<extra></extra>",
            )
        )
    return plot
