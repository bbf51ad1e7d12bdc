"""The report: what was promised, what came true, and what every figure rests on."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from planner.models.artifact import Laws
from planner.models.files import write_atomic
from planner.outcome import ArmResult, Outcome
from planner.plan import Plan, Share
from planner.report_figures import (
    allocation,
    budget_shares,
    frontier,
    options,
    promises,
    spends,
)
from planner.report_measured import coverage_section, holdout_section, latency_section
from planner.report_page import (
    Markup,
    amount,
    details,
    interval,
    legend,
    page,
    panels,
    paragraph,
    percent,
    section,
    table,
    tiles,
)
from planner.report_sources import provenance, reach
from planner.report_style import (
    ACHIEVED,
    NEUTRAL,
    PROMISED,
    Palette,
    arm_name,
    arm_symbol,
    model_legend,
    models_of,
    wilson,
)


def write_report(
    path: Path,
    *,
    laws: Laws,
    plan: Plan | None,
    samples: pd.DataFrame,
    timings: pd.DataFrame,
    machines: pd.DataFrame,
    outcome: Outcome | None,
) -> None:
    """Write one HTML file that opens offline; what is missing is left out and said.

    Args:
        path: Where to.
        laws: The fitted laws.
        plan: A plan made with them, if there is one.
        samples: Rows of `planner.models.records.Sample`, one a draw.
        timings: Rows of `planner.models.records.Timing`.
        machines: Rows of `planner.models.records.Machine`.
        outcome: What carrying the plan out achieved, if it was.

    Raises:
        StoreError: The file cannot be written.
    """
    rng = np.random.default_rng(laws.seed)
    palette = Palette(models_of(plan, [law.model for law in laws.models]))
    parts = [("headline", "In short", _headline(plan, outcome))]
    if plan is not None:
        parts.append(("frontier", "Accuracy and spend", _frontier(plan, outcome, palette)))
        parts.append(("allocation", "Where the budget goes", _allocation(plan, palette)))
    if outcome is not None:
        parts.append(("promised", "Promised and achieved", _promised(outcome)))
    parts.append(("coverage", "pass@k", coverage_section(laws, samples, palette, rng)))
    parts.append(("latency", "Step times", latency_section(laws, timings, palette, rng)))
    parts.append(("holdout", "Held-out error", holdout_section(laws.holdout, palette)))
    parts.append(
        ("sources", "Sources and assumptions", provenance(laws, plan, samples, machines))
    )
    if plan is not None:
        parts.append(("reach", "Extrapolations", reach(plan)))
    when = (outcome or plan or laws).created_at
    subtitle = f"inferplan {laws.inferplan}, {when}; laws fitted to {len(samples):,} draws"
    write_atomic(path, page("Inference budget report", subtitle, parts))


def _gain(outcome: Outcome, name: str) -> tuple[float, float] | None:
    """Planner's accuracy minus an arm's, and its standard error; None if not graded."""
    own, other = outcome.planner, outcome.arms[name]
    if own is None or own.accuracy is None or other.accuracy is None:
        return None
    if other.gain_se is not None:
        return own.accuracy - other.accuracy, other.gain_se
    # as if the arms had met different prompts: too wide rather than too narrow
    variance = sum(
        a.accuracy * (1 - a.accuracy) / a.n_prompts for a in (own, other) if a.accuracy
    )
    return own.accuracy - other.accuracy, variance**0.5


def _used(outcome: Outcome | None, name: str) -> str:
    """That an arm left much budget unspent: the comparison is not even then."""
    if outcome is None:
        return ""
    spent = outcome.arms[name].spent.get(outcome.budget_unit)
    if spent is None or spent >= 0.9 * outcome.budget_total:
        return ""
    return f"; it spent only {percent(spent / outcome.budget_total, 0)} of the budget"


def _verdict(gain: float, error: float) -> str:
    if abs(gain) <= 2 * error:
        return "no clear difference"
    return "better" if gain > 0 else "worse"


def _headline(plan: Plan | None, outcome: Outcome | None) -> Markup:
    own = outcome.planner if outcome is not None else None
    lead, items = [], []
    if plan is None:
        lead.append(
            "Measured and fitted; nothing is planned yet. `planner plan` makes a plan "
            "from these laws."
        )
    else:
        promise, budget = (
            plan.promised_accuracy,
            amount(plan.budget_total, plan.budget_unit),
        )
        lead.append(
            f"With {budget} for {plan.n_prompts:,} prompts the plan promised "
            f"{percent(promise.mean)} "
            "of them right (90 % interval "
            f"{100 * promise.low:.1f}\u2013{100 * promise.high:.1f})."
        )
        items.append(
            (
                "promised accuracy",
                percent(promise.mean),
                f"90 %: {100 * promise.low:.1f}\u2013{100 * promise.high:.1f}",
            )
        )
        if own is not None and own.accuracy is not None:
            inside = promise.low <= own.accuracy <= promise.high
            place = (
                "inside" if inside else "above" if own.accuracy > promise.high else "below"
            )
            lead.append(f"It got {percent(own.accuracy)} right, {place} that interval.")
            items.append(
                (
                    "achieved accuracy",
                    percent(own.accuracy),
                    f"{place} the promise; {own.n_prompts:,} prompts",
                )
            )
        elif own is None:
            lead.append(
                "It has not been carried out yet: `planner run` does, and adds what came "
                "true."
            )
    if outcome is not None and own is not None and outcome.budget_unit in own.spent:
        share = own.spent[outcome.budget_unit] / outcome.budget_total
        over = share > 1
        items.append(
            (
                "spent",
                f"{100 * share:.1f}\u202f%",
                f"of {amount(outcome.budget_total, outcome.budget_unit)}"
                + (": over the budget" if over else ""),
            )
        )
        lead.append(
            f"It spent {percent(share)} of the budget"
            + ("." if not over else ": more than it was given.")
        )
    for name in outcome.arms if outcome is not None else ():
        gain = _gain(outcome, name) if name != "planner" and outcome is not None else None
        if gain is None:
            continue
        verdict, used = _verdict(*gain), _used(outcome, name)
        items.append(
            (
                f"against {arm_name(name)}",
                f"{100 * gain[0]:+.1f} points",
                f"\u00b1 {100 * gain[1]:.1f} (1 s.e.): {verdict}{used}",
            )
        )
        words = {"better": "more right than", "worse": "fewer right than"}.get(verdict)
        lead.append(
            f"{abs(100 * gain[0]):.1f} points {words} the baseline "
            f"\u201c{arm_name(name)}\u201d{used and f' ({used[2:]})'}."
            if words
            else f"It cannot be told apart from \u201c{arm_name(name)}\u201d "
            f"({100 * gain[0]:+.1f} points)."
        )
    return section("headline", "In short", paragraph(" ".join(lead), "lead"), tiles(items))


def _frontier(plan: Plan, outcome: Outcome | None, palette: Palette) -> Markup:
    entries = [
        ("line", "var(--fg)", "planner, best mix at each spend"),
        ("band", NEUTRAL, "its 90 % interval"),
        ("ring", "var(--fg)", "this plan's promise"),
        *(
            (k, c, f"{m}, same setting for every prompt")
            for k, c, m in model_legend(palette)
        ),
    ]
    for name in outcome.arms if outcome is not None else ():
        entries.append((arm_symbol(name), ACHIEVED, f"achieved: {arm_name(name)}"))
    binds = f"What binds: {plan.binds}."
    price = (
        " At the margin, one per cent more budget would add about "
        f"{plan.shadow_price * plan.budget_total / plan.n_prompts:.2g} points of accuracy."
        if plan.shadow_price > 0
        else ""
    )
    tasks = list(dict.fromkeys(g.task for g in plan.groups))
    return section(
        "frontier",
        "Accuracy and spend",
        paragraph(
            f"{plan.options_considered:,} options were considered. The dotted line is "
            "the budget "
            "divided by the prompts: "
            f"{amount(plan.budget_total / plan.n_prompts, plan.budget_unit)} a prompt. "
            f"{binds}{price}"
        ),
        legend(entries),
        panels([("All prompts", frontier(plan, outcome, palette))], wide=True),
        paragraph(
            "Below, the undominated options of every difficulty class (0 is the easiest), "
            "one line a class. Rings mark what the plan chose; the digit is the class."
        ),
        legend([*model_legend(palette), ("ring", "var(--fg)", "chosen")]),
        panels([(task, options(plan, task, palette)) for task in tasks]),
    )


def _choices(choices: Sequence[Share]) -> str:
    return "; ".join(
        (f"{percent(s.share, 0)}: " if len(choices) > 1 else "") + str(s.forecast.option)
        for s in choices
    )


def _allocation(plan: Plan, palette: Palette) -> Markup:
    shares, unit, rows = budget_shares(plan), plan.budget_unit, []
    for group in sorted(plan.groups, key=lambda g: (g.task, g.difficulty)):
        mean, low, high = (
            sum(s.share * getattr(s.forecast.accuracy, field) for s in group.choices)
            for field in ("mean", "low", "high")
        )
        cost = sum(s.share * s.forecast.cost.get(unit, 0.0) for s in group.choices)
        rows.append(
            (
                f"{group.task} {group.difficulty}",
                percent(group.prompt_share),
                _choices(group.choices),
                interval(mean, low, high),
                amount(cost, unit),
                percent(shares[group.task, group.difficulty]),
                group.why,
            )
        )
    columns = ("task, class", "prompts", "gets", "accuracy", "a prompt", "of budget", "why")
    baselines = [
        (
            arm_name(name),
            task,
            str(option),
            interval(b.accuracy.mean, b.accuracy.low, b.accuracy.high),
            amount(b.cost_per_prompt, unit),
        )
        for name, b in plan.baselines.items()
        for task, option in b.options.items()
    ]
    return section(
        "allocation",
        "Where the budget goes",
        paragraph(
            "Class 0 holds the easiest prompts of a task. A class that falls between two "
            "options gets both, in the shares shown."
        ),
        legend(
            [
                *(("square", c, m) for _, c, m in model_legend(palette)),
                ("tick", "var(--fg)", "share of the prompts"),
            ]
        ),
        panels(
            [("Share of the budget, by task and class", allocation(plan, palette))],
            wide=True,
        ),
        table(columns, rows, numeric=(1, 3, 4, 5)),
        details(
            "The baselines the plan has to beat at the same budget",
            table(
                ("baseline", "task", "option", "accuracy forecast", "a prompt"),
                baselines,
                numeric=(4,),
            ),
        ),
    )


def _promised(outcome: Outcome) -> Markup:
    unit, rows = outcome.budget_unit, []
    for name, arm in outcome.arms.items():
        gain = _gain(outcome, name) if name != "planner" else None
        rows.append(
            (
                arm_name(name),
                _achieved(arm),
                f"{100 * gain[0]:+.1f} \u00b1 {100 * gain[1]:.1f}" if gain else "\u2013",
                amount(arm.spent[unit], unit) if unit in arm.spent else "unknown",
                percent(arm.spent[unit] / outcome.budget_total)
                if unit in arm.spent
                else "\u2013",
                f"{arm.n_prompts:,}",
                f"{arm.unanswered:,}",
                f"{arm.cancelled_draws:,}",
                "\u2013" if arm.wall_s is None else f"{arm.wall_s:.1f} s",
            )
        )
    columns = (
        "arm",
        "accuracy (90 %)",
        "gain of planner",
        "spent",
        "of budget",
        "prompts",
        "unanswered",
        "draws cancelled",
        "wall time",
    )
    content = [
        table(columns, rows, numeric=(1, 2, 3, 4, 5, 6, 7, 8)),
        paragraph(
            "Gains are with one standard error. A cancelled draw's tokens are part of what "
            "was spent. A prompt left unanswered counts as wrong.",
            "soft",
        ),
    ]
    plots = [("Spend against the budget", spends(outcome))]
    own = outcome.planner
    judged = (
        [g for g in own.by_group if g.low is not None and g.high is not None] if own else []
    )
    if own is not None and own.accuracy is not None and own.by_group:
        plots.insert(0, ("Accuracy of each task and class", promises(outcome)))
        hits = sum(
            (g.low or 0) - 1e-9 <= g.correct / g.n <= (g.high or 0) + 1e-9 for g in judged
        )
        if judged:
            content.insert(
                0,
                paragraph(
                    f"{hits} of {len(judged)} groups came out inside their 90 % "
                    "interval, which is made "
                    "for as many prompts as the group had; about "
                    f"{0.9 * len(judged):.0f} should."
                ),
            )
        content.append(
            legend(
                [
                    ("band", PROMISED, "promised, 90 % interval"),
                    ("tick", PROMISED, "promised mean"),
                    ("star", ACHIEVED, "achieved"),
                ]
            )
        )
    return section("promised", "Promised and achieved", *content, panels(plots))


def _achieved(arm: ArmResult) -> str:
    if arm.accuracy is None:
        return "not graded"
    low, high = wilson(round(arm.accuracy * arm.n_prompts), arm.n_prompts)
    return interval(arm.accuracy, low, high)
