"""`planner run`: answer prompts by the plan, and say what came true."""

import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from planner import __version__
from planner.api import load
from planner.cli_console import progress, say, show_table, warn
from planner.config import Workspace, read_problems
from planner.limits import Budget
from planner.models.cost import UNITS, Cost
from planner.models.errors import InputError
from planner.models.files import write_atomic
from planner.options import Z90, GroupKey
from planner.outcome import ArmResult, GroupResult, Outcome
from planner.plan import Group, Plan
from planner.prompt_run import Result
from planner.running import RunResult


def run_run(
    folder: Path, *, budget: str, problems: Path, output: Path | None, seed: int
) -> None:
    """Run, store the draws, write the results, and print promise against achievement.

    Interrupted, it keeps what was drawn and answered so far.

    Raises:
        PlannerError: What `Planner.run` raises; draws made before are stored all the same.
    """
    workspace, planner = Workspace(folder), load(folder)
    if not planner.targets:
        raise InputError(
            f"{workspace.config_file}: no such file; `planner init {folder}` writes one"
        )
    listed, limit = tuple(read_problems(problems)), Budget.parse(budget)
    target = output or folder / "results.jsonl"
    done: list[Result] = []
    start_s, run = time.perf_counter(), None
    try:
        with progress("prompts") as update:
            run = planner.run(listed, limit, seed=seed, progress=update, each=done.append)
    finally:
        results = run.results if run is not None else tuple(done)
        if results:
            _keep(workspace, target, results)
        if run is None and results:
            warn(
                f"stopped: {len(results):,} of {len(listed):,} prompts were started, and"
                f" are in {target}. The same command starts over, with a new budget"
            )
    outcome = outcome_of(planner.plan, {"planner": (run, time.perf_counter() - start_s)})
    outcome.save(folder / "outcome.json")
    show_outcome(planner.plan, outcome)
    say(f"wrote {target} and {folder / 'outcome.json'}; next: planner report {folder}")


def _keep(workspace: Workspace, target: Path, results: Sequence[Result]) -> None:
    """Append the draws to the store and write the answers."""
    from planner.calibration.store import Store

    samples = [sample for result in results for sample in result.samples]
    Store(workspace.measurements).append_samples(samples, dataset="executed")
    write_atomic(target, "".join(json.dumps(as_row(result)) + "\n" for result in results))


def as_row(result: Result) -> dict[str, object]:
    """A line of results.jsonl; what is not known is null."""
    return {
        "problem_id": result.problem_id,
        "task": result.task,
        "prompt": result.prompt,
        "answer": result.answer,
        "text": result.text,
        "status": result.status,
        "confidence": result.confidence,
        "correct": result.correct,
        "option": result.option.model_dump(),
        "draws": result.draws,
        "cancelled_draws": result.cancelled_draws,
        "stopped": result.stopped,
        "cost": {u: None if math.isnan(v) else v for u, v in asdict(result.cost).items()},
    }


def outcome_of(plan: Plan | None, runs: dict[str, tuple[RunResult, float]]) -> Outcome:
    """What runs of the same prompts achieved.

    Args:
        plan: Whose promises the arm "planner" is judged by, if there is one.
        runs: By arm: the result, and its wall time in seconds.
    """
    from planner.calibration.environment import now

    own = runs["planner"][0]
    arms = {}
    for name, (run, wall_s) in runs.items():
        promised = plan if name == "planner" else None
        arms[name] = ArmResult(
            accuracy=run.accuracy,
            n_prompts=len(run.results),
            spent=known_units(run.spent),
            by_group=tuple(_groups(run, promised)),
            cancelled_draws=run.cancelled_draws,
            unanswered=run.unanswered,
            wall_s=wall_s,
            gain_se=None if name == "planner" else paired_error(own, run),
        )
    return Outcome(
        schema_version=1,
        inferplan=__version__,
        created_at=now(),
        budget_unit=own.budget.unit,
        budget_total=own.budget.total,
        arms=arms,
    )


