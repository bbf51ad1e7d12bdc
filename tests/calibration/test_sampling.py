"""Sampling: each draw once, the same whatever happens, graded, and never lost."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from planner.calibration.reference.tasks import is_held_out
from planner.calibration.rounds import sample_until
from planner.calibration.sampling import BLOCK, DrawsOf, SamplingPlan, sample
from planner.calibration.spending import Spending
from planner.calibration.store import Store
from planner.calibration.suites import level_counts, reference_problems
from planner.engines.base import Engine, Finished, Request, Session
from planner.engines.embedded import EmbeddedEngine
from planner.models.errors import InputError, ServingError
from planner.models.records import Problem
from planner.verifiers import get_verifier

PROBLEMS = reference_problems(
    0, {"chain": {1: 3, 2: 2}, "countdown": {3: 2}, "retry": {3: 2}}
)
SETTINGS: dict[str, Any] = {
    "n_samples": 10, "temperatures": (0.7, 1.0), "max_tokens": 12, "top_p": 1.0, "seed": 3,
    "machine": "abc", "sleep": lambda seconds: None,
}  # fmt: skip
TOTAL = len(PROBLEMS) * 2 * 10
DRAW = ["problem_id", "temperature", "draw"]


@pytest.fixture
def engine(tiny_model: Callable[..., Path]) -> EmbeddedEngine:
    return EmbeddedEngine("tiny", tiny_model())


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "measurements")


def texts(store: Store) -> dict[tuple[str, float, int], str]:
    frame = store.samples()
    rows = frame[[*DRAW, "text"]].itertuples(index=False)
    return {(row[0], row[1], row[2]): row[3] for row in rows}


class Flaky:
    """An engine whose server is down for some polls, or fails some draws alone."""

    def __init__(
        self, inner: Engine, faults: dict[int, BaseException], alone: bool
    ) -> None:
        self.inner, self.faults, self.alone = inner, faults, alone
        self.polls = 0
        self.requested: list[Request] = []

    @property
    def model(self) -> str:
        return self.inner.model

    @property
    def version(self) -> str:
        return self.inner.version

    @property
    def max_context_tokens(self) -> int | None:
        return self.inner.max_context_tokens

    def count_tokens(self, text: str) -> int:
        return self.inner.count_tokens(text)

    def session(self) -> "FlakySession":
        return FlakySession(self, self.inner.session())

    def close(self) -> None:
        self.inner.close()


class FlakySession:
    def __init__(self, engine: Flaky, inner: Session) -> None:
        self.engine, self.inner = engine, inner

    @property
    def outstanding(self) -> int:
        return self.inner.outstanding

    def submit(self, key: int, request: Request) -> None:
        self.engine.requested.append(request)
        self.inner.submit(key, request)

    def cancel(self, key: int) -> None:
        self.inner.cancel(key)

    def poll(self, timeout_s: float = 1.0) -> list[Finished]:
        self.engine.polls += 1
        fault = self.engine.faults.get(self.engine.polls)
        if fault is None:
            return self.inner.poll(timeout_s)
        if not self.engine.alone:
            raise fault
        assert isinstance(fault, ServingError)
        return [replace(done, error=fault) for done in self.inner.poll(timeout_s)]

    def close(self) -> None:
        self.inner.close()

    def __enter__(self) -> "FlakySession":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def test_every_draw_is_made_once_and_graded(engine, store):
    told: list[tuple[int, int]] = []
    made = sample(
        store,
        engine,
        PROBLEMS,
        progress=lambda *t: told.append(t),
        chunk_problems=2,
        **SETTINGS,
    )
    rows = store.samples()
    assert made == len(rows) == TOTAL
    assert not rows.duplicated(DRAW).any()
    assert told == [(i, TOTAL) for i in range(TOTAL + 1)]
    assert len(list((store.folder / "samples").glob("*.parquet"))) >= 4
    problems = {p.problem_id: p for p in PROBLEMS}
    for row in rows.itertuples():
        problem = problems[row.problem_id]
        grade = get_verifier(problem.verifier).grade(problem, row.text)
        assert (row.answer, row.correct) == (grade.answer, grade.correct)
        assert (row.model, row.machine, row.engine) == ("tiny", "abc", engine.version)
        assert 0 < row.ttft_s <= row.latency_s


def test_a_second_run_asks_for_nothing(engine, store):
    sample(store, engine, PROBLEMS, **SETTINGS)
    watched = Flaky(engine, {}, alone=False)
    assert sample(store, watched, PROBLEMS, **SETTINGS) == 0
    assert watched.requested == []


def test_more_draws_later_are_the_draws_of_one_run(engine, store, tmp_path):
    for n in (3, BLOCK, 10):
        sample(store, engine, PROBLEMS, **{**SETTINGS, "n_samples": n})
    at_once = Store(tmp_path / "at-once")
    sample(at_once, engine, PROBLEMS, chunk_problems=3, **SETTINGS)
    assert texts(store) == texts(at_once)


def test_other_settings_are_other_draws(engine, store):
    sample(store, engine, PROBLEMS, **SETTINGS)
    assert sample(store, engine, PROBLEMS, **{**SETTINGS, "max_tokens": 6}) == TOTAL
    assert sample(store, engine, PROBLEMS, **{**SETTINGS, "top_p": 0.95}) == TOTAL
    other = Flaky(engine, {}, alone=False)
    plan = SamplingPlan(
        problems=PROBLEMS, n_samples=10, temperatures=(0.7, 1.0), max_tokens=12, top_p=1.0,
        seed=3,
    )  # fmt: skip
    assert plan.missing_draws(store, "tiny") == 0
    assert plan.missing_draws(store, "another model") == plan.n_draws == TOTAL
    assert other.requested == []


@pytest.mark.parametrize("fault", [KeyboardInterrupt(), ServingError("gone", False)])
@pytest.mark.parametrize("poll", [1, 2, 5])
def test_a_run_cut_short_keeps_what_finished_and_goes_on(
    engine, store, tmp_path, fault, poll
):
    cut = Flaky(engine, {poll: fault}, alone=False)
    with pytest.raises(type(fault)):
        sample(store, cut, PROBLEMS, chunk_problems=1, **SETTINGS)
    kept = len(store.samples())
    assert (kept > 0) == (poll > 1)
    assert sample(store, engine, PROBLEMS, **SETTINGS) == TOTAL - kept
    whole = Store(tmp_path / "whole")
    sample(whole, engine, PROBLEMS, **SETTINGS)
    assert texts(store) == texts(whole)


@pytest.mark.parametrize("alone", [True, False])
def test_a_server_that_recovers_is_asked_again(engine, store, tmp_path, alone):
    waits: list[float] = []
    error = ServingError("busy", True)
    flaky = Flaky(engine, {2: error, 3: error, 9: error}, alone)
    settings = {**SETTINGS, "sleep": waits.append}
    assert sample(store, flaky, PROBLEMS, chunk_problems=1, **settings) == TOTAL
    assert waits
    assert min(waits) > 0
    whole = Store(tmp_path / "whole")
    sample(whole, engine, PROBLEMS, **SETTINGS)
    assert texts(store) == texts(whole)


@pytest.mark.parametrize("alone", [True, False])
def test_a_server_that_stays_down_ends_the_run(engine, store, alone):
    waits: list[float] = []
    down = Flaky(engine, dict.fromkeys(range(1, 10**4), ServingError("down", True)), alone)
    with pytest.raises(ServingError, match="down"):
        sample(store, down, PROBLEMS, **{**SETTINGS, "sleep": waits.append})
    assert waits == [0.5, 1.0, 2.0]
    assert store.samples().empty


MOST = 40  # draws of a problem, when drawing in rounds


def until(store: Store, engine: Engine, width: float, **changed: Any) -> list[Spending]:
    """Draw in rounds; what each round decided."""
    settings = {**SETTINGS, "n_samples": MOST, "temperatures": (0.0, 1.0), **changed}
    plan = SamplingPlan(
        problems=PROBLEMS,
        **{name: settings[name] for name in SamplingPlan.__dataclass_fields__
           if name in settings},
    )  # fmt: skip
    rounds: list[Spending] = []

    def draw(model: str, n_of: DrawsOf) -> int:
        return sample(store, engine, PROBLEMS, n_of=n_of, **settings)

    sample_until(
        store, plan, [engine.model], draw, ks=[1, 80], until_width=width,
        tell=lambda spending, total: rounds.append(spending),
    )  # fmt: skip
    return rounds


def test_rounds_end_when_the_interval_is_narrow(engine, store):
    loose = until(store, engine, 0.95)
    counts = store.samples().groupby(["temperature", "problem_id"]).size()
    assert loose[-1].reached
    assert set(counts[0.0]) == {1}  # greedy draws are all alike
    assert set(counts[1.0]) == {BLOCK}
    tight = until(store, engine, 1e-6)
    assert not tight[-1].reached
    assert len(tight) > 2
    counts = store.samples().groupby(["temperature", "problem_id"]).size()
    assert set(counts[1.0]) == {MOST}
    assert not store.samples().duplicated(DRAW).any()


@pytest.mark.parametrize("poll", [2, 6, 14])
def test_rounds_cut_short_go_on_and_repeat_nothing(engine, store, poll):
    cut = Flaky(engine, {poll: KeyboardInterrupt()}, alone=False)
    with pytest.raises(KeyboardInterrupt):
        until(store, cut, 1e-6, n_samples=24)
    kept = texts(store)
    until(store, engine, 1e-6, n_samples=24)
    whole = texts(store)
    assert kept.items() <= whole.items()
    assert not store.samples().duplicated(DRAW).any()
    assert 0 < len(kept) < len(whole)
    watched = Flaky(engine, {}, alone=False)
    until(store, watched, 1e-6, n_samples=24)
    assert watched.requested == []


def test_rounds_of_the_same_seed_are_the_same(engine, store, tmp_path):
    other = Store(tmp_path / "other")
    for where in (store, other):
        until(where, engine, 0.3, n_samples=24)
    assert texts(store) == texts(other)


def test_rounds_finish_a_block_that_was_begun(engine, store):
    sample(store, engine, PROBLEMS, **{**SETTINGS, "n_samples": 11, "temperatures": (1.0,)})
    until(store, engine, 0.95)
    assert set(store.samples().query("temperature > 0").groupby("problem_id").size()) == {
        16
    }


def test_rounds_that_cannot_end_well_are_refused_before_a_draw(engine, store):
    with pytest.raises(InputError, match="above 0"):
        until(store, engine, 0.1, temperatures=(0.0,))
    with pytest.raises(InputError, match="until_width"):
        until(store, engine, 1.5)
    assert store.samples().empty


def test_scores_belong_to_their_texts(engine, store):
    def length(prompts: Sequence[str], written: Sequence[str]) -> np.ndarray:
        return np.array(
            [len(p) * 1000.0 + len(t) for p, t in zip(prompts, written, strict=True)]
        )

    sample(store, engine, PROBLEMS, scorer=length, **SETTINGS)
    rows = store.samples()
    expected = rows["prompt"].str.len() * 1000.0 + rows["text"].str.len()
    assert rows["score"].tolist() == expected.tolist()


def test_unusable_problems_are_refused_before_a_draw(engine, store):
    watched = Flaky(engine, {}, alone=False)
    unknown = Problem(problem_id="x", task="t", prompt="A1+1:", verifier="nobody")
    for problems in ([*PROBLEMS, PROBLEMS[0]], [], [*PROBLEMS, unknown]):
        with pytest.raises(InputError):
            sample(store, watched, problems, **SETTINGS)
    assert watched.requested == []


def test_reference_problems_are_held_out_distinct_and_disjoint():
    counts = {"chain": 40, "countdown": 30, "retry": 30}
    first = reference_problems(1, counts)
    again = reference_problems(1, counts)
    fresh = reference_problems(1, counts, exclude=[p.prompt for p in first])
    assert first == again
    assert len({p.problem_id for p in first + fresh}) == 200
    assert [p.task for p in fresh] == [p.task for p in first]

    def key(problem: Problem) -> str:
        if problem.task == "chain":
            return problem.prompt
        numbers, target = problem.prompt[1:-1].split(">")
        return f"{sorted(map(int, numbers.split(',')))}>{target}"

    assert all(is_held_out(key(p)) for p in first + fresh)
    assert not {(p.task, key(p)) for p in first} & {(p.task, key(p)) for p in fresh}


def test_default_mix_spreads_all_of_a_count():
    assert level_counts("chain", 25) == {
        **dict.fromkeys(range(1, 6), 3),
        **dict.fromkeys(range(6, 11), 2),
    }
    assert sum(level_counts("retry", 7).values()) == 7


def test_a_level_that_runs_out_says_so():
    with pytest.raises(InputError, match="countdown at level 2 has"):
        reference_problems(0, {"countdown": {2: 1000}})
