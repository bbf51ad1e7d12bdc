"""Replays stored samples, without replacement, in place of a live model.

A session is one replay: within it no recorded draw is served twice, and a new session
starts over. Its clock is virtual: draws take the seconds they took when they were
recorded, `poll` jumps to the next end without waiting, and a cancelled draw has the
tokens it would have had by then. So a policy can be judged offline by the code that
serves it, cancellation costs included.

What a recording cannot answer is refused: other prompts, temperatures or top_p, stop
strings and logprobs of single tokens. Of max_tokens: a recorded draw that fits is served
whole; one that is longer is served as "length" with max_tokens tokens and no text, since
text cannot be cut by tokens; one that was itself cut short of max_tokens is not an answer.
"""

import heapq
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pandas as pd

from planner.engines.base import Finished, Request
from planner.models.errors import InputError, NotMeasuredError, StoreError
from planner.models.records import Draw

_COLUMNS = (
    "model", "prompt", "temperature", "top_p", "max_tokens", "draw", "engine",
    "text", "finish_reason", "prompt_tokens", "output_tokens", "ttft_s", "latency_s",
)  # fmt: skip
_COSTS = ("prompt_tokens", "output_tokens", "ttft_s", "latency_s")
_SPECIAL_TOKENS = 8  # beyond the text of a prompt that was not recorded

_Setting = tuple[str, float, float]  # prompt, temperature, top_p


@dataclass(frozen=True)
class _Recorded:
    draw: Draw
    max_tokens: int


class RecordedEngine:
    """One model's recorded draws.

    Args:
        name: The model, as in the rows.
        samples: Rows with the fields of `Sample`, a Parquet file, or a folder of them.

    Raises:
        InputError: A column is missing, or no row is of this model.
        StoreError: The file is not readable as Parquet.
    """

    def __init__(self, name: str, samples: pd.DataFrame | Path) -> None:
        self._name = name
        where = str(samples) if isinstance(samples, Path) else "the samples"
        table = _read(samples) if isinstance(samples, Path) else samples
        if missing := [column for column in _COLUMNS if column not in table.columns]:
            raise InputError(
                f"{where}: lacks the column {missing[0]!r} of recorded samples"
            )
        mine = table[table["model"] == name]
        if mine.empty:
            there = ", ".join(sorted(map(str, table["model"].unique()))[:8]) or "nothing"
            raise InputError(f"{where}: no sample of model {name!r}; there is {there}")
        self._engines = ", ".join(sorted(map(str, mine["engine"].unique())))
        self._pools: dict[_Setting, list[_Recorded]] = defaultdict(list)
        self._prompt_tokens: dict[str, int] = {}
        mine = mine.dropna(subset=["top_p", "max_tokens", *_COSTS])
        if mine.empty:
            raise InputError(
                f"{where}: the imported samples of model {name!r} lack settings, tokens or "
                "times, so that they cannot be replayed; give another engine"
            )
        whole = mine[mine["finish_reason"] != "cancelled"].sort_values(
            "draw", kind="stable"
        )
        for row in whole[list(_COLUMNS)].to_dict("records"):
            setting = (str(row["prompt"]), float(row["temperature"]), float(row["top_p"]))
            recorded = _Recorded(_draw(row), int(row["max_tokens"]))
            self._pools[setting].append(recorded)
            self._prompt_tokens[setting[0]] = recorded.draw.prompt_tokens

    @property
    def model(self) -> str:
        """Name of the model, as in the config."""
        return self._name

    @property
    def version(self) -> str:
        """That it is a replay, and of which engine."""
        return f"recorded ({self._engines})"

    @property
    def max_context_tokens(self) -> int | None:
        """Not recorded."""
        return None

    def count_tokens(self, text: str) -> int:
        """As recorded; an upper bound for other text: a token covers at least a byte."""
        return self._prompt_tokens.get(text, len(text.encode()) + _SPECIAL_TOKENS)

    def session(self) -> "RecordedSession":
        """Start a replay in which every recorded draw is still to be had."""
        return RecordedSession(self)

    def close(self) -> None:
        """Nothing to free."""

    def pool(self, request: Request) -> list[_Recorded]:
        """Every recorded draw that answers the request, in the order recorded.

        Raises:
            InputError: The request has a setting that a replay cannot honour.
            NotMeasuredError: Nothing recorded answers it.
        """
        if request.stop:
            raise InputError(
                f"model {self._name!r}: recorded draws cannot honour stop strings"
            )
        if request.logprobs:
            raise InputError(f"model {self._name!r}: logprobs of tokens are not recorded")
        pool = self._pools.get((request.prompt, request.temperature, request.top_p), [])
        if not pool:
            raise NotMeasuredError(
                f"{self._which(request)}: {self._what_there_is(request)}"
            )
        cut = [
            r.max_tokens
            for r in pool
            if r.draw.finish_reason == "length"
            and r.draw.output_tokens < request.max_tokens
        ]
        if cut:
            raise NotMeasuredError(
                f"{self._which(request)}: {len(cut)} of {len(pool)} recorded draws were "
                f"cut at {min(cut)} tokens; ask for at most that, not {request.max_tokens}"
            )
        return pool

    def ran_out(self, request: Request, left: int) -> NotMeasuredError:
        """The error for a request that asks for more than is left."""
        total = len(self._pools[request.prompt, request.temperature, request.top_p])
        return NotMeasuredError(
            f"{self._which(request)}: asked for {request.n} draws, {left} left of {total} "
            "recorded; record more, or open a new session to start over"
        )

    def _which(self, request: Request) -> str:
        start = request.prompt[:40] + ("..." if len(request.prompt) > 40 else "")
        return (
            f"model {self._name!r}, prompt {start!r}, temperature {request.temperature:g}"
        )

    def _what_there_is(self, request: Request) -> str:
        others = [s for s in self._pools if s[0] == request.prompt]
        if not others:
            return f"not recorded; there are {len(self._prompt_tokens)} other prompts"
        listed = ", ".join(f"temperature {t:g} top_p {p:g}" for _, t, p in sorted(others))
        return f"top_p {request.top_p:g} not recorded; there is {listed}"


