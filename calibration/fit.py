"""Measurements -> `laws.json`."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from typing import NamedTuple

import numpy as np
import pandas as pd

from planner.calibration.cells import fit_cells, measure
from planner.calibration.draws import DrawTable, IntArray, tabulate
from planner.calibration.holdout import fresh_problems, further_draws, held_out_timings
from planner.calibration.store import Store
from planner.models.artifact import Laws, ModelLaw, Provenance, SourceName, TaskLaw
from planner.models.difficulty import (
    FEATURES,
    DifficultyFit,
    byte_log_probs,
    fit_difficulty,
)
from planner.models.errors import FitError, InputError, NotMeasuredError
from planner.models.latency import LatencyLaw
from planner.models.lengths import cap_grid
from planner.models.prediction import Array
from planner.models.records import Problem
from planner.models.specs import ModelTarget
from planner.verifiers import get_verifier

_TRUST: tuple[SourceName, ...] = ("measured", "transferred", "assumed")  # falling


def fit_laws(
    store: Store,
    *,
    targets: Sequence[ModelTarget],
    problems: Sequence[Problem],
    seed: int,
    reference_batch: int = 64,
    stop_confidence: float = 0.95,
    progress: Callable[[str], None] | None = None,
) -> Laws:
    """Fit every law to the store's measurements, and judge them on held-out parts.

    Args:
        store: Holds samples, timings and machines.
        targets: The candidate models; samples of others are ignored.
        problems: What was sampled; samples of others are ignored.
        seed: Of replays, halves and draws: the same seed and rows give the same laws.
        reference_batch: Decode batch that weight reads are shared over; an assumption.
        stop_confidence: Of the vote's early stop.
        progress: Told what is being fitted, and what could not be.

    Raises:
        NotMeasuredError: No samples of a target, or no ceilings of a machine that measured.
        InputError: No targets or problems, or a task that mixes verifiers.
        FitError: A fit did not converge.
    """
    if not targets or not problems:
        raise InputError("a fit needs at least one model and one problem")
    tell = progress or (lambda _: None)
    rng = np.random.default_rng(seed)
    samples, timings, machines = store.samples(), store.timings(), store.machines()
    if samples.empty:
        raise NotMeasuredError("no samples to fit; run `planner calibrate` first")
    tell("sorting the draws")
    names = [target.name for target in targets]
    tables = tabulate(samples, names, problems)
    verifiers = _verifiers(problems)
    runtime = {t: not get_verifier(name).needs_reference for t, name in verifiers.items()}
    tell("replaying the strategies")
    caps = _caps(tables)
    measured = [
        m
        for table in tables
        for m in measure(
            table, caps[table.model, table.task], runtime_verifier=runtime[table.task],
            stop_confidence=stop_confidence, rng=rng,
        )
    ]  # fmt: skip
    tell("difficulty")
    classes = np.full(len(problems), -1, dtype=np.int64)
    task_laws = []
    for task, verifier in verifiers.items():
        own = [table for table in tables if table.task == task]
        if not own:
            raise NotMeasuredError(f"no samples of task {task!r}; run `planner calibrate`")
        fit, index = _difficulty(own, problems)
        classes[index] = fit.classes
        prompts = [problems[i].prompt for i in index.tolist()]
        task_laws.append(_task_law(task, verifier, runtime[task], fit, prompts))
    tell("coverage, voting and selection")
    cells = fit_cells(measured, classes, rng)
    tell("latency")
    # draws that were all imported come without a machine: FLOP are known, eFLOP are not
    elsewhere = machines.empty and not (samples["source"] == "measured").any()
    ceilings = None if elsewhere else _ceilings(machines, timings)
    _tell_unknown(samples, names, tell)
    latency = _latency_laws(timings, machines, targets, tell)
    tell("held-out error")
    whole = [m for m in measured if m.cap_rank == 0]
    holdout = [
        *fresh_problems(whole, len(problems), rng),
        *further_draws(tables, rng),
        *held_out_timings(timings, latency, rng),
    ]
    return Laws(
        schema_version=1,
        inferplan=version("inferplan"),
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        seed=seed,
        provenance=_provenance(store.rows_sha256(), samples),
        reference_batch=reference_batch,
        intensity_flop_per_byte=(
            None if ceilings is None else ceilings.flop_per_s / ceilings.bytes_per_s
        ),
        stop_confidence=stop_confidence,
        tasks=tuple(task_laws),
        models=tuple(_model_law(target, latency.get(target.name)) for target in targets),
        cells=tuple(cells),
        holdout=tuple(holdout),
    )


def _tell_unknown(
    samples: pd.DataFrame, names: Sequence[str], tell: Callable[[str], None]
) -> None:
    """Say of which models the cost of prompts was not imported."""
    without = samples.loc[samples["prompt_tokens"].isna(), "model"].unique()
    if listed := [name for name in names if name in without]:
        tell(
            f"note: prompt tokens of {', '.join(listed)} were not imported and count as "
            "none: budgets are for what the models write"
        )


def _verifiers(problems: Sequence[Problem]) -> dict[str, str]:
    """The verifier of each task."""
    verifiers: dict[str, str] = {}
    for problem in problems:
        name = verifiers.setdefault(problem.task, problem.verifier)
        if name != problem.verifier:
            raise InputError(
                f"task {problem.task!r} mixes the verifiers {name!r} and "
                f"{problem.verifier!r}; split it into two tasks"
            )
    return verifiers


def _caps(tables: Sequence[DrawTable]) -> dict[tuple[str, str], tuple[int, ...]]:
    """Caps of each model and task, the same at every temperature and class."""
    grouped: dict[tuple[str, str], list[DrawTable]] = {}
    for table in tables:
        grouped.setdefault((table.model, table.task), []).append(table)
    caps = {}
    for key, own in grouped.items():
        lengths = [t.recorded.output_tokens[t.recorded.present] for t in own]
        caps[key] = cap_grid(np.concatenate(lengths), max(t.max_tokens for t in own))
    return caps


def _difficulty(
    tables: Sequence[DrawTable], problems: Sequence[Problem]
) -> tuple[DifficultyFit, IntArray]:
    """Fit a task's difficulty to all models' pass rates; and the problems it is of."""
    total: Array = np.zeros(len(problems))
    count: Array = np.zeros(len(problems))
    for table in tables:
        c, n = table.recorded.n_correct, table.recorded.n_samples
        logit = np.log((c + 0.5) / (n - c + 0.5))  # shrunken: half a draw each way
        # against the table's mean, so that which models saw a problem does not matter
        total[table.problem] -= logit - logit.mean()
        count[table.problem] += 1
    index = np.flatnonzero(count)
    prompts = [problems[i].prompt for i in index.tolist()]
    return fit_difficulty(prompts, total[index] / count[index]), index


def _task_law(
    task: str, verifier: str, runtime: bool, fit: DifficultyFit, prompts: Sequence[str]
) -> TaskLaw:
    law = fit.law
    shares = np.bincount(fit.classes, minlength=len(law.edges) + 1) / len(fit.classes)
    return TaskLaw(
        task=task,
        n_problems=len(prompts),
        runtime_verifier=runtime,
        verifier=verifier,
        feature_names=FEATURES,
        feature_mean=tuple(law.mean.tolist()),
        feature_scale=tuple(law.scale.tolist()),
        weights=tuple(law.weights.tolist()),
        edges=tuple(law.edges.tolist()),
        class_shares=tuple(shares.tolist()),
        gain=law.gain,
        byte_log_probs=byte_log_probs(prompts),
    )


class _Ceilings(NamedTuple):
    machine: str
    flop_per_s: float
    bytes_per_s: float


def _ceilings(machines: pd.DataFrame, timings: pd.DataFrame) -> _Ceilings:
    """Of the machine most timings are from; without timings, of the last measured."""
    if machines.empty:
        raise NotMeasuredError("no machine's ceilings; run `planner calibrate`")
    known = timings.loc[timings["machine"].isin(machines["machine"]), "machine"]
    if len(known):
        row = int(np.argmax(machines["machine"].to_numpy() == known.mode().iloc[0]))
    else:
        row = int(machines["measured_at"].to_numpy().argmax())
    return _Ceilings(
        str(machines["machine"].iloc[row]),
        float(machines["flop_per_s"].iloc[row]),
        float(machines["bytes_per_s"].iloc[row]),
    )


def _latency_laws(
    timings: pd.DataFrame,
    machines: pd.DataFrame,
    targets: Sequence[ModelTarget],
    tell: Callable[[str], None],
) -> dict[str, LatencyLaw]:
    """The latency law of each model that was timed and whose architecture is known."""
    laws = {}
    for target in targets:
        own = timings[timings["model"] == target.name]
        own = own[own["machine"].isin(machines["machine"])]
        if target.architecture is None or own.empty:
            continue
        ceilings = _ceilings(machines, own)
        own = own[own["machine"] == ceilings.machine]
        try:
            laws[target.name] = LatencyLaw.fit(
                own["phase"].to_numpy(), own["batch"].to_numpy(),
                own["context_tokens"].to_numpy(), own["seconds"].to_numpy(),
                architecture=target.architecture, machine=ceilings.machine,
                flop_per_s=ceilings.flop_per_s, bytes_per_s=ceilings.bytes_per_s,
                source=_least_trusted(own["source"]),
            )  # fmt: skip
        except FitError as error:
            # a model without a law is planned for without seconds, not left out
            tell(f"no latency law of {target.name}: {error}")
    return laws


def _model_law(target: ModelTarget, latency: LatencyLaw | None) -> ModelLaw:
    prices = target.prices
    return ModelLaw(
        model=target.name,
        engine=target.engine,
        architecture=(
            None
            if target.architecture is None
            else {k: float(v) for k, v in asdict(target.architecture).items()}
        ),
        usd_per_input_token=prices.usd_per_input_token if prices else None,
        usd_per_output_token=prices.usd_per_output_token if prices else None,
        price_source=prices.source if prices else "",
        latency=latency.to_fit() if latency else None,
    )


def _provenance(rows_sha256: str, samples: pd.DataFrame) -> Provenance:
    return Provenance(
        rows_sha256=rows_sha256,
        engines=tuple(sorted(samples["engine"].unique())),
        machines=tuple(sorted(samples["machine"].unique())),
        measured_from=str(samples["measured_at"].min()),
        measured_to=str(samples["measured_at"].max()),
        source=_least_trusted(samples["source"]),
    )


def _least_trusted(sources: "pd.Series[str]") -> SourceName:
    present = set(sources)
    return max((name for name in _TRUST if name in present), key=_TRUST.index)
