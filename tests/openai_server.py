"""A small OpenAI-compatible server with a real model behind it, for tests on loopback.

It streams draws of an engine, a character a chunk. A prompt listed in `faults` fails in
its own way instead: an HTTP status, "drop" (cuts the stream after two chunks), "error"
(sends an error event), "silent" (never answers) or "garbage" (answers with a web page).
"""

import json
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from planner.engines.base import Draw, Engine, Request, draw_all

Fault = int | str


class OpenAIServer:
    """Serves `engine` until closed; `url` is its base URL.

    Args:
        engine: Whose draws are served, one at a time.
        api_key: Asked of every request, unless empty.
        pace_s: Pause between chunks.
        vllm: Call itself vLLM and send running usage, as vLLM does.
        usage: Send usage at all.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        api_key: str = "",
        pace_s: float = 0.0,
        vllm: bool = False,
        usage: bool = True,
    ) -> None:
        self.engine, self.api_key, self.pace_s = engine, api_key, pace_s
        self.vllm, self.usage = vllm, usage
        self.faults: dict[str, Fault] = {}
        self.bodies: list[dict[str, Any]] = []  # of the requests for draws
        self.headers: list[dict[str, str]] = []
        self.begun = 0  # streams that sent something
        self.hung_up = 0  # streams that the client closed early
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        outer = self

        class Handler(_Handler):
            server_of_tests = outer

        self._http = _Http(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def close(self) -> None:
        self.stopping.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def draw(self, body: dict[str, Any], prompt: str) -> Draw:
        stop = body.get("stop") or []
        request = Request(
            prompt=prompt,
            temperature=body.get("temperature", 1.0),
            top_p=body.get("top_p", 1.0),
            max_tokens=body.get("max_completion_tokens") or body.get("max_tokens", 16),
            stop=tuple([stop] if isinstance(stop, str) else stop),
            seed=body.get("seed"),
            logprobs=body.get("logprobs") is not None and body["logprobs"] is not False,
        )
        with self.lock:
            return draw_all(self.engine, [request])[0][0]


class _Http(ThreadingHTTPServer):
    request_queue_size = 1024  # many draws connect at once
    daemon_threads = False  # so that closing waits for them


class _Handler(BaseHTTPRequestHandler):
    server_of_tests: OpenAIServer

    def log_message(self, format: str, *args: Any) -> None:
        """Silence."""

    def do_GET(self) -> None:
        server = self.server_of_tests
        if self.path != "/v1/models":
            return self._fail(404, "no such path")
        if not self._allowed():
            return self._fail(401, "Incorrect API key provided")
        model = {
            "id": server.engine.model,
            "object": "model",
            "created": 0,
            "owned_by": "vllm" if server.vllm else "tests",
            "max_model_len": server.engine.max_context_tokens,
        }
        self._send(200, {"object": "list", "data": [model]})

    def do_POST(self) -> None:
        server = self.server_of_tests
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self._allowed():
            return self._fail(401, f"Incorrect key: {self.headers.get('Authorization')}")
        if self.path == "/tokenize" and server.vllm:
            prompt = (
                body["messages"][0]["content"] if "messages" in body else body["prompt"]
            )
            return self._send(200, {"count": server.engine.count_tokens(prompt)})
        chat = self.path == "/v1/chat/completions"
        if self.path != "/v1/completions" and not chat:
            return self._fail(404, "no such path")
        server.bodies.append(body)
        server.headers.append(dict(self.headers))
        if body["model"] != server.engine.model:
            return self._fail(404, f"The model {body['model']!r} does not exist.")
        prompt = body["messages"][0]["content"] if chat else body["prompt"]
        fault = server.faults.get(prompt)
        if isinstance(fault, int):
            return self._fail(fault, "as the test wants\nsecond line")
        if fault == "silent":
            server.stopping.wait(20)
            return None
        self.send_response(200)
        kind = "text/html" if fault == "garbage" else "text/event-stream"
        self.send_header("Content-Type", kind)
        self.end_headers()
        if fault == "garbage":
            self.wfile.write(b"<html><body>Welcome</body></html>")
            return None
        draw = server.draw(body, "2+2=" if fault else prompt)
        server.begun += 1
        try:
            self._stream(draw, chat, body, fault)
        except (BrokenPipeError, ConnectionResetError):
            server.hung_up += 1
        return None

    def _stream(
        self, draw: Draw, chat: bool, body: dict[str, Any], fault: Fault | None
    ) -> None:
        server = self.server_of_tests
        tokens = draw.output_tokens
        options = body.get("stream_options") or {}
        texts = [*draw.text, *[""] * (tokens - len(draw.text))] or [""]
        if chat:
            self._event({"choices": [{"index": 0, "delta": {"role": "assistant"}}]})
        for i, text in enumerate(texts):
            last = i == len(texts) - 1
            choice: dict[str, Any] = {
                "index": 0,
                "finish_reason": draw.finish_reason if last else None,
            }
            if chat:
                choice["delta"] = {"content": text}
            else:
                choice["text"] = text
            if draw.logprobs is not None and i < tokens:
                value = draw.logprobs[i]
                choice["logprobs"] = (
                    {"content": [{"token": text, "logprob": value, "top_logprobs": []}]}
                    if chat
                    else {"tokens": [text], "token_logprobs": [value]}
                )
            event: dict[str, Any] = {"choices": [choice]}
            if server.vllm and options.get("continuous_usage_stats"):
                event["usage"] = _usage(draw, min(i + 1, tokens))
            self._event(event)
            if i == 1 and fault == "drop":
                return
            if i == 1 and fault == "error":
                self._event({"error": {"message": "the engine died", "code": 500}})
                return
            if server.pace_s:
                time.sleep(server.pace_s)
        if server.usage and options.get("include_usage"):
            self._event({"choices": [], "usage": _usage(draw, tokens)})
        self.wfile.write(b"data: [DONE]\n\n")

    def _event(self, content: dict[str, Any]) -> None:
        content = {
            "id": "x",
            "object": "text_completion",
            "created": 0,
            "model": "x",
        } | content
        self.wfile.write(b"data: " + json.dumps(content).encode() + b"\n\n")
        self.wfile.flush()

    def _allowed(self) -> bool:
        key = self.server_of_tests.api_key
        return not key or self.headers.get("Authorization") == f"Bearer {key}"

    def _fail(self, status: int, message: str) -> None:
        self._send(status, {"error": {"message": message, "code": status}})

    def _send(self, status: int, content: dict[str, Any]) -> None:
        payload = json.dumps(content).encode()
        with suppress(BrokenPipeError, ConnectionResetError):
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)


def _usage(draw: Draw, tokens: int) -> dict[str, int]:
    return {
        "prompt_tokens": draw.prompt_tokens,
        "completion_tokens": tokens,
        "total_tokens": draw.prompt_tokens + tokens,
    }
