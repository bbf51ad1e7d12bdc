"""How long advice takes: `python benchmarks/recommend_speed.py [WORKSPACE]`.

Without a workspace it asks the planner of the reference models. Prints microseconds a call,
the best of several rounds, for: recommend with the task named, recommend with the task
recognised, a joint allocation (a prompt), and one choice of the pacer.
"""

import sys
import time
from collections.abc import Callable, Sequence

import numpy as np

from planner.allocate import Pacer
from planner.api import Planner, load, reference
from planner.limits import Budget

PROMPTS = ("A037+8*4-21:", "C3,7,12>24:", "R3,7,12,5>24:")
ROUNDS, CALLS = 7, 2000


def best_us(call: Callable[[int], object], calls: int = CALLS) -> float:
    """Microseconds a call, of the fastest round."""
    seconds = []
    for _ in range(ROUNDS):
        start_s = time.perf_counter()
        for i in range(calls):
            call(i)
        seconds.append(time.perf_counter() - start_s)
    return min(seconds) / calls * 1e6


def report(planner: Planner, prompts: Sequence[str], unit: str) -> None:
    """Measure and print."""
    catalogue = planner.catalogue(unit)
    dear = max(max(shelf.costs) for shelf in catalogue.shelves.values())
    budgets = [Budget(float(x), unit) for x in np.geomspace(dear, dear * 2, 8)]
    texts = [f"{b.total:.6g} {unit}" for b in budgets]
    tasks = [planner.group(p)[0] for p in prompts]
    n = len(prompts)
    rows = {
        "recommend, task named": best_us(
            lambda i: planner.recommend(prompts[i % n], texts[i % 8], task=tasks[i % n])
        ),
        "recommend, task recognised": best_us(
            lambda i: planner.recommend(prompts[i % n], budgets[i % 8])
        ),
        "classify alone": best_us(lambda i: planner.group(prompts[i % n], tasks[i % n])),
    }
    many = [prompts[i % n] for i in range(1000)]
    total = Budget(dear * len(many), unit)
    rows["allocate, a prompt"] = best_us(lambda i: planner.allocate(many, total), 3) / len(
        many
    )
    counts = [1000] * len(catalogue.groups)
    pacer = Pacer(catalogue.ladder, counts, reserve=0.0)
    spend = catalogue.ladder.dearest(np.array(counts, float)) / 2
    left = sum(counts)
    rows["pacer, a choice"] = best_us(
        lambda i: pacer.choose(i % len(counts), spend, left - i % left)
    )
    for name, us in rows.items():
        print(f"{name:28s} {us:8.1f} us")


if __name__ == "__main__":
    chosen = load(sys.argv[1]) if len(sys.argv) > 1 else reference()
    report(chosen, PROMPTS, chosen.plan.budget_unit if chosen.plan else "eflop")
