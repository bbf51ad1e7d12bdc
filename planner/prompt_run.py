"""One prompt being answered: its strategy, its draws, and what comes of them."""

import hashlib
import json
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from planner.dispatch import Landed, Ticket
from planner.engines.base import Request
from planner.models.cost import Cost
from planner.models.errors import InputError
from planner.models.prediction import Array
from planner.models.records import Draw, Problem, Sample
from planner.plan import Option
from planner.strategies import Outcome, State, make_strategy
from planner.verifiers import get_verifier

Scorer = Callable[[Sequence[str], Sequence[str]], Array]  # prompts, texts -> log-odds


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a prompt was answered, and what it really cost."""

    problem_id: str
    task: str
    prompt: str
    option: Option
    answer: str  # "" when unanswered
    text: str  # of the chosen draw
    confidence: float  # in [0, 1]; 1 only for a verified answer
    correct: bool | None  # None: the problem has no reference, and its verifier needs one
    draws: int  # attempts paid for: cancelled and retried ones count
    cancelled_draws: int
    cost: Cost  # of all of them
    status: Literal["answered", "unanswered"]
    stopped: str  # what cut drawing short: "budget", "deadline", an error; "" nothing did
    samples: tuple[Sample, ...]  # rows for the store; none where draws cannot be graded


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What all prompts of a run share; the Executor says what each means."""

    seed: int
    stop_confidence: float
    top_p: float
    machine: str
    max_in_flight: int
    retries: int
    deadline_s: float | None
    backoff_s: float


def draw_seed(seed: int, problem_id: str, model: str, draw: int) -> int:
    """Seed of one draw, whatever else runs; in [0, 2**63)."""
    key = json.dumps([seed, problem_id, model, draw]).encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest()) >> 1


