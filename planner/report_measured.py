"""The report's sections on what was measured: pass@k, step times, held-out error."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from planner.models.artifact import HoldoutRow, Laws
from planner.report_laws import (
    coverage,
    holdout,
    latency,
    latency_check,
    latency_laws,
    temperatures,
)
from planner.report_page import (
    Markup,
    details,
    legend,
    panels,
    paragraph,
    percent,
    section,
    table,
)
from planner.report_style import NEUTRAL, Palette, model_legend


def coverage_section(
    laws: Laws, samples: pd.DataFrame, palette: Palette, rng: np.random.Generator
) -> Markup:
    tasks = [law.task for law in laws.tasks]

    def of(temperature: float) -> Markup:
        return panels(
            [(t, coverage(laws, samples, t, temperature, palette, rng)) for t in tasks]
        )

    first, *rest = temperatures(laws) or [1.0]
    return section(
        "coverage",
        "pass@k: measured, and the fitted law",
        paragraph(
            "The share of problems that at least one of k draws solves: what a perfect "
            "verifier "
            f"could reach. Draws at temperature {first:g}. Points: the unbiased "
            "estimator, with a "
            "90 % interval over problems. Lines: the law with its 90 % band."
        ),
        legend(
            [
                *model_legend(palette),
                ("line", NEUTRAL, "law, within what was measured"),
                ("dash", NEUTRAL, "law, extrapolated"),
                ("band", NEUTRAL, "90 % band"),
            ]
        ),
        of(first),
        *(details(f"At temperature {t:g}", of(t)) for t in rest),
    )


def latency_section(
    laws: Laws, timings: pd.DataFrame, palette: Palette, rng: np.random.Generator
) -> Markup:
    title = "Step times: measured, and the latency law"
    if len(timings) == 0:
        return section(
            "latency",
            title,
            paragraph("No timings were measured, so that no cost in seconds is known."),
        )
    plots = [
        (f"{phase.capitalize()}, one step", latency(laws, timings, phase, palette, rng))
        for phase in ("decode", "prefill")
        if (timings["phase"] == phase).any()
    ]
    fitted = latency_laws(laws)
    if fitted:
        plots.append(
            (
                "Law over measurement, every shape",
                latency_check(laws, timings, palette, rng),
            )
        )
    rows = [
        (
            model,
            f"{law.n_points}",
            f"\u00d7/\u00f7 {np.exp(law.residual_sd):.2f}",
            f"{law.batch_max}",
            f"{law.context_max:,}",
            law.machine,
        )
        for model, law in fitted.items()
    ]
    columns = (
        "model",
        "shapes timed",
        "typical misfit",
        "largest batch",
        "longest context",
        "machine",
    )
    return section(
        "latency",
        title,
        paragraph(
            "Points are medians over repeats; the band holds 90 % of shapes, the law's own "
            "misfit included. Every model is shown at the context timed at most batches."
        ),
        legend(
            [
                *model_legend(palette),
                ("line", NEUTRAL, "law"),
                ("dash", NEUTRAL, "law, extrapolated"),
                ("band", NEUTRAL, "90 % band"),
            ]
        ),
        panels(plots),
        table(columns, rows, numeric=(1, 2, 3, 4))
        if rows
        else paragraph("No latency law was fitted."),
    )


def holdout_section(rows: Sequence[HoldoutRow], palette: Palette) -> Markup:
    title = "Held-out error: how far the laws were off"
    if not rows:
        return section("holdout", title, paragraph("No samples were held out of the fit."))
    shares = [r for r in rows if r.quantity != "latency"]
    summary = []
    for quantity in dict.fromkeys(r.quantity for r in rows):
        for model in (
            *dict.fromkeys(r.model for r in rows if r.quantity == quantity),
            None,
        ):
            own = [r for r in rows if r.quantity == quantity and model in (None, r.model)]
            within = np.mean([r.low <= r.observed <= r.high for r in own])
            if quantity == "latency":
                error = np.mean([abs(r.predicted / r.observed - 1) for r in own])
                off, bias = f"{percent(float(error))} of the time", "\u2013"
            else:
                error = np.mean([abs(r.predicted - r.observed) for r in own])
                off = f"{100 * error:.1f} points"
                bias = (
                    f"{100 * np.mean([r.predicted - r.observed for r in own]):+.1f} points"
                )
            summary.append(
                (
                    quantity.replace("_", " "),
                    model or "all models",
                    f"{len(own)}",
                    off,
                    bias,
                    percent(float(within), 0),
                )
            )
    every = [
        (
            r.model,
            r.task,
            r.quantity.replace("_", " "),
            f"{r.n}",
            f"{r.predicted:.3g}",
            f"{r.low:.3g}\u2013{r.high:.3g}",
            f"{r.observed:.3g}",
            f"{r.n_problems}",
        )
        for r in rows
    ]
    return section(
        "holdout",
        title,
        paragraph(
            "Laws fitted to a part of the measurements, judged on the rest. An honest 90 % "
            "interval holds about 90 % of what was observed."
        ),
        legend([*model_legend(palette), ("dash", "var(--fg)", "predicted = observed")]),
        panels(
            [("Shares: predicted against observed", holdout(shares, palette))]
            if shares
            else []
        ),
        table(
            ("quantity", "model", "rows", "mean absolute error", "bias", "inside 90 %"),
            summary,
            numeric=(2, 3, 4, 5),
        ),
        details(
            "Every held-out row",
            table(
                (
                    "model",
                    "task",
                    "quantity",
                    "n",
                    "predicted",
                    "90 %",
                    "observed",
                    "problems",
                ),
                every,
                numeric=(3, 4, 5, 6, 7),
            ),
        ),
    )
