"""How well the laws of thinking length forecast, on data they have not seen.

    python benchmarks/thinking_forecast.py --store MEASUREMENTS --passk FOLDER

Sections, each with the baseline it must beat:
caps      accuracy above the cap that was sampled; baseline: flat at the cap
slopes    log-odds per log token, within and between problems, and both in one heap
efforts   accuracy at the highest effort from the lower ones; baselines: last, log-linear
useful    N* of the last useful draw from 16 draws; baseline: one chance for all problems
finish    first-finish and short-m@k against majority; k beyond the draws recorded

`--store` is a folder of measurements (samples of any models); `--passk` a folder with
epoch_hub_samples_otis_swebench.parquet (Epoch AI Benchmarking Hub, CC-BY-4.0) and counts of
many draws a problem. A section whose data is not given is left out.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd

from planner.calibration.draws import tabulate
from planner.calibration.store import Store
from planner.models.coverage import pass_at_k
from planner.models.effort import EffortLaw
from planner.models.errors import FitError
from planner.models.finish import FinishLaw, by_length_rank
from planner.models.lengths import Recorded
from planner.models.overthinking import LengthEffect
from planner.models.records import Problem
from planner.models.sequential import Ttspm, UsefulDraws, measured_saturation
from planner.models.thinking import CapLaw

THINKING_TOKENS = 3000  # mean of a run whose model thinks
FACTORS = (1.41, 2.0, 4.0)  # caps forecast, in units of the cap fitted at
COUNTS = {
    "p3_codex_cushman_n1000": "prompt_format",
    "evalperf_t1_n100": "model",
    "tot_game24_gpt4_n100_samples": "strategy",
}
# Mean output tokens of a draw and accuracy by effort level, lowest first: Epoch AI
# Benchmarking Hub (CC-BY-4.0). Problems x draws: 198 x 8 and 45 x 8.
Curves = dict[str, list[tuple[float, float]]]
GPQA_DIAMOND: Curves = {
    "gpt-5.2": [(1028, 0.827), (1921, 0.879), (3408, 0.882), (12_881, 0.914)],
    "gpt-5.1": [(3224, 0.850), (8049, 0.876)],
    "gpt-5": [(3755, 0.854), (6932, 0.862)],
    "gpt-5-mini": [(2652, 0.717), (7446, 0.750)],
    "gpt-5-nano": [(5070, 0.676), (12_161, 0.694)],
    "claude-opus-4.5": [(740, 0.807), (5596, 0.855), (8065, 0.860)],
    "claude-opus-4.6": [(5923, 0.905), (6918, 0.887)],
}
OTIS_MOCK_AIME: Curves = {
    "gpt-5.2": [(4538, 0.789), (7995, 0.939), (11_017, 0.961), (18_615, 0.961)],
    "gpt-5.1": [(4328, 0.639), (11_280, 0.856), (21_847, 0.886)],
    "gpt-5": [(9697, 0.872), (16_367, 0.914)],
    "gpt-5-mini": [(6959, 0.783), (16_491, 0.867)],
    "gpt-5-nano": [(14_594, 0.742), (31_208, 0.811)],
    "claude-opus-4.5": [(1194, 0.481), (11_179, 0.817), (17_523, 0.861)],
    "claude-opus-4.6": [(16_040, 0.931), (17_751, 0.944)],
}


def of_store(folder: Path) -> dict[str, tuple[Recorded, int]]:
    """Draws of each model and task at temperature 1, and the cap they were made under."""
    samples = Store(folder).samples()
    samples = samples[samples["temperature"] == 1.0]
    first = samples.drop_duplicates("problem_id")
    problems = [
        Problem(problem_id=row.problem_id, task=row.task, prompt="", verifier="exact")
        for row in first.itertuples()
    ]
    tables = tabulate(samples, list(dict.fromkeys(samples["model"])), problems)
    return {f"{t.model} {t.task}": (t.recorded, t.max_tokens) for t in tables}


def of_epoch(folder: Path, n_least: int = 4) -> dict[str, Recorded]:
    """OTIS Mock AIME runs of models that think; Google's output lacks its reasoning."""
    file = folder / "epoch_hub_samples_otis_swebench.parquet"
    rows = duckdb.connect().execute(
        "SELECT run_id, model, problem_id, epoch, correct, coalesce(answer, '') AS answer,"
        " output_tokens + CASE WHEN model LIKE 'google%' THEN coalesce(reasoning_tokens, 0)"
        " ELSE 0 END AS tokens FROM read_parquet(?) WHERE benchmark LIKE 'OTIS%'"
        " AND correct IS NOT NULL AND errored = 0 AND output_tokens > 0"
        " ORDER BY run_id, problem_id, epoch", [str(file)],
    ).df()  # fmt: skip
    rows["code"] = np.where(rows["answer"] == "", -1, pd.factorize(rows["answer"])[0])
    out = {}
    for (run, model), group in rows.groupby(["run_id", "model"]):
        n = group.groupby("problem_id")["epoch"].transform("size").to_numpy()
        at = group.groupby("problem_id").cumcount().to_numpy()
        if n.max() < n_least or group["tokens"].mean() < THINKING_TOKENS:
            continue
        row = group.groupby("problem_id").ngroup().to_numpy()
        shape = (int(row.max()) + 1, int(n.max()))
        answer = np.full(shape, -1, dtype=np.int64)
        tokens, correct = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=bool)
        answer[row, at] = group["code"]
        tokens[row, at] = group["tokens"]
        correct[row, at] = group["correct"] == 1
        out[f"{model} {run}"] = Recorded(
            np.bincount(row), correct, answer, tokens, np.full(shape, np.nan)
        )
    return out


