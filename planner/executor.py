"""Carry options out over many prompts at once, within one budget.

One loop, no threads: start prompts in order while the budget and the engines have room,
poll the engines, tell the strategies what came back. Every draw is reserved at its worst
case before it starts (prompt tokens, `max_tokens`) and settled at what it cost, so that the
spend never passes the budget whatever runs at once. Draws that a strategy no longer needs
are cancelled; their tokens are paid for and counted.

Draws depend on (seed, problem_id, model, index) alone. Under a budget that binds, which
prompts get the last draws also depends on the order in which draws end.
"""

import time
from collections.abc import Callable, Mapping, Sequence

from planner.dispatch import Dispatcher
from planner.engines.base import Engine
from planner.ledger import Ledger
from planner.models.cost import Cost, CostModel
from planner.models.errors import InputError
from planner.models.records import Problem
from planner.prompt_run import Result, RunSettings, Scorer
from planner.run_loop import Choose, Progress, RunLoop
from planner.verifiers import get_verifier

__all__ = ["Choose", "Executor", "Result"]


class Executor:
    """Answers prompts within the ledger's budget."""

    def __init__(
        self,
        *,
        engines: Mapping[str, Engine],
        cost_models: Mapping[str, CostModel],
        ledger: Ledger,
        scorer: Scorer | None = None,
        seed: int = 0,
        stop_confidence: float = 0.95,
        top_p: float = 1.0,
        max_in_flight: int = 256,
        retries: int = 2,
        deadline_s: float | None = None,
        machine: str = "unknown",
        clock: Callable[[], float] = time.perf_counter,
        backoff_s: float = 0.25,
    ) -> None:
        """Prepare; nothing is opened until `run`.

        Args:
            engines: By the name options call the model.
            cost_models: The same names; they set what draws cost, in every unit.
            ledger: Holds the budget; several executors may share it one after another.
            scorer: Log-odds that texts are right, (n,), given prompts and texts; its own
                compute is not charged. Options "best_of_n_scored" need it.
            seed: Of all draws.
            stop_confidence: At which self_consistency stops.
            top_p: Of all draws.
            max_in_flight: Most draws at once, over all engines.
            retries: Further attempts at a draw that failed for a passing reason.
            deadline_s: From the start of `run`; what runs then is cancelled, and each
                prompt answered with what is there.
            machine: Id of a row of `measurements/machines`, for the rows.
            clock: Seconds, for the deadline and the retries.
            backoff_s: Wait before the first retry; doubles with each.

        Raises:
            InputError: An engine without a cost model, or a setting that cannot be used.
        """
        if missing := sorted(set(engines) - set(cost_models)):
            raise InputError(f"model {missing[0]!r} has an engine but no cost model")
        if max_in_flight < 1 or retries < 0:
            raise InputError(
                "max_in_flight must be at least 1 and retries at least 0,"
                f" got {max_in_flight} and {retries}"
            )
        self._engines, self._cost_models, self._ledger = engines, cost_models, ledger
        self._scorer, self._clock = scorer, clock
        self._settings = RunSettings(
            seed=seed, stop_confidence=stop_confidence, top_p=top_p, machine=machine,
            max_in_flight=max_in_flight, retries=retries, deadline_s=deadline_s,
            backoff_s=backoff_s,
        )  # fmt: skip
        self._done: dict[int, Result] = {}
        self._loop: RunLoop | None = None

    @property
    def running(self) -> dict[str, tuple[int, Cost]]:
        """Attempts and cost so far of every prompt that runs; for `choose` to pace by."""
        return {} if self._loop is None else self._loop.running

    @property
    def results(self) -> list[Result]:
        """Results so far of the last `run`, in the order of its problems.

        After an interrupt or an error they hold every prompt that was started.
        """
        return [self._done[order] for order in sorted(self._done)]

    def run(
        self,
        problems: Sequence[Problem],
        choose: Choose,
        *,
        progress: Progress | None = None,
        ended: Callable[[Result], None] | None = None,
    ) -> list[Result]:
        """Answer every problem, or say that the budget or the deadline left none for it.

        Args:
            problems: Started in this order.
            choose: The option of a problem, asked when it starts, given what is left of the
                budget for the prompts not yet started, and how many those are, itself
                included. What is left is not spent, and not held for prompts that run: a
                running prompt holds an even share until it has spent more.
            progress: Told how many prompts are finished, of how many.
            ended: Told each result, as prompts finish; before `progress`.

        Returns:
            One result a problem, in order.

        Raises:
            InputError: A problem cannot be graded, an option cannot be carried out, or an
                engine cannot honour a request.
            NotMeasuredError: A draw's cost in the budget's unit is not known.
            ServingError: An engine fails whatever it is asked; all is settled before.
        """
        for problem in problems:
            verifier = get_verifier(problem.verifier)
            if problem.reference.strip() or not verifier.needs_reference:
                verifier.grade(problem, "")  # a problem that is off costs nothing yet
        self._done = {}
        dispatcher = Dispatcher(self._engines, self._cost_models, self._ledger)
        self._loop = loop = RunLoop(
            problems, choose, dispatcher=dispatcher, ledger=self._ledger,
            scorer=self._scorer, settings=self._settings, clock=self._clock,
            done=self._done, progress=progress, ended=ended,
        )  # fmt: skip
        try:
            loop.run()
        finally:
            loop.close()
        for lane in dispatcher.lanes.values():
            if lane.never_served and lane.error is not None:
                raise lane.error
        return self.results
