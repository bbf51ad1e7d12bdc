"""How long 100,000 forecasts take: `python benchmarks/joint_predict_speed.py [LAWS.json]`.

Asks the joint law of each model and task of the reference laws for random options between
the measured ones. Prints seconds of CPU, the best of several rounds, for mean, 90 %
interval and flags of all points in one call, and how much longer a loop over the points
would take.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import planner.data
from planner.models.artifact import Laws
from planner.models.joint import JointLaw, OptionPoints

POINTS, LOOPED, ROUNDS = 100_000, 300, 7
LAWS = Path(planner.data.__file__).with_name("reference") / "laws.json"


def best_s(call: Callable[[], object], rounds: int = ROUNDS) -> float:
    """CPU seconds of the fastest round."""
    seconds = []
    for _ in range(rounds):
        start_s = time.process_time()
        call()
        seconds.append(time.process_time() - start_s)
    return min(seconds)


def random_points(law: JointLaw, rng: np.random.Generator, size: int) -> OptionPoints:
    """Options anywhere a law can be read."""
    names = rng.choice(list(law.grids), size)
    n, cap = np.ones(size, int), np.ones(size, int)
    temperature = np.zeros(size)
    for name, grid in law.grids.items():
        own = names == name
        n[own] = rng.integers(grid.ns[0], grid.ns[-1], own.sum(), endpoint=True)
        cap[own] = rng.integers(grid.caps[0], grid.caps[-1], own.sum(), endpoint=True)
        low, high = grid.temperatures[[0, -1]]
        temperature[own] = rng.uniform(low, high, own.sum())
    classes = rng.choice(law.grids["single"].classes, size)
    return OptionPoints.of(names, n, cap, temperature, classes)


def ask(law: JointLaw, points: OptionPoints) -> None:
    """Everything that is worked out for all points."""
    found = law.predict(points)
    _ = found.low, found.high, found.extrapolated


def loop(law: JointLaw, points: OptionPoints, count: int) -> None:
    """The same for the first points, one by one."""
    for i in range(count):
        ask(
            law,
            OptionPoints.of(
                points.strategy[i],
                points.n[i],
                points.max_tokens[i],
                points.temperature[i],
                points.difficulty[i],
            ),
        )


def main(path: Path) -> None:
    """Measure and print."""
    laws, rng = Laws.load(path), np.random.default_rng(0)
    print(f"{'model':12s} {'task':10s} {'build ms':>9s} {POINTS:>9d} s {'a loop':>9s}")
    for model, task in dict.fromkeys((cell.model, cell.task) for cell in laws.cells):
        build_s = best_s(lambda m=model, t=task: JointLaw.of(laws, m, t), 3)  # type: ignore[misc]
        law = JointLaw.of(laws, model, task)
        points = random_points(law, rng, POINTS)
        once_s = best_s(lambda w=law, p=points: ask(w, p))  # type: ignore[misc]
        looped_s = best_s(lambda w=law, p=points: loop(w, p, LOOPED), 3)  # type: ignore[misc]
        ratio = looped_s / LOOPED * POINTS / once_s
        print(f"{model:12s} {task:10s} {build_s * 1e3:9.1f} {once_s:11.3f} {ratio:8.0f}x")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else LAWS)
