"""What every engine promises, asked of every engine that can run here.

A new engine passes these by being listed in ENGINES of conftest.py.
"""

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from scipy.stats import chi2_contingency

from planner.engines.base import Draw, Engine, Finished, Request, StepTimer, draw_all
from planner.models.errors import InputError, NotMeasuredError

PROMPT, OTHER = "C3,7,12>24:", "A037+8*4-21:"
MAX_TOKENS = 24
ALPHA = 1e-4  # of each comparison with the embedded engine


def ask(
    prompt: str = PROMPT, n: int = 1, max_tokens: int = MAX_TOKENS, **more: object
) -> Request:
    return Request(prompt=prompt, n=n, max_tokens=max_tokens, **more)  # type: ignore[arg-type]


def draws_of(engine: Engine, request: Request) -> list[Draw]:
    return draw_all(engine, [request])[0]


def texts(draws: list[Draw]) -> list[str]:
    return [draw.text for draw in draws]


@pytest.fixture
def honours(engine: Engine, engine_kind: str) -> Callable[[Request], bool]:
    """Whether the engine honours a request; a replay may not, but must say so."""

    def check(request: Request) -> bool:
        if engine_kind != "recorded":
            return True
        with engine.session() as session, pytest.raises((InputError, NotMeasuredError)):
            session.submit(0, request)
        return False

    return check


def test_it_is_an_engine(engine: Engine) -> None:
    assert isinstance(engine, Engine)
    assert engine.model == "random"
    assert engine.version
    assert engine.max_context_tokens in (None, 256)


def test_n_draws_come_each_once_and_whole(engine: Engine) -> None:
    seen: list[Finished] = []
    with engine.session() as session:
        session.submit(3, ask(n=5))
        session.submit(8, ask(OTHER, n=2))
        assert session.outstanding == 7
        while session.outstanding:
            seen += session.poll(0.5)
        assert session.poll(0.01) == []
    assert sorted((done.key, done.index) for done in seen) == [
        (3, 0), (3, 1), (3, 2), (3, 3), (3, 4), (8, 0), (8, 1),
    ]  # fmt: skip
    for done in seen:
        prompt = PROMPT if done.key == 3 else OTHER
        assert done.error is None
        assert done.draw.finish_reason in ("stop", "length")
        assert done.draw.prompt_tokens == engine.count_tokens(prompt) == len(prompt) + 1
        assert 0 <= done.draw.ttft_s <= done.draw.latency_s
        assert done.draw.logprobs is None


def test_max_tokens_is_kept_and_an_end_is_told_from_a_cut(engine: Engine) -> None:
    draws = draws_of(engine, ask(n=40))
    assert {draw.finish_reason for draw in draws} == {"stop", "length"}
    for draw in draws:
        assert 1 <= draw.output_tokens <= MAX_TOKENS
        if draw.finish_reason == "length":
            assert draw.output_tokens == MAX_TOKENS
        assert (
            len(draw.text) <= draw.output_tokens
        )  # a character a token, special ones none
        assert "<" not in draw.text


def test_greedy_is_the_same_every_time_and_everywhere(
    engine: Engine, embedded: Engine
) -> None:
    first, second = draws_of(engine, ask(n=2, temperature=0.0))
    expected = draws_of(embedded, ask(temperature=0.0))[0]
    assert first.text == second.text == expected.text
    assert first.finish_reason == expected.finish_reason
    assert first.output_tokens == expected.output_tokens


def test_a_seed_gives_the_same_draws_whatever_else_runs(engine: Engine) -> None:
    request = ask(n=4, seed=7)
    alone = draws_of(engine, request)
    in_company = draw_all(engine, [ask(OTHER, n=9, seed=1), request, ask(OTHER, n=3)])[1]
    assert texts(alone) == texts(in_company)
    assert [draw.output_tokens for draw in alone] == [d.output_tokens for d in in_company]
    assert len(set(texts(alone))) > 1
    assert texts(draws_of(engine, ask(n=4, seed=8))) != texts(alone)


def test_more_draws_of_a_seed_begin_with_the_fewer(engine: Engine) -> None:
    few, many = draws_of(engine, ask(n=2, seed=3)), draws_of(engine, ask(n=6, seed=3))
    assert texts(many)[:2] == texts(few)


def test_a_stop_string_ends_a_draw_and_is_left_out(
    engine: Engine, embedded: Engine, honours: Callable[[Request], bool]
) -> None:
    whole = draws_of(embedded, ask(temperature=0.0, max_tokens=64))[0].text
    stop = whole[4:6]
    request = ask(temperature=0.0, max_tokens=64, stop=("@", stop))
    if not honours(request):
        return
    draw = draws_of(engine, request)[0]
    assert draw.text == whole[: whole.index(stop)]
    assert draw.finish_reason == "stop"
    assert draw.output_tokens >= whole.index(stop) + 1


def test_logprobs_are_those_of_the_model_at_temperature_one(
    engine: Engine, embedded: Engine, honours: Callable[[Request], bool]
) -> None:
    for temperature in (0.0, 0.7):
        request = ask(n=3, temperature=temperature, seed=2, logprobs=True)
        if not honours(request):
            return
        for draw in draws_of(engine, request):
            assert draw.logprobs is not None
            assert len(draw.logprobs) == draw.output_tokens
            assert max(draw.logprobs) <= 1e-6
            if temperature == 0:
                expected = draws_of(embedded, request)[0].logprobs
                np.testing.assert_allclose(draw.logprobs, expected, atol=1e-3)


