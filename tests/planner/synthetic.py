"""A made-up workspace shaped like the reference workload, for the tests of the report.

Every number is simulated here; none says anything about a real model.
"""

import math
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pandas as pd

from planner.models.artifact import (
    Cell,
    CoverageFit,
    HoldoutRow,
    Laws,
    ModelLaw,
    Provenance,
    StrategyCurve,
    TaskLaw,
)
from planner.models.flops import decode_step, prefill_step
from planner.models.latency import LatencyLaw
from planner.models.specs import Architecture
from planner.outcome import ArmResult, GroupResult, Outcome
from planner.plan import (
    Baseline,
    Forecast,
    FrontierPoint,
    Group,
    Interval,
    Option,
    Plan,
    Share,
)

MODELS = ("tiny-0.2m", "tiny-0.8m", "tiny-3m", "tiny-7m")
TASKS = ("chain", "countdown", "retry")
COST = (1e6, 3.5e6, 1.2e7, 2.6e7)  # eflop a draw
N_SAMPLES = 32
NOW = "2026-01-02T03:04:05+00:00"
PROVENANCE = Provenance(
    rows_sha256="ab" * 32,
    engines=("embedded 0.1.0",),
    machines=("c0ffee12",),
    measured_from=NOW,
    measured_to=NOW,
    source="measured",
)


def architecture(size: int) -> Architecture:
    width = (64, 128, 256, 352)[size]
    return Architecture(
        layers=4,
        hidden=width,
        heads=4,
        kv_heads=4,
        head_dim=width // 4,
        intermediate=4 * width,
        vocabulary=32,
        tied_embeddings=False,
        weight_bytes=4.0,
        kv_bytes=4.0,
    )


def shape(size: int, task: int, difficulty: int) -> tuple[float, float]:
    """Beta parameters of a cell: easier for bigger models and lower classes."""
    mean = 1 / (1 + math.exp(-(1.6 + 0.9 * size - 1.7 * difficulty - 0.5 * task)))
    return 2.2 * mean, 2.2 * (1 - mean)


def make(
    rng: np.random.Generator,
    models: tuple[str, ...] = MODELS,
    tasks: tuple[str, ...] = TASKS,
    n_problems: int = 12,
) -> SimpleNamespace:
    """laws, plan, samples, timings, machines and outcome of one simulated workspace."""
    samples, cells = _samples(rng, models, tasks, n_problems)
    timings, latencies = _timings(rng, models)
    laws = Laws(
        schema_version=1,
        inferplan="0.1.0",
        created_at=NOW,
        seed=0,
        provenance=PROVENANCE,
        reference_batch=64,
        intensity_flop_per_byte=12.5,
        stop_confidence=0.95,
        tasks=tuple(
            TaskLaw(
                task=task,
                n_problems=4 * n_problems,
                runtime_verifier=i > 0,
                verifier=task,
                feature_names=("bytes",),
                feature_mean=(20.0,),
                feature_scale=(8.0,),
                weights=(1.0,),
                edges=(-1.0, 0.0, 1.0),
                class_shares=(0.25,) * 4,
                gain=0.31,
                byte_log_probs=(-5.0,) * 256,
            )
            for i, task in enumerate(tasks)
        ),
        models=tuple(
            ModelLaw(
                model=model,
                engine="embedded 0.1.0",
                architecture={k: float(v) for k, v in asdict(architecture(i)).items()},
                usd_per_input_token=1e-8 * 4**i,
                usd_per_output_token=4e-8 * 4**i,
                price_source="made up",
                latency=latencies[i].to_fit(),
            )
            for i, model in enumerate(models)
        ),
        cells=tuple(cells),
        holdout=tuple(_holdout(rng, models, tasks)),
    )
    plan, truth = _plan(models, tasks)
    machines = pd.DataFrame(
        [
            {
                "machine": "c0ffee12",
                "device": "simulated, 2 cores",
                "cores": 2,
                "memory_bytes": 8e9,
                "os": "Linux",
                "python": "3.11.4",
                "numpy": "2.4.0",
                "blas": "openblas",
                "flop_per_s": 1.5e11,
                "bytes_per_s": 1.2e10,
                "source": "measured",
                "measured_at": NOW,
            }
        ]
    )
    return SimpleNamespace(
        laws=laws,
        plan=plan,
        samples=samples,
        timings=timings,
        machines=machines,
        outcome=_outcome(rng, plan, truth),
    )


