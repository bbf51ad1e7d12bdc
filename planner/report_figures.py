"""Figures of a plan and of what it achieved."""

import plotly.graph_objects as go

from planner.outcome import Outcome
from planner.plan import Forecast, Plan
from planner.report_page import amount, escape, percent, unit_label
from planner.report_style import (
    ACHIEVED,
    PROMISED,
    Palette,
    arm_name,
    arm_symbol,
    band,
    figure,
    group_name,
    log_axis,
    name_rows,
    rgba,
    wilson,
    wrapped,
)


def _option_text(forecast: Forecast, unit: str) -> str:
    mean, cost = forecast.accuracy, forecast.cost.get(unit)
    spent = "" if cost is None else f"<br>{amount(cost, unit)} a prompt"
    beyond = "<br>extrapolated" if forecast.extrapolated else ""
    return (
        f"{escape(forecast.option)}<br>accuracy {percent(mean.mean)} "
        f"({100 * mean.low:.1f}\u2013{100 * mean.high:.1f}){spent}{beyond}"
    )


def frontier(plan: Plan, outcome: Outcome | None, palette: Palette) -> go.Figure:
    """Accuracy against spend: the planner, uniform options, what was achieved."""
    unit = plan.budget_unit
    plot = figure(f"spend a prompt [{unit_label(unit)}]", "accuracy, all prompts")
    log_axis(plot)
    plot.update_yaxes(tickformat=".0%")
    own = sorted(
        (p for p in plan.frontier if p.label == "planner"), key=lambda p: p.cost_per_prompt
    )
    if own:
        x = [p.cost_per_prompt for p in own]
        plot.add_trace(
            band(
                x, [p.accuracy.low for p in own], [p.accuracy.high for p in own], "#7F7F7F"
            )
        )
    rest = [p for p in plan.frontier if p.label != "planner"]
    for model in (*palette.models, None):
        points = [p for p in rest if palette.of_label(p.label) == model]
        if points:
            plot.add_trace(
                go.Scatter(
                    x=[p.cost_per_prompt for p in points],
                    y=[p.accuracy.mean for p in points],
                    mode="markers",
                    hovertemplate="%{text}<extra></extra>",
                    marker={
                        "color": palette.colour(model or ""),
                        "symbol": palette.symbol(model or ""),
                        "size": 7,
                        "opacity": 0.75,
                    },
                    text=[
                        f"{escape(p.label)}<br>{percent(p.accuracy.mean)} at "
                        f"{amount(p.cost_per_prompt, unit)}"
                        for p in points
                    ],
                )
            )
    if own:
        plot.add_trace(
            go.Scatter(
                x=x,
                y=[p.accuracy.mean for p in own],
                mode="lines",
                line={"width": 2.5},
                meta="fg",
                text=[
                    f"planner: {percent(p.accuracy.mean)} at "
                    f"{amount(p.cost_per_prompt, unit)}"
                    for p in own
                ],
                hovertemplate="%{text}<extra></extra>",
            )
        )
    per_prompt = plan.budget_total / plan.n_prompts
    plot.add_shape(
        type="line",
        x0=per_prompt,
        x1=per_prompt,
        y0=0,
        y1=1,
        yref="paper",
        name="fg",
        line={"width": 1, "dash": "dot"},
    )
    plot.add_trace(
        go.Scatter(
            x=[plan.promised_spend.mean / plan.n_prompts],
            y=[plan.promised_accuracy.mean],
            mode="markers",
            marker={"size": 14, "symbol": "circle-open", "line": {"width": 2.5}},
            meta="fg",
            error_y={
                "type": "data",
                "symmetric": False,
                "thickness": 1.5,
                "array": [plan.promised_accuracy.high - plan.promised_accuracy.mean],
                "arrayminus": [plan.promised_accuracy.mean - plan.promised_accuracy.low],
            },
            text=[f"the plan: promised {percent(plan.promised_accuracy.mean)}"],
            hovertemplate="%{text}<extra></extra>",
        )
    )
    for name, arm in (outcome.arms if outcome is not None else {}).items():
        if arm.accuracy is None or unit not in arm.spent:
            continue
        low, high = wilson(round(arm.accuracy * arm.n_prompts), arm.n_prompts)
        plot.add_trace(
            go.Scatter(
                x=[arm.spent[unit] / arm.n_prompts],
                y=[arm.accuracy],
                mode="markers",
                marker={
                    "size": 13 if name == "planner" else 10,
                    "symbol": arm_symbol(name),
                    "color": ACHIEVED,
                },
                error_y={
                    "type": "data",
                    "symmetric": False,
                    "color": ACHIEVED,
                    "thickness": 1.5,
                    "array": [high - arm.accuracy],
                    "arrayminus": [arm.accuracy - low],
                },
                text=[f"{escape(arm_name(name))}: achieved {percent(arm.accuracy)}"],
                hovertemplate="%{text}<extra></extra>",
            )
        )
    return plot


