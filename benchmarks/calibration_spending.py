"""Which draws to make: ours against uniform and Kazdan's, on recorded draws at equal cost.

    python benchmarks/calibration_spending.py FOLDER [--redraws 20] [--only P3]

FOLDER holds Parquet tables of many draws a problem: P3 (Codex, 3 prompt formats x 397
puzzles x 1,000), Game of 24 (GPT-4, 2 strategies x 100 x 100), EvalPerf (31 models x 118 x
100). A redraw shuffles each problem's draws; a rule then spends a mean budget a problem,
one benchmark at a time, and `fit_coverage` forecasts pass@n at k = n from what was drawn.
Kazdan's rule (arXiv:2510.05197, algorithm 1) draws next from the problem with fewest
successes, of equals the one with fewest attempts. Ours begins with 8 draws a problem.

The second table draws until the 90 % interval of the benchmark's mean is as narrow as
uniform sampling makes it with a mean budget of 16 and 32: draws needed, and how often the
interval held where we stopped.
"""

import argparse
import heapq
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from planner.calibration.sampling import BLOCK
from planner.calibration.spending import allocate, next_round, widths
from planner.models.counts import CountTable, IntArray
from planner.models.forecast import fit_coverage
from planner.models.prediction import Array

BUDGETS = (8, 16, 32)


class Draws(NamedTuple):
    """A benchmark's recorded draws in a random order."""

    correct: NDArray[np.bool_]  # (n_rows, n)
    cell: IntArray
    problem: IntArray

    def table(self, n: IntArray) -> CountTable:
        """Counts of the first n draws of each row."""
        taken = np.arange(self.correct.shape[1]) < n[:, None]
        return CountTable.of(
            (self.correct & taken).sum(axis=1), n, cell=self.cell, problem=self.problem
        )


def benchmarks(folder: Path) -> dict[str, tuple[list[IntArray], int]]:
    """Correct draws of each problem, of every cell; and draws of each problem."""
    p3 = pd.read_parquet(folder / "p3_codex_cushman_n1000.parquet")
    perf = pd.read_parquet(folder / "evalperf_t1_n100.parquet")
    perf = perf[perf["n_samples"] == 100].sort_values("problem_id")
    game = pd.read_parquet(folder / "tot_game24_gpt4_n100_samples.parquet")
    by_problem = game.groupby(["strategy", "problem_id"], observed=True, as_index=False)
    game = by_problem.agg(n_correct=("correct", "sum"))
    found = {
        "P3": (p3, "prompt_format", 1000),
        "Game24": (game, "strategy", 100),
        "EvalPerf": (perf, "model", 100),
    }
    return {
        name: (
            [
                g["n_correct"].to_numpy(np.int64)
                for _, g in frame.groupby(column, observed=True)
                if len(g) >= 100
            ],
            n,
        )
        for name, (frame, column, n) in found.items()
    }


def shuffled(cells: list[IntArray], n: int, rng: np.random.Generator) -> Draws:
    correct = np.arange(n) < np.concatenate(cells)[:, None]
    sizes = [len(c) for c in cells]
    return Draws(
        rng.permuted(correct, axis=1),
        np.repeat(np.arange(len(cells)), sizes),
        np.concatenate([np.arange(size) for size in sizes]),
    )


def uniform(draws: Draws, budget: int, k: int) -> IntArray:
    return np.full(len(draws.cell), budget)


def kazdan(draws: Draws, budget: int, k: int) -> IntArray:
    """Algorithm 1, in each cell apart as published."""
    n = np.zeros(len(draws.cell), np.int64)
    so_far = np.cumsum(draws.correct, axis=1)
    for cell in range(int(draws.cell.max()) + 1):
        queue = [(0, 0, int(i)) for i in np.flatnonzero(draws.cell == cell)]
        for _ in range(budget * len(queue)):
            _, made, row = heapq.heappop(queue)
            n[row] = made + 1
            if made + 1 < k:
                heapq.heappush(queue, (int(so_far[row, made]), made + 1, row))
    return n


