"""What an engine is: it draws responses of one model, several at a time.

A session is a batch that stays open: requests are submitted while others run, and a
finished or cancelled draw leaves at once. Nothing here is asynchronous for the caller;
an engine that needs a thread or an event loop keeps it to itself.

    with engine.session() as session:
        session.submit(0, Request(prompt="2+2=", n=4, temperature=1.0, max_tokens=8))
        while session.outstanding:
            for done in session.poll(timeout_s=1.0):
                print(done.key, done.index, done.draw.text)
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

from planner.models.errors import InputError, ServingError
from planner.models.records import Draw

_ODD = 0x9E3779B1  # odd, so that multiples of it run through all of 2**31


@dataclass(frozen=True, kw_only=True)
class Request:
    """n draws of one prompt.

    A seed fixes the draws whatever else runs in the batch: draw i of the request depends
    on (seed, i) alone. Without one the engine picks its own.
    """

    prompt: str
    n: int = 1
    temperature: float = 1.0  # 0 is greedy
    top_p: float = 1.0
    max_tokens: int = 256  # output tokens of one draw
    stop: tuple[str, ...] = ()  # ends a draw; not part of its text
    seed: int | None = None
    logprobs: bool = False

    def __post_init__(self) -> None:
        if self.n < 1:
            raise InputError(f"n must be at least 1, got {self.n}")
        if not 0 <= self.temperature < float("inf"):
            raise InputError(f"temperature must be at least 0, got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p must be in (0, 1], got {self.top_p}")
        if self.max_tokens < 1:
            raise InputError(f"max_tokens must be at least 1, got {self.max_tokens}")
        if "" in self.stop:
            raise InputError("a stop string must not be empty")
        if self.seed is not None and not 0 <= self.seed < 2**63:
            raise InputError(f"seed must be in [0, 2**63), got {self.seed}")


@dataclass(frozen=True)
class Finished:
    """One draw that ended: draw `index` of the request submitted under `key`.

    A draw that the server failed carries the error, and in `draw` what was paid for until
    then, as "cancelled"; the session's other draws go on.
    """

    key: int
    index: int
    draw: Draw
    error: ServingError | None = None


class Session(Protocol):
    """An open batch. Close it (or leave the `with`) to cancel what still runs."""

    @property
    def outstanding(self) -> int:
        """Draws submitted and not yet returned by `poll`."""
        ...

    def submit(self, key: int, request: Request) -> None:
        """Start a request; `key` must be new to the session.

        Raises:
            InputError: The engine cannot honour the request; it says which setting.
        """
        ...

    def cancel(self, key: int) -> None:
        """Stop a request's unfinished draws.

        `poll` returns them as "cancelled" with the tokens they had. Unknown and finished
        keys are ignored.
        """
        ...

    def poll(self, timeout_s: float = 1.0) -> list[Finished]:
        """Make progress until a draw ends, or for about `timeout_s`; what ended.

        A draw that the server failed ends like any other, with its `error` set.

        Raises:
            ServingError: The engine as a whole failed; none of its draws will end.
        """
        ...

    def close(self) -> None:
        """Cancel everything and free what the session holds. Idempotent."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


@runtime_checkable
class Engine(Protocol):
    """Draws responses of one model."""

    @property
    def model(self) -> str:
        """Name of the model, as in the config."""
        ...

    @property
    def version(self) -> str:
        """Engine and version, e.g. "vllm 0.32.0"; goes into every row."""
        ...

    @property
    def max_context_tokens(self) -> int | None:
        """Prompt and output together; None when the server does not tell."""
        ...

    def count_tokens(self, text: str) -> int:
        """Prompt tokens of `text`, special ones included.

        An upper bound where the tokenizer is not at hand.
        """
        ...

    def session(self) -> Session:
        """Open a batch."""
        ...

    def close(self) -> None:
        """Free the model. Idempotent."""
        ...


@runtime_checkable
class StepTimer(Protocol):
    """An engine whose steps can be timed one by one."""

    def time_prefill(self, batch: int, prompt_tokens: int, repeats: int) -> list[float]:
        """Seconds of each of `repeats` prefills of `batch` prompts, after a warm-up."""
        ...

    def time_decode(self, batch: int, context_tokens: int, repeats: int) -> list[float]:
        """Seconds of each of `repeats` decode steps at that context, after a warm-up."""
        ...


def draw_all(engine: Engine, requests: Iterable[Request]) -> list[list[Draw]]:
    """Draws of each request, in order of request and index; the simple way in.

    Raises:
        ServingError: A draw failed; the first failure, the rest is cancelled.
    """
    listed = list(requests)
    results: list[dict[int, Draw]] = [{} for _ in listed]
    with engine.session() as session:
        for key, request in enumerate(listed):
            session.submit(key, request)
        while session.outstanding:
            for done in session.poll():
                if done.error is not None:
                    raise done.error
                results[done.key][done.index] = done.draw
    return [[draws[i] for i in sorted(draws)] for draws in results]


def draw_seed(seed: int, index: int) -> int:
    """Seed of draw `index` of a request, for engines whose backend takes one seed a draw.

    In [0, 2**31), which every server takes, and different for every draw of a request, so
    that no two of them are copies.
    """
    start = int.from_bytes(
        hashlib.blake2b(seed.to_bytes(8, "big"), digest_size=8).digest(), "big"
    )
    return (start + index * _ODD) % 2**31