def options(plan: Plan, task: str, palette: Palette) -> go.Figure:
    """The undominated options of each difficulty class of a task, and which were chosen."""
    unit = plan.budget_unit
    plot = figure(f"expected spend a prompt [{unit_label(unit)}]", "accuracy in the class")
    log_axis(plot)
    plot.update_yaxes(tickformat=".0%", range=[-0.04, 1.06])
    for group in (g for g in plan.groups if g.task == task):
        front = [f for f in group.front if unit in f.cost]
        if not front:
            continue
        x, y = [f.cost[unit] for f in front], [f.accuracy.mean for f in front]
        plot.add_trace(
            go.Scatter(
                x=x,
                y=y,
                mode="lines",
                hoverinfo="skip",
                line={"width": 1.2, "color": "#8C8C8C"},
            )
        )
        for model in dict.fromkeys(f.option.model for f in front):
            points = [f for f in front if f.option.model == model]
            plot.add_trace(
                go.Scatter(
                    x=[f.cost[unit] for f in points],
                    y=[f.accuracy.mean for f in points],
                    mode="markers",
                    marker={
                        "color": palette.colour(model),
                        "symbol": palette.symbol(model),
                        "size": 7,
                    },
                    text=[
                        f"class {group.difficulty}: {_option_text(f, unit)}" for f in points
                    ],
                    hovertemplate="%{text}<extra></extra>",
                )
            )
        chosen = [s for s in group.choices if unit in s.forecast.cost]
        plot.add_trace(
            go.Scatter(
                x=[s.forecast.cost[unit] for s in chosen],
                y=[s.forecast.accuracy.mean for s in chosen],
                mode="markers+text",
                meta="ring",
                hovertemplate="%{customdata}<extra></extra>",
                marker={"size": 14, "color": "rgba(0,0,0,0)", "line": {"width": 2.2}},
                text=[f"<b>{group.difficulty}</b>"] * len(chosen),
                textposition="top left",
                customdata=[
                    f"chosen for {percent(s.share, 0)} of class {group.difficulty}<br>"
                    f"{_option_text(s.forecast, unit)}"
                    for s in chosen
                ],
            )
        )
    return plot


def budget_shares(plan: Plan) -> dict[tuple[str, int], float]:
    """Share of the expected spend that each task and class gets."""
    spends = {
        (g.task, g.difficulty): g.prompt_share
        * sum(s.share * s.forecast.cost.get(plan.budget_unit, 0.0) for s in g.choices)
        for g in plan.groups
    }
    total = sum(spends.values()) or 1.0
    return {key: spend / total for key, spend in spends.items()}


