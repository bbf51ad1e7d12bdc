"""Sampling in rounds, until what the plan needs is known well enough.

Every problem of every model gets the same first stage; each round then goes where it
narrows the interval most (`spending`). What to draw next follows from the stored counts
alone, so a run that was cut short goes on from them, and repeats nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from planner.calibration.sampling import BLOCK, DrawsOf, SamplingPlan
from planner.calibration.spending import Spending, next_round
from planner.calibration.store import Store
from planner.models.counts import CountTable, IntArray
from planner.models.errors import InputError

Draw = Callable[[str, DrawsOf], int]  # model, draws to have of each problem -> draws made
Tell = Callable[[Spending, int], None]  # the next round, and draws made so far


def sample_until(
    store: Store,
    plan: SamplingPlan,
    models: Sequence[str],
    draw: Draw,
    *,
    ks: Sequence[int],
    until_width: float,
    tell: Tell,
) -> int:
    """Draw until the interval of mean coverage is narrow enough, or all is drawn.

    Greedy draws are all alike: one is made of each problem, and none decides anything.

    Args:
        store: Where the draws are.
        plan: Of one model; n_samples is the most draws of a problem.
        models: Names; the mean is over them, the tasks and the temperatures alike.
        draw: Makes the draws of a model that the store lacks.
        ks: Coverage at each is to be known.
        until_width: Of the 90 % interval.
        tell: Called before every round, and at the end.

    Returns:
        Draws made.

    Raises:
        InputError: No temperature above 0, or a setting out of range.
        ServingError: As `draw` raises it; what was finished is stored.
        StoreError: A part is damaged.
        FitError: The counts cannot be fitted.
    """
    if not 0 < until_width < 1:  # before anything is paid
        raise InputError(f"until_width must be between 0 and 1, got {until_width:g}")
    warm = [t for t in dict.fromkeys(plan.temperatures) if t > 0]
    if not warm:
        raise InputError(
            "an interval needs draws at a temperature above 0; the config has none"
        )
    rows = _Rows(plan, tuple(models), tuple(warm))
    goal = np.full(rows.shape, min(BLOCK, plan.n_samples))
    made = 0
    while True:
        # a block that was begun is finished: quick draws alone would be a biased sample
        begun = -(-rows.reach(store) // BLOCK) * BLOCK
        goal = np.maximum(goal, np.minimum(begun, plan.n_samples))
        for i, model in enumerate(models):
            made += draw(model, rows.draws_of(goal[i]))
        table = rows.table(store)
        total = int(table.n_samples.sum())
        spending = next_round(
            table, ks=ks, until_width=until_width, n_max=plan.n_samples, step=BLOCK,
            rng=np.random.default_rng([plan.seed, total]),
        )  # fmt: skip
        tell(spending, total)
        if not spending.add.any():
            return made
        goal = (table.n_samples + spending.add).reshape(rows.shape)


@dataclass(frozen=True)
class _Rows:
    """Rows of the table of counts: (model, temperature, problem), in this order."""

    plan: SamplingPlan
    models: tuple[str, ...]
    temperatures: tuple[float, ...]  # above 0

    @property
    def shape(self) -> tuple[int, int, int]:
        return len(self.models), len(self.temperatures), len(self.plan.problems)

    def draws_of(self, goal: IntArray) -> DrawsOf:
        """Draws to have of each problem of one model, greedy ones included."""
        wanted = {
            (problem.problem_id, temperature): int(goal[j, p])
            for j, temperature in enumerate(self.temperatures)
            for p, problem in enumerate(self.plan.problems)
        }
        if 0.0 in self.plan.temperatures:
            wanted |= {(problem.problem_id, 0.0): 1 for problem in self.plan.problems}
        return wanted

    def reach(self, store: Store) -> IntArray:
        """Highest draw stored of each row, counted from 1; 0 without one."""
        return self._filled(self._counts(store), "reach").reshape(self.shape)

    def table(self, store: Store) -> CountTable:
        """Counts of every row; a cell is a model and temperature on a task."""
        found = self._counts(store)
        names = [problem.task for problem in self.plan.problems]
        tasks = {task: i for i, task in enumerate(dict.fromkeys(names))}
        task = np.array([tasks[name] for name in names])
        settings, problems = len(self.models) * len(self.temperatures), len(names)
        cell = (np.arange(settings)[:, None] * len(tasks) + task).ravel()
        return CountTable.of(
            self._filled(found, "n_correct"),
            self._filled(found, "n_samples"),
            cell=cell,
            problem=np.tile(np.arange(problems), settings),
            benchmark=np.tile(np.arange(len(tasks)), settings),
        )

    def _counts(self, store: Store) -> pd.DataFrame:
        return store.query(
            "SELECT model, problem_id, temperature, max(draw) + 1 AS reach,"
            " count(*) AS n_samples, count(*) FILTER (WHERE correct) AS n_correct"
            " FROM (SELECT model, problem_id, temperature, draw, first(correct) AS correct"
            f" FROM samples WHERE max_tokens = {int(self.plan.max_tokens)}"
            f" AND top_p = {float(self.plan.top_p)!r}"
            " GROUP BY model, problem_id, temperature, draw)"
            " GROUP BY model, problem_id, temperature"
        )

    def _filled(self, found: pd.DataFrame, column: str) -> IntArray:
        """A column of the counts, one value a row; 0 where nothing is stored."""
        problem = pd.Index([p.problem_id for p in self.plan.problems]).get_indexer(
            pd.Index(found["problem_id"])
        )
        model = pd.Index(self.models).get_indexer(pd.Index(found["model"]))
        heat = pd.Index(self.temperatures).get_indexer(pd.Index(found["temperature"]))
        known = (problem >= 0) & (model >= 0) & (heat >= 0)
        out = np.zeros(self.shape, dtype=np.int64)
        out[model[known], heat[known], problem[known]] = found[column][known]
        return out.ravel()
