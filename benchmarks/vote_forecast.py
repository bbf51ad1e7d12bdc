"""Majority votes forecast from few draws, against what all draws show.

    python benchmarks/vote_forecast.py --store FOLDER --n-train 8 16 32
    python benchmarks/vote_forecast.py --file draws.parquet --n-train 4 8

Takes n_train random draws of each problem, forecasts the vote of all of them, and compares:
`flat` keeps the vote of n_train, `plug-in` votes with answers resampled from the n_train,
`law` is VoteLaw fitted to all tables of a task at once, `alone` to one. A table is one
model on one task; a file needs the columns model, task, problem_id, answer and correct, one
row a draw. The truth, a vote of N draws, is one outcome of many: `measured` intervals hold
that luck, `expected` ones do not. Intervals are 90 %.
"""

import argparse
import time
from collections import defaultdict
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd

from planner.calibration.store import Store
from planner.models.answers import AnswerCounts, count_answers
from planner.models.lengths import NO_ANSWER, Recorded
from planner.models.prediction import Array, Prediction
from planner.models.vote_law import VoteLaw, fit_votes

PLUG_IN_VOTES = 200


def tables(draws: pd.DataFrame) -> dict[tuple[str, str], Recorded]:
    """Recorded draws of each task and model; problems with fewer than the most are left."""
    out = {}
    for (task, model), rows in draws.groupby(["task", "model"]):
        groups = [own for _, own in rows.groupby("problem_id")]
        most = max(len(own) for own in groups)
        groups = [own for own in groups if len(own) == most]
        text = [own["answer"].fillna("").to_numpy(str) for own in groups]
        code = [
            np.where(a == "", NO_ANSWER, np.unique(a, return_inverse=True)[1]) for a in text
        ]
        correct = np.array([own["correct"].to_numpy(bool) for own in groups])
        out[str(task), str(model)] = Recorded(
            np.full(len(groups), most), correct, np.array(code, np.int64),
            np.ones(correct.shape, np.int64), np.full(correct.shape, np.nan),
        )  # fmt: skip
    return out


def subset(recorded: Recorded, n: int, rng: np.random.Generator) -> Recorded:
    """Random draws of each problem."""
    order = np.argsort(rng.random(recorded.correct.shape), axis=1)[:, :n]
    rows = np.arange(len(order))[:, None]
    return Recorded(
        np.minimum(recorded.n_samples, n), recorded.correct[rows, order],
        recorded.answer[rows, order], recorded.output_tokens[rows, order],
        recorded.score[rows, order],
    )  # fmt: skip


def vote(counts: AnswerCounts) -> float:
    """Share of problems that the vote of all draws gets right; ties are shared."""
    return float(_won(counts.right, counts.wrong).mean())


def plug_in(counts: AnswerCounts, n: int, rng: np.random.Generator) -> float:
    """Vote of n answers resampled from the ones made."""
    made = np.concatenate([counts.right, counts.wrong, counts.silent[:, None]], axis=1)
    share, k = made / made.sum(axis=1, keepdims=True), counts.right.shape[1]
    votes = (rng.multinomial(n, share) for _ in range(PLUG_IN_VOTES))
    return float(np.mean([_won(v[:, :k], v[:, k:-1]) for v in votes]))


def _won(right: Array, wrong: Array) -> Array:
    votes = np.concatenate([right, wrong], axis=1)
    best = (votes == votes.max(axis=1, keepdims=True)) & (votes > 0)
    share = best[:, : right.shape[1]].sum(axis=1) / np.maximum(best.sum(axis=1), 1)
    return np.asarray(share)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--store", type=Path, help="a folder of measurements")
    source.add_argument("--file", type=Path, help="Parquet or CSV")
    add("--n-train", type=int, nargs="+", default=[8, 16, 32])
    add("--redraws", type=int, default=3)
    add("--seed", type=int, default=0)
    add("--alone", action="store_true", help="also fit each table by itself")
    args = parser.parse_args()
    if args.store:
        draws = Store(args.store).samples()
    else:
        draws = duckdb.sql(f"SELECT * FROM '{args.file}'").df()
    everything = tables(draws)
    for n in args.n_train:
        began = time.process_time()
        error: dict[str, list[float]] = defaultdict(list)
        held: dict[str, list[tuple[bool, float]]] = defaultdict(list)
        rng = np.random.default_rng(args.seed)
        for _ in range(args.redraws):
            few = {k: subset(table, n, rng) for k, table in everything.items()}
            laws: dict[tuple[str, str], VoteLaw] = {}
            for task in {task for task, _ in few}:
                own = [k for k in few if k[0] == task]
                fitted = fit_votes([few[k] for k in own])
                laws.update(zip(own, fitted, strict=True))
            for k, table in everything.items():
                most, counts = table.correct.shape[1], count_answers(few[k])
                truth = vote(count_answers(table))
                error["flat"].append(vote(counts) - truth)
                error["plug-in"].append(plug_in(counts, most, rng) - truth)
                forecasts: dict[str, Prediction] = {
                    "law, expected": laws[k].predict(most, rng),
                    "law, measured": laws[k].predict_measured(most, rng),
                }
                if args.alone:
                    alone = VoteLaw.fit(few[k])
                    forecasts["alone, measured"] = alone.predict_measured(most, rng)
                for name, forecast in forecasts.items():
                    error[name].append(float(forecast.mean[0]) - truth)
                    low, high = (float(x[0]) for x in forecast.interval())
                    inside = low - 1e-9 <= truth <= high + 1e-9
                    held[name].append((inside, high - low))
        sizes = {t.correct.shape[1] for t in everything.values()}
        print(f"n_train {n} -> {sorted(sizes)}, {len(everything)} tables")
        for name, off in error.items():
            line = f"  {name:16} error {np.abs(off).mean():.4f}  bias {np.mean(off):+.4f}"
            if name in held:
                share, width = np.mean(held[name], axis=0)
                line += f"  in the interval {share:.3f}, width {width:.3f}"
            print(line)
        print(f"  {time.process_time() - began:.0f} s of CPU", flush=True)


if __name__ == "__main__":
    main()
