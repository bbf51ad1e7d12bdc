"""An open batch of the embedded engine: who waits, who runs, who is done."""

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np

from planner.engines.base import Finished, Request
from planner.engines.decoding import Decoder, one_blas_thread
from planner.engines.kv_cache import Block, Floats, Ints
from planner.engines.sampling import Bools, Slots
from planner.engines.tokenizer import CharacterTokenizer
from planner.models.errors import InputError
from planner.models.records import Draw, FinishReason

_SHARING_MIN = 8  # draws of a prompt from which a block of their own pays
_WAIT_STEPS = 8  # longest wait of new draws for company
_PROMPT_TOKENS_MAX = 4096  # of prompts kept for later draws: some 20 MB
_COMPANY = 8  # new draws that are fewer than running / this wait


@dataclass(eq=False)
class _Job:
    """One request."""

    key: int
    request: Request
    ids: tuple[int, ...]
    seed: int
    enders: Bools  # (vocabulary,)
    submitted_at: float
    admitted: int = 0  # draws that have got a slot
    prompt: "_Prompt | None" = None  # while some draws still wait

    @property
    def waiting(self) -> int:
        return self.request.n - self.admitted


class _Prompt(NamedTuple):
    """A prompt that was run."""

    ids: tuple[int, ...]
    kv: Floats  # (L, 2, K, T, D)
    logits: Floats  # (vocabulary,), of the first output token


@dataclass(eq=False)
class _Running:
    """One draw under way."""

    job: _Job
    index: int
    first_token_at: float = field(default=0.0)


