"""Carry a plan out: open the engines, run the prompts, gather what came of it."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from planner.engines import open_engine
from planner.executor import Executor, Result
from planner.ledger import Ledger
from planner.limits import Budget
from planner.models.cost import Cost, CostModel
from planner.models.errors import InputError
from planner.models.records import Problem, Sample
from planner.models.specs import ModelTarget
from planner.options import GroupKey
from planner.pace import Running
from planner.plan import Option
from planner.prompt_run import Scorer


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


@dataclass(frozen=True, kw_only=True)
class RunSetup:
    """What a run needs beside the prompts."""

    targets: Mapping[str, ModelTarget]
    cost_models: Mapping[str, CostModel]
    ledger: Ledger
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
    choose: Callable[[Problem, int, Running], Option],
    end: Callable[[Result], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> RunResult:
    """Answer prompts within the budget.

    Args:
        setup: Engines, ledger and settings.
        problems: In the order they start; problem ids are distinct.
        groups: Of each problem.
        models: That `choose` may name; their engines are opened.
        choose: The option of a problem that starts, given how many have not started, itself
            included, and what runs.
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
    with ExitStack() as stack:
        engines = {}
        for model in models:
            engines[model] = open_engine(setup.targets[model])
            stack.callback(engines[model].close)
        executor = Executor(
            engines=engines, cost_models=setup.cost_models, ledger=setup.ledger,
            scorer=setup.scorer, seed=setup.seed, stop_confidence=setup.stop_confidence,
            top_p=setup.top_p, max_in_flight=setup.max_in_flight,
            deadline_s=setup.deadline_s, machine=setup.machine,
        )  # fmt: skip
        results = executor.run(
            problems,
            lambda problem, remaining, left: choose(problem, left, executor.running),
            progress=progress,
            ended=end,
        )
    return RunResult(
        results=tuple(results), groups=tuple(groups), budget=setup.ledger.budget,
        spent=setup.ledger.spent, cancelled_draws=setup.ledger.cancelled_draws,
    )  # fmt: skip


def open_scorer(folder: Path | None) -> Scorer | None:
    """The scored verifier of a folder, if there is one."""
    if folder is None or not folder.exists():
        return None
    from planner.engines.embedded import EmbeddedScorer

    return EmbeddedScorer(folder).score
