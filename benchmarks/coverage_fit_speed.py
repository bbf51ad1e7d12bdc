"""Time and memory of fitting the coverage law, and how both grow with the table.

    python benchmarks/coverage_fit_speed.py [--problems 10000] [--models 10] [--samples 64]

Counts are simulated: models of falling ability on the same problems. Each row is a table
twice as large as the one before; "ratio" is its time over that one's, 2 when growth is
linear. "unequal" rows have every problem drawn a different number of times.
"""

import argparse
import resource
import time

import numpy as np

from planner.blas import prefer_wide_kernels
from planner.models.counts import CountTable
from planner.models.forecast import fit_coverage

_SEED = 0


def simulated(problems: int, models: int, samples: int, *, equal: bool) -> CountTable:
    """Counts of models that share how hard each problem is."""
    rng = np.random.default_rng(_SEED)
    hard = rng.normal(2.0, 2.5, problems)
    ability = np.linspace(2.0, -2.0, models)
    p = 1 / (1 + np.exp(hard + rng.normal(0, 0.7, (models, problems)) - ability[:, None]))
    n = np.full(p.shape, samples)
    if not equal:
        n = rng.integers(samples // 4, samples + 1, p.shape)
    return CountTable.of(
        rng.binomial(n, p).ravel(),
        n.ravel(),
        cell=np.repeat(np.arange(models), problems),
        problem=np.tile(np.arange(problems), models),
        benchmark=np.zeros(models, int),
    )


def main() -> None:
    """Print a row a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", type=int, default=10_000)
    parser.add_argument("--models", type=int, default=10)
    parser.add_argument("--samples", type=int, default=64)
    arguments = parser.parse_args()
    titles = f"{'problems':>9} {'draws':>8} {'fit s':>7} {'CPU s':>7} {'ratio':>6}"
    print(f"{titles} {'peak MB':>8}")
    for equal in (True, False):
        before = None
        for share in (8, 4, 2, 1):
            table = simulated(
                arguments.problems // share,
                arguments.models,
                arguments.samples,
                equal=equal,
            )
            wall, processor = time.perf_counter(), time.process_time()
            fit_coverage(table)
            wall, processor = time.perf_counter() - wall, time.process_time() - processor
            peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            ratio = f"{processor / before:6.2f}" if before else f"{'':6}"
            kind = "equal" if equal else "unequal"
            print(
                f"{arguments.problems // share:9,} {kind:>8} {wall:7.2f} {processor:7.2f} "
                f"{ratio} {peak_mb:8.0f}",
                flush=True,
            )
            before = processor


if __name__ == "__main__":
    prefer_wide_kernels()
    main()
