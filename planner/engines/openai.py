"""Draws from any OpenAI-compatible server, streamed.

One request on the wire is one draw: its seed then depends on (seed, index) alone, and a
cancelled draw closes its own stream, which is how servers learn to stop. The client runs
in one background thread with its own event loop. It never retries: the caller, who knows
the budget, decides.

What is counted, and how:

- Output tokens are the server's `usage`. A draw cut short has no final usage; a vLLM
  server reports a running one, which is exact; with any other server the tokens with
  logprobs are counted where they were asked for, else the chunks with text. A server may
  generate a few more tokens before it notices that the stream is closed.
- `ttft_s` ends at the first chunk with content (or hidden reasoning), `latency_s` at the
  last; both start at `submit`, so waiting for a free stream counts.
- `count_tokens` asks the server's `/tokenize` (vLLM has it); elsewhere it is an upper
  bound: a token covers at least one byte of UTF-8, plus a margin for special tokens.
- Logprobs are the server's. vLLM reports them at temperature 1; some servers leave out
  the end-of-sequence token.
- A server that ignores `seed` or `stop` without an error cannot be told from one that
  honours it.
"""

import asyncio
import os
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import openai

from planner.engines.background import LoopThread
from planner.engines.base import draw_seed
from planner.engines.openai_stream import OpenAISession, Stream
from planner.models.errors import InputError, ServingError
from planner.models.specs import ModelTarget

_CONNECT_S = 5.0
_SPECIAL_TOKENS = 8  # beyond the text of a prompt
_CHAT_TOKENS = 64  # of a chat template around the prompt
_OFFICIAL = "api.openai.com"


@dataclass(frozen=True)
class _Facts:
    """What the server's list of models tells; all of it may be missing."""

    models: tuple[str, ...] = ()
    max_context_tokens: int | None = None
    vllm: bool = False


