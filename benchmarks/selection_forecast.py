"""How well best-of-n by score is forecast from few draws.

    python benchmarks/selection_forecast.py --store FOLDER --n-train 8 16 32 --n 64 128 256

Takes n_train random draws of each problem, forecasts what all draws' exact best-of-n will
read, and prints the mean |error| beside two baselines: the accuracy at n_train kept flat,
and the draws resampled; and how often the 90 % interval held.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from planner.calibration.draws import tabulate
from planner.calibration.store import Store
from planner.models.lengths import Recorded
from planner.models.prediction import Array
from planner.models.records import Problem
from planner.models.selection import ranked_correct, scored_curves
from planner.models.selection_law import SelectionLaw


def some_draws(recorded: Recorded, n: int, rng: np.random.Generator) -> Recorded:
    """N random draws of each problem, without replacement."""
    order = np.argsort(rng.random(recorded.correct.shape), axis=1)[:, :n]
    take = (recorded.correct, recorded.answer, recorded.output_tokens, recorded.score)
    return Recorded(
        np.full(len(order), n), *(np.take_along_axis(x, order, 1) for x in take)
    )


def resampled(recorded: Recorded, n: Array) -> Array:
    """Best-of-n of draws resampled with replacement from those made."""
    right = ranked_correct(recorded)
    edge = np.arange(right.shape[1] + 1)[:, None] / right.shape[1]
    lands = (1 - edge[:-1]) ** n - (1 - edge[1:]) ** n
    return np.asarray((right @ lands).mean(axis=0))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--store", type=Path, required=True)
    add("--n-train", type=int, nargs="+", default=[8, 16, 32])
    add("--n", type=int, nargs="+", default=[64, 128, 256])
    add("--redraws", type=int, default=2)
    add("--seed", type=int, default=0)
    args = parser.parse_args()
    samples = Store(args.store).samples()
    known = samples.drop_duplicates("problem_id")
    problems = [
        Problem(problem_id=i, task=t, prompt="", verifier="")
        for i, t in zip(known["problem_id"], known["task"], strict=True)
    ]
    rows = []
    for table in tabulate(samples, sorted(samples["model"].unique()), problems):
        whole, most = table.recorded, table.recorded.correct.shape[1]
        points = np.array(args.n)
        truth = scored_curves(whole, tuple(args.n)).accuracy.mean(axis=0)
        for n_train in args.n_train:
            for redraw in range(args.redraws):
                rng = np.random.default_rng([args.seed, redraw, n_train])
                few = some_draws(whole, n_train, rng)
                law = SelectionLaw.fit(few, rng)
                forecast = law.predict_measured(points, most, rng)
                low, high = forecast.interval()
                flat = scored_curves(few, (n_train,)).accuracy.mean()
                again = resampled(few, points)
                rows += [
                    (table.task, table.model, n_train, n, abs(forecast.mean[i] - truth[i]),
                     abs(flat - truth[i]), abs(again[i] - truth[i]),
                     low[i] - 1e-9 <= truth[i] <= high[i] + 1e-9, high[i] - low[i])
                    for i, n in enumerate(args.n) if n > n_train
                ]  # fmt: skip
    names = ["task", "model", "n_train", "n", "law", "flat", "resampled", "held", "width"]
    result = pd.DataFrame(rows, columns=names)
    for by in (["n_train", "n"], ["task"], ["n_train"]):
        print(result.groupby(by)[names[4:]].mean().round(4).to_string(), end="\n\n")


if __name__ == "__main__":
    main()
