"""`planner calibrate`, `planner fit` and `planner report`."""

import shutil
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from planner.cli_console import progress, say, show_table, warn
from planner.config import Workspace
from planner.engines import open_engine
from planner.models.artifact import HoldoutRow, Laws
from planner.models.errors import InputError, NotMeasuredError, StoreError
from planner.models.specs import ModelTarget
from planner.prompt_run import Scorer
from planner.running import open_scorer

if TYPE_CHECKING:
    from planner.calibration.sampling import DrawsOf
    from planner.calibration.spending import Spending
    from planner.calibration.store import Store

_FREE_BYTES = 50e6  # a calibration writes a few megabytes; less than this is a full disk


def run_calibrate(
    folder: Path,
    *,
    n_samples: int | None,
    only: Sequence[str],
    timings: bool,
    until_width: float | None = None,
    at: int | None = None,
) -> None:
    """Draw and time what the store lacks, model by model.

    Args:
        folder: Of the workspace.
        n_samples: Draws of each problem, model and temperature; None: the config's.
        only: Names of models; all by default.
        timings: Whether to time steps too.
        until_width: Of the 90 % interval to draw until; None draws n_samples of each.
        at: Draws whose coverage is to be known; None: the most that a plan may use.

    Raises:
        InputError: The config, or a name in `only`, cannot be used.
        ServingError: A server failed; what was finished is stored.
        StoreError: The disk is full, or a part is damaged.
    """
    workspace = Workspace(folder)
    config, problems = workspace.config(), workspace.problems()
    targets = _chosen(workspace, only)
    _check_disk(folder)
    # after the config was read: what is wrong with it is said at once
    from planner.calibration.environment import describe_machine
    from planner.calibration.store import Store

    store, scorer = Store(workspace.measurements), _scorer(workspace)
    machine = describe_machine()
    store.append_machine(machine)
    made = 0
    if until_width is not None:
        made = _sample_until(
            store, targets, workspace, machine.machine, scorer, n_samples, until_width, at
        )
    for target in targets:
        if until_width is None:
            made += _sample(store, target, workspace, machine.machine, scorer, n_samples)
        if timings:
            _time(store, target, machine.machine)
    total = len(store.samples())
    say(f"{made:,} draws made, {total:,} in {workspace.measurements}")
    few = n_samples or config.sampling.n_samples
    if few < 8 or len(problems) < 30:
        most = "" if until_width is None else "at most "
        warn(
            f"note: {len(problems)} problems with {most}{few} draws each give wide laws; "
            "100 with 16 give useful ones"
        )


def _scorer(workspace: Workspace) -> Scorer | None:
    folder = workspace.scorer_folder()
    if folder is not None and not folder.is_dir():
        raise InputError(f"{workspace.config_file}: scorer: {folder}: no such folder")
    return open_scorer(folder)


def _chosen(workspace: Workspace, only: Sequence[str]) -> list[ModelTarget]:
    targets = workspace.targets()
    names = [target.name for target in targets]
    for name in only:
        if name not in names:
            raise InputError(
                f"{workspace.config_file}: no model {name!r}; it has {', '.join(names)}"
            )
    return [target for target in targets if not only or target.name in only]