def stack(parts: list[Recorded]) -> Recorded:
    """One table of all rows."""
    width = max(part.correct.shape[1] for part in parts)

    def join(name: str, fill: float) -> np.ndarray:
        arrays = [getattr(part, name) for part in parts]
        return np.concatenate(
            [
                np.pad(a, ((0, 0), (0, width - a.shape[1])), constant_values=fill)
                for a in arrays
            ]
        )

    return Recorded(
        np.concatenate([part.n_samples for part in parts]), join("correct", False),
        join("answer", -1), join("output_tokens", 0), join("score", np.nan),
    )  # fmt: skip


def caps(
    name: str, sets: dict[str, tuple[Recorded, int]], rng: np.random.Generator
) -> None:
    """Cut the draws at quantiles of their length, and forecast the caps above."""
    rows = []
    for full, most in sets.values():
        whole = CapLaw.fit(full, most)
        for q in (0.25, 0.5, 0.75, 0.9):
            cap = int(np.quantile(full.output_tokens[full.present], q))
            targets = sorted({int(cap * f) for f in FACTORS if cap * f <= most} | {most})
            targets = [t for t in targets if t > cap]
            if not targets:
                continue
            law = CapLaw.fit(full.capped(cap), cap)
            prediction = law.predict_measured(targets, rng)
            low, high = prediction.interval()
            truth = whole.accuracy(targets).mean(axis=0)
            flat = law.accuracy(cap).mean()
            tokens = law.predict_tokens(targets, rng).mean
            real = [whole.predict_tokens(t, rng).mean[0] for t in targets]
            rows += [
                {"cut": law.cut.sum() / full.n_samples.sum(), "factor": t / cap,
                 "flat": abs(flat - truth[i]), "law": abs(prediction.mean[i] - truth[i]),
                 "bias": prediction.mean[i] - truth[i], "width": high[i] - low[i],
                 "held": low[i] <= truth[i] <= high[i], "tokens": tokens[i] / real[i] - 1}
                for i, t in enumerate(targets)
            ]  # fmt: skip
    table = pd.DataFrame(rows)
    kind = np.select(
        [table["factor"] <= 1.5, table["factor"] <= 2.5], ["<=1.5", "<=2.5"], ">2.5"
    )
    show = table.groupby(kind)[["flat", "law", "bias", "width", "held", "tokens"]].mean()
    show.loc["all"] = table[show.columns].mean()
    show["forecasts"] = [*np.unique(kind, return_counts=True)[1], len(table)]
    print(f"\ncaps, {name}: by factor above the fitted cap\n{show.round(4)}")


