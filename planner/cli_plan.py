"""`planner plan` and `planner recommend`."""

import json
from pathlib import Path

from planner.cli_console import say, show_table
from planner.config import Workspace, read_problems
from planner.limits import Budget, Slo
from planner.models.artifact import Laws
from planner.models.errors import InputError
from planner.plan import Forecast, Interval, Plan


def run_plan(
    folder: Path,
    *,
    budget: str | None,
    prompts: int | None,
    problems: Path | None,
    slo_latency: str | None,
    seed: int,
) -> None:
    """Make a plan, save it, and print what it chose and why.

    Raises:
        PlannerError: What `make_plan` raises; plan.json stays as it was.
    """
    from planner.api import Planner
    from planner.planning import make_plan

    workspace = Workspace(folder)
    config = workspace.config()
    text = budget or config.budget
    if not text:
        raise InputError(
            "no budget: give --budget, e.g. --budget '5 usd', or set one in the config"
        )
    amount = Budget.parse(text)
    slo = None if slo_latency is None else Slo(latency_s=parse_seconds(slo_latency))
    laws = Laws.load(workspace.laws_file)
    shares, listed = None, 0
    if problems is not None:
        given = tuple(read_problems(problems))
        shares, listed = Planner(laws=laws).group_shares(given), len(given)
    n_prompts = prompts or listed or len(workspace.problems())
    plan = make_plan(
        laws, budget=amount, n_prompts=n_prompts, group_shares=shares, seed=seed, slo=slo
    )
    plan.save(workspace.plan_file)
    show_plan(plan)
    say(f"wrote {workspace.plan_file}")


def parse_seconds(text: str) -> float:
    """Read "2s", "800 ms" or "1 min".

    Raises:
        InputError: It is not a time.
    """
    try:
        given = Budget.parse(text)
    except InputError:
        raise InputError(f"--slo-latency {text!r} is not a time; write e.g. '2s'") from None
    if given.unit != "s":
        raise InputError(
            f"--slo-latency {text!r} is in {given.unit}, not a time; write e.g. '2s'"
        )
    return given.total


def show_plan(plan: Plan) -> None:
    """What each group gets, what is promised, what binds, what is extrapolated."""
    unit = plan.budget_unit
    rows = []
    for group in plan.groups:
        for i, choice in enumerate(group.choices):
            forecast = choice.forecast
            rows.append(
                (
                    f"{group.task} {group.difficulty}" if i == 0 else "",
                    f"{100 * group.prompt_share:.1f} %" if i == 0 else "",
                    f"{100 * choice.share:.0f} %",
                    str(forecast.option),
                    _range(forecast.accuracy),
                    _cost(forecast, unit),
                )
            )
    show_table(
        f"plan: {plan.budget_total:.6g} {unit} for {plan.n_prompts:,} prompts",
        (
            "task, class",
            "prompts",
            "of them",
            "option",
            "accuracy (90 %)",
            f"{unit} a prompt",
        ),
        rows,
        numeric=(1, 2, 4, 5),
    )
    say(
        f"promise: accuracy {_range(plan.promised_accuracy)} on {plan.n_prompts:,} fresh "
        "prompts"
    )
    spend = plan.promised_spend
    say(f"         spend {spend.mean:.4g} {unit} ({spend.low:.4g} to {spend.high:.4g})")
    for name, baseline in plan.baselines.items():
        say(
            f"against  {name.replace('_', ' ')}: {_range(baseline.accuracy)} at the same "
            "budget"
        )
    say(f"binds:   {plan.binds}")
    beyond = "; ".join(plan.extrapolated) or "nothing lies beyond what was measured"
    say(f"extrapolated: {beyond}")


def _range(interval: Interval) -> str:
    return (
        f"{100 * interval.mean:.1f} % ({100 * interval.low:.1f}-{100 * interval.high:.1f})"
    )


def _cost(forecast: Forecast, unit: str) -> str:
    return f"{forecast.cost[unit]:.4g}" if unit in forecast.cost else "unknown"


def run_recommend(prompt: str, *, budget: str, folder: Path | None, as_json: bool) -> None:
    """Print how to answer one prompt.

    Raises:
        PlannerError: What `recommend` raises.
    """
    from planner.api import load, recommend

    text = prompt.rstrip("\n")
    chosen = (
        recommend(text, budget) if folder is None else load(folder).recommend(text, budget)
    )
    if as_json:
        content = {
            "option": chosen.option.model_dump(),
            "task": chosen.task,
            "difficulty": chosen.difficulty,
            "accuracy": chosen.accuracy.model_dump(),
            "cost": chosen.cost,
            "cost_p95": chosen.cost_p95,
            "extrapolated": chosen.extrapolated,
            "why": chosen.why,
        }
        say(json.dumps(content, indent=1))
        return
    say(str(chosen.option))
    say(f"task {chosen.task}, difficulty class {chosen.difficulty}")
    say(f"accuracy {_range(chosen.accuracy)}")
    say(
        f"cost {chosen.cost[chosen.unit]:.4g} {chosen.unit} expected, "
        f"{chosen.cost_p95[chosen.unit]:.4g} at the 95th percentile"
    )
    say(chosen.why)
    if chosen.extrapolated:
        say(f"extrapolated: {'; '.join(chosen.extrapolated)}")
