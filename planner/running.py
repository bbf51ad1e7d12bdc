"""Carry a plan out: open the engines, pace the budget, gather what came of it."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from planner.allocate import Pacer
from planner.catalogue import Catalogue
from planner.engines import open_engine
from planner.executor import Executor, Result
from planner.ledger import Ledger
from planner.limits import Budget
from planner.models.cost import Cost, CostModel
from planner.models.errors import InputError
from planner.models.records import Problem, Sample
from planner.models.specs import ModelTarget
from planner.options import GroupKey
from planner.plan import Option
from planner.prompt_run import Scorer

_PRIOR = 10  # prompts; fewer than these say little about the laws' error


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a run answered and spent."""

    results: tuple[Result, ...]  # in the order of the prompts
    groups: tuple[GroupKey, ...]  # of the prompts
    budget: Budget
    spent: Cost  # cancelled and retried draws included
    cancelled_draws: int

    @property
    def accuracy(self) -> float | None:
        """Share answered right, the unanswered counted as wrong; None: not all graded."""
        graded = [r.correct for r in self.results]
        return None if None in graded else sum(map(bool, graded)) / len(graded)

    @property
    def unanswered(self) -> int:
        """Prompts that the budget left without an answer, or that no draw answered."""
        return sum(r.status == "unanswered" for r in self.results)

    @property
    def samples(self) -> tuple[Sample, ...]:
        """Rows for the store: what was measured on the way."""
        return tuple(s for r in self.results for s in r.samples)


class Pace:
    """Chooses as prompts start, by what the budget has left for them.

    What has ended cost what it did; what runs is held at its option's expectation. Where
    prompts cost more than the laws expected, so will the rest: expectations are raised by
    the ratio seen, as if `_PRIOR` prompts had cost just what was expected. They are never
    lowered, since the first prompts to end are the short ones; what was held too high comes
    back as each prompt ends.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        problems: Sequence[Problem],
        groups: Sequence[GroupKey],
        budget: Budget,
        reserve: float,
    ) -> None:
        """Args: `reserve` is the share of the budget kept back to the end."""
        self._catalogue, self._total = catalogue, budget.total
        self._group = {
            p.problem_id: catalogue.index[g] for p, g in zip(problems, groups, strict=True)
        }
        counts = [0] * len(catalogue.groups)
        for g in self._group.values():
            counts[g] += 1
        self._pacer = Pacer(catalogue.ladder, counts, reserve=reserve * budget.total)
        self._expected: dict[str, float] = {}  # of prompts that run
        self._ended = self._ended_expected = 0.0  # cost of those that ended

    def choose(self, problem: Problem, remaining: float, prompts_left: int) -> Option:
        """The option of a prompt that starts; `remaining` holds even shares, so unused."""
        ratio = self._ratio()
        left = self._total - self._ended - ratio * sum(self._expected.values())
        row = self._pacer.choose(
            self._group[problem.problem_id], left / ratio, prompts_left
        )
        forecast = self._catalogue.forecasts[row]
        self._expected[problem.problem_id] = forecast.cost[self._catalogue.unit]
        return forecast.option

    def end(self, result: Result) -> None:
        """Count a prompt that ended at what it cost."""
        expected = self._expected.pop(result.problem_id, None)
        if expected is not None:
            self._ended += result.cost.in_unit(self._catalogue.unit)
            self._ended_expected += expected

    def _ratio(self) -> float:
        prior = _PRIOR * self._total / len(self._group)
        return max((self._ended + prior) / (self._ended_expected + prior), 1.0)


@dataclass(frozen=True, kw_only=True)
class RunSetup:
    """What a run needs beside the prompts."""

    targets: Mapping[str, ModelTarget]
    cost_models: Mapping[str, CostModel]
    budget: Budget
    scorer: Scorer | None
    seed: int
    stop_confidence: float
    top_p: float
    max_in_flight: int
    deadline_s: float | None
    machine: str


def run_prompts(
    setup: RunSetup,
    problems: Sequence[Problem],
    groups: Sequence[GroupKey],
    *,
    models: Sequence[str],
    choose: Callable[[Problem, float, int], Option],
    end: Callable[[Result], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> RunResult:
    """Answer prompts within the budget.

    Args:
        setup: Engines, budget and settings.
        problems: In the order they start; problem ids are distinct.
        groups: Of each problem.
        models: That `choose` may name; their engines are opened.
        choose: See Executor.run.
        end: Told each result once, as prompts end.
        progress: Told how many prompts ended, of how many.

    Raises:
        InputError: A model has no target, or two problems share an id.
        ServingError: An engine fails whatever it is asked.
    """
    if len({p.problem_id for p in problems}) < len(problems):
        raise InputError("two prompts share a problem_id; give each its own")
    for model in models:
        if model not in setup.targets:
            known = ", ".join(setup.targets) or "none"
            raise InputError(
                f"no engine is configured for model {model!r}; known are: {known}"
            )
    ledger = Ledger(setup.budget)
    with ExitStack() as stack:
        engines = {}
        for model in models:
            engines[model] = open_engine(setup.targets[model])
            stack.callback(engines[model].close)
        executor = Executor(
            engines=engines, cost_models=setup.cost_models, ledger=ledger,
            scorer=setup.scorer, seed=setup.seed, stop_confidence=setup.stop_confidence,
            top_p=setup.top_p, max_in_flight=setup.max_in_flight,
            deadline_s=setup.deadline_s, machine=setup.machine,
        )  # fmt: skip
        results = executor.run(problems, choose, progress=progress, ended=end)
    return RunResult(
        results=tuple(results), groups=tuple(groups), budget=setup.budget,
        spent=ledger.spent, cancelled_draws=ledger.cancelled_draws,
    )  # fmt: skip


def open_scorer(folder: Path | None) -> Scorer | None:
    """The scored verifier of a folder, if there is one."""
    if folder is None or not folder.exists():
        return None
    from planner.engines.embedded import EmbeddedScorer

    return EmbeddedScorer(folder).score
