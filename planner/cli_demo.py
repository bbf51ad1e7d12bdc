"""`planner demo`: the whole loop on the reference models, and whether it paid.

Calibrates on some problems, executes on fresh ones of the same mix, and compares with two
baselines at the same budget. Run again in the same folder it repeats no measurement.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import yaml

from planner.api import Planner, load
from planner.cli_console import progress, say, show_table, warn
from planner.cli_init import reference_config
from planner.cli_measure import run_calibrate, run_fit, run_report
from planner.cli_plan import show_plan
from planner.cli_run import outcome_of
from planner.config import SamplingConfig, Workspace
from planner.limits import Budget
from planner.models.diagnostics import coverage_abs_error, interval_coverage
from planner.models.errors import InputError
from planner.models.files import write_atomic
from planner.models.records import Problem
from planner.outcome import ArmResult, Outcome
from planner.plan import Plan
from planner.running import RunResult

_UNIT = "eflop"
_BUDGET_DRAWS = 1.5  # of the most expensive model, a prompt: what the default budget pays


@dataclass(frozen=True, kw_only=True)
class _Size:
    calibration: int  # problems a task
    fresh: int  # prompts a task
    sampling: SamplingConfig


def _size(*, quick: bool, seed: int) -> _Size:
    sampling = SamplingConfig(
        n_samples=8 if quick else 16,
        temperatures=(1.0,) if quick else (0.6, 1.0),
        max_tokens=144,
        top_p=1.0,
        seed=seed,
    )
    return _Size(
        calibration=40 if quick else 80, fresh=60 if quick else 150, sampling=sampling
    )


def run_demo(folder: Path, *, quick: bool, seed: int, budget: str | None) -> None:
    """Measure, fit, plan, run on fresh prompts, report.

    Args:
        folder: Workspace; made if missing, continued if a demo of the same size and seed.
        quick: Fewer problems, draws and temperatures.
        seed: Of the problems, the draws and the plan.
        budget: For all fresh prompts; None: `default_budget`.

    Raises:
        PlannerError: What the steps raise; what they finished is kept.
    """
    start_s = time.perf_counter()
    size, workspace = _size(quick=quick, seed=seed), Workspace(folder)
    fresh = _prepare(workspace, size, seed)
    _heading("1/5 calibrate: real draws of real models, graded; step times")
    run_calibrate(folder, n_samples=None, only=(), timings=True)
    _heading("2/5 fit: laws, and their error on what they have not seen")
    run_fit(folder, seed=seed)
    _heading("3/5 plan: one budget over prompts nobody measured")
    plan = _plan(workspace, fresh, seed, budget)
    _heading("4/5 run: the plan, and two baselines with the same budget")
    runs = _run(load(folder), plan, fresh, seed)
    _store(workspace, runs)
    outcome = outcome_of(plan, runs)
    outcome.save(folder / "outcome.json")
    _heading("5/5 report")
    run_report(folder)
    seconds = time.perf_counter() - start_s
    summary = _summary(load(folder), plan, outcome, seconds)
    write_atomic(workspace.summary_file, json.dumps(summary, indent=1) + "\n")
    _verdict(plan, outcome)
    say(f"{seconds:.0f} s; open {workspace.report_file}; figures: {workspace.summary_file}")


def _heading(text: str) -> None:
    say("")
    say(text)


def _prepare(workspace: Workspace, size: _Size, seed: int) -> tuple[Problem, ...]:
    """Write config and problems, or check those of an earlier run; the fresh prompts.

    Raises:
        InputError: The folder holds another workspace.
    """
    from planner.calibration.reference.tasks import TASKS
    from planner.calibration.suites import reference_problems

    known = reference_problems(seed, dict.fromkeys(TASKS, size.calibration))
    fresh = reference_problems(
        seed + 1, dict.fromkeys(TASKS, size.fresh), exclude={p.prompt for p in known}
    )
    # the tasks alternate, as traffic would; the budget must last for all of them
    order = np.random.default_rng(seed).permutation(len(fresh))
    fresh = tuple(fresh[i] for i in order)
    files = {
        workspace.config_file: reference_config(size.sampling),
        workspace.folder / "problems.jsonl": _lines(known),
        workspace.folder / "fresh.jsonl": _lines(fresh),
    }
    for path, content in files.items():
        if path.exists() and not _same(path.read_text(), content):
            raise InputError(
                f"{path}: is of another workspace, or of a demo of another size or seed;"
                " name another folder"
            )
    for path, content in files.items():
        write_atomic(path, content)
    return fresh


def _same(old: str, new: str) -> bool:
    """Whether two texts are equal, or two configs say the same."""
    return old == new or (
        new.lstrip().startswith("#") and yaml.safe_load(old) == yaml.safe_load(new)
    )


def _lines(problems: Sequence[Problem]) -> str:
    return "".join(json.dumps(asdict(problem)) + "\n" for problem in problems)


def _plan(
    workspace: Workspace, fresh: Sequence[Problem], seed: int, budget: str | None
) -> Plan:
    from planner.planning import make_plan

    planner = load(workspace.folder)
    limit = Budget.parse(budget) if budget else default_budget(planner, fresh)
    plan = make_plan(
        planner.laws, budget=limit, n_prompts=len(fresh),
        group_shares=planner.group_shares(fresh), seed=seed,
    )  # fmt: skip
    plan.save(workspace.plan_file)
    show_plan(plan)
    return plan


def default_budget(planner: Planner, prompts: Sequence[Problem]) -> Budget:
    """What 1.5 draws a prompt of the most expensive model are expected to cost."""
    shares = planner.group_shares(prompts)
    costs = {
        model: sum(
            share * _single_cost(planner, model, task, difficulty)
            for (task, difficulty), share in shares.items()
        )
        for model in planner.cost_models
    }
    total = _BUDGET_DRAWS * max(costs.values()) * len(prompts)
    return Budget(float(f"{total:.2g}"), _UNIT)


def _single_cost(planner: Planner, model: str, task: str, difficulty: int) -> float:
    """Expected eFLOP of one draw at the longest cap and highest temperature measured."""
    cell = max(
        (
            c for c in planner.laws.cells
            if (c.model, c.task, c.difficulty) == (model, task, difficulty)
        ),
        key=lambda c: (c.max_tokens, c.temperature),
    )  # fmt: skip
    single = next(curve for curve in cell.curves if curve.strategy == "single")
    row = planner.cost_models[model].of_draws(cell.prompt_tokens, single.output_tokens[0])
    return float(row[0, -1])


def _run(
    planner: Planner, plan: Plan, fresh: Sequence[Problem], seed: int
) -> dict[str, tuple[RunResult, float]]:
    """Every arm on the same prompts with the same budget; each with its wall time."""
    arms = {"planner": None, **{n: b.options for n, b in plan.baselines.items()}}
    runs = {}
    for name, fixed in arms.items():
        start_s = time.perf_counter()
        with progress(name.replace("_", " ")) as update:
            result = planner.run(fresh, fixed=fixed, seed=seed, progress=update)
        runs[name] = (result, time.perf_counter() - start_s)
    return runs


def _store(workspace: Workspace, runs: dict[str, tuple[RunResult, float]]) -> None:
    from planner.calibration.store import Store

    rows = [sample for run, _ in runs.values() for sample in run.samples]
    Store(workspace.measurements).append_samples(rows, dataset="executed")


def _summary(
    planner: Planner, plan: Plan, outcome: Outcome, seconds: float
) -> dict[str, object]:
    own = outcome.arms["planner"]
    promise = plan.promised_accuracy
    return {
        "budget": {"unit": plan.budget_unit, "total": plan.budget_total},
        "spent": own.spent[plan.budget_unit],
        "n_prompts": own.n_prompts,
        "accuracy": {
            "predicted": [promise.mean, promise.low, promise.high],
            "achieved": own.accuracy,
        },
        "baselines": {
            name: {"accuracy": arm.accuracy, "spent": arm.spent[plan.budget_unit]}
            for name, arm in outcome.arms.items()
            if name != "planner"
        },
        "holdout": {
            "coverage_abs_error": coverage_abs_error(planner.laws.holdout),
            "interval_coverage": interval_coverage(planner.laws.holdout),
        },
        "seconds": seconds,
    }


def _verdict(plan: Plan, outcome: Outcome) -> None:
    """The closing table, and in words whether the planner beat the baselines."""
    own, unit = outcome.arms["planner"], plan.budget_unit
    rows = [
        _arm_row(name, arm, own, unit, plan.budget_total)
        for name, arm in outcome.arms.items()
    ]
    show_table(
        f"{own.n_prompts} fresh prompts, {plan.budget_total:.3g} {unit} for each arm",
        ("arm", "right", "planner's gain", "spent", "of budget"),
        rows,
        numeric=(1, 2, 3, 4),
    )  # fmt: skip
    promise, achieved = plan.promised_accuracy, own.accuracy or 0.0
    inside = promise.low <= achieved <= promise.high
    say(
        f"promised {_percent(promise.mean)} (90 %: {_percent(promise.low)} to"
        f" {_percent(promise.high)}), achieved {_percent(achieved)}:"
        f" {'inside' if inside else 'OUTSIDE'} the interval"
    )
    for name, arm in outcome.arms.items():
        if name == "planner":
            continue
        gain, error = achieved - (arm.accuracy or 0.0), arm.gain_se or 0.0
        plain = name.replace("_", " ")
        if gain <= 0:
            warn(f"the planner did NOT beat {plain} here")
        elif gain < 2 * error:
            warn(f"the gain over {plain} is within two standard errors: it may be noise")


def _arm_row(
    name: str, arm: ArmResult, own: ArmResult, unit: str, total: float
) -> tuple[str, ...]:
    gain = ""
    if name != "planner" and arm.accuracy is not None and own.accuracy is not None:
        gain = f"{100 * (own.accuracy - arm.accuracy):+.1f}"
        gain += (
            f" ± {100 * arm.gain_se:.1f} points" if arm.gain_se is not None else " points"
        )
    spent = arm.spent[unit]
    right = "" if arm.accuracy is None else _percent(arm.accuracy)
    return (
        name.replace("_", " "),
        right,
        gain,
        f"{spent:.3g} {unit}",
        _percent(spent / total),
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