class PromptRun:
    """Progress of one prompt: it is told what happened and queues what it wants."""

    def __init__(
        self, order: int, problem: Problem, option: Option, *, settings: RunSettings,
        max_tokens: int, share: float,
    ) -> None:  # fmt: skip
        """Make the strategy.

        Args:
            order: Position among the prompts of the run.
            problem: The prompt and how it is graded.
            option: How to answer it.
            settings: Of the run.
            max_tokens: Of each draw: the option's, or what the model's context leaves.
            share: Budget held for this prompt when it started, for later prompts to see.

        Raises:
            InputError: The strategy is unknown, or needs what the problem's verifier lacks.
        """
        self.order, self.problem, self.option, self.share = order, problem, option, share
        self.queue: deque[Ticket] = deque()
        self.flying = 0  # draws that run, or wait to be retried
        self.cost = Cost()  # so far
        self._settings = settings
        self._max_tokens = max_tokens
        self._verifier = get_verifier(problem.verifier)
        self._strategy = make_strategy(
            option.strategy, option.n, confidence=settings.stop_confidence
        )
        if option.strategy == "best_of_n" and self._verifier.needs_reference:
            raise InputError(
                f"problem {problem.problem_id!r}: best_of_n needs a verifier that needs no"
                f" reference, {problem.verifier!r} does; use another strategy"
            )
        self._scored = option.strategy == "best_of_n_scored"
        # a draw too many is a draw wasted where drawing may stop early
        self._slots = option.n if self._scored else 1
        self._state = State()
        self._unscored: list[int] = []
        self._draws: dict[int, Draw] = {}
        self._scores: dict[int, float] = {}
        self._times: dict[int, str] = {}
        self._costs: dict[tuple[int, int], Cost] = {}  # by draw and attempt
        self._cancelled = 0
        self._stopped = ""

    @property
    def idle(self) -> bool:
        """Nothing runs and nothing waits to run."""
        return not self.queue and not self.flying

    @property
    def settled(self) -> bool:
        """No further draw can matter, or none is to be made."""
        return bool(self._stopped) or self._strategy.done(self._state)

    def stop(self, why: str) -> None:
        """Start nothing more; answer with what is there. The first reason is kept."""
        self._stopped = self._stopped or why
        self.queue.clear()

    def refill(self) -> None:
        """Queue the draws the strategy asks for."""
        if self.settled:
            self.queue.clear()
            return
        slots = self._slots - self.flying - len(self.queue)
        self._state, draws = self._strategy.ask(self._state, slots)
        for draw in draws:
            model = self.option.model
            request = Request(
                prompt=self.problem.prompt,
                temperature=self.option.temperature,
                top_p=self._settings.top_p,
                max_tokens=self._max_tokens,
                seed=draw_seed(self._settings.seed, self.problem.problem_id, model, draw),
            )
            self.queue.append(
                Ticket(owner=self.order, draw=draw, model=model, request=request)
            )

    @property
    def attempts(self) -> int:
        """Attempts paid for so far."""
        return len(self._costs)

    def charge(self, landed: Landed) -> None:
        """Count an attempt that ended, whatever its end."""
        self._costs[landed.ticket.draw, landed.ticket.attempt] = landed.cost
        self._cancelled += landed.cancelled
        self.cost += landed.cost

    def tell(self, ticket: Ticket, draw: Draw | None) -> None:
        """Record how a draw ended; None where it failed for good."""
        if draw is None:
            self._tell(ticket.draw, Outcome(answer="", failed=True))
            return
        self._draws[ticket.draw] = draw
        self._times[ticket.draw] = datetime.now(UTC).isoformat(timespec="milliseconds")
        if draw.finish_reason == "cancelled":
            self._tell(ticket.draw, Outcome(answer="", failed=True))
        elif self._scored:
            self._unscored.append(ticket.draw)
        else:
            self._tell(ticket.draw, self._outcome(draw, None))

    def score(self, scorer: Scorer | None) -> None:
        """Score, in one batch, the draws that wait for it; without a scorer, tell them."""
        draws, self._unscored = sorted(self._unscored), []
        if not draws:
            return
        if scorer is None:
            for draw in draws:
                self._tell(draw, self._outcome(self._draws[draw], None))
            return
        texts = [self._draws[draw].text for draw in draws]
        scores = scorer([self.problem.prompt] * len(draws), texts)
        for draw, score in zip(draws, scores, strict=True):
            self._scores[draw] = float(score)
            self._tell(draw, self._outcome(self._draws[draw], float(score)))

    def _tell(self, draw: int, outcome: Outcome) -> None:
        self._state = self._strategy.tell(self._state, draw, outcome)

    def _outcome(self, draw: Draw, score: float | None) -> Outcome:
        """What may be known in production: the reference stays out of it."""
        if self._verifier.needs_reference:
            answer = self._verifier.answer(self.problem.prompt, draw.text)
            return Outcome(answer=answer, score=score)
        grade = self._verifier.grade(self.problem, draw.text)
        return Outcome(answer=grade.answer, verified=grade.correct, score=score)

    def result(self, engine: str) -> Result:
        """Answer, and grade what was drawn.

        Args:
            engine: Engine and version, for the rows.
        """
        choice = self._strategy.choose(self._state)
        problem, chosen = self.problem, None if choice is None else self._draws[choice.draw]
        gradable = bool(problem.reference.strip()) or not self._verifier.needs_reference
        text = "" if chosen is None else chosen.text
        answer = "" if chosen is None else self._verifier.answer(problem.prompt, text)
        correct = None
        if gradable:
            correct = chosen is not None and self._verifier.grade(problem, text).correct
        return Result(
            problem_id=problem.problem_id, task=problem.task, prompt=problem.prompt,
            option=self.option, answer=answer, text=text,
            confidence=0.0 if choice is None else choice.confidence, correct=correct,
            draws=len(self._costs), cancelled_draws=self._cancelled,
            # in draw order: which draw ended first must not show in the last bit
            cost=sum((self._costs[key] for key in sorted(self._costs)), Cost()),
            status="unanswered" if chosen is None else "answered", stopped=self._stopped,
            samples=tuple(self._sample(i, engine) for i in sorted(self._draws) if gradable),
        )  # fmt: skip

    def _sample(self, index: int, engine: str) -> Sample:
        """The row of a draw; one cut short by a cancel has no answer."""
        problem, draw = self.problem, self._draws[index]
        answer, correct = "", False
        if draw.finish_reason != "cancelled":
            grade = self._verifier.grade(problem, draw.text)
            answer, correct = grade.answer, grade.correct
        return Sample(
            model=self.option.model, task=problem.task, problem_id=problem.problem_id,
            prompt=problem.prompt, temperature=self.option.temperature,
            top_p=self._settings.top_p, max_tokens=self._max_tokens, draw=index,
            seed=draw_seed(
                self._settings.seed, problem.problem_id, self.option.model, index
            ),
            text=draw.text, answer=answer, correct=correct, score=self._scores.get(index),
            finish_reason=draw.finish_reason, prompt_tokens=draw.prompt_tokens,
            output_tokens=draw.output_tokens, ttft_s=draw.ttft_s, latency_s=draw.latency_s,
            logprob=None if draw.logprobs is None else sum(draw.logprobs),
            engine=engine, machine=self._settings.machine, source="measured",
            measured_at=self._times[index],
        )  # fmt: skip