@dataclass
class _Running:
    """One draw of the replay, in virtual seconds."""

    draw: Draw
    start_s: float

    @property
    def end_s(self) -> float:
        return self.start_s + self.draw.latency_s

    def cut(self, now_s: float) -> Draw:
        """What it had by `now_s`: tokens come evenly from the first to the last."""
        draw, elapsed_s = self.draw, now_s - self.start_s
        if elapsed_s < draw.ttft_s or draw.output_tokens == 0:
            tokens = 0
        else:
            span_s = max(draw.latency_s - draw.ttft_s, 1e-12)
            share = min((elapsed_s - draw.ttft_s) / span_s, 1.0)
            tokens = 1 + int(share * (draw.output_tokens - 1))
        return Draw(
            text="",
            finish_reason="cancelled",
            prompt_tokens=draw.prompt_tokens,
            output_tokens=tokens,
            ttft_s=min(draw.ttft_s, elapsed_s),
            latency_s=elapsed_s,
        )


class RecordedSession:
    """One replay; see `planner.engines.base.Session`."""

    def __init__(self, engine: RecordedEngine) -> None:
        self._engine = engine
        self._now_s = 0.0
        self._served: dict[_Setting, set[int]] = defaultdict(set)
        self._running: dict[int, dict[int, _Running]] = {}
        self._order: list[tuple[float, int, int]] = []  # heap of end_s, key, index
        self._cut: list[Finished] = []
        self._keys: set[int] = set()
        self._closed = False

    @property
    def outstanding(self) -> int:
        """Draws submitted and not yet returned by `poll`."""
        return sum(map(len, self._running.values())) + len(self._cut)

    def submit(self, key: int, request: Request) -> None:
        """Take draws that were not served yet: in recorded order, or in the seed's order.

        Raises:
            InputError: The key is in use, the session closed, or a setting not recorded.
            NotMeasuredError: Fewer draws are left than asked for; it says of what.
        """
        if self._closed:
            raise InputError("the session is closed")
        if key in self._keys:
            raise InputError(f"key {key} was submitted before; keys are new to the session")
        pool = self._engine.pool(request)
        order = np.arange(len(pool))
        if request.seed is not None:
            order = np.random.default_rng(request.seed).permutation(len(pool))
        served = self._served[request.prompt, request.temperature, request.top_p]
        free = [int(i) for i in order if int(i) not in served]
        if len(free) < request.n:
            raise self._engine.ran_out(request, len(free))
        chosen = free[: request.n]
        served.update(chosen)
        self._keys.add(key)
        draws = [_shorten(pool[i].draw, request.max_tokens) for i in chosen]
        self._running[key] = {
            i: _Running(draw, self._now_s) for i, draw in enumerate(draws)
        }
        for index, one in self._running[key].items():
            heapq.heappush(self._order, (one.end_s, key, index))

    def cancel(self, key: int) -> None:
        """Cut the request's unfinished draws at this virtual moment."""
        for index, one in self._running.pop(key, {}).items():
            self._cut.append(Finished(key, index, one.cut(self._now_s)))

    def poll(self, timeout_s: float = 1.0) -> list[Finished]:
        """What was cancelled, else the draws that end next; never waits."""
        if self._cut:
            cut, self._cut = self._cut, []
            return cut
        ended: list[Finished] = []
        while self._order:
            end_s, key, index = self._order[0]
            if ended and end_s > self._now_s:
                break
            heapq.heappop(self._order)
            one = self._running.get(key, {}).pop(index, None)
            if one is None:
                continue  # cancelled since
            self._now_s = max(self._now_s, end_s)
            ended.append(Finished(key, index, one.draw))
            if not self._running[key]:
                del self._running[key]
        return ended

    def close(self) -> None:
        """Drop everything. Idempotent."""
        self._closed = True
        self._running.clear()
        self._order.clear()
        self._cut.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _read(path: Path) -> pd.DataFrame:
    if not path.exists():
        raise InputError(f"{path}: no such Parquet file")
    import duckdb  # 60 MB; only a file needs it

    try:
        with duckdb.connect(":memory:") as connection:
            frame: pd.DataFrame = connection.read_parquet(str(path)).df()
            return frame
    except duckdb.Error as error:
        raise StoreError(f"{path}: not a readable Parquet file ({error})") from None


def _draw(row: dict[Any, Any]) -> Draw:
    return Draw(
        text=str(row["text"]),
        finish_reason="length" if row["finish_reason"] == "length" else "stop",
        prompt_tokens=int(row["prompt_tokens"]),
        output_tokens=int(row["output_tokens"]),
        ttft_s=float(row["ttft_s"]),
        latency_s=float(row["latency_s"]),
    )


def _shorten(draw: Draw, max_tokens: int) -> Draw:
    if draw.output_tokens <= max_tokens:
        return draw
    share = (max_tokens - 1) / (draw.output_tokens - 1)
    return Draw(
        text="",
        finish_reason="length",
        prompt_tokens=draw.prompt_tokens,
        output_tokens=max_tokens,
        ttft_s=draw.ttft_s,
        latency_s=draw.ttft_s + share * (draw.latency_s - draw.ttft_s),
    )
