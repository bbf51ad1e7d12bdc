"""Laws of a made-up workload whose truth is known, for tests of planning.

Problem i of a class has an ability; model m solves it in one draw with probability
p = logistic(size_m - class - ability_i - model_im - setting_ims). What a cell's curves say
comes from `n_problems` simulated problems, so it is off like a real calibration; the truth
is the mean over very many problems.
"""

import math
from dataclasses import dataclass

import numpy as np

from planner.models.artifact import (
    Cell,
    CoverageFit,
    Laws,
    ModelLaw,
    Provenance,
    StrategyCurve,
    TaskLaw,
)  # fmt: skip
from planner.models.difficulty import FEATURES

N_GRID = (1, 2, 4, 8, 16)
CAPS = (32, 64)
TEMPERATURES = (0.6, 1.0)
MODELS = ("small", "medium", "large")
TASKS = ("code", "sums")  # of code, an exact check runs in production; of sums, it does not
N_CLASSES = 3
NOW = "2026-01-02T03:04:05+00:00"
PROVENANCE = Provenance(
    rows_sha256="ab" * 32, engines=("recorded 0.1.0",), machines=("c0ffee12",),
    measured_from=NOW, measured_to=NOW, source="measured",
)  # fmt: skip
Key = tuple[str, int, str, str, int, int, float]  # task, class, model, strategy, n, cap, T


@dataclass(frozen=True)
class Known:
    """Laws as calibration would have them, and what is true."""

    laws: Laws
    truth: dict[Key, float]


def architecture(size: int, tied: float = 0.0) -> dict[str, float]:
    width = 64.0 * 2**size
    return {
        "layers": 4.0, "hidden": width, "heads": 4.0, "kv_heads": 4.0,
        "head_dim": width / 4, "intermediate": 4 * width, "vocabulary": 32.0,
        "tied_embeddings": tied, "weight_bytes": 4.0, "kv_bytes": 4.0,
    }  # fmt: skip


def solve_rates(
    rng: np.random.Generator, n: int, difficulty: int
) -> dict[tuple[str, float, int], np.ndarray]:
    """One-draw success rates of n problems, by model, temperature and cap."""
    ability = rng.normal(0, 1.2, n)
    rates = {}
    for size, model in enumerate(MODELS):
        own = ability + rng.normal(0, 1.0, n)
        for temperature in TEMPERATURES:
            quirk = rng.normal(0, 0.5, n)
            for cap in CAPS:
                tilt = 0.4 * (temperature == 0.6) - 0.8 * (cap == 32)
                logit = (
                    0.8
                    + 1.1 * size
                    - 1.5 * difficulty
                    + tilt
                    - own
                    - quirk
                    - rng.normal(0, 0.2, n)
                )
                rates[model, temperature, cap] = 1 / (1 + np.exp(-logit))
    return rates


def strategy_accuracy(p: np.ndarray, strategy: str, n: int) -> np.ndarray:
    """Chance that a strategy answers each problem right, given its one-draw rate."""
    if strategy == "best_of_n":
        return 1 - (1 - p) ** n
    if strategy == "self_consistency":  # a smooth stand-in: sharpens towards p > 1/2
        return p ** (1 + math.log2(n) / 4) / (
            p ** (1 + math.log2(n) / 4) + (1 - p) ** (1 + math.log2(n) / 4)
        )
    return p


def _curves(task: str, p: np.ndarray, mean_tokens: float, cap: int) -> list[StrategyCurve]:
    kinds = [
        ("single", (1,)),
        ("best_of_n" if task == "code" else "self_consistency", N_GRID),
    ]
    curves = []
    for strategy, grid in kinds:
        draws = []
        for n in grid:
            early = (1 - (1 - p) ** n) / np.maximum(p, 1e-6)
            draws.append(float(np.mean(early)) if strategy == "best_of_n" else float(n))
        accuracy = [strategy_accuracy(p, strategy, n) for n in grid]
        tokens = [d * mean_tokens for d in draws]
        curves.append(
            StrategyCurve(
                strategy=strategy, n=grid,
                accuracy=tuple(float(a.mean()) for a in accuracy),
                accuracy_sd=tuple(
                    float(a.std(ddof=1) / math.sqrt(len(p))) for a in accuracy
                ),
                draws=tuple(draws), output_tokens=tuple(tokens),
                output_tokens_sd=tuple(0.4 * t for t in tokens), n_max=16,
            )
        )  # fmt: skip
    return curves


