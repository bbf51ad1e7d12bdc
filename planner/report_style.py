"""What the report's figures share: one colour a model, axes, bands, names of rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from planner.options import Z90
from planner.plan import Plan
from planner.report_page import escape

# Okabe and Ito's colours that stand on light and dark; told apart without red-green vision.
_COLOURS = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#D55E00",
    "#8C8C8C",
    "#B8A900",
)
_SYMBOLS = (
    "circle",
    "square",
    "diamond",
    "triangle-up",
    "pentagon",
    "cross",
    "star",
    "hexagon",
)
ACHIEVED, PROMISED, NEUTRAL = "#D55E00", "#0072B2", "#8C8C8C"
BASELINES = {
    "single_best_model": "best single model, once a prompt",
    "uniform_best_of_n": "one fixed setting for every prompt",
}


@dataclass(frozen=True)
class Palette:
    """Colour and marker of each model."""

    models: tuple[str, ...]

    def colour(self, model: str) -> str:
        """Hex colour; grey for a model nobody announced."""
        at = self._at(model)
        return NEUTRAL if at is None else _COLOURS[at % len(_COLOURS)]

    def symbol(self, model: str) -> str:
        """Plotly marker; a second round of colours gets other markers."""
        at = self._at(model)
        shift = 0 if at is None else at + at // len(_COLOURS)
        return _SYMBOLS[shift % len(_SYMBOLS)]

    def of_label(self, label: str) -> str | None:
        """The model whose name starts an option's label; the longest that fits."""
        fitting = [m for m in self.models if label == m or label.startswith(f"{m} ")]
        return max(fitting, key=len, default=None)

    def _at(self, model: str) -> int | None:
        return self.models.index(model) if model in self.models else None


def figure(x: str, y: str, **layout: Any) -> go.Figure:
    """An empty plot with its axes named; colours are set when the page opens."""
    axis = {
        "showline": True,
        "ticks": "outside",
        "ticklen": 4,
        "automargin": True,
        "zeroline": False,
    }
    return go.Figure(
        layout={
            "template": go.layout.Template(),
            "margin": {"l": 56, "r": 14, "t": 10, "b": 48},
            "font": {
                "size": 13,
                "family": "system-ui, -apple-system, 'Segoe UI', sans-serif",
            },
            "xaxis": {**axis, "title": {"text": x, "standoff": 8}},
            "yaxis": {**axis, "title": {"text": y, "standoff": 8}},
            "showlegend": False,
            "hovermode": "closest",
            **layout,
        }
    )


def rgba(colour: str, alpha: float) -> str:
    """A hex colour made translucent."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"


def band(
    x: Sequence[float], low: Sequence[float], high: Sequence[float], colour: str
) -> go.Scatter:
    """A shaded interval."""
    return go.Scatter(
        x=[*x, *reversed(x)],
        y=[*high, *reversed(low)],
        fill="toself",
        fillcolor=rgba(colour, 0.18),
        line={"width": 0},
        hoverinfo="skip",
        mode="lines",
    )


def log_axis(figure: go.Figure, axis: str = "xaxis") -> None:
    """A logarithmic axis with ticks at powers of ten and plain SI labels."""
    figure.update_layout(
        {
            axis: {
                "type": "log",
                "dtick": 1,
                "exponentformat": "SI",
                "minor": {"ticks": "outside", "ticklen": 2},
            }
        }
    )


def wilson(correct: int, n: int) -> tuple[float, float]:
    """90 % interval of a share (Wilson 1927); holds up at 0 and at n."""
    share, z2 = correct / n, Z90**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z90 / (1 + z2 / n) * (share * (1 - share) / n + z2 / (4 * n * n)) ** 0.5
    return max(0.0, centre - half), min(1.0, centre + half)


def arm_name(arm: str) -> str:
    """A baseline as a reader would call it."""
    return "planner" if arm == "planner" else BASELINES.get(arm, arm.replace("_", " "))


def arm_symbol(arm: str) -> str:
    """Marker of what an arm achieved."""
    symbols = {"planner": "star", "single_best_model": "x", "uniform_best_of_n": "cross"}
    return symbols.get(arm, "hourglass")


def group_name(task: str, difficulty: int) -> str:
    """A row's label."""
    return f"{escape(task)} {difficulty}"


def wrapped(text: str, width: int = 18) -> str:
    lines, line = [], ""
    for word in text.split():
        if line and len(line) + len(word) >= width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return "\n".join([*lines, line])


def name_rows(plot: go.Figure, names: Sequence[str], minimum: int = 300) -> None:
    """A horizontal plot: first row on top, high enough for every row."""
    plot.update_yaxes(
        type="category",
        categoryorder="array",
        categoryarray=list(reversed(names)),
        showgrid=False,
    )
    plot.update_layout(height=max(minimum, 26 * len(names) + 80))


def models_of(plan: Plan | None, announced: Sequence[str]) -> tuple[str, ...]:
    """Every model the report may show, the announced ones first."""
    seen = dict.fromkeys(announced)
    for group in plan.groups if plan is not None else ():
        forecasts = [*group.front, *(s.forecast for s in group.choices)]
        seen.update(dict.fromkeys(f.option.model for f in forecasts))
    return tuple(seen)


def model_legend(
    palette: Palette, used: Mapping[str, object] | None = None
) -> list[tuple[str, str, str]]:
    """Legend entries of the models."""
    return [
        (palette.symbol(m), palette.colour(m), m)
        for m in palette.models
        if used is None or m in used
    ]
