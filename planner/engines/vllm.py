"""Draws from vLLM in this process.

One vLLM request is one draw, with a seed of its own, so that a seed gives the same draws
whatever else runs. vLLM batches continuously: a draw submitted late joins at the next step.

Importing this module sets environment variables that vLLM reads at its import, each only
where it is not set: no usage reports, the scheduler in this process, and for the CPU build
one OpenMP thread (its threads share a core on small machines and spin: 10 to 100 times
slower) and a KV cache of 2 GiB.
"""

import itertools
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_KVCACHE_SPACE": "2",  # GiB
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "OMP_NUM_THREADS": "1",
}
for _name, _value in _ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)

import vllm  # noqa: E402
from vllm.platforms import current_platform  # noqa: E402
from vllm.sampling_params import RequestOutputKind  # noqa: E402

from planner.engines.base import Finished, Request, draw_seed  # noqa: E402
from planner.models.errors import InputError, ServingError  # noqa: E402
from planner.models.records import Draw, FinishReason  # noqa: E402

_BLOCK_TOKENS = 32  # the CPU build takes multiples of 32 alone


@dataclass(eq=False)
class _Row:
    """One draw on its way."""

    key: int
    index: int
    request: Request
    prompt_tokens: int
    submitted_s: float
    session: "VllmSession"
    text: list[str] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    output_tokens: int = 0
    first_s: float | None = None
    last_s: float | None = None
    finish: FinishReason | None = None