def test_top_p_keeps_the_likeliest_tokens_only(
    engine: Engine, honours: Callable[[Request], bool]
) -> None:
    request = ask(n=8, top_p=1e-6)  # the likeliest token alone: greedy by another name
    if honours(request):
        greedy = draws_of(engine, ask(temperature=0.0))[0].text
        assert set(texts(draws_of(engine, request))) == {greedy}


def test_cancelled_draws_come_back_with_the_tokens_they_had(
    engine: Engine, engine_kind: str
) -> None:
    longest = MAX_TOKENS if engine_kind == "recorded" else 200
    with engine.session() as session:
        session.submit(0, ask(n=32, max_tokens=longest))
        ended: list[Finished] = []
        while len(ended) < 8:  # by then the others are under way too
            ended += session.poll(30)
        session.submit(1, ask(OTHER, n=2))
        session.cancel(0)
        session.cancel(77)
        while session.outstanding:
            ended += session.poll(0.5)
        session.cancel(0)
        assert session.outstanding == 0
    first = [done.draw for done in ended if done.key == 0]
    cancelled = [draw for draw in first if draw.finish_reason == "cancelled"]
    assert len(first) == 32
    assert len(cancelled) > 0
    assert sum(draw.output_tokens for draw in cancelled) > 0
    assert max(draw.output_tokens for draw in cancelled) <= longest
    assert all(draw.ttft_s <= draw.latency_s for draw in cancelled)
    others = [done.draw for done in ended if done.key == 1]
    assert [draw.finish_reason in ("stop", "length") for draw in others] == [True, True]


def test_what_cannot_be_served_is_refused(engine: Engine, engine_kind: str) -> None:
    with engine.session() as session:
        session.submit(0, ask())
        with pytest.raises(InputError):
            session.submit(0, ask())
        if engine_kind == "recorded":
            with pytest.raises(NotMeasuredError, match="not recorded"):
                session.submit(1, ask("R1,2>3:"))
        elif engine_kind in ("openai", "vllm-server"):
            session.submit(1, ask(max_tokens=1000))  # only the server knows
            ended = []
            while session.outstanding:
                ended += session.poll(0.5)
            errors = [done.error for done in ended if done.key == 1]
            assert errors[0] is not None
            assert not errors[0].retryable
        else:
            with pytest.raises(InputError, match="256"):
                session.submit(1, ask(max_tokens=1000))
    with pytest.raises(InputError):
        session.submit(2, ask())


def test_leaving_a_session_drops_what_runs(engine: Engine) -> None:
    with engine.session() as session:
        session.submit(0, ask(n=6))
    session.close()
    assert session.outstanding == 0
    assert len(draws_of(engine, ask(n=2))) == 2  # and the engine goes on


def test_draws_agree_in_distribution_with_the_embedded_engine(
    engine: Engine, engine_kind: str, embedded: Engine
) -> None:
    if engine_kind == "embedded":
        pytest.skip("it is the reference")
    expected = draws_of(embedded, ask(n=2000, seed=123456))
    # several seeds, so that correlated seeds would show too
    each = 250 if engine_kind in ("transformers", "vllm") else 75
    parts = draw_all(engine, [ask(n=each, seed=i) for i in range(4)])
    got = [draw for part in parts for draw in part]
    starts = [[draw.text[:1] for draw in draws] for draws in (expected, got)]
    lengths = [[draw.output_tokens // 4 for draw in draws] for draws in (expected, got)]
    assert same_distribution(*starts) > ALPHA
    assert same_distribution(*lengths) > ALPHA


def test_transformers_spends_the_random_numbers_of_the_embedded_engine(
    engine: Engine, engine_kind: str, embedded: Engine
) -> None:
    if engine_kind != "transformers":
        pytest.skip("others have generators of their own")
    request = ask(n=100, seed=0, temperature=0.8, top_p=0.95)
    both = texts(draws_of(engine, request)), texts(draws_of(embedded, request))
    same = [first == second for first, second in zip(*both, strict=True)]
    assert sum(same) >= 95  # rounding may part a few


def same_distribution(first: Sequence[object], second: Sequence[object]) -> float:
    """P-value of a chi-square test that two samples share a distribution."""
    counts = [Counter(first), Counter(second)]
    values = [v for v in counts[0] | counts[1] if sum(c[v] for c in counts) >= 30]
    table = [
        [c[v] for v in values] + [c.total() - sum(c[v] for v in values)] for c in counts
    ]
    filled = np.array(table)[:, np.sum(table, axis=0) > 0]
    assert filled.shape[1] > 2
    return float(chi2_contingency(filled).pvalue)


def test_steps_can_be_timed_where_the_engine_says_so(engine: Engine) -> None:
    if not isinstance(engine, StepTimer):
        pytest.skip("not a StepTimer")
    for seconds in (engine.time_prefill(2, 16, 3), engine.time_decode(4, 32, 3)):
        assert len(seconds) == 3
        assert min(seconds) > 0