def allocation(plan: Plan, palette: Palette) -> go.Figure:
    """Share of the budget by class, split by model, beside the share of prompts."""
    plot = figure("share of the budget", "", barmode="stack")
    plot.update_xaxes(tickformat=".0%", rangemode="tozero")
    rows = sorted(plan.groups, key=lambda g: (g.task, g.difficulty))
    names = [group_name(g.task, g.difficulty) for g in rows]
    unit, shares = plan.budget_unit, budget_shares(plan)
    for model in palette.models:
        widths, texts = [], []
        for group in rows:
            costs = [
                (s.forecast.option.model, s.share * s.forecast.cost.get(unit, 0.0))
                for s in group.choices
            ]
            total = sum(cost for _, cost in costs) or 1.0
            own = sum(cost for name, cost in costs if name == model) / total
            widths.append(own * shares[group.task, group.difficulty])
            texts.append(
                f"{escape(group.task)}, class {group.difficulty}<br>{escape(model)}: "
                f"{percent(widths[-1])} of the budget"
            )
        if any(widths):
            plot.add_trace(
                go.Bar(
                    y=names,
                    x=widths,
                    orientation="h",
                    text=texts,
                    textposition="none",
                    hovertemplate="%{text}<extra></extra>",
                    marker={"color": palette.colour(model)},
                )
            )
    plot.add_trace(
        go.Scatter(
            y=names,
            x=[g.prompt_share for g in rows],
            mode="markers",
            meta="fg",
            marker={"symbol": "line-ns-open", "size": 13, "line": {"width": 2.5}},
            text=[f"{percent(g.prompt_share)} of the prompts" for g in rows],
            hovertemplate="%{text}<extra></extra>",
        )
    )
    name_rows(plot, names)
    return plot


def promises(outcome: Outcome) -> go.Figure:
    """Promised accuracy of every group and what the planner's arm achieved."""
    plot = figure("accuracy", "")
    plot.update_xaxes(tickformat=".0%", range=[-0.03, 1.03])
    arm = outcome.arms["planner"]
    groups = sorted(arm.by_group, key=lambda g: (g.task, g.difficulty))
    names = [group_name(g.task, g.difficulty) for g in groups]
    for group, name in zip(groups, names, strict=True):
        if group.low is not None and group.high is not None:
            plot.add_trace(
                go.Scatter(
                    x=[group.low, group.high],
                    y=[name, name],
                    mode="lines",
                    hoverinfo="skip",
                    line={"width": 11, "color": rgba(PROMISED, 0.35)},
                )
            )
    promised = [
        (g, n) for g, n in zip(groups, names, strict=True) if g.predicted is not None
    ]
    plot.add_trace(
        go.Scatter(
            x=[g.predicted for g, _ in promised],
            y=[n for _, n in promised],
            mode="markers",
            marker={
                "symbol": "line-ns-open",
                "size": 13,
                "color": PROMISED,
                "line": {"width": 2.5},
            },
            text=[f"promised {percent(g.predicted or 0)}" for g, _ in promised],
            hovertemplate="%{text}<extra></extra>",
        )
    )
    plot.add_trace(
        go.Scatter(
            x=[g.correct / g.n for g in groups],
            y=names,
            mode="markers",
            marker={"symbol": "star", "size": 11, "color": ACHIEVED},
            text=[
                f"achieved {percent(g.correct / g.n)}: {g.correct} of {g.n}" for g in groups
            ],
            hovertemplate="%{text}<extra></extra>",
        )
    )
    name_rows(plot, names)
    return plot


def spends(outcome: Outcome) -> go.Figure:
    """Spend of every arm against the budget."""
    unit = outcome.budget_unit
    plot = figure(f"spent [{unit_label(unit)}]", "")
    arms = {
        arm_name(name): arm.spent[unit]
        for name, arm in outcome.arms.items()
        if unit in arm.spent
    }
    names = [escape(wrapped(name)).replace("\n", "<br>") for name in arms]
    plot.add_trace(
        go.Bar(
            y=names,
            x=list(arms.values()),
            orientation="h",
            width=0.55,
            marker={"color": [PROMISED if n == "planner" else "#8C8C8C" for n in arms]},
            text=[
                f"{amount(v, unit)} = {percent(v / outcome.budget_total)} of the budget"
                for v in arms.values()
            ],
            textposition="none",
            hovertemplate="%{text}<extra></extra>",
        )
    )
    plot.add_shape(
        type="line",
        x0=outcome.budget_total,
        x1=outcome.budget_total,
        y0=0,
        y1=1,
        yref="paper",
        name="fg",
        line={"width": 1.5, "dash": "dot"},
    )
    plot.add_annotation(
        x=outcome.budget_total,
        y=1,
        yref="paper",
        yanchor="bottom",
        xanchor="right",
        text="budget",
        showarrow=False,
    )
    plot.update_layout(margin={"t": 26})
    plot.update_xaxes(
        exponentformat="SI", range=[0, 1.06 * max(outcome.budget_total, *arms.values())]
    )
    name_rows(plot, names, minimum=230)
    return plot
