"""The page of `planner validate`: forecasts against what came true, by method."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from planner.models.artifact import HoldoutRow
from planner.models.files import write_atomic
from planner.report_measured import holdout_section
from planner.report_page import (
    Markup,
    bullets,
    details,
    escape,
    legend,
    page,
    panels,
    paragraph,
    percent,
    section,
    table,
    tiles,
)
from planner.report_style import NEUTRAL, Palette, figure, log_axis, name_rows, rgba
from planner.validation import (
    FLAT,
    OURS,
    SLACK,
    Errors,
    Halving,
    errors,
    halvings,
    held,
    without_success,
)

_LAWS = (
    "no extrapolation: pass@k stays at what the draws show",
    "power law exp(-A k^-B) (arXiv:2407.21787): least squares on log(-log pass@k), or on "
    "pass@k",
    "beta-binomial (arXiv:2410.16377, 2510.05197): shapes bounded by 200, or not",
    "scaled beta-binomial and Kumaraswamy-binomial (arXiv:2502.17578)",
    "zero-inflated beta-binomial",
)
_ALIKE = 0.15  # of a decade: k / n_train this close make one point of the figure


def write_validation(
    path: Path,
    *,
    title: str,
    rows: pd.DataFrame,
    widths: pd.DataFrame,
    notes: Sequence[str],
    holdout: Sequence[HoldoutRow],
    settings: str,
) -> None:
    """Write one HTML file that opens offline.

    Args:
        path: Where to.
        title: Name of the data.
        rows: Forecasts of a backtest, columns as in its JSON.
        widths: Interval widths; columns benchmark, model, n_train, n, width.
        notes: What was left out, and why.
        holdout: Held-out forecasts of a workspace's other laws; may be empty.
        settings: Redraws and seed, in words.

    Raises:
        StoreError: The file cannot be written.
    """
    scores = errors(rows)
    sizes = sorted(int(n) for n in rows["n_train"].unique())
    benchmarks = Palette(tuple(dict.fromkeys(rows["benchmark"])))
    halves = halvings(widths, sizes)
    parts = [
        ("short", "In short", _short(rows, scores, halves)),
        ("error", "Error by method", _error(rows, scores)),
        ("forecasts", "Forecast and truth", _forecasts(rows, sizes, benchmarks)),
        ("intervals", "Intervals", _intervals(rows, benchmarks)),
        ("more", "More draws", _more(widths, halves, benchmarks)),
    ]
    if holdout:
        palette = Palette(tuple(dict.fromkeys(r.model for r in holdout)))
        parts.append(("holdout", "Other laws", holdout_section(holdout, palette)))
    parts.append(("how", "How", _how(notes, settings)))
    n_sets = rows.groupby(["benchmark", "model"]).ngroups
    subtitle = (
        f"{n_sets} sets of problems in {', '.join(benchmarks.models[:6])}; {settings}. "
        "Laws fitted to a few draws of every problem, judged on all of them."
    )
    write_atomic(path, page(f"Validation: {title}", subtitle, parts))


def _short(rows: pd.DataFrame, scores: Errors, halves: Sequence[Halving]) -> Markup:
    items = []
    benchmark = scores.benchmarks[-1] if scores.of else ""  # the mean, of several
    for n, ours in zip(scores.sizes, scores.of.get((benchmark, OURS), ()), strict=True):
        name, error = scores.best_published(benchmark, n)
        items.append(
            (
                f"mean error of pass@n, from {n} draws",
                f"{100 * ours:.1f} points",
                f"best published law: {100 * error:.1f} ({name.replace('_', ' ')})",
            )
        )
    every = held(rows)
    weight = sum(h.n_forecasts for h in every)
    share = sum(h.share * h.n_forecasts for h in every) / weight
    items.append(
        (
            "90 % intervals held",
            percent(share, 0),
            f"of {weight:,} forecasts; 90 % is right",
        )
    )
    last = [h for h in halves if h.n_train == halves[-1].n_train]
    sentences = [
        f"{h.benchmark}: {h.more:,} more samples a problem than {h.n_train} would halve "
        f"the interval ({'measured on these data' if h.measured else 'by a fitted law'})."
        if h.more is not None
        else f"{h.benchmark}: the interval hardly narrows with more draws."
        for h in last
    ]
    return section("short", "In short", tiles(items), bullets(sentences))


def _error(rows: pd.DataFrame, scores: Errors) -> Markup:
    if not scores.of:
        nothing = "No redraw holds a correct draw: no published law can be fitted."
        return section("error", "Error by method", paragraph(nothing))
    sizes = scores.sizes
    shades = {n: 1 - 0.65 * i / max(len(sizes) - 1, 1) for i, n in enumerate(sizes)}
    *single, last = scores.benchmarks
    count, error = without_success(rows)
    left_out = (
        f" Not counted: {count} redraws without a correct draw, to which no published law "
        f"can be fitted; inferplan was off by {100 * error:.1f} points there."
        if count
        else ""
    )
    return section(
        "error",
        "Error by method",
        paragraph(
            "Mean distance between forecast and true pass@n, where n is all the draws "
            "there are: the mean over redraws, then over sets." + left_out
        ),
        legend(
            [
                ("circle", rgba("#0072B2", shades[n]), f"inferplan, from {n} draws")
                for n in sizes
            ]
            + [("circle", NEUTRAL, "published laws")]
        ),
        panels([(b, _error_plot(scores, b, shades)) for b in (last, *single)]),
        _error_table(scores, (last,)),
        *(
            [paragraph("~: could not be fitted to every redraw; a mean of the others.")]
            if scores.partial
            else []
        ),
        *([details("Every benchmark", _error_table(scores, single))] if single else []),
    )  # fmt: skip


def _error_table(scores: Errors, benchmarks: Sequence[str]) -> Markup:
    return table(
        ("benchmark", "method", *(f"from {n} draws" for n in scores.sizes)),
        [
            (
                b,
                m.replace("_", " ") + (" ~" if (b, m) in scores.partial else ""),
                *map(_points, values),
            )
            for (b, m), values in scores.of.items()
            if b in benchmarks
        ],
        numeric=range(2, 2 + len(scores.sizes)),
    )


def _points(value: float) -> str:
    return "\u2013" if np.isnan(value) else f"{100 * value:.1f}"


def _error_plot(scores: Errors, benchmark: str, shades: dict[int, float]) -> go.Figure:
    """One row a method; a marker an n_train, the paler the more draws."""
    plot = figure("mean |error|, points", "")
    # the flat law is off the scale; it stands in the table
    methods = [m for m in scores.methods(benchmark) if m != FLAT]
    names = [escape(m.replace("_", " ")) for m in methods]
    for at, (n, alpha) in enumerate(shades.items()):
        colours = [rgba("#0072B2" if m == OURS else NEUTRAL, alpha) for m in methods]
        values = [100 * scores.of[benchmark, m][at] for m in methods]
        plot.add_trace(
            go.Scatter(
                x=values,
                y=names,
                mode="markers",
                marker={"color": colours, "size": 11},
                text=[f"{a}, from {n} draws: {v:.1f} points"
                      for a, v in zip(names, values, strict=True)],
                hovertemplate="%{text}<extra></extra>",
            )
        )  # fmt: skip
    plot.update_xaxes(rangemode="tozero")
    name_rows(plot, names, minimum=280)
    return plot


def _forecasts(rows: pd.DataFrame, sizes: Sequence[int], palette: Palette) -> Markup:
    own = rows[(rows["method"] == OURS) & (rows["redraw"] == 0)]
    return section(
        "forecasts",
        "Forecast and truth",
        paragraph(
            "inferplan's forecasts in the first redraw, with their 90 % intervals; every "
            "set at every k. On the dotted line the forecast came true."
        ),
        legend([(palette.symbol(b), palette.colour(b), b) for b in palette.models]),
        panels(
            [
                (
                    f"From {n} draws a problem",
                    _forecast_plot(own[own["n_train"] == n], palette),
                )
                for n in sizes
            ]
        ),
    )  # fmt: skip


def _forecast_plot(rows: pd.DataFrame, palette: Palette) -> go.Figure:
    plot = figure("true pass@k", "forecast")
    plot.update_xaxes(tickformat=".0%", range=[-0.03, 1.03])
    plot.update_yaxes(tickformat=".0%", range=[-0.03, 1.03])
    plot.add_shape(
        type="line", x0=0, y0=0, x1=1, y1=1, name="fg", line={"width": 1, "dash": "dot"}
    )
    for benchmark, own in rows.groupby("benchmark", sort=False):
        colour = palette.colour(str(benchmark))
        plot.add_trace(
            go.Scatter(
                x=own["truth"].to_numpy(),
                y=own["predicted"].to_numpy(),
                mode="markers",
                marker={
                    "color": colour, "symbol": palette.symbol(str(benchmark)), "size": 7,
                },
                error_y={
                    "type": "data", "symmetric": False, "thickness": 1, "width": 0,
                    "color": rgba(colour, 0.45),
                    "array": (own["high"] - own["predicted"]).clip(lower=0).to_numpy(),
                    "arrayminus": (own["predicted"] - own["low"]).clip(lower=0).to_numpy(),
                },
                text=[
                    f"{escape(benchmark)}, {escape(model)}<br>pass@{k:,}: forecast "
                    f"{percent(mean)} ({100 * low:.1f}\u2013{100 * high:.1f}), "
                    f"came out {percent(truth)}"
                    for model, k, mean, low, high, truth in zip(
                        own["model"], own["k"], own["predicted"], own["low"], own["high"],
                        own["truth"], strict=True,
                    )
                ],
                hovertemplate="%{text}<extra></extra>",
            )
        )  # fmt: skip
    return plot


def _intervals(rows: pd.DataFrame, palette: Palette) -> Markup:
    return section(
        "intervals",
        "Intervals: how often they held",
        paragraph(
            "The share of forecasts whose 90 % interval holds the truth, by how far k lies "
            "beyond the draws fitted to. Redraws of a set share its problems: few sets "
            "make a rough share. Shaded: 85 to 95 %."
        ),
        legend([(palette.symbol(b), palette.colour(b), b) for b in palette.models]),
        panels([("Held, by extrapolation", _held_plot(rows, palette))], wide=True),
        table(
            ("extrapolation", "forecasts", "sets", "held"),
            [
                (h.factor, f"{h.n_forecasts:,}", f"{h.n_sets}", percent(h.share, 0))
                for h in held(rows)
            ],
            numeric=(1, 2, 3),
        ),
    )


def _held_plot(rows: pd.DataFrame, palette: Palette) -> go.Figure:
    plot = figure("k / draws fitted to", "intervals that held")
    log_axis(plot)
    plot.update_yaxes(tickformat=".0%", range=[-0.03, 1.05])
    plot.add_shape(
        type="rect", x0=0, x1=1, xref="paper", y0=0.85, y1=0.95,
        fillcolor=rgba(NEUTRAL, 0.25), line={"width": 0}, layer="below",
    )  # fmt: skip
    own = rows[rows["method"] == OURS].copy()
    own["held"] = (own["low"] <= own["truth"] + SLACK) & (
        own["truth"] <= own["high"] + SLACK
    )
    own["factor"] = own["k"] / own["n_train"]
    own["step"] = (np.log10(own["factor"]) / _ALIKE).round()
    for benchmark, mine in own.groupby("benchmark", sort=False):
        points = mine.groupby("step").agg(
            factor=("factor", "median"), held=("held", "mean"), n=("held", "size")
        )
        plot.add_trace(
            go.Scatter(
                x=points["factor"].to_numpy(),
                y=points["held"].to_numpy(),
                mode="lines+markers",
                line={"color": rgba(palette.colour(str(benchmark)), 0.5), "width": 1.2},
                marker={
                    "color": palette.colour(str(benchmark)),
                    "symbol": palette.symbol(str(benchmark)),
                    "size": 8,
                },
                text=[
                    f"{escape(benchmark)}: {percent(share, 0)} of {n:.0f} forecasts at "
                    f"{factor:.3g} times the draws"
                    for factor, share, n in points.to_numpy(float)
                ],
                hovertemplate="%{text}<extra></extra>",
            )
        )
    return plot


def _more(widths: pd.DataFrame, halves: Sequence[Halving], palette: Palette) -> Markup:
    plot = figure("draws a problem fitted to", "width of the interval")
    log_axis(plot)
    log_axis(plot, "yaxis")
    for benchmark, own in widths.groupby("benchmark", sort=False):
        mean = own.groupby("n_train")["width"].mean()
        colour = palette.colour(str(benchmark))
        plot.add_trace(
            go.Scatter(
                x=mean.index.to_numpy(),
                y=mean.to_numpy(),
                mode="lines+markers",
                line={"color": colour, "width": 1.5},
                marker={
                    "color": colour, "symbol": palette.symbol(str(benchmark)), "size": 8,
                },
                text=[f"{escape(benchmark)}: {100 * w:.1f} points wide from {n} draws"
                      for n, w in mean.items()],
                hovertemplate="%{text}<extra></extra>",
            )
        )  # fmt: skip
    return section(
        "more",
        "What more draws buy",
        paragraph(
            "Width of inferplan's 90 % interval of the coverage expected at n draws, the "
            "mean over sets, against the draws a problem it was fitted to."
        ),
        legend([(palette.symbol(b), palette.colour(b), b) for b in palette.models]),
        panels([("Width of the interval", plot)], wide=True),
        table(
            ("benchmark", "draws now", "width now", "more to halve it", "known from"),
            [
                (
                    h.benchmark,
                    f"{h.n_train}",
                    f"{100 * h.width:.1f} points",
                    "\u2013" if h.more is None else f"{h.more:,}",
                    "the width hardly falls"
                    if h.more is None
                    else ("measured on these data" if h.measured else "a fitted law"),
                )
                for h in halves
            ],
            numeric=(1, 2, 3),
        ),
    )


def _how(notes: Sequence[str], settings: str) -> Markup:
    parts = [
        paragraph(
            "From every problem's draws a few are taken at random without replacement; "
            "inferplan is fitted to those of all sets at once, each published law to "
            "those of one set. All forecast pass@k of the same problems at n and at the "
            "powers of ten between. The truth is the unbiased estimate of pass@k "
            "(arXiv:2107.03374) from all draws. "
            f"{settings.capitalize()}."
        ),
        details("The published laws", bullets(_LAWS)),
    ]
    if notes:
        parts += [paragraph("Left out:"), bullets(notes)]
    return section("how", "How this was judged", *parts)
