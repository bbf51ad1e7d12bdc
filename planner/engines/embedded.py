"""The default engine: a Llama of a few million parameters in numpy, no torch needed.

`EmbeddedEngine` draws responses; `EmbeddedScorer` runs a verifier of the same architecture.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

import planner
from planner.engines.base import Request
from planner.engines.decoding import Decoder, default_threads, one_blas_thread
from planner.engines.embedded_session import EmbeddedSession, like_lengths, padded
from planner.engines.kv_cache import Block
from planner.engines.llama import Llama
from planner.engines.sampling import Slots
from planner.engines.tokenizer import CharacterTokenizer
from planner.models.errors import InputError
from planner.models.prediction import Array

UNSCORABLE = -30.0  # log-odds of a text the verifier cannot read: a plain no


class EmbeddedEngine:
    """Draws from a model folder in Hugging Face format.

    Args:
        name: Of the model, as in the config.
        folder: With config.json, model.safetensors and tokenizer.json.
        max_batch: Draws decoded at a time; more wait. Bounds the memory.
        threads: Blocks of draws decoded side by side; None: as many as BLAS would use.

    Raises:
        InputError: A file is missing, damaged or of a model this engine cannot run.
    """

    def __init__(
        self, name: str, folder: Path, *, max_batch: int = 256, threads: int | None = None
    ) -> None:
        if max_batch < 1 or (threads is not None and threads < 1):
            raise InputError(
                f"max_batch and threads must be at least 1, got {max_batch} and {threads}"
            )
        self._name, self._max_batch = name, max_batch
        self._llama = Llama.load(folder)
        self._tokenizer = _read_tokenizer(folder, self._llama)
        self._decoder = Decoder(self._llama, threads or default_threads())

    @property
    def model(self) -> str:
        return self._name

    @property
    def version(self) -> str:
        return f"embedded {planner.__version__}"

    @property
    def max_context_tokens(self) -> int:
        return self._llama.config.max_positions

    def count_tokens(self, text: str) -> int:
        return self._tokenizer.count(text)

    def session(self) -> EmbeddedSession:
        return EmbeddedSession(self._decoder, self._tokenizer, self._max_batch)

    def close(self) -> None:
        self._decoder.close()

    def time_prefill(self, batch: int, prompt_tokens: int, repeats: int) -> list[float]:
        """See `planner.engines.base.StepTimer`.

        Raises:
            InputError: A size below 1, or more tokens than the model's positions.
        """
        self._check_timing(batch, prompt_tokens, repeats)
        rng = np.random.default_rng(0)
        ids = rng.integers(self._llama.config.vocabulary, size=(batch, prompt_tokens))
        lengths = np.full(batch, prompt_tokens)
        return _timed(lambda: self._llama.prefill(ids, lengths), repeats)

    def time_decode(self, batch: int, context_tokens: int, repeats: int) -> list[float]:
        """See `planner.engines.base.StepTimer`; each row has a context of its own.

        Raises:
            InputError: A size below 1, or more tokens than the model's positions.
        """
        self._check_timing(batch, context_tokens + 1, repeats)
        c = self._llama.config
        rng = np.random.default_rng(0)
        shape = (c.layers, 2, c.kv_heads, context_tokens, c.head_dim)
        context = rng.standard_normal(shape, np.float32)
        slots = Slots.empty(batch, c.vocabulary, c.max_positions)
        request, enders = Request(prompt="", max_tokens=2), np.zeros(c.vocabulary, np.bool_)
        for slot in range(batch):
            slots.start(slot, request, 0, slot, enders)
        slots.tokens[:, 0] = 0
        parts = self._decoder.parts(np.arange(batch))
        blocks = [Block.of_prompts(part, [context] * len(part)) for part in parts]

        def step() -> None:
            slots.emitted[:] = 1
            for block in blocks:
                block.column = context_tokens  # the same context every time
            self._decoder.step(blocks, slots)

        return _timed(step, repeats)

    def _check_timing(self, batch: int, tokens: int, repeats: int) -> None:
        if min(batch, tokens, repeats) < 1:
            raise InputError("batch, tokens and repeats must be at least 1")
        if tokens > self.max_context_tokens:
            raise InputError(
                f"{self._name} has {self.max_context_tokens} positions, {tokens} are needed"
            )


class EmbeddedScorer:
    """A verifier: a Llama whose head gives one score.

    Args:
        folder: As of an engine, but with `score.weight` (1, width) for a head.

    Raises:
        InputError: A file is missing, damaged or of a model this engine cannot run.
    """

    def __init__(self, folder: Path) -> None:
        self._llama = Llama.load(folder, head="score")
        self._tokenizer = _read_tokenizer(folder, self._llama)
        if not self._llama.config.eos:
            raise InputError(f"{folder / 'config.json'}: a verifier needs eos_token_id")

    def score(self, prompts: Sequence[str], texts: Sequence[str]) -> Array:
        """Log-odds that a text is right, read at the last of BOS + prompt + text + EOS.

        A text that is too long or has characters outside the vocabulary gets `UNSCORABLE`.

        Args:
            prompts: One for each text.
            texts: Responses; shape (n,).

        Returns:
            (n,).

        Raises:
            InputError: Not one prompt for each text.
        """
        if len(prompts) != len(texts):
            raise InputError(f"got {len(prompts)} prompts for {len(texts)} texts")
        places: dict[tuple[int, ...], list[int]] = {}
        scores = np.full(len(texts), UNSCORABLE)
        for i, (prompt, text) in enumerate(zip(prompts, texts, strict=True)):
            ids = self._ids(prompt + text)
            if ids is not None:
                places.setdefault(ids, []).append(i)

        def run(group: Sequence[tuple[int, ...]]) -> None:
            ids, lengths = padded(group)
            found, _ = self._llama.prefill(ids, lengths, keep_cache=False)
            for sequence, score in zip(group, found[:, 0].tolist(), strict=True):
                scores[places[sequence]] = score

        groups = like_lengths(places, tokens_max=1024)
        threads = min(default_threads(), len(groups))
        with one_blas_thread():
            if threads > 1:
                with ThreadPoolExecutor(threads, "embedded-score") as pool:
                    list(pool.map(run, groups))
            else:
                for group in groups:
                    run(group)
        return scores

    def _ids(self, text: str) -> tuple[int, ...] | None:
        try:
            ids = self._tokenizer.encode(text)
        except InputError:
            return None
        if not self._tokenizer.after:
            ids.append(self._llama.config.eos[0])
        return tuple(ids) if len(ids) <= self._llama.config.max_positions else None


def _read_tokenizer(folder: Path, llama: Llama) -> CharacterTokenizer:
    path = folder / "tokenizer.json"
    tokenizer = CharacterTokenizer.read(path)
    used = [*tokenizer.ids.values(), *tokenizer.before, *tokenizer.after]
    size = llama.config.vocabulary
    if not all(0 <= i < size for i in (*used, *llama.config.eos)):
        raise InputError(f"{path}: has ids beyond config.json's vocab_size {size}")
    return tokenizer


def _timed(step: Callable[[], object], repeats: int) -> list[float]:
    """Seconds of each call, after two calls that are not counted."""
    seconds = []
    with one_blas_thread():
        for repeat in range(-2, repeats):
            started_at = time.perf_counter()
            step()
            if repeat >= 0:
                seconds.append(time.perf_counter() - started_at)
    return seconds