def _samples(rng, models, tasks, n_problems):
    rows, cells = [], []
    for m, model in enumerate(models):
        for t, task in enumerate(tasks):
            for difficulty in range(4):
                a, b = shape(m, t, difficulty)
                for problem in range(n_problems):
                    p = rng.beta(a, b)
                    for draw in range(N_SAMPLES):
                        rows.append(
                            {
                                "model": model,
                                "task": task,
                                "problem_id": f"{task}-{difficulty}-{problem}",
                                "temperature": 1.0,
                                "max_tokens": 160,
                                "draw": draw,
                                "correct": bool(rng.random() < p),
                                "source": "measured",
                            }
                        )
                n = (1, 2, 4, 8, 16, 32)
                cover = [
                    1
                    - math.exp(
                        math.lgamma(b + k)
                        - math.lgamma(b)
                        + math.lgamma(a + b)
                        - math.lgamma(a + b + k)
                    )
                    for k in n
                ]
                cells.append(
                    Cell(
                        model=model,
                        task=task,
                        difficulty=difficulty,
                        temperature=1.0,
                        max_tokens=160,
                        n_problems=n_problems,
                        n_samples=N_SAMPLES,
                        prompt_tokens=20.0,
                        coverage=CoverageFit(
                            shapes=tuple(
                                (math.log(a) + off, math.log(a / b), -12.0, -12.0)
                                for off in (-0.2, 0.0, 0.2)
                            ),
                            k_max=N_SAMPLES,
                        ),
                        curves=(
                            StrategyCurve(
                                strategy="best_of_n",
                                n=n,
                                accuracy=tuple(cover),
                                accuracy_sd=(0.03,) * 6,
                                draws=tuple(map(float, n)),
                                output_tokens=tuple(40.0 * k for k in n),
                                output_tokens_sd=(12.0,) * 6,
                                n_max=32,
                            ),
                        ),
                    )
                )
    return pd.DataFrame(rows), cells


def _timings(rng, models):
    rows, laws = [], []
    for m, model in enumerate(models):
        arch, own = architecture(m), []
        for phase, step in (("prefill", prefill_step), ("decode", decode_step)):
            for batch in (1, 4, 16, 64, 256):
                for context in (16, 64, 160):
                    length = "prompt_tokens" if phase == "prefill" else "context_tokens"
                    cost = step(arch, batch=batch, **{length: context})
                    base = (
                        6e-4 + cost.flop / 5e10 + (cost.weight_bytes + cost.kv_bytes) / 8e9
                    )
                    for repeat in range(3):
                        own.append(
                            {
                                "model": model,
                                "phase": phase,
                                "batch": batch,
                                "context_tokens": context,
                                "repeat": repeat,
                                "seconds": base * math.exp(rng.normal(0, 0.06)),
                                "machine": "c0ffee12",
                                "source": "measured",
                            }
                        )
        frame = pd.DataFrame(own)
        laws.append(
            LatencyLaw.fit(
                frame["phase"],
                frame["batch"],
                frame["context_tokens"],
                frame["seconds"],
                architecture=arch,
                machine="c0ffee12",
                flop_per_s=1.5e11,
                bytes_per_s=1.2e10,
                source="measured",
            )
        )
        rows += own
    return pd.DataFrame(rows), laws


def _holdout(rng, models, tasks):
    for model in models:
        for task in tasks:
            for n in (1, 4, 16):
                truth = float(rng.uniform(0.1, 0.95))
                off = float(rng.normal(0, 0.03))
                guess = min(max(truth + off, 0.0), 1.0)
                yield HoldoutRow(
                    model=model,
                    task=task,
                    quantity="coverage",
                    n=n,
                    predicted=guess,
                    low=max(guess - 0.05, 0.0),
                    high=min(guess + 0.05, 1.0),
                    observed=truth,
                    n_problems=48,
                )
        yield HoldoutRow(
            model=model,
            task="",
            quantity="latency",
            n=1,
            predicted=0.002,
            low=0.0018,
            high=0.0023,
            observed=0.0021,
            n_problems=0,
        )


def _interval(mean: float, half: float = 0.04) -> Interval:
    return Interval(mean=mean, low=max(mean - half, 0.0), high=min(mean + half, 1.0))


def _forecast(models, m, t, difficulty, n) -> Forecast:
    a, b = shape(m, t, difficulty)
    miss = math.exp(
        math.lgamma(b + n) - math.lgamma(b) + math.lgamma(a + b) - math.lgamma(a + b + n)
    )
    gain = 1.0 if t else 0.55  # a chain is voted on: less than its coverage
    accuracy = a / (a + b) + gain * (1 - miss - a / (a + b))
    strategy = "single" if n == 1 else ("best_of_n" if t else "self_consistency")
    cost = {"eflop": COST[m % 4] * n * (0.9 + 0.1 * difficulty), "tokens": 60.0 * n}
    return Forecast(
        option=Option(
            model=models[m], strategy=strategy, n=n, max_tokens=160, temperature=1.0
        ),
        accuracy=_interval(accuracy),
        cost=cost,
        cost_p95={k: 1.6 * v for k, v in cost.items()},
        extrapolated=(f"n = {n} is beyond the 32 draws measured",) if n > 32 else (),
        origin="grid",
    )


def _front(models, t, difficulty) -> tuple[Forecast, ...]:
    listed = [
        _forecast(models, m, t, difficulty, n)
        for m in range(len(models))
        for n in (1, 2, 4, 8, 16, 32, 64)
    ]
    listed.sort(key=lambda f: f.cost["eflop"])
    kept: list[Forecast] = []
    for forecast in listed:
        if not kept or forecast.accuracy.mean > kept[-1].accuracy.mean + 1e-6:
            kept.append(forecast)
    return tuple(kept)