def ours(draws: Draws, budget: int, k: int) -> IntArray:
    n, total = np.full(len(draws.cell), BLOCK), budget * len(draws.cell)
    while (left := total - int(n.sum())) > 0:
        quota = min(max(int(n.sum()) // 2, BLOCK), left)
        n = n + allocate(draws.table(n), k=k, quota=quota, n_max=k, step=BLOCK)
    return n


RULES: dict[str, Callable[[Draws, int, int], IntArray]] = {
    "uniform": uniform,
    "kazdan": kazdan,
    "ours": ours,
}


def judged(draws: Draws, n: IntArray, k: int, truth: Array) -> tuple[float, float, float]:
    """Mean |error|, mean error, and how often the interval held, over the cells."""
    rng = np.random.default_rng(0)
    off, inside = [], []
    for forecast, true in zip(fit_coverage(draws.table(n)), truth, strict=True):
        predicted = forecast.predict_measured(k, k, rng)
        low, high = predicted.interval()
        off.append(float(predicted.mean[0]) - true)
        inside.append(low[0] - 1e-9 <= true <= high[0] + 1e-9)
    return float(np.abs(off).mean()), float(np.mean(off)), float(np.mean(inside))


def compare(name: str, cells: list[IntArray], k: int, redraws: int) -> None:
    truth = np.array([(c > 0).mean() for c in cells])
    for budget in BUDGETS:
        rows: dict[str, list[tuple[float, float, float]]] = {rule: [] for rule in RULES}
        for redraw in range(redraws):
            draws = shuffled(cells, k, np.random.default_rng([redraw, 3]))
            for rule, spend in RULES.items():
                rows[rule].append(judged(draws, spend(draws, budget, k), k, truth))
        base = np.array(rows["uniform"])[:, 0]
        for rule, found in rows.items():
            error, bias, inside = np.array(found).T
            difference = error - base
            se = difference.std(ddof=1) / np.sqrt(redraws)
            print(
                f"{name:9} {budget:3} {rule:8} {error.mean():7.4f} {bias.mean():+8.4f}"
                f" {difference.mean():+9.4f} {se:7.4f} {100 * inside.mean():7.0f} %",
                flush=True,
            )


def savings(name: str, cells: list[IntArray], k: int, redraws: int) -> None:
    truth = float(np.mean([(c > 0).mean() for c in cells]))
    for budget in BUDGETS[1:]:
        used, hits = [], []
        for redraw in range(redraws):
            draws = shuffled(cells, k, np.random.default_rng([redraw, 4]))
            rng = np.random.default_rng(redraw)
            table = draws.table(uniform(draws, budget, k))
            target = widths(table, [k], rng)[0].value
            n = np.full(len(draws.cell), BLOCK)
            while True:
                table = draws.table(n)
                spending = next_round(
                    table, ks=[k], until_width=target, n_max=k, step=BLOCK, rng=rng
                )
                if not spending.add.any():
                    break
                n = n + spending.add
            forecasts = fit_coverage(table)
            total = sum(f.predict_measured(k, k, rng).draws[:, 0] for f in forecasts)
            low, high = np.quantile(np.asarray(total) / len(cells), [0.05, 0.95])
            used.append(n.mean())
            hits.append(low - 1e-9 <= truth <= high + 1e-9)
        mean, se = np.mean(used), np.std(used, ddof=1) / np.sqrt(redraws)
        print(
            f"{name:9} {budget:15} {mean:12.1f} {se:6.1f} {1 - mean / budget:9.0%}"
            f" {np.mean(hits):12.0%}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--redraws", type=int, default=20)
    parser.add_argument("--only", default="", help="one benchmark")
    arguments = parser.parse_args()
    found = {
        name: cells
        for name, cells in benchmarks(arguments.folder).items()
        if arguments.only in ("", name)
    }
    print("benchmark mean rule       error     bias  - uniform      se   inside")
    for name, (cells, k) in found.items():
        compare(name, cells, k, arguments.redraws)
    print("\nbenchmark uniform draws   ours needs     se     saved   held at stop")
    for name, (cells, k) in found.items():
        savings(name, cells, k, arguments.redraws)


if __name__ == "__main__":
    main()