def known_units(cost: Cost) -> dict[str, float]:
    """A cost without the units that are not known."""
    return {u: getattr(cost, u) for u in UNITS if not math.isnan(getattr(cost, u))}


def paired_error(own: RunResult, other: RunResult) -> float | None:
    """Standard error of the difference of two accuracies on the same prompts."""
    right = {r.problem_id: r.correct for r in other.results}
    differences = [
        float(r.correct) - float(right[r.problem_id] or 0)
        for r in own.results
        if r.correct is not None and right.get(r.problem_id) is not None
    ]
    n = len(differences)
    if n < 2 or n < len(own.results):
        return None
    mean = sum(differences) / n
    return math.sqrt(sum((d - mean) ** 2 for d in differences) / (n - 1) / n)


def _groups(run: RunResult, plan: Plan | None) -> list[GroupResult]:
    """Each group's result; the promise is widened to the number of prompts it met."""
    if run.accuracy is None:
        return []
    members: dict[GroupKey, list[Result]] = {}
    for result, key in zip(run.results, run.groups, strict=True):
        members.setdefault(key, []).append(result)
    planned = {(g.task, g.difficulty): g for g in plan.groups} if plan is not None else {}
    listed = []
    for key, results in sorted(members.items()):
        low = mean = high = None
        if key in planned:
            mean, low, high = _promise(planned[key], len(results))
        listed.append(
            GroupResult(
                task=key[0],
                difficulty=key[1],
                n=len(results),
                correct=sum(bool(r.correct) for r in results),
                predicted=mean,
                low=low,
                high=high,
                spent=sum(r.cost.in_unit(run.budget.unit) for r in results),
            )
        )
    return listed


def _promise(group: Group, n: int) -> tuple[float, float, float]:
    """Mean and 90 % predictive interval of the share right among n prompts of a group."""
    mean, half = (
        sum(c.share * value for c, value in zip(group.choices, values, strict=True))
        for values in (
            [c.forecast.accuracy.mean for c in group.choices],
            [
                (c.forecast.accuracy.high - c.forecast.accuracy.low) / 2
                for c in group.choices
            ],
        )
    )
    width = Z90 * math.sqrt((half / Z90) ** 2 + mean * (1 - mean) / n)
    return mean, max(0.0, mean - width), min(1.0, mean + width)


def show_outcome(plan: Plan | None, outcome: Outcome) -> None:
    """Promised against achieved, and what was spent."""
    unit, rows = outcome.budget_unit, []
    for name, arm in outcome.arms.items():
        rows.append(
            (
                name.replace("_", " "),
                "not graded" if arm.accuracy is None else f"{100 * arm.accuracy:.1f} %",
                f"{arm.spent.get(unit, math.nan):.4g}",
                f"{100 * arm.spent.get(unit, math.nan) / outcome.budget_total:.1f} %",
                f"{arm.n_prompts:,}",
                f"{arm.unanswered:,}",
                f"{arm.cancelled_draws:,}",
            )
        )
    columns = (
        "arm",
        "accuracy",
        f"spent, {unit}",
        "of budget",
        "prompts",
        "unanswered",
        "cancelled draws",
    )
    show_table("achieved", columns, rows, numeric=(1, 2, 3, 4, 5, 6))
    own = outcome.arms["planner"]
    if plan is None or own.accuracy is None:
        return
    same = plan.budget_unit == unit and math.isclose(
        plan.budget_total / plan.n_prompts,
        outcome.budget_total / own.n_prompts,
        rel_tol=0.01,
    )
    if not same:
        warn(
            "note: the plan was made for another budget a prompt; its promise is not "
            "compared"
        )
        return
    promise = plan.promised_accuracy
    inside = "inside" if promise.low <= own.accuracy <= promise.high else "outside"
    say(
        f"promised {100 * promise.mean:.1f} % (90 %: "
        f"{100 * promise.low:.1f}-{100 * promise.high:.1f}), "
        f"achieved {100 * own.accuracy:.1f} %: {inside}"
    )
