"""Draws from any local Hugging Face causal model, on CPU or CUDA.

A batch is what was submitted when it starts, up to `max_batch` draws: each prompt is
prefilled once, its cache is copied to its draws, and ended draws leave the tensors when a
quarter of the rows is idle. A token is drawn by inverse CDF from a uniform number that
depends on the draw's seed and position alone (the embedded engine's very numbers), so a
seed gives the same draws whatever else is in the batch, up to rounding: in float32 a
batch changes logits by about 1e-6.
"""

import inspect
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
import transformers

from planner.engines.base import Finished, Request
from planner.engines.torch_sampling import sample
from planner.models.errors import InputError
from planner.models.records import Draw, FinishReason

_IDLE = 0.25  # share of ended rows at which a batch is compacted


@dataclass(eq=False)
class _Row:
    """One draw on its way."""

    key: int
    index: int
    request: Request
    prompt: tuple[int, ...]
    rng: np.random.Generator
    submitted_s: float
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    started: bool = False
    first_s: float | None = None
    last_s: float | None = None
    finish: FinishReason | None = None
    text: str = ""


class TransformersEngine:
    """A model folder in Hugging Face format.

    Args:
        name: The model, as in the config.
        folder: Holds config.json, the weights and the tokenizer.
        max_batch: Draws decoded together.
        device: "cpu" or "cuda"; None: CUDA where there is one.
        dtype: Of weights and cache, e.g. "float32" or "bfloat16".

    Raises:
        InputError: The folder does not hold a causal model and its tokenizer.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        *,
        max_batch: int = 128,
        device: str | None = None,
        dtype: str = "float32",
    ) -> None:
        self._name = name
        self._max_batch = max_batch
        self._device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        bars = transformers.utils.logging.is_progress_bar_enabled()
        transformers.utils.logging.disable_progress_bar()
        try:
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(
                folder, local_files_only=True
            )
            model = transformers.AutoModelForCausalLM.from_pretrained(
                folder, local_files_only=True, dtype=getattr(torch, dtype)
            )
        except (OSError, ValueError, KeyError) as error:
            line = (str(error).strip().splitlines() or [""])[0]
            raise InputError(
                f"model {name!r}: {folder}: transformers cannot load it ({line})"
            ) from None
        finally:
            if bars:
                transformers.utils.logging.enable_progress_bar()
        self._model: Any = model.to(self._device).eval()
        ends = model.generation_config.eos_token_id
        if ends is None:
            ends = self._tokenizer.eos_token_id
        self._ends = frozenset([ends] if isinstance(ends, int) else ends or ())
        text_config = model.config.get_text_config()
        self._max_context: int | None = getattr(
            text_config, "max_position_embeddings", None
        )
        self._vocabulary: int = text_config.vocab_size
        # most models can skip the head for all but the last position
        can_skip = "logits_to_keep" in inspect.signature(model.forward).parameters
        self._last_only = {"logits_to_keep": 1} if can_skip else {}

    @property
    def model(self) -> str:
        """Name of the model, as in the config."""
        return self._name

    @property
    def version(self) -> str:
        """Versions of transformers and torch."""
        return f"transformers {transformers.__version__} (torch {torch.__version__})"

    @property
    def max_context_tokens(self) -> int | None:
        """Positions the model was configured for."""
        return self._max_context

    def count_tokens(self, text: str) -> int:
        """Prompt tokens of `text`, special ones included."""
        return len(self.encode(text))

    def session(self) -> "TransformersSession":
        """Open a batch.

        Raises:
            InputError: The engine is closed.
        """
        if self._model is None:
            raise InputError(f"model {self._name!r}: its engine is closed")
        return TransformersSession(self)

    def close(self) -> None:
        """Free the model. Idempotent."""
        self._model = None
        if self._device.startswith("cuda"):
            torch.cuda.empty_cache()

    def time_prefill(self, batch: int, prompt_tokens: int, repeats: int) -> list[float]:
        """Seconds of each of `repeats` prefills of `batch` prompts, after a warm-up."""
        ids = self._some_tokens(batch, prompt_tokens)
        mask = torch.ones_like(ids)
        return self._timed(lambda: self.forward(ids, mask, None), repeats)

    def time_decode(self, batch: int, context_tokens: int, repeats: int) -> list[float]:
        """Seconds of each of `repeats` decode steps at that context, after a warm-up."""
        ids = self._some_tokens(1, context_tokens)
        _, cache = self.forward(ids, torch.ones_like(ids), None)
        cache.batch_select_indices(
            torch.zeros(batch, dtype=torch.long, device=self._device)
        )
        token = self._some_tokens(batch, 1)
        mask = torch.ones(
            (batch, context_tokens + 1), dtype=torch.long, device=self._device
        )

        def step() -> None:
            self.forward(token, mask, cache)
            cache.crop(-1)

        return self._timed(step, repeats)

    def _timed(self, step: Any, repeats: int) -> list[float]:
        seconds = []
        for _ in range(repeats + 1):
            self._wait()
            start = time.perf_counter()
            step()
            self._wait()
            seconds.append(time.perf_counter() - start)
        return seconds[1:]

    def _wait(self) -> None:
        if self._device.startswith("cuda"):
            torch.cuda.synchronize()

    def _some_tokens(self, batch: int, length: int) -> Any:
        ids = np.random.default_rng(0).integers(0, self._vocabulary, (batch, length))
        return torch.from_numpy(ids).to(self._device)

    @property
    def max_batch(self) -> int:
        """Draws decoded together."""
        return self._max_batch

    @property
    def ends(self) -> frozenset[int]:
        """Tokens that end a draw."""
        return self._ends

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of a prompt, special ones included."""
        return tuple(self._tokenizer(text)["input_ids"])

    def decode(self, tokens: list[int]) -> str:
        """Text of output tokens, without special ones."""
        text: str = self._tokenizer.decode(
            tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def tensor(self, values: Any, dtype: Any = None) -> Any:
        """`values` on the engine's device."""
        return torch.as_tensor(values, dtype=dtype, device=self._device)

    def forward(self, ids: Any, mask: Any, cache: Any) -> tuple[Any, Any]:
        """Logits at the last position, shape (batch, vocabulary), and the cache.

        Args:
            ids: New tokens; shape (batch, new).
            mask: 1 at real tokens, 0 at padding; shape (batch, cached + new).
            cache: Of the tokens before; None at the start.
        """
        positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        with torch.inference_mode():
            out = self._model(
                input_ids=ids, attention_mask=mask, position_ids=positions,
                past_key_values=cache, use_cache=True, **self._last_only,
            )  # fmt: skip
        return out.logits[:, -1].float(), out.past_key_values


class _Batch:
    """Rows decoded together from one start; ended rows leave."""

    def __init__(self, engine: TransformersEngine, rows: list[_Row]) -> None:
        self._engine = engine
        self._rows = rows
        prompts = list(dict.fromkeys(row.prompt for row in rows))
        width = max(map(len, prompts))
        ids = np.zeros((len(prompts), width), dtype=np.int64)  # padding is masked: any id
        mask = np.zeros_like(ids)
        for i, prompt in enumerate(prompts):  # on the left, so that all end together
            ids[i, width - len(prompt) :] = prompt
            mask[i, width - len(prompt) :] = 1
        for row in rows:
            row.started = True
        self._mask = engine.tensor(mask)
        self._logits, self._cache = engine.forward(engine.tensor(ids), self._mask, None)
        place = {prompt: i for i, prompt in enumerate(prompts)}
        self._keep([place[row.prompt] for row in rows])

    def _keep(self, places: list[int]) -> None:
        index = self._engine.tensor(places)
        self._cache.batch_select_indices(index)
        self._mask, self._logits = self._mask[index], self._logits[index]

    def running(self) -> list[_Row]:
        """Rows that have not ended."""
        return [row for row in self._rows if row.finish is None]

    def step(self) -> list[_Row]:
        """Draw a token for every row, then decode those that go on; the rows that ended."""
        before = self.running()
        requests = [row.request for row in self._rows]
        uniforms = [row.rng.random() for row in self._rows]
        tokens, logprobs = sample(self._logits, requests, uniforms)
        now = time.perf_counter()
        for row, token, logprob in zip(self._rows, tokens, logprobs, strict=True):
            if row.finish is None:
                row.tokens.append(token)
                row.logprobs.append(logprob)
                row.first_s, row.last_s = row.first_s or now, now
                _check_end(self._engine, row)
        alive = [i for i, row in enumerate(self._rows) if row.finish is None]
        if not alive:
            return before
        if len(alive) <= (1 - _IDLE) * len(self._rows):
            self._rows = [self._rows[i] for i in alive]
            tokens = [tokens[i] for i in alive]
            self._keep(alive)
        one = torch.ones_like(self._mask[:, :1])
        self._mask = torch.cat([self._mask, one], dim=1)
        new = self._engine.tensor(tokens)[:, None]
        self._logits, self._cache = self._engine.forward(new, self._mask, self._cache)
        return [row for row in before if row.finish is not None]


class TransformersSession:
    """Draws on one model; see `planner.engines.base.Session`."""

    def __init__(self, engine: TransformersEngine) -> None:
        self._engine = engine
        self._waiting: deque[_Row] = deque()
        self._batch: _Batch | None = None
        self._ended: list[_Row] = []
        self._keys: set[int] = set()
        self._closed = False

    @property
    def outstanding(self) -> int:
        """Draws submitted and not yet returned by `poll`."""
        running = len(self._batch.running()) if self._batch else 0
        return len(self._waiting) + running + len(self._ended)

    def submit(self, key: int, request: Request) -> None:
        """Queue the request's draws for the next batch.

        Raises:
            InputError: The key is in use, the session closed, or the context too short.
        """
        if self._closed:
            raise InputError("the session is closed")
        if key in self._keys:
            raise InputError(f"key {key} was submitted before; keys are new to the session")
        prompt = self._engine.encode(request.prompt)
        if not prompt:
            raise InputError("the prompt has no tokens; give it some text")
        longest = self._engine.max_context_tokens
        if longest is not None and len(prompt) + request.max_tokens > longest:
            raise InputError(
                f"model {self._engine.model!r}: a prompt of {len(prompt)} tokens and "
                f"max_tokens {request.max_tokens} exceed its context of {longest}"
            )
        self._keys.add(key)
        seed = request.seed
        if seed is None:
            seed = int(np.random.default_rng().integers(2**63))
        now = time.perf_counter()
        for i in range(request.n):
            rng = np.random.Generator(np.random.Philox(key=np.array([seed, i], np.uint64)))
            self._waiting.append(_Row(key, i, request, prompt, rng, now))

    def cancel(self, key: int) -> None:
        """Stop the request's unfinished draws."""
        running = self._batch.running() if self._batch else []
        for row in [*self._waiting, *running]:
            if row.key == key:
                row.finish, row.text = "cancelled", self._engine.decode(row.tokens)
                self._ended.append(row)
        self._waiting = deque(row for row in self._waiting if row.finish is None)

    def poll(self, timeout_s: float = 1.0) -> list[Finished]:
        """Decode until a draw ends, or for about `timeout_s`; what ended."""
        deadline_s = time.perf_counter() + timeout_s
        while not self._ended:
            if self._batch is None or not self._batch.running():
                if not self._waiting:
                    break
                count = min(len(self._waiting), self._engine.max_batch)
                rows = [self._waiting.popleft() for _ in range(count)]
                self._batch = _Batch(self._engine, rows)
            self._ended += self._batch.step()
            if time.perf_counter() >= deadline_s:
                break
        ended, self._ended = self._ended, []
        return [Finished(row.key, row.index, _draw(row)) for row in ended]

    def close(self) -> None:
        """Drop everything. Idempotent."""
        self._closed = True
        self._waiting.clear()
        self._ended.clear()
        self._batch = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _check_end(engine: TransformersEngine, row: _Row) -> None:
    """Set finish and text of a row that its last token ended."""
    if row.tokens[-1] in engine.ends:
        row.finish, row.text = "stop", engine.decode(row.tokens[:-1])
        return
    if row.request.stop:
        # a token with text covers a byte or more, so the match lies in these
        window = max(len(stop.encode()) for stop in row.request.stop) + 8
        tail = engine.decode(row.tokens[-window:])
        if any(stop in tail for stop in row.request.stop):
            text = engine.decode(row.tokens)
            found = [text.find(stop) for stop in row.request.stop]
            row.finish = "stop"
            row.text = text[: min((at for at in found if at >= 0), default=len(text))]
            return
    if len(row.tokens) == row.request.max_tokens:
        row.finish, row.text = "length", engine.decode(row.tokens)


def _draw(row: _Row) -> Draw:
    last_s = row.last_s or time.perf_counter()
    return Draw(
        text=row.text,
        finish_reason=row.finish or "cancelled",
        prompt_tokens=len(row.prompt) if row.started else 0,
        output_tokens=len(row.tokens),
        ttft_s=(row.first_s or last_s) - row.submitted_s,
        latency_s=last_s - row.submitted_s,
        logprobs=tuple(row.logprobs) if row.request.logprobs else None,
    )
