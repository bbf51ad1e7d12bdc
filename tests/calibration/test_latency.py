"""Timing an engine, step by step and through a session, and the machine it runs on."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from planner.calibration.environment import describe_machine
from planner.calibration.latency import time_engine, time_through_session
from planner.calibration.store import Store
from planner.engines.base import Finished, Request
from planner.engines.embedded import EmbeddedEngine
from planner.models.errors import InputError, NotMeasuredError
from planner.models.flops import decode_step, prefill_step
from planner.models.latency import LatencyLaw
from planner.models.records import Draw
from planner.models.specs import Architecture

GRID = {"batches": (1, 4), "contexts": (8, 32, 100), "repeats": 3}


@pytest.fixture
def folder(tiny_model: Callable[..., Path]) -> Path:
    return tiny_model()


@pytest.fixture
def architecture(folder: Path) -> Architecture:
    return Architecture.from_config(folder, weight_bytes=4.0, kv_bytes=4.0)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "measurements")


def test_shapes_are_timed_once_and_carry_their_cost(folder, architecture, store):
    engine, told = EmbeddedEngine("tiny", folder), []
    made = time_engine(
        store, engine, architecture, "abc", progress=lambda *t: told.append(t), **GRID
    )
    rows = store.timings()
    assert made == 12
    assert len(rows) == 36
    assert told == [(i, 12) for i in range(13)]
    assert (rows["seconds"] > 0).all()
    for row in rows.itertuples():
        step = (
            prefill_step(architecture, batch=row.batch, prompt_tokens=row.context_tokens)
            if row.phase == "prefill"
            else decode_step(
                architecture, batch=row.batch, context_tokens=row.context_tokens
            )
        )
        assert (row.flop, row.moved_bytes, row.kv_bytes) == (
            step.flop,
            step.moved_bytes,
            step.kv_bytes,
        )
    assert time_engine(store, engine, architecture, "abc", **GRID) == 0
    assert (
        time_engine(store, engine, architecture, "abc", **{**GRID, "batches": (1, 8)}) == 6
    )
    assert time_engine(store, engine, architecture, "another", **GRID) == 12


def test_the_timings_make_a_law(folder, architecture, store, rng):
    engine = EmbeddedEngine("tiny", folder)
    time_engine(store, engine, architecture, "abc", **GRID)
    rows = store.timings()
    law = LatencyLaw.fit(
        rows["phase"], rows["batch"], rows["context_tokens"], rows["seconds"],
        architecture=architecture, machine="abc", flop_per_s=5e10, bytes_per_s=2e10,
        source="measured",
    )  # fmt: skip
    low, high = law.predict_step("decode", 2, 50, rng).interval(0.99)
    seen = sorted(engine.time_decode(2, 50, 9))[4]
    assert low[0] / 3 < seen < high[0] * 3  # other work on the machine may slow either


def test_contexts_that_do_not_fit_are_left_out(folder, architecture, store):
    engine = EmbeddedEngine("tiny", folder)
    longest = engine.max_context_tokens
    grid = {"batches": (1,), "contexts": (8, longest), "repeats": 1}
    assert time_engine(store, engine, architecture, "abc", **grid) == 2
    assert set(store.timings()["context_tokens"]) == {8}
    long = {"batches": (1, 500), "contexts": (8, 10), "repeats": 1}
    time_engine(store, engine, architecture, "abc", **long)
    prefills = store.timings().query("phase == 'prefill' and batch == 500")
    assert prefills["context_tokens"].tolist() == [8]  # 5000 tokens at once are too many
    with pytest.raises(InputError, match="no context"):
        time_engine(store, engine, architecture, "abc", contexts=(longest,))
    with pytest.raises(InputError, match="at least 1"):
        time_engine(store, engine, architecture, "abc", repeats=0)


class Server:
    """Serves draws at a fixed pace: no step can be timed but through its sessions."""

    model, version, max_context_tokens = "paced", "paced 1", 512
    prefill_s, step_s = 0.03, 0.002

    def __init__(self, output_tokens: int | None = None) -> None:
        self.output_tokens = output_tokens
        self.prompts: list[str] = []

    def count_tokens(self, text: str) -> int:
        return 1 + (len(text) + 2) // 3

    def session(self) -> "ServerSession":
        return ServerSession(self)

    def close(self) -> None: ...


class ServerSession:
    def __init__(self, server: Server) -> None:
        self.server, self.requests = server, {}

    @property
    def outstanding(self) -> int:
        return len(self.requests)

    def submit(self, key: int, request: Request) -> None:
        self.server.prompts.append(request.prompt)
        self.requests[key] = request

    def cancel(self, key: int) -> None:
        self.requests.pop(key, None)

    def poll(self, timeout_s: float = 1.0) -> list[Finished]:
        done = []
        for key, request in self.requests.items():
            n = self.server.output_tokens or request.max_tokens
            ttft = self.server.prefill_s * len(self.requests)
            draw = Draw(
                text="", finish_reason="length", output_tokens=n, ttft_s=ttft,
                prompt_tokens=self.server.count_tokens(request.prompt),
                latency_s=ttft + (n - 1) * self.server.step_s,
            )  # fmt: skip
            done.append(Finished(key, 0, draw))
        self.requests = {}
        return done

    def close(self) -> None:
        self.requests = {}

    def __enter__(self) -> "ServerSession":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def test_a_server_is_timed_by_what_its_draws_report():
    server = Server()
    assert time_through_session(server, "prefill", 4, 60, 2) == pytest.approx([0.12, 0.12])
    assert time_through_session(server, "decode", 4, 60, 2) == pytest.approx([0.002, 0.002])
    lengths = [server.count_tokens(prompt) for prompt in server.prompts]
    assert lengths == [60] * 12 + [52] * 12  # decode: 52 + half of 16 tokens
    starts = {prompt[:3] for prompt in server.prompts[:12]}
    assert len(starts) == 12  # nothing for a prefix cache


def test_draws_of_one_token_time_no_decode_step():
    with pytest.raises(NotMeasuredError, match="end at once"):
        time_through_session(Server(output_tokens=1), "decode", 4, 60, 2)


def test_a_server_and_steps_agree(folder):
    engine = EmbeddedEngine("tiny", folder)
    steps = min(engine.time_decode(8, 60, 15))
    session = min(time_through_session(engine, "decode", 8, 60, 15))
    assert steps / 5 < session < steps * 10  # the session also samples, and keeps books


def test_the_machine_describes_itself_the_same_each_time():
    begun = time.perf_counter()
    one = describe_machine()
    assert time.perf_counter() - begun < 10  # under two on an idle machine
    two = describe_machine()
    assert one.machine == two.machine
    assert len(one.machine) == 12
    assert 1e8 < one.flop_per_s < 1e15
    assert 1e8 < one.bytes_per_s < 1e14
    assert one.cores >= 1
    assert one.memory_bytes > 1e8