class EmbeddedSession:
    """See `planner.engines.base.Session`. For one thread at a time.

    Args:
        decoder: Model and threads.
        tokenizer: Of the model.
        max_batch: Draws decoded at a time; the others wait.
        clock: Seconds.
    """

    def __init__(
        self,
        decoder: Decoder,
        tokenizer: CharacterTokenizer,
        max_batch: int,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        config = decoder.llama.config
        self._decoder, self._tokenizer, self._clock = decoder, tokenizer, clock
        self._max_positions, self._eos = config.max_positions, frozenset(config.eos)
        self._pieces = tokenizer.pieces(config.vocabulary)
        self._slots = Slots.empty(max_batch, config.vocabulary, config.max_positions)
        self._free = list(range(max_batch - 1, -1, -1))
        self._queue: deque[_Job] = deque()
        self._running: dict[int, _Running] = {}  # by slot
        self._blocks: list[Block] = []
        self._done: list[Finished] = []
        self._keys: set[int] = set()
        self._prompts: OrderedDict[tuple[int, ...], _Prompt] = (
            OrderedDict()
        )  # used last, last
        self._waiting = 0  # draws in the queue
        self._waited = 0  # steps since draws could have been admitted
        self._seeds = np.random.default_rng()  # of requests that bring none
        self._closed = False

    @property
    def outstanding(self) -> int:
        return self._waiting + len(self._running) + len(self._done)

    def submit(self, key: int, request: Request) -> None:
        if self._closed:
            raise InputError("the session is closed; open another")
        if key in self._keys:
            raise InputError(f"key {key} was submitted before; use a new one")
        ids = tuple(self._tokenizer.encode(request.prompt))
        if not ids:
            raise InputError("the prompt is empty and the model has no token to begin with")
        if len(ids) + request.max_tokens > self._max_positions:
            raise InputError(
                f"prompt of {len(ids)} tokens and max_tokens {request.max_tokens} exceed"
                f" the model's {self._max_positions} positions; lower max_tokens"
            )
        enders = np.zeros(len(self._pieces), np.bool_)
        enders[list(self._eos)] = True
        for stop in request.stop:
            enders |= np.array([stop[-1] in piece for piece in self._pieces])
        seed = request.seed
        if seed is None:
            seed = int(self._seeds.integers(2**63))
        self._keys.add(key)
        self._queue.append(_Job(key, request, ids, seed, enders, self._clock()))
        self._waiting += request.n

    def cancel(self, key: int) -> None:
        now = self._clock()
        for job in [job for job in self._queue if job.key == key]:
            self._queue.remove(job)
            self._waiting -= job.waiting
            for index in range(job.admitted, job.request.n):
                late = now - job.submitted_at
                draw = Draw(
                    text="",
                    finish_reason="cancelled",
                    prompt_tokens=len(job.ids),
                    output_tokens=0,
                    ttft_s=late,
                    latency_s=late,
                    logprobs=() if job.request.logprobs else None,
                )
                self._done.append(Finished(key, index, draw))
        gone = {slot for slot, run in self._running.items() if run.job.key == key}
        for slot in gone:
            self._finish(slot, self._text(slot), "cancelled", now)
        if gone:
            self._drop(lambda slot: slot in gone)

    def poll(self, timeout_s: float = 1.0) -> list[Finished]:
        deadline = self._clock() + timeout_s
        with one_blas_thread():
            while not self._done and (self._queue or self._running):
                self._admit()
                if self._blocks and not self._done:
                    self._step()
                if self._clock() >= deadline:
                    break
        done, self._done = self._done, []
        return done

    def close(self) -> None:
        self._closed = True
        self._queue.clear()
        self._running.clear()
        self._blocks, self._done, self._waiting = [], [], 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _step(self) -> None:
        over = self._decoder.step(self._blocks, self._slots)
        now = self._clock()
        ended = {
            slot
            for block, rows in zip(self._blocks, over, strict=True)
            for slot in block.slots[rows].tolist()
            if self._settle(slot, now)
        }
        if ended:
            self._drop(lambda slot: slot in ended)

    def _drop(self, gone: Callable[[int], bool]) -> None:
        """Take slots out of the blocks."""
        for block in self._blocks:
            rows = [row for row, slot in enumerate(block.slots.tolist()) if gone(slot)]
            for row in reversed(rows):
                block.remove(row)
        self._blocks = self._decoder.tidied(self._blocks)

    def _admit(self) -> None:
        """Give free slots to waiting draws, unless more are about to join them."""
        fitting = min(self._waiting, len(self._free))
        if not fitting:
            return
        if fitting * _COMPANY < len(self._running) and self._waited < _WAIT_STEPS:
            self._waited += 1
            return
        self._waited = 0
        jobs: list[_Job] = []
        counts: list[int] = []
        while fitting:
            job = self._queue[0]
            jobs.append(job)
            counts.append(min(job.waiting, fitting))
            fitting -= counts[-1]
            if counts[-1] == job.waiting:
                self._queue.popleft()
            self._waiting -= counts[-1]
        self._prefill([job for job in jobs if job.prompt is None])
        self._start(jobs, counts)

    def _prefill(self, jobs: Sequence[_Job]) -> None:
        """Run the prompts of some jobs, unless at hand; those of like length together."""
        for group in like_lengths({job.ids for job in jobs} - self._prompts.keys()):
            ids, lengths = padded(group)
            logits, cache = self._decoder.llama.prefill(ids, lengths)
            assert cache is not None
            for row, prompt in enumerate(group):
                kv = np.ascontiguousarray(cache[:, :, row, :, : len(prompt)])
                self._prompts[prompt] = _Prompt(prompt, kv, logits[row])
        for job in jobs:
            job.prompt = self._prompts[job.ids]
            self._prompts.move_to_end(job.ids)
        held = sum(map(len, self._prompts))
        while held > _PROMPT_TOKENS_MAX:
            held -= len(self._prompts.popitem(last=False)[0])

    def _start(self, jobs: Sequence[_Job], counts: Sequence[int]) -> None:
        """Give each job's next draws a slot, their first token and a place in a block."""
        begun: list[tuple[int, _Prompt]] = []
        for job, count in zip(jobs, counts, strict=True):
            assert job.prompt is not None
            for index in range(job.admitted, job.admitted + count):
                slot = self._free.pop()
                self._slots.start(slot, job.request, job.seed, index, job.enders)
                self._running[slot] = _Running(job, index)
                begun.append((slot, job.prompt))
            job.admitted += count
            if not job.waiting:
                job.prompt = None
        slots = np.array([slot for slot, _ in begun])
        over = self._slots.append(slots, np.stack([prompt.logits for _, prompt in begun]))
        now = self._clock()
        for slot in slots.tolist():
            self._running[slot].first_token_at = now
        ended = {slot for slot in slots[over].tolist() if self._settle(slot, now)}
        self._place([one for one in begun if one[0] not in ended])

    def _place(self, begun: Sequence[tuple[int, _Prompt]]) -> None:
        """Put draws into blocks: of their own where many share a prompt."""
        by_prompt: dict[tuple[int, ...], list[tuple[int, _Prompt]]] = {}
        for one in begun:
            by_prompt.setdefault(one[1].ids, []).append(one)
        mixed: list[tuple[int, _Prompt]] = []
        for group in by_prompt.values():
            if len(group) < _SHARING_MIN:
                mixed += group
                continue
            for part in self._decoder.parts(np.array([slot for slot, _ in group])):
                self._blocks.append(Block.of_one_prompt(part, group[0][1].kv))
        mixed.sort(key=lambda one: len(one[1].ids))
        for part in self._decoder.parts(np.arange(len(mixed))):
            if len(part):
                some = [mixed[i] for i in part]
                slots = np.array([slot for slot, _ in some])
                self._blocks.append(
                    Block.of_prompts(slots, [prompt.kv for _, prompt in some])
                )
        self._blocks = self._decoder.tidied(self._blocks)

    def _settle(self, slot: int, now: float) -> bool:
        """Finish a draw whose last token may have ended it; whether it did."""
        request = self._running[slot].job.request
        emitted = int(self._slots.emitted[slot])
        text = self._text(slot)
        cuts = [at for at in map(text.find, request.stop) if at >= 0]
        if cuts:
            self._finish(slot, text[: min(cuts)], "stop", now)
        elif int(self._slots.tokens[slot, emitted - 1]) in self._eos:
            self._finish(slot, text, "stop", now)
        elif emitted == request.max_tokens:
            self._finish(slot, text, "length", now)
        else:
            return False
        return True

    def _text(self, slot: int) -> str:
        ids = self._slots.tokens[slot, : self._slots.emitted[slot]].tolist()
        return "".join([self._pieces[i] for i in ids])

    def _finish(self, slot: int, text: str, reason: FinishReason, now: float) -> None:
        run = self._running.pop(slot)
        self._free.append(slot)
        job, count = run.job, int(self._slots.emitted[slot])
        logprobs = self._slots.logprobs[slot, :count].tolist()
        draw = Draw(
            text=text,
            finish_reason=reason,
            prompt_tokens=len(job.ids),
            output_tokens=count,
            ttft_s=run.first_token_at - job.submitted_at,
            latency_s=now - job.submitted_at,
            logprobs=tuple(logprobs) if job.request.logprobs else None,
        )
        self._done.append(Finished(job.key, run.index, draw))


def like_lengths(
    sequences: Iterable[tuple[int, ...]], tokens_max: int = 4096
) -> list[list[tuple[int, ...]]]:
    """Sequences in groups of similar length, each group of bounded size once padded."""
    groups: list[list[tuple[int, ...]]] = []
    for sequence in sorted(sequences, key=len):
        group = groups[-1] if groups else []
        fits = len(sequence) * (len(group) + 1) <= tokens_max
        if group and fits and len(sequence) <= len(group[0]) * 1.25 + 4:
            group.append(sequence)
        else:
            groups.append([sequence])
    return groups


def padded(sequences: Sequence[Sequence[int]]) -> tuple[Ints, Ints]:
    """Token ids (R, longest), filled up with 0 at the right, and lengths (R,)."""
    lengths = np.array([len(sequence) for sequence in sequences])
    ids = np.zeros((len(sequences), lengths.max()), np.int64)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = sequence
    return ids, lengths
