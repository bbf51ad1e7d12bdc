"""The openai engine against a server that fails on purpose; see also tests/conformance."""

import gc
import importlib.util
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from planner.engines import open_engine
from planner.engines.base import Engine, Finished, Request, draw_all, draw_seed
from planner.engines.openai import OpenAIEngine
from planner.models.errors import InputError, ServingError
from planner.models.specs import ModelTarget

PROMPT = "C3,7,12>24:"
KEY = "sk-very-secret"


def _helper() -> ModuleType:
    path = Path(__file__).parents[1] / "openai_server.py"
    spec = importlib.util.spec_from_file_location("openai_server", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


Serve = Callable[..., Any]


@pytest.fixture
def serve(tiny_model: Callable[..., Path]) -> Iterator[Serve]:
    """`serve(**settings)` starts a server of a random model named "tiny"."""
    target = ModelTarget(name="tiny", engine="embedded", location=str(tiny_model()))
    embedded, running, helper = open_engine(target), [], _helper()

    def start(**settings: Any) -> Any:
        running.append(helper.OpenAIServer(embedded, **settings))
        return running[-1]

    yield start
    for server in running:
        server.close()
    embedded.close()


def target(url: str, **more: Any) -> ModelTarget:
    return ModelTarget(name="tiny", engine="openai", location=url, **more)


@pytest.fixture
def connect() -> Iterator[Callable[..., OpenAIEngine]]:
    opened: list[OpenAIEngine] = []

    def start(target: ModelTarget, **settings: Any) -> OpenAIEngine:
        opened.append(OpenAIEngine(target, **settings))
        return opened[-1]

    yield start
    for engine in opened:
        engine.close()


def ended(engine: Engine, *requests: Request) -> list[Finished]:
    done: list[Finished] = []
    with engine.session() as session:
        for key, request in enumerate(requests):
            session.submit(key, request)
        while session.outstanding:
            done += session.poll(0.2)
    return sorted(done, key=lambda one: (one.key, one.index))


def the_error(engine: Engine, prompt: str = PROMPT) -> ServingError:
    done = ended(engine, Request(prompt=prompt, max_tokens=8))[0]
    assert done.error is not None
    assert done.draw.finish_reason == "cancelled"
    assert KEY not in str(done.error)
    assert "\n" not in str(done.error)
    return done.error


def test_a_server_that_is_not_there(connect: Callable[..., OpenAIEngine]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    engine = connect(target(url))
    error = the_error(engine)
    assert error.retryable
    assert url in str(error)
    assert "is the server running" in str(error)
    assert engine.max_context_tokens is None
    assert engine.count_tokens("né") == 3 + 8  # bytes and a margin: an upper bound
    with pytest.raises(ServingError, match="cannot reach"):
        draw_all(engine, [Request(prompt=PROMPT)])


@pytest.mark.parametrize(
    ("fault", "retryable", "message"),
    [
        (400, False, "refused the request (HTTP 400): as the test wants"),
        (429, True, "is over its rate limit (HTTP 429)"),
        (500, True, "failed (HTTP 500)"),
        (503, True, "failed (HTTP 503)"),
        ("drop", True, "ended a stream early"),
        ("error", True, "the engine died"),
        ("garbage", False, "usually ends in /v1"),
        ("silent", True, "sent nothing for 0.5 s"),
    ],
)
def test_a_failed_draw_says_what_to_do_and_the_others_go_on(
    serve: Serve,
    connect: Callable[..., OpenAIEngine],
    fault: int | str,
    retryable: bool,
    message: str,
) -> None:
    server = serve()
    server.faults["R1,2>3:"] = fault
    engine = connect(target(server.url), timeout_s=0.5)
    done = ended(
        engine,
        Request(prompt="R1,2>3:", max_tokens=40, seed=1),
        Request(prompt=PROMPT, n=2, max_tokens=8),
    )
    error, draw = done[0].error, done[0].draw
    assert error is not None
    assert error.retryable is retryable
    assert message in str(error)
    assert "second line" not in str(error)
    assert draw.finish_reason == "cancelled"
    assert (draw.output_tokens > 0) == (fault in ("drop", "error"))
    assert (draw.prompt_tokens > 0) == (not isinstance(fault, int))
    assert [one.error for one in done[1:]] == [None, None]
    assert sum(body.get("prompt") == "R1,2>3:" for body in server.bodies) == 1  # no retry


def test_a_key_is_taken_from_the_environment_alone_and_never_shown(
    serve: Serve, connect: Callable[..., OpenAIEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(api_key=KEY, vllm=True)
    monkeypatch.setenv("MY_KEY", KEY)
    right = connect(target(server.url, api_key_env="MY_KEY"))
    assert ended(right, Request(prompt=PROMPT, max_tokens=4))[0].error is None
    assert KEY not in right.version
    monkeypatch.setenv("MY_KEY", KEY + "-wrong")
    error = the_error(connect(target(server.url, api_key_env="MY_KEY")))
    assert "HTTP 401" in str(error)
    assert "MY_KEY" in str(error)
    assert not error.retryable
    # a key that happens to be around goes to nobody who did not ask for it
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert "api_key_env" in str(the_error(connect(target(server.url))))
    monkeypatch.delenv("MY_KEY")
    with pytest.raises(InputError, match="MY_KEY is not set"):
        OpenAIEngine(target(server.url, api_key_env="MY_KEY"))


def test_an_unknown_model_is_answered_with_those_there_are(
    serve: Serve, connect: Callable[..., OpenAIEngine]
) -> None:
    server = serve()
    error = the_error(connect(target(server.url, served_name="big")))
    assert "no model 'big'" in str(error)
    assert "tiny" in str(error)


@pytest.mark.parametrize(
    "url",
    ["localhost:8000/v1", "ftp://host/v1", "", "http://me:pw@host/v1", "http://h/?k=1"],
)
def test_a_location_that_cannot_be_a_base_url_is_refused(url: str) -> None:
    with pytest.raises(InputError, match="URL"):
        OpenAIEngine(target(url))


def test_cancelling_closes_the_stream_and_counts_what_came(
    serve: Serve, connect: Callable[..., OpenAIEngine]
) -> None:
    server = serve(pace_s=0.02, vllm=True)
    engine = connect(target(server.url))
    with engine.session() as session:
        # greedy: this model then goes round in circles and never ends
        session.submit(0, Request(prompt=PROMPT, n=4, max_tokens=200, temperature=0.0))
        deadline_s = time.perf_counter() + 5
        while server.begun < 4 and time.perf_counter() < deadline_s:
            assert session.poll(0.05) == []
        session.poll(0.1)
        session.cancel(0)
        draws = []
        while session.outstanding:
            draws += [done.draw for done in session.poll(0.5)]
    assert len(draws) == 4
    assert {draw.finish_reason for draw in draws} == {"cancelled"}
    # running usage is exact; this model's tokens without text make it more than the text
    assert all(0 <= len(draw.text) <= draw.output_tokens < 200 for draw in draws)
    assert min(draw.output_tokens for draw in draws) > 0
    assert {draw.prompt_tokens for draw in draws} == {len(PROMPT) + 1}
    deadline_s = time.perf_counter() + 5
    while server.hung_up < 4 and time.perf_counter() < deadline_s:
        time.sleep(0.02)
    assert server.hung_up == 4  # the server noticed every one


def test_tokens_are_what_the_server_says(
    serve: Serve, connect: Callable[..., OpenAIEngine]
) -> None:
    server = serve()
    done = ended(
        connect(target(server.url)), Request(prompt=PROMPT, n=8, max_tokens=90, seed=2)
    )
    for one in done:
        seed = draw_seed(2, one.index)
        truth = draw_all(server.engine, [Request(prompt=PROMPT, max_tokens=90, seed=seed)])[
            0
        ][0]
        assert one.draw.text == truth.text
        assert one.draw.output_tokens == truth.output_tokens
    assert any(one.draw.output_tokens > len(one.draw.text) for one in done)


def test_tokens_are_counted_from_chunks_where_there_is_no_usage(
    serve: Serve, connect: Callable[..., OpenAIEngine]
) -> None:
    server = serve(usage=False)
    engine = connect(target(server.url))
    request = Request(prompt=PROMPT, max_tokens=12, seed=1, n=3)
    counted = [one.draw for one in ended(engine, request)]
    with_logprobs = [one.draw for one in ended(engine, replace(request, logprobs=True))]
    for plain, exact in zip(counted, with_logprobs, strict=True):
        assert plain.text == exact.text
        assert plain.output_tokens == len(plain.text)  # one chunk a character here
        assert exact.logprobs is not None
        assert exact.output_tokens == len(exact.logprobs)
        assert plain.prompt_tokens == len(PROMPT) + 8  # upper bound


def test_chat_sends_messages_and_reads_deltas(
    serve: Serve, connect: Callable[..., OpenAIEngine]
) -> None:
    server = serve(vllm=True)
    plain = connect(target(server.url))
    chat = connect(target(server.url, chat=True))
    request = Request(prompt=PROMPT, n=2, max_tokens=10, seed=5, logprobs=True)
    texts = [[one.draw.text for one in ended(engine, request)] for engine in (plain, chat)]
    assert texts[0] == texts[1]
    assert server.bodies[-1]["messages"] == [{"role": "user", "content": PROMPT}]
    assert server.bodies[-1]["max_tokens"] == 10
    draw = ended(chat, request)[0].draw
    assert draw.logprobs is not None
    assert len(draw.logprobs) == draw.output_tokens
    assert chat.count_tokens(PROMPT) == len(PROMPT) + 1


def test_settings_reach_the_wire_and_each_draw_has_its_seed(
    serve: Serve, connect: Callable[..., OpenAIEngine]
) -> None:
    server = serve()
    engine = connect(target(server.url))
    request = Request(
        prompt=PROMPT, n=3, temperature=0.7, top_p=0.9, max_tokens=5, stop=("=",), seed=11
    )
    ended(engine, request)
    wire = {
        "temperature": 0.7,
        "top_p": 0.9,
        "max_tokens": 5,
        "stop": ["="],
        "stream": True,
    }
    for body in server.bodies:
        assert {key: body[key] for key in wire} == wire
        assert "n" not in body
    assert {body["seed"] for body in server.bodies} == {draw_seed(11, i) for i in range(3)}
    server.bodies.clear()
    ended(engine, Request(prompt=PROMPT, max_tokens=5))
    assert "seed" not in server.bodies[0]
    assert "stop" not in server.bodies[0]


def test_seeds_of_draws_differ_and_fit_every_server() -> None:
    seeds = [draw_seed(seed, i) for seed in (0, 1, 2**63 - 1) for i in range(1000)]
    assert len(set(seeds)) == 3000
    assert min(seeds) >= 0
    assert max(seeds) < 2**31


def test_no_more_streams_than_allowed_and_all_draws_come(
    serve: Serve, connect: Callable[..., OpenAIEngine]
) -> None:
    server = serve(pace_s=0.001)
    engine = connect(target(server.url), max_streams=2)
    done = ended(engine, Request(prompt=PROMPT, n=9, max_tokens=4))
    assert [one.error for one in done] == [None] * 9


def test_closing_the_engine_ends_its_thread_and_its_draws(
    serve: Serve, connect: Callable[..., OpenAIEngine]
) -> None:
    before = threading.active_count()
    server = serve(pace_s=0.05)
    mine = threading.active_count()
    engine = connect(target(server.url))
    session = engine.session()
    session.submit(0, Request(prompt=PROMPT, n=3, max_tokens=100, temperature=0.0))
    assert [thread.name for thread in threading.enumerate()].count("planner-openai") == 1
    engine.close()
    engine.close()
    assert [thread.name for thread in threading.enumerate()].count("planner-openai") == 0
    assert before < mine
    left = []
    while session.outstanding:
        left += session.poll(0.1)
    assert [one.draw.finish_reason for one in left] == ["cancelled"] * 3
    session.close()
    with pytest.raises(InputError, match="closed"):
        engine.session()
    gc.collect()  # a socket left open would warn, and warnings are errors