def _plan(models, tasks, n_prompts: int = 360) -> tuple[Plan, dict[tuple[str, int], float]]:
    groups, truth = [], {}
    share = 1 / (4 * len(tasks))
    for t, task in enumerate(tasks):
        for difficulty in range(4):
            front = _front(models, t, difficulty)
            at = min(len(front) - 1, 1 + 2 * difficulty)
            second = front[max(at - 1, 0)]
            choices = (
                Share(forecast=front[at], share=0.7),
                Share(forecast=second, share=0.3),
            )
            choices = (
                choices if difficulty == 2 else (Share(forecast=front[at], share=1.0),)
            )
            truth[task, difficulty] = sum(
                c.share * c.forecast.accuracy.mean for c in choices
            )
            groups.append(
                Group(
                    task=task,
                    difficulty=difficulty,
                    prompt_share=share,
                    choices=choices,
                    runner_up=second,
                    why="More draws of it gain less than the next prompt would.",
                    front=front,
                )
            )
    spend = sum(
        g.prompt_share * s.share * s.forecast.cost["eflop"]
        for g in groups
        for s in g.choices
    )
    accuracy = sum(share * p for p in truth.values())
    total = spend * n_prompts * 1.02
    frontier = [
        FrontierPoint(
            cost_per_prompt=spend * f,
            accuracy=_interval(min(accuracy + 0.09 * math.log(f), 0.97)),
            label="planner",
        )
        for f in (0.05, 0.1, 0.2, 0.5, 1, 2, 4)
    ]
    for m, model in enumerate(models):
        for n in (1, 2, 4, 8, 16, 32):
            mean = np.mean(
                [
                    _forecast(models, m, t, d, n).accuracy.mean
                    for t in range(len(tasks))
                    for d in range(4)
                ]
            )
            frontier.append(
                FrontierPoint(
                    cost_per_prompt=COST[m % 4] * n,
                    accuracy=_interval(float(mean) - 0.03),
                    label=f"{model} best_of_n n={n} max_tokens=160 T=1",
                )
            )
    single = Option(
        model=models[-1], strategy="single", n=1, max_tokens=160, temperature=0.6
    )
    many = Option(
        model=models[1], strategy="best_of_n", n=8, max_tokens=160, temperature=1.0
    )
    plan = Plan(
        schema_version=1,
        inferplan="0.1.0",
        created_at=NOW,
        budget_unit="eflop",
        budget_total=total,
        n_prompts=n_prompts,
        promised_accuracy=_interval(accuracy),
        promised_spend=Interval(
            mean=spend * n_prompts, low=spend * n_prompts * 0.96, high=total
        ),
        shadow_price=0.09 / spend,
        binds="budget",
        extrapolated=("retry, class 3: n = 64 is beyond the 32 draws measured",),
        options_considered=1344,
        groups=tuple(groups),
        frontier=tuple(frontier),
        baselines={
            "single_best_model": Baseline(
                options=dict.fromkeys(tasks, single),
                accuracy=_interval(0.58),
                cost_per_prompt=COST[3],
            ),
            "uniform_best_of_n": Baseline(
                options=dict.fromkeys(tasks, many),
                accuracy=_interval(0.66),
                cost_per_prompt=8 * COST[1],
            ),
        },
        laws=PROVENANCE,
        source="measured",
    )
    return plan, truth


def _arm(
    rng, plan: Plan, truth: dict[tuple[str, int], float], shift: float, spent: float
) -> ArmResult:
    each = plan.n_prompts // len(truth)
    groups = []
    for (task, difficulty), p in truth.items():
        half = 1.645 * math.sqrt(max(p * (1 - p), 0.01) / each + 0.02**2)
        groups.append(
            GroupResult(
                task=task,
                difficulty=difficulty,
                n=each,
                correct=int(rng.binomial(each, min(max(p + shift, 0), 1))),
                predicted=p if shift == 0 else None,
                low=max(p - half, 0.0) if shift == 0 else None,
                high=min(p + half, 1.0) if shift == 0 else None,
                spent=spent / len(truth),
            )
        )
    correct = sum(g.correct for g in groups)
    return ArmResult(
        accuracy=correct / (each * len(truth)),
        n_prompts=each * len(truth),
        spent={"eflop": spent, "tokens": spent / 2e5},
        by_group=tuple(groups),
        cancelled_draws=37,
        unanswered=2,
        wall_s=12.3,
    )


def _outcome(rng, plan: Plan, truth: dict[tuple[str, int], float]) -> Outcome:
    return Outcome(
        schema_version=1,
        inferplan="0.1.0",
        created_at=NOW,
        budget_unit="eflop",
        budget_total=plan.budget_total,
        arms={
            "planner": _arm(rng, plan, truth, 0.0, 0.97 * plan.budget_total),
            "single_best_model": _arm(rng, plan, truth, -0.16, 0.99 * plan.budget_total),
            "uniform_best_of_n": _arm(rng, plan, truth, -0.08, 0.93 * plan.budget_total),
        },
    )
