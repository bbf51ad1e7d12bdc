"""The executor keeps to the budget, answers as strategies say, and repeats itself."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.engines.base import Engine, Session
from planner.engines.embedded import EmbeddedEngine
from planner.limits import Budget
from planner.models.errors import ServingError
from planner.prompt_run import draw_seed

_SPEC = importlib.util.spec_from_file_location(
    "scripted", Path(__file__).with_name("scripted.py")
)
assert _SPEC is not None
assert _SPEC.loader is not None
scripted = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(scripted)

COSTS = scripted.COSTS
ScriptedEngine = scripted.ScriptedEngine
always = scripted.always
check_books = scripted.check_books
coin = scripted.coin
countdowns = scripted.countdowns
digits = scripted.digits
executor = scripted.executor
option = scripted.option
problems = scripted.problems
stripped = scripted.stripped

UNIT_BUDGETS = {
    "tokens": 1,
    "s": 1e-3,
    "usd": 1e-6,
    "flop": 2e6,
    "bytes": 1e6,
    "eflop": 1e7,
}


def test_the_test_engine_is_an_engine():
    engine = ScriptedEngine("m", digits)
    assert isinstance(engine, Engine)
    session: Session = engine.session()
    assert session.outstanding == 0


def test_answers_in_order_with_rows_and_costs():
    engine = ScriptedEngine("m", lambda prompt, seed: prompt[3])
    run, ledger = executor(engine, machine="box")
    told, seen = [], []
    results = run.run(
        problems(7),
        always(option()),
        progress=lambda *done: told.append(done),
        ended=seen.append,
    )
    assert [result.problem_id for result in results] == [f"p{i}" for i in range(7)]
    assert [result.answer for result in results] == list("0123456")
    assert seen == results
    assert [result.correct for result in results] == [i == 1 for i in range(7)]
    assert told == [(i + 1, 7) for i in range(7)]
    assert results == run.results
    (row,) = results[3].samples
    assert (row.text, row.answer, row.correct, row.draw) == ("3", "3", False, 0)
    assert (row.prompt_tokens, row.output_tokens, row.source) == (6, 2, "measured")
    assert (row.engine, row.machine, row.max_tokens) == ("scripted 1", "box", 16)
    assert row.seed == engine.requests[3].seed == draw_seed(0, "p3", "m", 0)
    assert results[3].cost == COSTS.of_draw(6, 2)
    assert all(session.closed for session in engine.opened)
    check_books(results, ledger)


@given(
    unit=st.sampled_from(sorted(UNIT_BUDGETS)),
    amount=st.floats(1, 4000),
    strategy=st.sampled_from(["single", "best_of_n_scored", "self_consistency"]),
    n=st.integers(1, 6),
    count=st.integers(1, 12),
    max_tokens=st.integers(1, 14),
    in_flight=st.integers(1, 40),
    seed=st.integers(0, 2**32),
    faulty=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_no_budget_is_ever_crossed(
    unit, amount, strategy, n, count, max_tokens, in_flight, seed, faulty
):
    fault = ServingError("busy", retryable=True)
    faults = {
        (f"q{i:03d}:", attempt): fault for i in range(0, 12, 3) for attempt in range(2)
    }
    engine = ScriptedEngine("m", digits, faults=faults if faulty else None)
    budget = Budget(amount * UNIT_BUDGETS[unit], unit)
    run, ledger = executor(
        engine, budget=budget, max_in_flight=in_flight, seed=seed,
        scorer=lambda prompts, texts: np.array([float(len(text)) for text in texts]),
    )  # fmt: skip
    seen = []

    def choose(problem, remaining, left):
        seen.append((remaining, left))
        return option(strategy, 1 if strategy == "single" else n, max_tokens=max_tokens)

    results = run.run(problems(count), choose)
    assert ledger.spent.in_unit(unit) <= budget.total
    assert ledger.overrun == 0
    assert [left for _, left in seen] == list(range(count, 0, -1))
    assert all(0 <= remaining <= budget.total for remaining, _ in seen)
    assert all(session.most <= in_flight for session in engine.opened)
    assert [result.problem_id for result in results] == [f"p{i}" for i in range(count)]
    for result in results:
        assert (result.status == "unanswered") == (result.text == "")
        assert result.draws <= 3 * result.option.n
    check_books(results, ledger)


def test_a_binding_budget_is_used_up_to_the_last_draw_that_fits():
    engine = ScriptedEngine("m", lambda prompt, seed: "11")  # costs 6 + 3 tokens
    run, ledger = executor(engine, budget="120 tokens")
    results = run.run(problems(40), always(option(max_tokens=10)))  # may cost 16
    answered = [result.status == "answered" for result in results]
    assert answered == [True] * 12 + [False] * 28  # 11 x 9 leaves 21, 12 x 9 leaves 12
    assert ledger.spent.tokens == 12 * 9
    assert {result.stopped for result in results[12:]} == {"budget"}


def test_a_cheaper_prompt_may_still_fit():
    engine = ScriptedEngine("m", lambda prompt, seed: "1")
    run, _ = executor(engine, budget="20 tokens")
    options = [option(max_tokens=100), option(max_tokens=5)]
    results = run.run(problems(2), lambda problem, *_: options[int(problem.prompt[3])])
    assert [result.status for result in results] == ["unanswered", "answered"]


def test_best_of_n_stops_at_a_verified_draw():
    engine = ScriptedEngine("m", coin)
    run, ledger = executor(engine)
    results = run.run(countdowns(60), always(option("best_of_n", 8)))
    for result in results:
        right = [row.correct for row in result.samples]
        assert result.draws == (right.index(True) + 1 if True in right else 8)
        assert result.confidence == (1.0 if True in right else 0.0)
        assert result.correct is (True in right)
    assert sum(result.correct for result in results) >= 57  # 1 - 2**-8 each
    assert ledger.cancelled_draws == 0  # one at a time wastes none
    check_books(results, ledger)


def test_votes_stop_early():
    engine = ScriptedEngine("m", lambda prompt, seed: "1")
    run, _ = executor(engine)
    (result,) = run.run(problems(1), always(option("self_consistency", 64)))
    assert result.draws == 4  # 1 - 2**-5 > 0.95
    assert 0.95 <= result.confidence < 1


def test_scored_draws_start_together_and_are_scored_together():
    engine = ScriptedEngine("m", digits)
    calls = []

    def scorer(prompts, texts):
        calls.append(list(zip(prompts, texts, strict=True)))
        return np.array([float(text.count("2")) for text in texts])

    run, _ = executor(engine, scorer=scorer)
    results = run.run(problems(5), always(option("best_of_n_scored", 6)))
    assert len(calls) == 5
    for result in results:
        scores = [row.text.count("2") for row in result.samples]
        assert [row.score for row in result.samples] == scores
        usable = [(row.score, -row.draw) for row in result.samples if row.text]
        assert result.text == result.samples[-max(usable)[1]].text
    assert engine.opened[0].most == 30


def test_the_reference_decides_nothing():
    def answers(reference):
        run, _ = executor(ScriptedEngine("m", digits), budget="3000 tokens")
        results = run.run(
            problems(30, reference=reference), always(option("self_consistency", 5))
        )
        return [(r.text, r.confidence, r.draws) for r in results], results

    with_reference, graded = answers("1")
    without, ungraded = answers("")
    assert with_reference == without
    assert {result.correct for result in graded} <= {True, False}
    assert {result.correct for result in ungraded} == {None}
    assert not any(result.samples for result in ungraded)  # a row says right or wrong
    assert all(result.samples for result in graded if result.draws)


@pytest.mark.parametrize("strategy", ["single", "self_consistency", "best_of_n_scored"])
def test_the_same_seed_gives_the_same_results(strategy):
    def results(seed, in_flight):
        run, _ = executor(
            ScriptedEngine("a", digits), ScriptedEngine("b", digits), seed=seed,
            max_in_flight=in_flight,
            scorer=lambda prompts, texts: np.array([float(len(text)) for text in texts]),
        )  # fmt: skip
        n = 1 if strategy == "single" else 5
        return stripped(
            run.run(
                problems(20), lambda p, *_: option(strategy, n, "ab"[int(p.prompt[3]) % 2])
            )
        )

    assert results(1, 256) == results(1, 256)
    assert results(1, 256) == results(1, 3)  # whatever runs at once
    assert [r.text for r in results(1, 256)] != [r.text for r in results(2, 256)]


def test_draws_have_seeds_of_their_own():
    cases = [
        (s, p, m, d) for s in (0, 1) for p in ("a", "b") for m in "xy" for d in range(9)
    ]
    seeds = {draw_seed(*case) for case in cases}
    assert len(seeds) == len(cases)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_remaining_leaves_running_prompts_their_share():
    seen = []

    def choose(problem, remaining, left):
        seen.append(remaining / left)
        return option()

    run, _ = executor(ScriptedEngine("m", lambda p, s: "1"), budget="400 tokens")
    run.run(problems(10), choose)
    assert seen == [pytest.approx(40)] * 10  # all start before any ends


def test_no_problems():
    run, _ = executor(ScriptedEngine("m", digits))
    assert run.run([], always(option())) == []


@pytest.fixture
def embedded(tiny_model):
    return EmbeddedEngine("m", tiny_model())


@pytest.mark.parametrize("strategy", ["best_of_n", "self_consistency", "best_of_n_scored"])
def test_the_embedded_engine_within_a_binding_budget(embedded, strategy):
    def once():
        run, ledger = executor(
            embedded, budget="8e7 eflop", seed=3, max_in_flight=32,
            scorer=lambda prompts, texts: np.array([float(len(text)) for text in texts]),
        )  # fmt: skip
        results = run.run(countdowns(24), always(option(strategy, 6, max_tokens=24)))
        assert ledger.spent.eflop <= 8e7
        assert ledger.overrun == 0
        check_books(results, ledger)
        for result in results:
            tokens = [row.prompt_tokens + row.output_tokens for row in result.samples]
            assert result.cost.tokens == sum(tokens)
        return results

    first, second = once(), once()
    assert {result.status for result in first} == {"answered", "unanswered"}

    def untimed(results):
        rows = [[replace(s, measured_at="", ttft_s=0, latency_s=0) for s in r.samples]
                for r in results]  # fmt: skip
        return [
            (r.answer, r.confidence, r.cost, row)
            for r, row in zip(results, rows, strict=True)
        ]

    assert untimed(first) == untimed(second)