class VllmEngine:
    """A model folder in Hugging Face format, served by vLLM.

    Args:
        name: The model, as in the config.
        folder: Holds config.json, the weights and the tokenizer.
        max_batch: Draws decoded together.
        dtype: Of weights and cache; None: float32 on a CPU, else what the config says.
        gpu_memory: Share of a GPU's memory that vLLM may take.

    Raises:
        InputError: vLLM cannot load the folder.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        *,
        max_batch: int = 256,
        dtype: str | None = None,
        gpu_memory: float = 0.9,
    ) -> None:
        self._name = name
        cpu = current_platform.is_cpu()
        arguments = vllm.EngineArgs(
            model=str(folder),
            dtype=dtype or ("float32" if cpu else "auto"),
            max_num_seqs=max_batch,
            block_size=_BLOCK_TOKENS,
            enforce_eager=cpu,  # compiling for a CPU takes minutes and gains little
            # a seeded prompt that is prefilled in two steps kills the CPU build: it rewinds
            # the seed's generator, which only CUDA generators can
            enable_chunked_prefill=False if cpu else None,
            gpu_memory_utilization=gpu_memory,
            disable_log_stats=True,
            use_tqdm_on_load=False,
            seed=0,
        )
        try:
            self._engine: Any = vllm.LLMEngine.from_engine_args(arguments)
        except (OSError, ValueError, RuntimeError) as error:  # pydantic's among them
            line = (str(error).strip().splitlines() or [""])[-1]
            raise InputError(
                f"model {name!r}: {folder}: vLLM cannot load it ({line})"
            ) from error
        self._tokenizer = self._engine.get_tokenizer()
        self._max_context: int = self._engine.model_config.max_model_len
        self._rows: dict[str, _Row] = {}
        self._ids = itertools.count()
        self._warm_up()

    @property
    def model(self) -> str:
        """Name of the model, as in the config."""
        return self._name

    @property
    def version(self) -> str:
        """Version of vLLM."""
        return f"vllm {vllm.__version__}"

    @property
    def max_context_tokens(self) -> int | None:
        """Prompt and output together, as vLLM allocates."""
        return self._max_context

    def count_tokens(self, text: str) -> int:
        """Prompt tokens of `text`, special ones included."""
        return len(self._tokenizer(text)["input_ids"])

    def session(self) -> "VllmSession":
        """Open a batch; sessions of one engine are decoded together.

        Raises:
            InputError: The engine is closed.
        """
        if self._engine is None:
            raise InputError(f"model {self._name!r}: its engine is closed")
        return VllmSession(self)

    def close(self) -> None:
        """Free the model. Idempotent."""
        if self._engine is not None:
            self._engine.engine_core.shutdown()
            self._engine = None

    def _warm_up(self) -> None:
        """Have vLLM build what it builds at a first draw, which takes seconds."""
        prompt = self._tokenizer.decode([0])
        request = Request(prompt=prompt, max_tokens=2, top_p=0.9, logprobs=True, seed=0)
        with self.session() as session:
            session.submit(0, request)
            while session.outstanding:
                session.poll()

    def add(self, session: "VllmSession", key: int, request: Request) -> dict[str, _Row]:
        """Start the request's draws; their rows by vLLM's id.

        Raises:
            InputError: The prompt and max_tokens exceed the context.
        """
        prompt = list(self._tokenizer(request.prompt)["input_ids"])
        if len(prompt) + request.max_tokens > self._max_context:
            raise InputError(
                f"model {self._name!r}: a prompt of {len(prompt)} tokens and max_tokens "
                f"{request.max_tokens} exceed its context of {self._max_context}"
            )
        now, rows = time.perf_counter(), {}
        for i in range(request.n):
            parameters = vllm.SamplingParams(
                temperature=request.temperature,
                top_p=request.top_p,
                max_tokens=request.max_tokens,
                stop=list(request.stop),
                seed=None if request.seed is None else draw_seed(request.seed, i),
                logprobs=0 if request.logprobs else None,  # the sampled token's alone
                output_kind=RequestOutputKind.DELTA,
            )
            name = str(next(self._ids))
            self._engine.add_request(name, {"prompt_token_ids": prompt}, parameters)
            rows[name] = _Row(key, i, request, len(prompt), now, session)
        self._rows |= rows
        return rows

    def abort(self, names: list[str]) -> None:
        """Stop draws; vLLM frees their cache."""
        if names and self._engine is not None:
            self._engine.abort_request(names)
        for name in names:
            self._rows.pop(name, None)

    def step(self) -> None:
        """One step of all sessions' draws; ended ones go to their sessions.

        Raises:
            ServingError: vLLM failed.
        """
        if self._engine is None:
            raise ServingError(
                f"model {self._name!r}: its engine was closed while draws ran"
            )
        try:
            outputs = self._engine.step()
        except Exception as error:  # whatever escapes, the engine is lost
            raise ServingError(f"model {self._name!r}: vLLM failed: {error}") from error
        now = time.perf_counter()
        for output in outputs:
            row = self._rows.get(output.request_id)
            if row is None:
                continue  # cancelled since
            _take(row, output.outputs[0], now)
            if output.finished:
                del self._rows[output.request_id]
                row.session.end(output.request_id, row)


class VllmSession:
    """Draws on one model; see `planner.engines.base.Session`."""

    def __init__(self, engine: VllmEngine) -> None:
        self._engine = engine
        self._running: dict[str, _Row] = {}
        self._ended: list[_Row] = []
        self._keys: set[int] = set()
        self._closed = False

    @property
    def outstanding(self) -> int:
        """Draws submitted and not yet returned by `poll`."""
        return len(self._running) + len(self._ended)

    def submit(self, key: int, request: Request) -> None:
        """Start the request's draws.

        Raises:
            InputError: The key is in use, the session closed, or the context too short.
        """
        if self._closed:
            raise InputError("the session is closed")
        if key in self._keys:
            raise InputError(f"key {key} was submitted before; keys are new to the session")
        self._running |= self._engine.add(self, key, request)
        self._keys.add(key)

    def cancel(self, key: int) -> None:
        """Stop the request's unfinished draws."""
        names = [name for name, row in self._running.items() if row.key == key]
        self._engine.abort(names)
        for name in names:
            row = self._running[name]
            row.finish = "cancelled"
            self.end(name, row)

    def poll(self, timeout_s: float = 1.0) -> list[Finished]:
        """Step until a draw ends, or for about `timeout_s`; what ended.

        Raises:
            ServingError: vLLM failed.
        """
        deadline_s = time.perf_counter() + timeout_s
        while self._running and not self._ended:
            self._engine.step()
            if time.perf_counter() >= deadline_s:
                break
        ended, self._ended = self._ended, []
        return [Finished(row.key, row.index, _draw(row)) for row in ended]

    def end(self, name: str, row: _Row) -> None:
        """Take a draw that ended."""
        del self._running[name]
        self._ended.append(row)

    def close(self) -> None:
        """Abort everything. Idempotent."""
        self._closed = True
        self._engine.abort(list(self._running))
        self._running.clear()
        self._ended.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _take(row: _Row, output: Any, now_s: float) -> None:
    """Add what one step gave."""
    row.text.append(output.text)
    if output.token_ids:
        row.output_tokens += len(output.token_ids)
        row.first_s, row.last_s = row.first_s or now_s, now_s
    if row.request.logprobs:
        steps = zip(output.token_ids, output.logprobs or (), strict=True)
        row.logprobs += [float(step[token].logprob) for token, step in steps]
    if output.finish_reason is not None:
        row.finish = "length" if output.finish_reason == "length" else "stop"


def _draw(row: _Row) -> Draw:
    last_s = row.last_s or time.perf_counter()
    return Draw(
        text="".join(row.text),
        finish_reason=row.finish or "cancelled",
        prompt_tokens=row.prompt_tokens,
        output_tokens=row.output_tokens,
        ttft_s=(row.first_s or last_s) - row.submitted_s,
        latency_s=last_s - row.submitted_s,
        logprobs=tuple(row.logprobs) if row.request.logprobs else None,
    )
