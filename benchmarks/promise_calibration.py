"""How often a plan's promise holds: many plans from one pool of real draws.

    python benchmarks/promise_calibration.py --pool FOLDER --repeats 40

Draws a pool once (resumable), then repeats: split its problems at random into calibration
and fresh, fit laws and plan on the first, and let every fresh prompt come true with the
success rate its own draws give the planned option. Prints how often the share right lies
in the promised 90 % interval, and how far off the promises are on average. The promises of
the fixed baselines, which no choice can flatter, stand beside them.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from planner.api import Planner
from planner.calibration.draws import DrawTable, tabulate
from planner.calibration.environment import describe_machine
from planner.calibration.fit import fit_laws
from planner.calibration.latency import time_engine
from planner.calibration.reference.tasks import TASKS
from planner.calibration.sampling import sample
from planner.calibration.store import Store
from planner.calibration.suites import reference_problems
from planner.cli_console import progress
from planner.cli_demo import default_budget
from planner.config import reference_targets
from planner.engines import open_engine
from planner.limits import Budget
from planner.models.prediction import Array
from planner.models.records import Problem
from planner.models.selection import verified_curves
from planner.models.voting import vote_curves
from planner.plan import Option, Plan
from planner.planning import make_plan

POOL_DRAWS = 64
MAX_TOKENS = 144


def fill(store: Store, problems: tuple[Problem, ...], models: list[str]) -> None:
    """Draw what the pool lacks."""
    machine = describe_machine()
    store.append_machine(machine)
    for target in reference_targets():
        if target.name not in models:
            continue
        engine = open_engine(target)
        with progress(target.name) as update:
            sample(
                store, engine, problems, n_samples=POOL_DRAWS, temperatures=(1.0,),
                max_tokens=MAX_TOKENS, top_p=1.0, seed=0, machine=machine.machine,
                progress=update,
            )  # fmt: skip
        assert target.architecture is not None
        time_engine(store, engine, target.architecture, machine.machine)
        engine.close()


class Truth:
    """Success rate of an option on each problem, from all of the pool's draws."""

    def __init__(self, tables: list[DrawTable], problems: tuple[Problem, ...]) -> None:
        self._tables = {(t.model, t.task): t for t in tables}
        self._ids = [p.problem_id for p in problems]
        self._cache: dict[tuple[str, Option], dict[str, float]] = {}

    def of(self, task: str, option: Option) -> dict[str, float]:
        """By problem id; n beyond the pool's draws counts as all of them."""
        key = (task, option)
        if key not in self._cache:
            table = self._tables[option.model, task]
            drawn = table.recorded.capped(option.max_tokens)
            n = min(option.n, POOL_DRAWS)
            if n == 1:
                rate: Array = drawn.n_correct / drawn.n_samples
            elif option.strategy == "best_of_n":
                rate = verified_curves(drawn, (1, n)).accuracy[:, 1]
            else:
                rng = np.random.default_rng(0)
                rate = vote_curves(drawn, (1, n), 0.95, rng).accuracy[:, 1]
            ids = [self._ids[i] for i in table.problem.tolist()]
            self._cache[key] = dict(zip(ids, rate.tolist(), strict=True))
        return self._cache[key]


def come_true(
    plan: Plan,
    planner: Planner,
    fresh: list[Problem],
    truth: Truth,
    rng: np.random.Generator,
) -> tuple[Array, Array]:
    """Success rates of the fresh prompts under the plan, and one outcome of each."""
    choices = {(g.task, g.difficulty): g.choices for g in plan.groups}
    rates = []
    for problem in fresh:
        parts = choices[planner.group(problem.prompt, problem.task)]
        pick = rng.choice(len(parts), p=[c.share for c in parts])
        rates.append(
            truth.of(problem.task, parts[pick].forecast.option)[problem.problem_id]
        )
    return np.array(rates), rng.random(len(rates)) < np.array(rates)


class Part(Store):
    """A store's rows of some problems, cut to their first draws."""

    def __init__(self, whole: Store, rows: pd.DataFrame) -> None:
        self._whole, self._rows = whole, rows

    def samples(self, dataset: str = "samples") -> pd.DataFrame:  # type: ignore[override]
        return self._rows

    def timings(self) -> pd.DataFrame:
        return self._whole.timings()

    def machines(self) -> pd.DataFrame:
        return self._whole.machines()

    def rows_sha256(self) -> str:
        return self._whole.rows_sha256()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--pool", type=Path, default=Path("reference-measurements/pool"))
    add("--pool-problems", type=int, default=250, help="a task")
    add("--models", nargs="*", default=[t.name for t in reference_targets()])
    add("--calibration", type=int, default=80, help="problems a task")
    add("--draws", type=int, default=16, help="a calibration problem")
    add("--fresh", type=int, default=150, help="problems a task")
    add("--budget", type=float, default=1.0, help="times the demo's default")
    add("--repeats", type=int, default=40)
    add("--seed", type=int, default=0)
    args = parser.parse_args()
    pool = reference_problems(2_000_000, dict.fromkeys(TASKS, args.pool_problems))
    targets = tuple(t for t in reference_targets() if t.name in args.models)
    store = Store(args.pool)
    fill(store, pool, args.models)
    samples = store.samples()
    truth = Truth(tabulate(samples, args.models, pool), pool)
    first = samples[samples["draw"] < args.draws]
    rng = np.random.default_rng(args.seed)
    rows = []
    for repeat in range(args.repeats):
        known, fresh = [], []
        for task in TASKS:
            own = [p for p in pool if p.task == task]
            order = rng.permutation(len(own))
            known += [own[i] for i in order[: args.calibration]]
            fresh += [own[i] for i in order[args.calibration :][: args.fresh]]
        ids = {p.problem_id for p in known}
        part = Part(store, first[first["problem_id"].isin(ids)])
        laws = fit_laws(part, targets=targets, problems=known, seed=repeat)
        planner = Planner(laws=laws, targets=targets)
        shares = planner.group_shares(fresh)
        budget = default_budget(planner, fresh)
        budget = Budget(budget.total * args.budget, budget.unit)
        plan = make_plan(
            laws, budget=budget, n_prompts=len(fresh), group_shares=shares, seed=repeat
        )
        rates, right = come_true(plan, planner, fresh, truth, rng)
        promise = _interval(plan.promised_accuracy)
        rows.append(("planner", *promise, rates.mean(), right.mean()))
        for name, baseline in plan.baselines.items():
            options = baseline.options
            rates = np.array(
                [truth.of(p.task, options[p.task])[p.problem_id] for p in fresh]
            )
            right = rng.random(len(fresh)) < rates
            rows.append((name, *_interval(baseline.accuracy), rates.mean(), right.mean()))
        print(repeat, rows[-len(plan.baselines) - 1], flush=True)
    table = pd.DataFrame(rows, columns=["arm", "mean", "low", "high", "rate", "achieved"])
    for arm, own in table.groupby("arm", sort=False):
        off = own["achieved"] - own["mean"]
        held = own["achieved"].between(own["low"], own["high"])
        print(
            f"{arm}: achieved - promised {off.mean():+.4f} (sd {off.std():.4f}, standard"
            f" error {off.std() / len(own) ** 0.5:.4f}); in the 90 % interval"
            f" {held.mean():.3f} of {len(own)};"
            f" width {(own['high'] - own['low']).mean():.3f};"
            f" accuracy {own['achieved'].mean():.3f}"
        )


def _interval(interval: object) -> tuple[float, float, float]:
    return interval.mean, interval.low, interval.high  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