class OpenAIEngine:
    """A model behind a URL.

    Args:
        target: `location` is the base URL (".../v1"), `served_name` the server's name of
            the model, `api_key_env` the environment variable that holds the key.
        timeout_s: Longest silence of a stream before the draw fails.
        max_streams: Draws in flight at once; the others wait for their turn.

    Raises:
        InputError: The URL is not http(s) or holds a password, or the variable is not set.
    """

    def __init__(
        self, target: ModelTarget, *, timeout_s: float = 120.0, max_streams: int = 256
    ) -> None:
        parts = urlsplit(target.location)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(
                f"model {target.name!r}: location must be a base URL such as "
                f"http://localhost:8000/v1, got {target.location!r}"
            )
        if parts.username or parts.password or parts.query:
            raise InputError(
                f"model {target.name!r}: the URL must not hold a user, password or query; "
                "put the key into an environment variable and name it in api_key_env"
            )
        key = os.environ.get(target.api_key_env, "") if target.api_key_env else ""
        if target.api_key_env and not key:
            raise InputError(
                f"model {target.name!r}: the environment variable {target.api_key_env} "
                "is not set; it must hold the server's API key"
            )
        self._target = target
        self._host = parts.hostname
        self._url = target.location.rstrip("/")
        self._root = f"{parts.scheme}://{parts.netloc}"
        self._served = target.served_name or target.name
        self._key = key
        self._timeout_s = timeout_s
        self._client = openai.AsyncOpenAI(
            # never the client's own default, which would send OPENAI_API_KEY to any URL
            api_key=key or "none",
            base_url=self._url,
            max_retries=0,
            timeout=openai.Timeout(timeout_s, connect=_CONNECT_S, pool=None),
        )
        self._slots = asyncio.Semaphore(max_streams)
        self._thread: LoopThread | None = None
        self._closed = False
        self._facts: _Facts | None = None
        self._has_tokenize = True
        self._counted = lru_cache(maxsize=4096)(self._count)

    @property
    def model(self) -> str:
        """Name of the model, as in the config."""
        return self._target.name

    @property
    def version(self) -> str:
        """Client version and the server's host."""
        return f"openai {openai.__version__} @ {self._host}"

    @property
    def max_context_tokens(self) -> int | None:
        """What the server's list of models says (vLLM's does); None where it does not."""
        return self._look_up().max_context_tokens

    def count_tokens(self, text: str) -> int:
        """Prompt tokens by the server's `/tokenize`; an upper bound where it has none."""
        return self._counted(text)

    def session(self) -> OpenAISession:
        """Open a batch.

        Raises:
            InputError: The engine is closed.
        """
        self._look_up()  # before the clock of the first draw runs
        return OpenAISession(self)

    def close(self) -> None:
        """Cancel every draw, close the connections and end the thread. Idempotent."""
        self._closed = True
        if self._thread is not None:
            self._thread.close(self._client.close())
            self._thread = None

    @property
    def loop(self) -> LoopThread:
        """The background thread, started at its first use."""
        if self._closed:
            raise InputError(f"model {self.model!r}: its engine is closed")
        if self._thread is None:
            self._thread = LoopThread("planner-openai")
        return self._thread

    def _look_up(self) -> _Facts:
        if self._facts is None:
            self._facts = self.loop.run(self._ask_models())
        return self._facts

    async def _ask_models(self) -> _Facts:
        """The facts; none from a server that does not answer: its draws will say why."""
        try:
            page = await self._client.models.list(timeout=_CONNECT_S)
            listed = {item.id: item.to_dict() for item in page.data or []}
        except (openai.OpenAIError, ValueError, AttributeError, TypeError):
            return _Facts()
        mine = listed.get(self._served, {})
        length = mine.get("max_model_len")
        return _Facts(
            tuple(sorted(listed)),
            length if isinstance(length, int) else None,
            mine.get("owned_by") == "vllm",
        )

    def _count(self, text: str) -> int:
        ask = self._has_tokenize and not self._closed
        count = self.loop.run(self._ask_tokenize(text)) if ask else None
        if count is not None:
            return count
        extra = _CHAT_TOKENS if self._target.chat else _SPECIAL_TOKENS
        return len(text.encode()) + extra

    async def _ask_tokenize(self, text: str) -> int | None:
        body: dict[str, object] = {"model": self._served}
        if self._target.chat:
            body["messages"] = [{"role": "user", "content": text}]
        else:
            body["prompt"] = text
        try:
            answer = await self._client.post(
                f"{self._root}/tokenize",
                cast_to=object,
                body=body,
                options={"timeout": _CONNECT_S},
            )
        except (openai.APIStatusError, ValueError):
            self._has_tokenize = False
            return None
        except openai.OpenAIError:
            return None  # unreachable now; it may have one later
        count = answer.get("count") if isinstance(answer, dict) else None
        self._has_tokenize = isinstance(count, int)
        return count if isinstance(count, int) else None

    async def draw(self, stream: Stream) -> None:
        """Run one draw to its end; what went wrong goes into `stream.error`."""
        try:
            async with self._slots:
                stream.sent = True
                if self._target.chat:
                    await self._chat(stream)
                else:
                    await self._complete(stream)
        except openai.OpenAIError as error:
            if isinstance(error, openai.APIStatusError) or (
                isinstance(error, openai.APIConnectionError)
                and not isinstance(error, openai.APITimeoutError)
                and stream.first_s is None
            ):
                stream.sent = False
            stream.error = self._explain(error)
        except ValueError:  # a chunk that is not JSON
            stream.error = self._not_compatible()
        else:
            stream.error = self._check(stream)

    def _check(self, stream: Stream) -> ServingError | None:
        if stream.finish is None:
            if stream.first_s is None:
                return self._not_compatible()
            return ServingError(f"{self._url} ended a stream early", retryable=True)
        if stream.finish in ("abort", "error"):
            return ServingError(
                f"{self._url} gave up a draw ({stream.finish})", retryable=True
            )
        if stream.request.logprobs and not stream.logprobs:
            return ServingError(
                f"{self._url} sent no logprobs; turn them off for this model"
            )
        return None

    async def _complete(self, stream: Stream) -> None:
        request = stream.request
        extra = self._settings(stream)
        if request.logprobs:
            extra["logprobs"] = 0  # the sampled token's alone
        async with await self._client.completions.create(
            model=self._served,
            prompt=request.prompt,
            max_tokens=request.max_tokens,
            temperature=request.temperature,
            top_p=request.top_p,
            stream=True,
            extra_body=extra,
        ) as chunks:
            async for chunk in chunks:
                stream.take_usage(chunk)
                for choice in getattr(chunk, "choices", None) or []:
                    values = choice.logprobs.token_logprobs if choice.logprobs else None
                    finish: str | None = choice.finish_reason
                    stream.add(choice.text or "", False, list(values or []), finish)

    async def _chat(self, stream: Stream) -> None:
        request = stream.request
        extra = self._settings(stream)
        # the official server takes only the new name, many others only the old one
        official = self._host == _OFFICIAL
        extra["max_completion_tokens" if official else "max_tokens"] = request.max_tokens
        if request.logprobs:
            extra["logprobs"] = True
        async with await self._client.chat.completions.create(
            model=self._served,
            messages=[{"role": "user", "content": request.prompt}],
            temperature=request.temperature,
            top_p=request.top_p,
            stream=True,
            extra_body=extra,
        ) as chunks:
            async for chunk in chunks:
                stream.take_usage(chunk)
                for choice in getattr(chunk, "choices", None) or []:
                    tokens = (choice.logprobs.content if choice.logprobs else None) or []
                    delta: dict[str, Any] = choice.delta.to_dict() if choice.delta else {}
                    hidden = bool(delta.get("reasoning_content") or delta.get("reasoning"))
                    text = delta.get("content") or ""
                    finish: str | None = choice.finish_reason
                    stream.add(text, hidden, [token.logprob for token in tokens], finish)

    def _settings(self, stream: Stream) -> dict[str, object]:
        request = stream.request
        options = {"include_usage": True}
        if self._facts is not None and self._facts.vllm:
            options["continuous_usage_stats"] = True  # exact counts for draws cut short
        settings: dict[str, object] = {"stream_options": options}
        if request.stop:
            settings["stop"] = list(request.stop)
        if request.seed is not None:
            settings["seed"] = draw_seed(request.seed, stream.index)
        return settings

    def _not_compatible(self) -> ServingError:
        return ServingError(
            f"{self._url} did not answer as an OpenAI-compatible server; check the URL "
            "(it usually ends in /v1)"
        )

    def _explain(self, error: openai.OpenAIError) -> ServingError:
        """One sentence: what failed, where, and what to do. Never with the key in it."""
        if isinstance(error, openai.APITimeoutError):
            return ServingError(
                f"{self._url} sent nothing for {self._timeout_s:g} s; it may be overloaded",
                retryable=True,
            )
        if isinstance(error, openai.APIConnectionError):
            return ServingError(
                f"cannot reach {self._url} ({type(error.__cause__ or error).__name__}); "
                "is the server running, and the URL right?",
                retryable=True,
            )
        status = error.status_code if isinstance(error, openai.APIStatusError) else None
        if status in (401, 403):
            variable = self._target.api_key_env
            hint = (
                f"check the key in {variable}"
                if variable
                else "name the key in api_key_env"
            )
            return ServingError(f"{self._url} refused access (HTTP {status}); {hint}")
        body = getattr(error, "body", None)
        said = body.get("message") if isinstance(body, dict) else None
        detail = _first_line(str(said or error), self._key)
        if status == 404:
            served = ", ".join(self._facts.models[:8]) if self._facts is not None else ""
            hint = f"set served_name to one of: {served}" if served else "check served_name"
            return ServingError(
                f"{self._url} has no model {self._served!r} (HTTP 404); {hint}"
            )
        if status is None:  # an error event within a stream
            client_fault = str(getattr(error, "code", None) or "").startswith("4")
            return ServingError(f"{self._url} failed a draw: {detail}", not client_fault)
        retryable = status in (408, 409, 429) or status >= 500
        what = {429: "is over its rate limit", 408: "timed out"}.get(
            status, "failed" if retryable else "refused the request"
        )
        return ServingError(f"{self._url} {what} (HTTP {status}): {detail}", retryable)


def _first_line(message: str, key: str) -> str:
    line = (message.strip().splitlines() or [""])[0][:200]
    return line.replace(key, "***") if key else line
