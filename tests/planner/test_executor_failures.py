"""The executor when things go wrong: servers, deadlines, interrupts, and bad input."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest

from planner.executor import Executor
from planner.models.errors import InputError, NotMeasuredError, ServingError

_SPEC = importlib.util.spec_from_file_location(
    "scripted", Path(__file__).with_name("scripted.py")
)
assert _SPEC is not None
assert _SPEC.loader is not None
scripted = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(scripted)

COSTS = scripted.COSTS
ScriptedEngine = scripted.ScriptedEngine
ScriptedSession = scripted.ScriptedSession
always = scripted.always
check_books = scripted.check_books
coin = scripted.coin
digits = scripted.digits
executor = scripted.executor
option = scripted.option
problems = scripted.problems


def test_failed_attempts_are_retried_and_paid_for():
    busy = ServingError("busy", retryable=True)
    faults = {("q000:", 0): busy, ("q000:", 1): busy, ("q001:", 0): busy}
    engine = ScriptedEngine("m", lambda prompt, seed: "1", faults=faults)
    run, ledger = executor(engine, retries=2)
    results = run.run(problems(3), always(option()))
    assert [result.answer for result in results] == ["1"] * 3
    assert [result.draws for result in results] == [3, 2, 1]
    assert [len(result.samples) for result in results] == [1, 1, 1]
    one = COSTS.of_draw(6, 2)  # a failed attempt had two tokens, like a whole draw
    assert [result.cost.tokens for result in results] == [3 * one.tokens, 2 * one.tokens, 8]
    assert len({request.seed for request in engine.requests}) == 3
    check_books(results, ledger)


def test_a_draw_given_up_leaves_the_others():
    busy = ServingError("busy", retryable=True)
    engine = ScriptedEngine("m", lambda prompt, seed: "1", faults={("q000:", 0): busy})
    run, ledger = executor(engine, retries=0)
    results = run.run(problems(2), always(option("self_consistency", 3)))
    # every first attempt of q0 fails, so each of its draws is given up
    assert [result.status for result in results] == ["unanswered", "answered"]
    assert results[0].draws == 3
    check_books(results, ledger)


def test_an_error_of_one_prompt_ends_that_prompt_alone():
    bad = ServingError("the prompt is refused")
    engine = ScriptedEngine("m", lambda p, s: "11", faults={("q001:", 0): bad})
    run, _ = executor(engine)
    results = run.run(problems(3), always(option("self_consistency", 3)))
    assert results[1].status == "unanswered"
    assert results[1].stopped == "the prompt is refused"
    assert results[1].draws == 1
    assert [result.stopped for result in results] == ["", "the prompt is refused", ""]


def test_an_engine_that_fails_whatever_is_asked_is_an_error():
    engine = ScriptedEngine("m", lambda p, s: "11", faults={"all": ServingError("no key")})
    run, ledger = executor(engine)
    with pytest.raises(ServingError, match="no key"):
        run.run(problems(2), always(option()))
    assert [result.status for result in run.results] == ["unanswered"] * 2
    check_books(run.results, ledger)


def test_an_engine_that_dies_midway_does_not_eat_all_prompts():
    engine = ScriptedEngine("m", lambda prompt, seed: "1")
    run, ledger = executor(engine, retries=1, max_in_flight=20)

    def choose(problem, remaining, left):
        if left == 950:
            engine.faults["all"] = ServingError("gone", retryable=True)
        return option()

    with pytest.raises(ServingError, match="gone"):
        run.run(problems(1000), choose)
    answered = sum(result.status == "answered" for result in run.results)
    assert 30 <= answered <= 51
    assert len(run.results) < 120
    check_books(run.results, ledger)


def test_a_session_that_breaks_is_paid_at_the_worst_case_and_replaced():
    class Breaking(ScriptedSession):
        def poll(self, timeout_s=1.0):
            if len(self.engine.opened) == 1 and self.running[0].tokens == 1:
                raise ServingError("connection lost", retryable=True)
            return super().poll(timeout_s)

    engine = ScriptedEngine("m", lambda prompt, seed: "1")
    engine.session = lambda: engine.opened.append(Breaking(engine)) or engine.opened[-1]
    run, ledger = executor(engine)
    results = run.run(problems(3), always(option(max_tokens=9)))
    assert [result.answer for result in results] == ["1"] * 3
    assert ledger.spent.tokens == 3 * (6 + 9) + 3 * (6 + 2)
    assert len(engine.opened) == 2
    check_books(results, ledger)


def test_interrupt_settles_everything_and_keeps_the_results():
    class Interrupting(ScriptedSession):
        def poll(self, timeout_s=1.0):
            ended = super().poll(timeout_s)
            if len(self.keys) > 30 and self.engine.script is digits:
                self.engine.script = coin
                self.ended = ended  # what had ended is not lost
                raise KeyboardInterrupt
            return ended

    engine = ScriptedEngine("m", digits)
    engine.session = lambda: engine.opened.append(Interrupting(engine)) or engine.opened[-1]
    run, ledger = executor(engine, max_in_flight=10)
    with pytest.raises(KeyboardInterrupt):
        run.run(problems(200), always(option("self_consistency", 3)))
    assert 0 < len(run.results) < 200
    assert ledger.cancelled_draws > 0
    assert ledger.cancelled_cost.tokens == engine.cancelled_tokens
    assert sum(
        row.finish_reason == "cancelled" for r in run.results for row in r.samples
    ) == (ledger.cancelled_draws)
    assert any(result.stopped == "interrupted" for result in run.results)
    assert engine.opened[0].closed
    check_books(run.results, ledger)


def test_deadline_answers_with_what_is_there():
    engine = ScriptedEngine("m", lambda prompt, seed: "1" * (seed % 40))
    ticks = iter(range(10**6))
    run, ledger = executor(
        engine, deadline_s=60.0, clock=lambda: float(next(ticks)), max_in_flight=8
    )
    results = run.run(problems(500), always(option("self_consistency", 4, max_tokens=50)))
    assert len(results) == 500
    assert results[-1].status == "unanswered"
    assert results[-1].stopped == "deadline"
    assert results[-1].draws == 0
    assert any(r.status == "answered" and r.stopped == "deadline" for r in results)
    assert ledger.cancelled_draws > 0
    assert ledger.cancelled_cost.tokens == engine.cancelled_tokens
    check_books(results, ledger)


def test_cancelled_draws_are_rows_without_an_answer():
    engine = ScriptedEngine("m", lambda prompt, seed: "1" * 30)
    ticks = iter(range(10**6))
    run, ledger = executor(engine, deadline_s=20.0, clock=lambda: float(next(ticks)))
    (result,) = run.run(problems(1), always(option(max_tokens=50)))
    (row,) = result.samples
    assert (row.finish_reason, row.answer, row.correct) == ("cancelled", "", False)
    assert result.cancelled_draws == ledger.cancelled_draws == 1
    assert result.cost.tokens == row.prompt_tokens + row.output_tokens > 0
    assert result.status == "unanswered"


def test_an_engine_that_counts_too_few_tokens_is_noticed(caplog):
    engine = ScriptedEngine("m", lambda prompt, seed: "1", undercount=30)
    run, ledger = executor(engine, budget="1000 tokens", max_in_flight=1)
    results = run.run(problems(50), always(option(max_tokens=2)))
    assert ledger.overrun == 30  # the first draw; later ones reserve for it
    assert ledger.spent.tokens <= 1000
    assert sum("more than" in record.message for record in caplog.records) == 1
    check_books(results, ledger)


def test_mistakes_are_said_before_money_is_spent():
    engine = ScriptedEngine("m", digits)
    run, ledger = executor(engine)
    with pytest.raises(InputError, match="no engine serves model 'x'; served are: m"):
        run.run(problems(1), always(option(model="x")))
    with pytest.raises(InputError, match="needs a scored verifier"):
        run.run(problems(1), always(option("best_of_n_scored", 2)))
    with pytest.raises(InputError, match="best_of_n needs a verifier"):
        run.run(problems(1), always(option("best_of_n", 2)))
    with pytest.raises(InputError, match="verifier 'nobody' is not known"):
        run.run(problems(1, verifier="nobody"), always(option()))
    with pytest.raises(InputError, match="cannot read the prompt"):
        run.run([*problems(3), *problems(1, verifier="chain")], always(option()))
    assert (ledger.draws, engine.requests) == (0, [])
    with pytest.raises(InputError, match="no cost model"):
        Executor(engines={"m": engine}, cost_models={}, ledger=ledger)
    with pytest.raises(InputError, match="max_in_flight"):
        executor(engine, max_in_flight=0)


def test_a_budget_in_a_unit_the_model_has_no_price_for():
    run, ledger = executor(
        ScriptedEngine("m", digits), budget="1 usd", costs=replace(COSTS, prices=None)
    )
    with pytest.raises(NotMeasuredError, match="usd"):
        run.run(problems(1), always(option()))
    assert (ledger.draws, ledger.reserved) == (0, 0)


def test_a_context_too_short_for_the_cap_shortens_it():
    engine = ScriptedEngine("m", lambda prompt, seed: "1" * 30)
    engine.max_context_tokens = 12
    run, _ = executor(engine)
    (result,) = run.run(problems(1), always(option()))
    assert (result.samples[0].max_tokens, result.samples[0].output_tokens) == (6, 6)
    engine.max_context_tokens = 6
    with pytest.raises(InputError, match="its prompt has 6 tokens"):
        run.run(problems(1), always(option()))
