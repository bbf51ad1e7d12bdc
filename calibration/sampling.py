"""Draw from a model, grade, and store: what is missing, and only that.

Draws come in blocks of BLOCK: draw d of a problem at a temperature is draw d % BLOCK of the
request that is seeded with (seed, problem, temperature, d // BLOCK). So a run that is
killed and started again, or one that asks for more draws later, makes the same draws as one
that was not.
"""

import hashlib
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from planner.calibration.environment import now
from planner.calibration.store import Store
from planner.engines.base import Engine, Request
from planner.models.errors import InputError, ServingError
from planner.models.prediction import Array
from planner.models.records import Draw, Problem, Sample
from planner.verifiers import get_verifier

Scorer = Callable[[Sequence[str], Sequence[str]], Array]  # prompts, texts -> log-odds
Progress = Callable[[int, int], None]  # draws made, draws to make in all

DrawsOf = Mapping[tuple[str, float], int]  # of a problem_id at a temperature

BLOCK = 8
_ATTEMPTS = 4  # of a request that a server fails, before the run gives up
_BACKOFF_S = 0.5  # doubled after every failed attempt


@dataclass(frozen=True)
class Block:
    """Draws of one request that are not stored yet."""

    problem: Problem
    temperature: float
    index: int
    wanted: tuple[int, ...]  # draw indices, rising

    @property
    def n(self) -> int:
        """Draws to request: up to the last one wanted."""
        return self.wanted[-1] - self.index * BLOCK + 1


