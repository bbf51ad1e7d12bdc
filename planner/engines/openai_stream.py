"""Draws in flight on a server: one stream each, run on a background loop."""

import asyncio
import functools
import queue
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self

from planner.engines.background import SETTLE_S, LoopThread
from planner.engines.base import Finished, Request
from planner.models.errors import InputError, ServingError
from planner.models.records import Draw, FinishReason


@dataclass(eq=False)
class Stream:
    """One draw on its way."""

    key: int
    index: int
    request: Request
    submitted_s: float
    text: list[str] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    counted_tokens: int = 0
    usage_tokens: int | None = None
    prompt_tokens: int | None = None
    first_s: float | None = None
    last_s: float | None = None
    finish: str | None = None
    sent: bool = False  # the server may have worked on it
    error: ServingError | None = None
    bug: BaseException | None = None

    def add(
        self, text: str, hidden: bool, logprobs: list[float], finish: str | None
    ) -> None:
        """Take in one choice of one chunk."""
        if text or hidden or logprobs:
            self.counted_tokens += len(logprobs) or 1
        if text or hidden or logprobs or finish:
            self.last_s = time.perf_counter()
            self.first_s = self.first_s or self.last_s
        self.text.append(text)
        self.logprobs += logprobs
        self.finish = finish or self.finish

    def take_usage(self, chunk: Any) -> None:
        """Take in the counts of a chunk, if it has them."""
        usage = getattr(chunk, "usage", None)
        if usage is not None:
            self.usage_tokens = usage.completion_tokens
            self.prompt_tokens = usage.prompt_tokens


class Drawer(Protocol):
    """What the session needs of its engine."""

    @property
    def loop(self) -> LoopThread:
        """Where draws run; InputError once the engine is closed."""
        ...

    async def draw(self, stream: Stream) -> None:
        """Run one draw to its end; what went wrong goes into `stream.error`."""
        ...

    def count_tokens(self, text: str) -> int:
        """Prompt tokens, or an upper bound."""
        ...


class OpenAISession:
    """Draws in flight on one server; see `planner.engines.base.Session`."""

    def __init__(self, engine: Drawer) -> None:
        self._engine = engine
        self._loop = engine.loop
        self._ended: queue.SimpleQueue[Stream] = queue.SimpleQueue()
        self._open: dict[int, dict[int, Stream]] = {}
        self._keys: set[int] = set()
        self._tasks: dict[Stream, asyncio.Task[None]] = {}  # touched on the loop only
        self._closed = False

    @property
    def outstanding(self) -> int:
        """Draws submitted and not yet returned by `poll`."""
        return sum(map(len, self._open.values()))

    def submit(self, key: int, request: Request) -> None:
        """Start the request's draws, one stream each.

        Raises:
            InputError: The key is in use, or the session closed.
        """
        if self._closed:
            raise InputError("the session is closed")
        if key in self._keys:
            raise InputError(f"key {key} was submitted before; keys are new to the session")
        loop = self._engine.loop  # raises once the engine is closed
        self._keys.add(key)
        now = time.perf_counter()
        streams = {i: Stream(key, i, request, now) for i in range(request.n)}
        self._open[key] = streams
        loop.post(self._start, tuple(streams.values()))

    def cancel(self, key: int) -> None:
        """Close the request's unfinished streams."""
        if key in self._open:
            self._loop.post(self._stop, tuple(self._open[key].values()))

    def poll(self, timeout_s: float = 1.0) -> list[Finished]:
        """Wait until a draw ends, or for `timeout_s`; what ended."""
        if not self._open:
            return []
        ended: list[Finished] = []
        try:
            ended.append(self._finish(self._ended.get(timeout=timeout_s)))
            while True:
                ended.append(self._finish(self._ended.get_nowait()))
        except queue.Empty:
            return ended

    def close(self) -> None:
        """Close every stream and wait until they are. Idempotent."""
        if self._closed:
            return
        self._closed = True
        for key in tuple(self._open):
            self.cancel(key)
        while self._open:
            self._drop(self._ended.get())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _start(self, streams: tuple[Stream, ...]) -> None:
        for stream in streams:
            task = asyncio.get_running_loop().create_task(self._engine.draw(stream))
            self._tasks[stream] = task
            task.add_done_callback(functools.partial(self._report, stream))

    def _stop(self, streams: tuple[Stream, ...]) -> None:
        for stream in streams:
            if stream in self._tasks:
                cancel = self._tasks[stream].cancel
                delay_s = SETTLE_S if stream.first_s is None else 0.0
                asyncio.get_running_loop().call_later(delay_s, cancel)

    def _report(self, stream: Stream, task: "asyncio.Task[None]") -> None:
        # a task cancelled before its first step never runs its body; this always runs
        del self._tasks[stream]
        if not task.cancelled():
            stream.bug = task.exception()
        elif stream.finish is None:
            stream.finish = "cancelled"
        self._ended.put(stream)

    def _drop(self, stream: Stream) -> None:
        del self._open[stream.key][stream.index]
        if not self._open[stream.key]:
            del self._open[stream.key]

    def _finish(self, stream: Stream) -> Finished:
        self._drop(stream)
        if stream.bug is not None:
            raise stream.bug
        now = time.perf_counter()
        cut = stream.finish == "cancelled" or stream.error is not None
        reason: FinishReason = "length" if stream.finish == "length" else "stop"
        prompt_tokens = stream.prompt_tokens
        if prompt_tokens is None:
            prompt_tokens = (
                self._engine.count_tokens(stream.request.prompt) if stream.sent else 0
            )
        last_s = stream.last_s or now
        draw = Draw(
            text="".join(stream.text),
            finish_reason="cancelled" if cut else reason,
            prompt_tokens=prompt_tokens,
            output_tokens=(
                stream.counted_tokens
                if stream.usage_tokens is None
                else stream.usage_tokens
            ),
            ttft_s=(stream.first_s or last_s) - stream.submitted_s,
            latency_s=last_s - stream.submitted_s,
            logprobs=tuple(stream.logprobs) if stream.request.logprobs else None,
        )
        return Finished(stream.key, stream.index, draw, stream.error)