def slopes(name: str, recorded: Recorded, run: np.ndarray, cap: float) -> None:
    """The three slopes of one set of draws."""
    try:
        effect = LengthEffect.fit(recorded, cap, run)
    except FitError as error:
        print(f"slopes, {name}: {error}")
        return
    texts = [
        f"{kind} {slope.value:+.2f} +- {1.645 * slope.se:.2f}"
        for kind, slope in (
            ("within", effect.within), ("between", effect.between), ("heap", effect.pooled)
        )
    ]  # fmt: skip
    ranks = "/".join(f"{x:.3f}" for x in by_length_rank(recorded))
    print(
        f"slopes, {name}: {'; '.join(texts)}; shortest/longest/mean of {effect.n_mixed}"
        f" mixed problems {ranks}"
    )


def effort_forecasts(
    curves: Curves, n_draws: int, rng: np.random.Generator, *, all_at_once: bool
) -> pd.DataFrame:
    """Hold out the highest effort, of one model at a time or of all, and forecast it."""
    rows = []
    names = list(curves)
    for i, name in enumerate(names):
        points = [
            (j, *point)
            for j, other in enumerate(names)
            for point in curves[other][: -1 if all_at_once or j == i else None]
        ]
        model, tokens, accuracy = map(np.array, zip(*points, strict=True))
        sd = np.sqrt(np.maximum(accuracy * (1 - accuracy), 0.01) / n_draws)
        law = EffortLaw.fit(model, tokens, accuracy, sd)
        target, truth = curves[name][-1]
        prediction = law.predict(i, target, rng)
        low, high = prediction.interval()
        known = np.array(curves[name][:-1])
        last = linear = known[-1, 1]
        if len(known) > 1:
            line = np.polyfit(np.log(known[:, 0]), known[:, 1], 1)
            linear = np.clip(np.polyval(line, np.log(target)), 0, 1)
        rows.append(
            {"model": name, "truth": truth, "law": prediction.mean[0], "low": low[0],
             "high": high[0], "last": last, "linear": linear}
        )  # fmt: skip
    return pd.DataFrame(rows)


def efforts(rng: np.random.Generator) -> None:
    """Errors of the law and its baselines on both tables."""
    for name, curves, n in (
        ("GPQA-Diamond", GPQA_DIAMOND, 198 * 8), ("OTIS Mock AIME", OTIS_MOCK_AIME, 45 * 8)
    ):  # fmt: skip
        for together in (False, True):
            table = effort_forecasts(curves, n, rng, all_at_once=together)
            errors = {
                column: (table[column] - table["truth"]).abs().mean()
                for column in ("law", "last", "linear")
            }
            held = table["truth"].between(table["low"], table["high"]).sum()
            print(
                f"efforts, {name}, held out {'together' if together else 'one by one'}: "
                + ", ".join(f"{k} {v:.4f}" for k, v in errors.items())
                + f"; in the interval {held} of {len(table)}"
            )


def count_sets(folder: Path) -> Iterator[tuple[str, np.ndarray, int]]:
    """Right draws of each problem, and draws, of every set with one number of draws."""
    connection = duckdb.connect()
    for file, split in COUNTS.items():
        counted = (
            "count(*) AS n, sum(correct) AS c" if file.startswith("tot") else
            "any_value(n_samples) AS n, any_value(n_correct) AS c"
        )  # fmt: skip
        rows = connection.execute(
            f"SELECT {split} AS cell, {counted} FROM read_parquet(?) GROUP BY {split},"
            f" problem_id ORDER BY cell, problem_id", [str(folder / f"{file}.parquet")],
        ).df()  # fmt: skip
        for cell, group in rows.groupby("cell"):
            if group["n"].nunique() == 1:
                yield f"{file} {cell}", group["c"].to_numpy(int), int(group["n"].iloc[0])