def _check_disk(folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < _FREE_BYTES:
        raise StoreError(
            f"{folder}: only {free / 1e6:.0f} MB left on the disk; free some space first"
        )


def _sample(
    store: "Store",
    target: ModelTarget,
    workspace: Workspace,
    machine: str,
    scorer: Scorer | None,
    n_samples: int | None,
    n_of: "DrawsOf | None" = None,
) -> int:
    from planner.calibration.sampling import sample

    settings = workspace.config().sampling
    with (
        closing(open_engine(target)) as engine,
        progress(f"{target.name}: draws") as update,
    ):
        return sample(
            store,
            engine,
            workspace.problems(),
            n_samples=n_samples or settings.n_samples,
            temperatures=settings.temperatures,
            max_tokens=settings.max_tokens,
            top_p=settings.top_p,
            seed=settings.seed,
            machine=machine,
            n_of=n_of,
            scorer=scorer,
            progress=update,
        )


def _sample_until(
    store: "Store",
    targets: Sequence[ModelTarget],
    workspace: Workspace,
    machine: str,
    scorer: Scorer | None,
    n_samples: int | None,
    until_width: float,
    at: int | None,
) -> int:
    """Draw where it narrows the interval most, until it is narrow enough; draws made."""
    from planner.calibration.cells import BEYOND
    from planner.calibration.rounds import sample_until
    from planner.calibration.sampling import SamplingPlan

    settings = workspace.config().sampling
    plan = SamplingPlan(
        problems=workspace.problems(), n_samples=n_samples or settings.n_samples,
        temperatures=settings.temperatures, max_tokens=settings.max_tokens,
        top_p=settings.top_p, seed=settings.seed,
    )  # fmt: skip
    named = {target.name: target for target in targets}

    def draw(model: str, n_of: "DrawsOf") -> int:
        if not replace(plan, n_of=n_of).missing(store, model):
            return 0  # an engine takes long to open
        return _sample(
            store, named[model], workspace, machine, scorer, plan.n_samples, n_of
        )

    def tell(spending: "Spending", total: int) -> None:
        now, to_come = spending.widest, int(spending.add.sum())
        what = f"coverage at {now.k:,} draws" if now.k > 1 else "accuracy of one draw"
        rest = f", next {to_come:,}" if to_come else ""
        warn(
            f"{what}: {now.low:.3f} to {now.high:.3f}, width {now.value:.3f} "
            f"(target {until_width:g}) after {total:,} draws{rest}"
        )
        if not to_come and not spending.reached:
            warn(
                f"note: every problem has {plan.n_samples} draws and the interval is "
                "wider than its target; raise --n-samples to go on"
            )

    return sample_until(
        store, plan, list(named), draw, until_width=until_width, tell=tell,
        ks=sorted({1, at or BEYOND * plan.n_samples}),
    )  # fmt: skip


def _time(store: "Store", target: ModelTarget, machine: str) -> None:
    """Time a model's steps; say so where that cannot be, as seconds are unknown then."""
    from planner.calibration.latency import time_engine

    if target.architecture is None or target.engine == "recorded":
        why = (
            "recorded draws cannot be"
            if target.engine == "recorded"
            else "its architecture is unknown"
        )
        warn(
            f"note: {target.name} is not timed ({why}); no budget in s, flop, bytes or "
            "eflop for it"
        )
        return
    with (
        closing(open_engine(target)) as engine,
        progress(f"{target.name}: step times") as update,
    ):
        try:
            time_engine(store, engine, target.architecture, machine, progress=update)
        except NotMeasuredError as error:
            warn(f"note: {target.name} is not timed: {error}")


def run_fit(folder: Path, *, seed: int) -> None:
    """Fit the laws, save them, and print their held-out error.

    Raises:
        PlannerError: What `fit_laws` raises; laws.json stays as it was.
    """
    workspace = Workspace(folder)
    targets, problems = workspace.targets(), workspace.problems()
    from planner.calibration.fit import fit_laws
    from planner.calibration.importers import with_imported
    from planner.calibration.store import Store

    store = Store(workspace.measurements)
    laws = fit_laws(
        store,
        targets=targets,
        problems=with_imported(problems, store),
        seed=seed,
        progress=warn,
    )
    laws.save(workspace.laws_file)
    show_holdout(laws.holdout)
    cells = f"{len(laws.cells)} cells (model, task, difficulty, temperature, token cap)"
    say(f"wrote {workspace.laws_file}: {cells}")


def show_holdout(rows: Sequence[HoldoutRow]) -> None:
    """The table of held-out error: one line a quantity and model."""
    lines = []
    for quantity in dict.fromkeys(row.quantity for row in rows):
        for model in dict.fromkeys(row.model for row in rows if row.quantity == quantity):
            own = [row for row in rows if row.quantity == quantity and row.model == model]
            inside = sum(row.low <= row.observed <= row.high for row in own) / len(own)
            if quantity == "latency":
                off = sum(abs(row.predicted / row.observed - 1) for row in own) / len(own)
                error = f"{100 * off:.1f} %"
            else:
                off = sum(abs(row.predicted - row.observed) for row in own) / len(own)
                error = f"{100 * off:.1f} points"
            lines.append(
                (
                    quantity.replace("_", " "),
                    model,
                    str(len(own)),
                    error,
                    f"{100 * inside:.0f} %",
                )
            )
    if lines:
        show_table(
            "held-out error",
            ("quantity", "model", "rows", "mean |error|", "inside 90 %"),
            lines,
            numeric=(2, 3, 4),
        )
    else:
        warn("note: too few measurements to hold any out; the laws are not checked")


def run_report(folder: Path) -> Path:
    """Write report.html from what the workspace holds; where it is.

    Raises:
        InputError: There are no laws yet, or a file is off.
        StoreError: A measurement file is damaged, or the report cannot be written.
    """
    workspace = Workspace(folder)
    laws = Laws.load(workspace.laws_file)
    from planner.calibration.store import Store
    from planner.outcome import Outcome
    from planner.plan import Plan
    from planner.report import write_report

    store, outcome = Store(workspace.measurements), folder / "outcome.json"
    write_report(
        workspace.report_file,
        laws=laws,
        plan=Plan.load(workspace.plan_file) if workspace.plan_file.exists() else None,
        samples=store.samples(),
        timings=store.timings(),
        machines=store.machines(),
        outcome=Outcome.load(outcome) if outcome.exists() else None,
    )
    return workspace.report_file
