"""One run of the Executor: start prompts, poll the engines, tell the strategies."""

import heapq
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

from planner.dispatch import Dispatcher, Landed, Ticket
from planner.ledger import Ledger
from planner.models.cost import Cost
from planner.models.errors import InputError, PlannerError, ServingError
from planner.models.records import Problem
from planner.plan import Option
from planner.prompt_run import PromptRun, Result, RunSettings, Scorer

Choose = Callable[[Problem, float, int], Option]  # problem, remaining, prompts left
Progress = Callable[[int, int], None]  # prompts finished, of how many

_POLL_S = 1.0
_DRAIN_S = 5.0  # wait for cancelled draws to come in; then they count at the worst case


class RunLoop:
    """Prompts are served in their order: none overtakes one that waits for budget."""

    def __init__(
        self, problems: Sequence[Problem], choose: Choose, *, dispatcher: Dispatcher,
        ledger: Ledger, scorer: Scorer | None, settings: RunSettings,
        clock: Callable[[], float], done: dict[int, Result], progress: Progress | None,
        ended: Callable[[Result], None] | None,
    ) -> None:  # fmt: skip
        """Prepare a run; see Executor for what the arguments mean.

        Args:
            problems: Started in this order.
            choose: The option of a problem.
            dispatcher: Of this run alone.
            ledger: Of the budget.
            scorer: Of texts.
            settings: What all prompts share.
            clock: Seconds.
            done: Filled with results, by position of their problem.
            progress: Told how far the run is.
            ended: Told each result.
        """
        self._problems, self._choose, self._dispatcher = problems, choose, dispatcher
        self._ledger, self._scorer, self._settings = ledger, scorer, settings
        self._clock, self._done, self._progress = clock, done, progress
        self._ended = ended
        self._active: dict[int, PromptRun] = {}  # by position, in order of start
        self._started = 0
        self._ready: list[int] = []  # heap of positions that have draws to launch
        self._retries: list[
            tuple[float, int, int, Ticket]
        ] = []  # heap: due, position, draw
        self._end_s = float("inf")
        if settings.deadline_s is not None:
            self._end_s = clock() + settings.deadline_s
        self._expired = False
        self._inbox: deque[Landed] = deque()  # settled, and not yet told

    def run(self) -> None:
        """Finish every prompt.

        Raises:
            PlannerError: What `Executor.run` says.
        """
        while len(self._done) < len(self._problems):
            if not self._expired and self._clock() >= self._end_s:
                self._expire()
            if self._expired and self._clock() >= self._end_s + _DRAIN_S:
                self._inbox += self._dispatcher.close()
                self._land_all()
            self._requeue()
            self._launch()
            if self._dispatcher.in_flight:
                left_s = max(self._end_s - self._clock(), 0.0)
                wait_s = min(_POLL_S, left_s) if not self._expired else _POLL_S
                self._inbox += self._dispatcher.poll(wait_s)
                self._land_all()
            elif self._retries and not self._ready:
                # nothing else to do until the first retry is due
                time.sleep(max(0.0, min(self._retries[0][0], self._end_s) - self._clock()))

    @property
    def running(self) -> dict[str, tuple[int, Cost]]:
        """Attempts and cost so far of every prompt that runs."""
        return {
            run.problem.problem_id: (run.attempts, run.cost)
            for run in self._active.values()
        }

    def close(self) -> None:
        """Cancel and settle what runs, and finish what was started: nothing after `run`."""
        try:
            self._dispatcher.cancel()
            for run in self._active.values():
                run.stop("interrupted")
            self._retries.clear()
            end_s = time.perf_counter() + _DRAIN_S
            with suppress(PlannerError):  # the error that ended the run is the one to show
                while self._dispatcher.in_flight and time.perf_counter() < end_s:
                    self._inbox += self._dispatcher.poll(_POLL_S)
        finally:
            self._inbox += self._dispatcher.close()
            for landed in self._inbox:
                if (owner := self._active.get(landed.ticket.owner)) is not None:
                    owner.charge(landed)
                    owner.tell(landed.ticket, landed.draw)
            for run in list(self._active.values()):
                run.score(None)  # the scorer may be what failed
                self._finish(run)

    def _expire(self) -> None:
        self._expired = True
        self._dispatcher.cancel()
        while self._retries:
            *_, ticket = heapq.heappop(self._retries)
            self._active[ticket.owner].flying -= 1
        for run in list(self._active.values()):
            run.stop("deadline")
            self._advance(run)

    def _requeue(self) -> None:
        """Move retries that are due to the front of their prompt's queue."""
        now_s = self._clock()
        while self._retries and self._retries[0][0] <= now_s:
            *_, ticket = heapq.heappop(self._retries)
            run = self._active[ticket.owner]
            run.flying -= 1
            if run.settled:
                self._advance(run)
                continue
            run.queue.appendleft(ticket)
            heapq.heappush(self._ready, run.order)

    def _launch(self) -> None:
        """Start draws, in order of prompts, until the engines are full or money waits."""
        while True:
            run = self._next()
            if run is None:
                return
            while run.queue:
                if self._dispatcher.in_flight >= self._settings.max_in_flight:
                    return
                ticket = run.queue[0]
                if not self._dispatcher.lane(ticket.model).launch(ticket):
                    if self._dispatcher.in_flight:
                        return  # what is settled next may free enough
                    run.stop("budget")
                    break
                run.queue.popleft()
                run.flying += 1
            heapq.heappop(self._ready)
            self._advance(run)

    def _next(self) -> PromptRun | None:
        """The earliest prompt with draws to launch; starts one when none has any."""
        while self._ready:
            run = self._active.get(self._ready[0])
            if run is not None and run.queue:
                return run
            heapq.heappop(self._ready)
        full = self._dispatcher.in_flight >= self._settings.max_in_flight
        while not full and self._started < len(self._problems):
            run = self._start()
            if run.queue:
                return run
        return None

    def _start(self) -> PromptRun:
        order, problem = self._started, self._problems[self._started]
        left = len(self._problems) - order
        remaining = self._remaining()
        option = self._choose(problem, remaining, left)
        if option.strategy == "best_of_n_scored" and self._scorer is None:
            raise InputError(
                f"problem {problem.problem_id!r}: best_of_n_scored needs a scored verifier;"
                " name one in the config, or use another strategy"
            )
        run = PromptRun(
            order, problem, option, settings=self._settings,
            max_tokens=self._max_tokens(problem, option), share=remaining / left,
        )  # fmt: skip
        self._started += 1
        self._active[order] = run
        if self._expired:
            run.stop("deadline")
        self._advance(run)
        return run

    def _remaining(self) -> float:
        """Budget left for the prompts not yet started."""
        unit = self._ledger.budget.unit
        left = self._ledger.budget.total - self._ledger.spent.in_unit(unit)
        for run in self._active.values():
            left -= max(run.share - run.cost.in_unit(unit), 0.0)
        return max(left, 0.0)

    def _max_tokens(self, problem: Problem, option: Option) -> int:
        engine = self._dispatcher.lane(option.model).engine
        if engine.max_context_tokens is None:
            return option.max_tokens
        prompt_tokens = engine.count_tokens(problem.prompt)
        room = engine.max_context_tokens - prompt_tokens
        if room < 1:
            raise InputError(
                f"problem {problem.problem_id!r}: its prompt has {prompt_tokens} tokens,"
                f" {option.model!r} takes {engine.max_context_tokens} with the answer;"
                " leave the problem out, or use a model with a longer context"
            )
        return min(option.max_tokens, room)

    def _land_all(self) -> None:
        """Tell what came in.

        Raises:
            ServingError: A server, not a prompt, is to blame for what failed.
        """
        dead: ServingError | None = None
        while self._inbox:
            landed = self._inbox.popleft()
            self._land(landed)
            if landed.error is not None and self._dispatcher.lane(landed.ticket.model).dead:
                dead = landed.error
        if dead is not None:
            raise dead

    def _land(self, landed: Landed) -> None:
        ticket, run = landed.ticket, self._active[landed.ticket.owner]
        lane = self._dispatcher.lane(ticket.model)
        run.charge(landed)
        error = landed.error
        if error is None or run.settled:
            run.flying -= 1
            run.tell(ticket, landed.draw)
        elif error.retryable and ticket.attempt < self._settings.retries:
            # still flying: the draw is not told before its last attempt
            due_s = self._clock() + self._settings.backoff_s * 2.0**ticket.attempt
            heapq.heappush(
                self._retries, (due_s, ticket.owner, ticket.draw, ticket.again())
            )
        else:
            run.flying -= 1
            lane.give_up(error)
            run.tell(ticket, None)
            if not error.retryable:
                run.stop(str(error))
        self._advance(run)

    def _advance(self, run: PromptRun) -> None:
        """Whatever follows from what the prompt has been told."""
        if run.idle:
            run.score(self._scorer)
        if run.settled and run.flying:
            self._dispatcher.cancel(run.order)
        run.refill()
        if run.queue:
            heapq.heappush(self._ready, run.order)
        elif run.idle:
            self._finish(run)

    def _finish(self, run: PromptRun) -> None:
        engine = self._dispatcher.lane(run.option.model).engine.version
        del self._active[run.order]
        self._done[run.order] = run.result(engine)
        if self._ended is not None:
            self._ended(self._done[run.order])
        if self._progress is not None:
            self._progress(len(self._done), len(self._problems))