def useful(folder: Path, rng: np.random.Generator, n_train: int = 16) -> None:
    """N* from a few draws, against the whole curve's."""
    rows = []
    for name, correct, n in count_sets(folder):
        for gain in (0.01, 0.003, 0.001):
            truth = measured_saturation(correct, np.full(len(correct), n), gain)
            if not n_train < truth < n - 1:
                continue  # nothing to forecast, or beyond what was measured
            seen = rng.hypergeometric(correct, n - correct, n_train)
            ks = np.arange(1, n_train + 1)
            curve = pass_at_k(seen, np.full(len(seen), n_train), ks).mean(axis=0)
            one = Ttspm.fit(ks, curve).saturation(gain) if curve.any() else 0
            tail = UsefulDraws.fit(seen, np.full(len(seen), n_train)).saturation(gain, rng)
            low, high = tail.interval()
            rows.append(
                {"set": name.split("_")[0], "truth": truth, "one": max(one, 1) / truth,
                 "tail": np.median(tail.draws) / truth, "held": low[0] <= truth <= high[0]}
            )  # fmt: skip
    table = pd.DataFrame(rows)
    for which, group in [*table.groupby("set"), ("all", table)]:
        ratios = ", ".join(
            f"{kind}: forecast/true {np.exp(np.log(group[kind]).mean()):.2f},"
            f" off by a factor {np.exp(np.log(group[kind]).abs().mean()):.2f}"
            for kind in ("one", "tail")
        )
        print(
            f"useful, {which}: {len(group)} forecasts, true {group['truth'].median():.0f};"
            f" {ratios}; in the interval {group['held'].mean():.2f}"
        )


def finish(runs: dict[str, Recorded], rng: np.random.Generator) -> None:
    """Policies on runs with answers and eight draws, and forecasts of 8 from 4."""
    rows, errors = [], []
    for recorded in runs.values():
        answered = (recorded.answer >= 0).sum() / recorded.n_samples.sum()
        if np.median(recorded.n_samples) != 8 or answered < 0.5:
            continue
        for k, m in ((1, 1), (4, 1), (8, 1), (4, 3), (8, 3), (4, 4), (8, 8)):
            law = FinishLaw.fit(recorded, m)
            spent, latency = law.tokens(k)
            right = law.accuracy(k, rng).mean()
            rows.append((f"{m} of {k}", right, spent.mean(), latency.mean()))
        for m in (1, 3):
            few = FinishLaw.fit(recorded.first(4), m)
            whole = FinishLaw.fit(recorded, m)
            truth, prediction = whole.accuracy(8, rng).mean(), few.predict(8, rng)
            low, high = prediction.interval()
            latency = few.predict_tokens(8, rng)[1].mean[0] / whole.tokens(8)[1].mean() - 1
            flat = few.accuracy(4, rng).mean() - truth
            errors.append(
                {"m": m, "flat": abs(flat), "law": abs(prediction.mean[0] - truth),
                 "held": low[0] <= truth <= high[0], "latency": latency}
            )  # fmt: skip
    table = pd.DataFrame(rows, columns=["policy", "accuracy", "tokens", "latency"])
    print(f"\nfinish: {len(table) // 7} runs\n{table.groupby('policy').mean().round(4)}")
    show = pd.DataFrame(errors).groupby("m").mean().round(4)
    print(f"finish: k = 8 from the first 4 draws; error of flat and law\n{show}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--store", type=Path, nargs="*", default=[])
    parser.add_argument("--passk", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    for folder in args.store:
        sets = of_store(folder)
        for task in sorted({name.split()[-1] for name in sets}):
            own = {name: part for name, part in sets.items() if name.split()[-1] == task}
            caps(f"{folder.name} {task}", own, rng)
        for name, (recorded, most) in sets.items():
            slopes(name, recorded, np.zeros(len(recorded.n_samples), int), most)
    efforts(rng)
    if args.passk:
        runs = of_epoch(args.passk)
        longest = {n: int(r.output_tokens.max()) for n, r in runs.items()}
        caps("OTIS Mock AIME", {n: (r, longest[n]) for n, r in runs.items()}, rng)
        number = [np.full(len(r.n_samples), i) for i, r in enumerate(runs.values())]
        slopes("OTIS Mock AIME", stack(list(runs.values())), np.concatenate(number), np.inf)
        useful(args.passk, rng)
        finish(runs, rng)


if __name__ == "__main__":
    main()