@dataclass(frozen=True, kw_only=True)
class SamplingPlan:
    """What to draw of a model."""

    problems: tuple[Problem, ...]
    n_samples: int
    n_of: DrawsOf | None = None  # draws of each problem, where not n_samples for all
    temperatures: tuple[float, ...]
    max_tokens: int
    top_p: float
    seed: int

    def __post_init__(self) -> None:
        if self.n_samples < 1 or not self.temperatures or not self.problems:
            raise InputError("sampling needs a problem, a temperature and n_samples >= 1")
        ids = [problem.problem_id for problem in self.problems]
        if len(set(ids)) < len(ids):
            twice = next(i for i in ids if ids.count(i) > 1)
            raise InputError(f"problem_id {twice!r} stands for two problems; rename one")

    @property
    def n_draws(self) -> int:
        """Draws of one model in all."""
        return sum(
            self.draws_of(problem, temperature)
            for problem in self.problems
            for temperature in set(self.temperatures)
        )

    def draws_of(self, problem: Problem, temperature: float) -> int:
        """Draws to have of a problem at a temperature."""
        if self.n_of is None:
            return self.n_samples
        return self.n_of.get((problem.problem_id, temperature), 0)

    def missing(self, store: Store, model: str) -> list[Block]:
        """Blocks of draws of a model that the store lacks, in order of the problems.

        Raises:
            StoreError: A part is damaged.
        """
        stored = store.query(
            "SELECT model, problem_id, temperature, draw FROM samples"
            f" WHERE max_tokens = {int(self.max_tokens)} AND top_p = {float(self.top_p)!r}"
        )
        stored = stored[stored["model"] == model]
        have: dict[tuple[str, float], set[int]] = defaultdict(set)
        for problem_id, temperature, draw in zip(
            stored["problem_id"], stored["temperature"], stored["draw"], strict=True
        ):
            have[problem_id, temperature].add(draw)
        blocks = []
        for problem in self.problems:
            for temperature in dict.fromkeys(self.temperatures):
                drawn = have[problem.problem_id, temperature]
                n = self.draws_of(problem, temperature)
                for first in range(0, n, BLOCK):
                    indices = range(first, min(first + BLOCK, n))
                    wanted = tuple(d for d in indices if d not in drawn)
                    if wanted:
                        blocks.append(Block(problem, temperature, first // BLOCK, wanted))
        return blocks

    def missing_draws(self, store: Store, model: str) -> int:
        """Draws of a model that the store lacks; raises as `missing` does."""
        return sum(len(block.wanted) for block in self.missing(store, model))

    def request(self, block: Block) -> Request:
        """The request that makes a block's draws."""
        return Request(
            prompt=block.problem.prompt,
            n=block.n,
            temperature=block.temperature,
            top_p=self.top_p,
            max_tokens=self.max_tokens,
            seed=request_seed(self.seed, block),
        )


def request_seed(seed: int, block: Block) -> int:
    """Seed of a block's request, in [0, 2**63)."""
    text = f"{seed}/{block.problem.problem_id}/{block.temperature!r}/{block.index}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1


def sample(
    store: Store,
    engine: Engine,
    problems: Sequence[Problem],
    *,
    n_samples: int,
    temperatures: Sequence[float],
    max_tokens: int,
    top_p: float,
    seed: int,
    machine: str,
    n_of: DrawsOf | None = None,
    scorer: Scorer | None = None,
    progress: Progress | None = None,
    chunk_problems: int = 32,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Make, grade and store the draws of one model that the store lacks.

    Args:
        store: Where to; a part is appended for every `chunk_problems` problems' worth of
            draws, and for what is finished when the run is cut short.
        engine: Of the model.
        problems: What to draw; ids are distinct.
        n_samples: Draws of each problem at each temperature.
        temperatures: 0 is greedy, and its draws are all the same.
        max_tokens: Output tokens of a draw.
        top_p: Nucleus of the sampling.
        seed: Fixes the draws.
        machine: Id of the machine that runs the engine.
        n_of: Draws of each problem and temperature, at most n_samples, in place of
            n_samples for all; none of those it does not name.
        scorer: Gives a text's score; None leaves scores empty.
        progress: Called with draws made and draws to make, at first and after each draw.
        chunk_problems: Problems in flight at once.
        sleep: Waits that many seconds before a failed request is tried again.

    Returns:
        Draws made.

    Raises:
        InputError: The problems are not usable, or the engine refuses the settings.
        ServingError: The server failed again and again; what was finished is stored.
        StoreError: A part is damaged, or the disk is full.
    """
    plan = SamplingPlan(
        problems=tuple(problems), n_samples=n_samples, temperatures=tuple(temperatures),
        max_tokens=max_tokens, top_p=top_p, seed=seed, n_of=n_of,
    )  # fmt: skip
    for problem in plan.problems:
        get_verifier(problem.verifier)  # an unknown one is refused before anything is paid
    blocks = plan.missing(store, engine.model)
    grader = _Grader(plan, engine, machine, scorer)
    in_flight = max(1, chunk_problems) * len(set(temperatures)) * n_samples
    total, made = sum(len(block.wanted) for block in blocks), 0
    if progress is not None:
        progress(0, total)
    ready: list[tuple[Block, int, Draw]] = []
    try:
        with closing(_drawn(engine, plan, blocks, in_flight, sleep)) as draws:
            for done in draws:
                ready.append(done)
                made += 1
                if len(ready) >= in_flight:
                    part, ready = ready, []
                    store.append_samples(grader.rows(part))
                if progress is not None:
                    progress(made, total)
    finally:  # on Ctrl-C and on a server's failure too: these draws are paid for
        if ready:
            store.append_samples(grader.rows(ready))
    return made


@dataclass
class _Grader:
    """Turns finished draws into rows."""

    plan: SamplingPlan
    engine: Engine
    machine: str
    scorer: Scorer | None

    def rows(self, part: Sequence[tuple[Block, int, Draw]]) -> list[Sample]:
        """Graded rows in order of problem, temperature and draw."""
        order = {problem.problem_id: i for i, problem in enumerate(self.plan.problems)}
        part = sorted(
            part, key=lambda p: (order[p[0].problem.problem_id], p[0].temperature, p[1])
        )
        scores: Sequence[float | None] = [None] * len(part)
        if self.scorer is not None:
            prompts = [block.problem.prompt for block, _, _ in part]
            scores = self.scorer(prompts, [made.text for _, _, made in part]).tolist()
        measured_at = now()
        return [
            self._row(block, index, made, score, measured_at)
            for (block, index, made), score in zip(part, scores, strict=True)
        ]

    def _row(
        self, block: Block, index: int, made: Draw, score: float | None, measured_at: str
    ) -> Sample:
        problem = block.problem
        grade = get_verifier(problem.verifier).grade(problem, made.text)
        return Sample(
            model=self.engine.model, task=problem.task, problem_id=problem.problem_id,
            prompt=problem.prompt, temperature=float(block.temperature),
            top_p=float(self.plan.top_p), max_tokens=self.plan.max_tokens, draw=index,
            seed=request_seed(self.plan.seed, block), text=made.text, answer=grade.answer,
            correct=grade.correct, score=score, finish_reason=made.finish_reason,
            prompt_tokens=made.prompt_tokens, output_tokens=made.output_tokens,
            ttft_s=made.ttft_s, latency_s=made.latency_s,
            logprob=None if made.logprobs is None else sum(made.logprobs),
            engine=self.engine.version, machine=self.machine, source="measured",
            measured_at=measured_at,
        )  # fmt: skip


def _drawn(
    engine: Engine,
    plan: SamplingPlan,
    blocks: Sequence[Block],
    in_flight: int,
    sleep: Callable[[float], None],
) -> Generator[tuple[Block, int, Draw], None, None]:
    """Draws of the blocks as they finish: (block, draw index, draw).

    What a server fails is put off to a later session, after a wait.

    Raises:
        ServingError: It cannot be tried again, or a draw has failed too often.
    """
    failures: Counter[tuple[str, float, int]] = Counter()
    waiting = list(blocks)
    while waiting:
        queue = deque(waiting)
        failed: list[tuple[Block, ServingError]] = []
        down: ServingError | None = None
        with engine.session() as session:
            running: dict[int, tuple[Block, set[int]]] = {}  # key -> block, draws to come
            while queue or session.outstanding:
                try:
                    while queue and session.outstanding < in_flight:
                        block, key = queue.popleft(), len(running)
                        running[key] = (block, set(block.wanted))
                        session.submit(key, plan.request(block))
                    finished = session.poll()
                except ServingError as error:
                    down = error
                    break
                for done in finished:
                    block, left = running[done.key]
                    index = block.index * BLOCK + done.index
                    if done.error is not None and index in left:
                        left.discard(index)
                        failed.append((replace(block, wanted=(index,)), done.error))
                    elif index in left and done.draw.finish_reason != "cancelled":
                        left.discard(index)
                        yield block, index, done.draw
        down = down or ServingError(f"{engine.version}: draws did not come back", True)
        failed += [
            (replace(block, wanted=tuple(sorted(left))), down)
            for block, left in running.values()
            if left
        ]
        waiting = list(queue)  # not tried yet, so not failed
        for block, reason in failed:
            for draw in block.wanted:
                failures[block.problem.problem_id, block.temperature, draw] += 1
            if not reason.retryable or max(failures.values()) >= _ATTEMPTS:
                raise reason
            waiting.append(block)
        if waiting:
            sleep(_BACKOFF_S * 2 ** (max(failures.values()) - 1))
