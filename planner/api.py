"""Planner: load a workspace, ask for advice, carry it out. Wiring only."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from planner.candidates import candidates
from planner.catalogue import Catalogue, Recommendation, recommendation
from planner.config import Workspace, reference_targets
from planner.data import REFERENCE
from planner.difficulty import PromptGroups
from planner.limits import Budget
from planner.models.artifact import Laws
from planner.models.cost import CostModel
from planner.models.errors import InputError, NotMeasuredError
from planner.models.records import Problem
from planner.models.specs import ModelTarget
from planner.options import (
    GroupKey,
    OptionTable,
    build_options,
    cost_models,
    known_groups,
)
from planner.plan import Forecast, Option, Plan

if TYPE_CHECKING:
    from planner.prompt_run import Result
    from planner.running import RunResult

__all__ = ["Planner", "Recommendation", "load", "recommend", "run"]

_RESERVE = 0.02  # of the budget, where no plan says how much to keep back
# Draws at once, where the caller does not say: enough to fill a batch, few enough that the
# first prompts' costs are known before the last ones start.
_IN_FLIGHT = (16, 256)
_WAVES = 8


@dataclass(frozen=True, eq=False, kw_only=True)
class Planner:
    """Laws, a plan if there is one, and the models they speak of."""

    laws: Laws
    plan: Plan | None = None
    targets: tuple[ModelTarget, ...] = ()
    scorer_folder: Path | None = None  # of a scalar-head verifier; None: no scored options
    top_p: float = 1.0  # of all draws

    @cached_property
    def _groups(self) -> PromptGroups:
        return PromptGroups(self.laws.tasks, known_groups(self.laws))

    @cached_property
    def _table(self) -> OptionTable:
        # accuracy is read from the means; the draws are not used here
        return build_options(
            self.laws, known_groups(self.laws), np.random.default_rng(0), n_draws=2
        )

    @cached_property
    def _catalogues(self) -> dict[str, Catalogue]:
        return {}

    @cached_property
    def _planned(self) -> dict[GroupKey, Recommendation]:
        if self.plan is None:
            raise InputError("no plan: name a budget, or run `planner plan` first")
        unit = self.plan.budget_unit
        return {
            (g.task, g.difficulty): recommendation(
                (g.task, g.difficulty), unit,
                max(g.choices, key=lambda c: c.share).forecast, g.runner_up,
            )
            for g in self.plan.groups
        }  # fmt: skip

    @cached_property
    def cost_models(self) -> dict[str, CostModel]:
        """By model."""
        return cost_models(self.laws)

    def group(self, prompt: str, task: str | None = None) -> GroupKey:
        """Task and difficulty class of a prompt.

        Raises:
            InputError: The task is not known; it lists those that are.
        """
        return self._groups.of(prompt, task)

    def group_shares(self, problems: Iterable[Problem]) -> dict[GroupKey, float]:
        """Share of the problems in each group: what a plan for them needs.

        Raises:
            InputError: No problem, or one of an unknown task.
        """
        counts: dict[GroupKey, int] = {}
        for problem in problems:
            key = self.group(problem.prompt, problem.task)
            counts[key] = counts.get(key, 0) + 1
        total = sum(counts.values())
        if not total:
            raise InputError("no prompts")
        return {key: n / total for key, n in counts.items()}

    def catalogue(self, unit: str) -> Catalogue:
        """Options by cost in one unit: the plan's own, or the laws' where units differ.

        Raises:
            NotMeasuredError: No model has the unit.
        """
        found = self._catalogues.get(unit)
        if found is None:
            found = self._catalogues[unit] = Catalogue.of(unit, self._fronts(unit))
        return found

    def _fronts(self, unit: str) -> dict[GroupKey, Sequence[Forecast]]:
        fronts: dict[GroupKey, Sequence[Forecast]] = {}
        if self.plan is not None and self.plan.budget_unit == unit:
            fronts = {(g.task, g.difficulty): g.front for g in self.plan.groups}
        missing = [key for key in known_groups(self.laws) if key not in fronts]
        if missing:
            table, _ = candidates(self._table, unit)
            for key in missing:
                rows = table.rows_of[table.groups.index(key)].tolist()
                fronts[key] = [table.forecast(row) for row in rows]
        return fronts

    def recommend(
        self, prompt: str, budget: str | Budget | None = None, *, task: str | None = None
    ) -> Recommendation:
        """The most accurate option that answers a prompt within a budget; microseconds.

        Args:
            prompt: What the user sends.
            budget: For this prompt, e.g. "0.002 usd"; the option's cost stays within it for
                95 % of prompts. None: what the plan gives the prompt's group.
            task: None: recognised from the prompt.

        Raises:
            InputError: The budget or the task cannot be used, or there is no plan.
            InfeasibleError: Even the cheapest option costs more; it says how much.
            NotMeasuredError: No model has the budget's unit.
        """
        key = self._groups.of(prompt, task)
        if budget is None:
            planned = self._planned.get(key)
            if planned is None:
                raise NotMeasuredError(
                    f"the plan has no task {key[0]!r} class {key[1]}; name a budget"
                )
            return planned
        limit = _parsed(budget) if isinstance(budget, str) else budget
        catalogue = self._catalogues.get(limit.unit) or self.catalogue(limit.unit)
        return catalogue.shelves[key].best(limit.total, limit.unit)

    def allocate(
        self, prompts: Sequence[str | Problem], budget: str | Budget
    ) -> list[Recommendation]:
        """One option a prompt, the best joint use of one budget; expected cost fits it.

        Raises:
            InputError: No prompts, or the budget or a task cannot be used.
            InfeasibleError: The cheapest options cost more than the budget.
            NotMeasuredError: No model has the budget's unit.
        """
        limit = _parsed(budget) if isinstance(budget, str) else budget
        catalogue = self.catalogue(limit.unit)
        groups = [catalogue.index[self.group(*_text_and_task(p))] for p in prompts]
        if not groups:
            raise InputError("no prompts to allocate a budget over")
        counts = np.bincount(groups, minlength=len(catalogue.groups)).astype(float)
        best = catalogue.ladder.allocate(counts, limit.total)
        queues: list[list[int]] = []
        for choice, count in zip(best.choices, counts.tolist(), strict=True):
            # rounded towards the cheaper of two, so that the sum still fits
            dear = int(choice[-1][1] * count + 1e-9) if len(choice) > 1 else 0
            whole = [int(count) - dear, dear] if len(choice) > 1 else [int(count)]
            queues.append(
                [row for (row, _), n in zip(choice, whole, strict=True) for _ in range(n)]
            )
        entries: dict[int, Recommendation] = {}
        chosen = []
        for g in groups:
            row = queues[g].pop()
            if row not in entries:
                entries[row] = catalogue.entry(row)
            chosen.append(entries[row])
        return chosen

    def run(
        self,
        prompts: Sequence[str | Problem],
        budget: str | Budget | None = None,
        *,
        fixed: Mapping[str, Option] | None = None,
        seed: int = 0,
        max_in_flight: int | None = None,
        deadline_s: float | None = None,
        progress: Callable[[int, int], None] | None = None,
        each: Callable[["Result"], None] | None = None,
    ) -> "RunResult":
        """Answer prompts within a budget; it is never passed.

        Args:
            prompts: Texts, or problems whose answers are to be graded.
            budget: For all of them; None: the plan's.
            fixed: One option a task, for every prompt of it (a plan's baseline); None: the
                best use of what is left, prompt by prompt.
            seed: Of all draws.
            max_in_flight: Most draws at once; None: an eighth of the prompts, 16 to 256.
            deadline_s: When to stop and answer with what is there.
            progress: Told how many prompts ended, of how many.
            each: Told each result once its prompt ended; of an interrupted run too.

        Raises:
            InputError: No prompts, no budget, or one of them cannot be used.
            NotMeasuredError: No model has the budget's unit.
            ServingError: An engine fails whatever it is asked.
        """
        from planner.ledger import Ledger
        from planner.pace import Pace
        from planner.running import RunSetup, open_scorer, run_prompts

        if not prompts:
            raise InputError("no prompts to run")
        limit = self._budget(budget)
        problems = self._problems(prompts)
        groups = [self.group(p.prompt, p.task) for p in problems]
        scorer = open_scorer(self.scorer_folder)
        catalogue = self._runnable(limit.unit, scored=scorer is not None)
        if max_in_flight is None:
            low, high = _IN_FLIGHT
            max_in_flight = min(max(len(prompts) // _WAVES, low), high)
        machines = self.laws.provenance.machines
        setup = RunSetup(
            targets={t.name: t for t in self.targets}, cost_models=self.cost_models,
            ledger=Ledger(limit), scorer=scorer, seed=seed, top_p=self.top_p,
            stop_confidence=self.laws.stop_confidence, max_in_flight=max_in_flight,
            deadline_s=deadline_s, machine=machines[0] if machines else "unknown",
        )  # fmt: skip
        if fixed is not None:
            if lacking := {p.task for p in problems} - set(fixed):
                raise InputError(f"fixed: no option for task {min(lacking)!r}")
            return run_prompts(
                setup, problems, groups,
                models=sorted({fixed[p.task].model for p in problems}),
                choose=lambda problem, left, running: fixed[problem.task],
                end=each, progress=progress,
            )  # fmt: skip
        reserve = _RESERVE if self.plan is None else self.plan.reserve
        pace = Pace(catalogue, self.laws, problems, groups, setup.ledger, reserve)
        return run_prompts(
            setup, problems, groups, models=_models(catalogue, groups),
            choose=pace.choose, end=each, progress=progress,
        )  # fmt: skip

    def _budget(self, budget: str | Budget | None) -> Budget:
        if isinstance(budget, str):
            return _parsed(budget)
        if budget is None and self.plan is None:
            raise InputError("no plan: name a budget, or run `planner plan` first")
        if budget is None and self.plan is not None:
            return Budget(self.plan.budget_total, self.plan.budget_unit)
        assert budget is not None  # for the type checker
        return budget

    def _problems(self, prompts: Sequence[str | Problem]) -> list[Problem]:
        verifier = {task.task: task.verifier for task in self.laws.tasks}
        problems = []
        for i, prompt in enumerate(prompts):
            if isinstance(prompt, Problem):
                problems.append(prompt)
                continue
            task, _ = self.group(prompt)
            problems.append(
                Problem(
                    problem_id=f"{task}-{i + 1}", task=task, prompt=prompt,
                    verifier=verifier[task],
                )
            )  # fmt: skip
        return problems

    def _runnable(self, unit: str, *, scored: bool) -> Catalogue:
        """Options whose model has a target, and whose strategy can be carried out."""
        served = {t.name for t in self.targets}
        fronts = {
            key: [
                f for f in front
                if f.option.model in served
                and (scored or f.option.strategy != "best_of_n_scored")
            ]
            for key, front in self._fronts(unit).items()
        }  # fmt: skip
        for (task, difficulty), front in fronts.items():
            if not front:
                raise InputError(
                    f"task {task!r} class {difficulty}: no model of the laws is configured;"
                    f" configured are: {', '.join(sorted(served)) or 'none'}"
                )
        return Catalogue.of(unit, fronts)


def _models(catalogue: Catalogue, groups: Sequence[GroupKey]) -> list[str]:
    """Models that the groups' hulls name."""
    rows = [catalogue.ladder.rows[catalogue.index[g]].tolist() for g in set(groups)]
    return sorted({catalogue.forecasts[row].option.model for own in rows for row in own})


def _text_and_task(prompt: str | Problem) -> tuple[str, str | None]:
    return (prompt, None) if isinstance(prompt, str) else (prompt.prompt, prompt.task)


@lru_cache(maxsize=1024)
def _parsed(budget: str) -> Budget:
    return Budget.parse(budget)


def load(workspace: str | Path) -> Planner:
    """The planner of a workspace: its laws, and its plan and models where it has them.

    Raises:
        InputError: No laws there, or a file of it cannot be read; it says which.
    """
    place = Workspace(Path(workspace))
    laws = Laws.load(place.laws_file)
    plan = Plan.load(place.plan_file) if place.plan_file.exists() else None
    if not place.config_file.exists():
        return Planner(laws=laws, plan=plan)
    return Planner(
        laws=laws, plan=plan, targets=place.targets(), scorer_folder=place.scorer_folder(),
        top_p=place.config().sampling.top_p,
    )  # fmt: skip


@cache
def reference() -> Planner:
    """The planner of the reference models, as installed.

    Raises:
        InputError: The installation lacks them.
    """
    plan = REFERENCE / "plan.json"
    return Planner(
        laws=Laws.load(REFERENCE / "laws.json"),
        plan=Plan.load(plan) if plan.exists() else None,
        targets=reference_targets(),
        scorer_folder=REFERENCE / "tiny-verifier",
    )


def recommend(
    prompt: str, budget: str | Budget | None = None, *, task: str | None = None
) -> Recommendation:
    """Planner.recommend for the reference models."""
    return reference().recommend(prompt, budget, task=task)


def run(
    prompts: Sequence[str | Problem], budget: str | Budget | None = None, *, seed: int = 0
) -> "RunResult":
    """Planner.run for the reference models."""
    return reference().run(prompts, budget, seed=seed)