def known_laws(
    rng: np.random.Generator,
    *,
    n_problems: int = 60,
    priced: tuple[str, ...] = MODELS,
    shaped: tuple[str, ...] = MODELS,
    classes: int = N_CLASSES,
    true_problems: int = 4000,
) -> Known:
    """Simulate a calibration of `n_problems` a class."""
    cells, truth = [], {}
    for task in TASKS:
        for difficulty in range(classes):
            seen = solve_rates(rng, n_problems, difficulty)
            many = solve_rates(rng, true_problems, difficulty)
            for (model, temperature, cap), p in seen.items():
                tokens = 0.6 * cap
                curves = _curves(task, p, tokens, cap)
                mean, var = float(p.mean()), float(p.var()) + 1e-6
                size = max(mean * (1 - mean) / var - 1, 0.05)
                cells.append(
                    Cell(
                        model=model, task=task, difficulty=difficulty,
                        temperature=temperature, max_tokens=cap, n_problems=n_problems,
                        n_samples=32, prompt_tokens=20.0,
                        coverage=CoverageFit(
                            shapes=tuple(
                                (math.log(mean * size) + off, math.log(mean / (1 - mean)),
                                 -12.0, -12.0)
                                for off in (-0.1, 0.0, 0.1)
                            ),
                            k_max=32,
                        ),
                        curves=tuple(curves),
                    )
                )  # fmt: skip
                real = many[model, temperature, cap]
                for curve in curves:
                    for n in curve.n:
                        truth[
                            task, difficulty, model, curve.strategy, n, cap, temperature
                        ] = float(strategy_accuracy(real, curve.strategy, n).mean())
    laws = Laws(
        schema_version=1, inferplan="0.1.0", created_at=NOW, seed=0, provenance=PROVENANCE,
        reference_batch=64, intensity_flop_per_byte=10.0, stop_confidence=0.95,
        tasks=tuple(
            _task(task, i, classes, n_problems) for i, task in enumerate(TASKS)
        ),
        models=tuple(
            ModelLaw(
                model=model, engine="recorded",
                architecture=architecture(size) if model in shaped else None,
                usd_per_input_token=1e-6 * 4**size if model in priced else None,
                usd_per_output_token=3e-6 * 4**size if model in priced else None,
                price_source="made up" if model in priced else "", latency=None,
            )
            for size, model in enumerate(MODELS)
        ),
        cells=tuple(cells), holdout=(),
    )  # fmt: skip
    return Known(laws, truth)


def _task(task: str, i: int, classes: int, n_problems: int) -> TaskLaw:
    probs = np.full(256, 0.1)
    probs[ord("C" if task == "code" else "A")] = 50.0  # "C3,7>21:" and "A3+7:"
    weights = [0.0] * len(FEATURES)
    weights[FEATURES.index("log_numbers")] = 1.0
    return TaskLaw(
        task=task, n_problems=classes * n_problems, runtime_verifier=task == "code",
        verifier="countdown" if task == "code" else "numeric", feature_names=FEATURES,
        feature_mean=(0.0,) * len(FEATURES), feature_scale=(1.0,) * len(FEATURES),
        weights=tuple(weights),
        edges=tuple(math.log(3.5 + 2 * k) for k in range(classes - 1)),
        class_shares=(1 / classes,) * classes, gain=0.2,
        byte_log_probs=tuple(np.log(probs / probs.sum()).tolist()),
    )  # fmt: skip
