"""The embedded engine: what a session promises, and that its draws have the right odds."""

import numpy as np
import pytest

import planner
from planner.calibration.reference.tasks import BOS, EOS, VOCABULARY
from planner.engines.base import Engine, Request, StepTimer, draw_all
from planner.engines.embedded import UNSCORABLE, EmbeddedEngine, EmbeddedScorer
from planner.engines.llama import Llama
from planner.models.errors import InputError

Z = 4.5  # standard errors a Monte Carlo mean may be off: one run in 150 000 by chance
PROMPTS = ("A1+2:", "C3,7,12>24:", "R3,7>10:", "A037+8*4-21:", "C2,2>4:")
TEXT = {i: token for token, i in VOCABULARY.items()}


@pytest.fixture
def folder(tiny_model):
    return tiny_model(sharpness=1.5)


@pytest.fixture
def engine(folder):
    return EmbeddedEngine("tiny", folder)


def encoded(text):
    return [BOS, *(VOCABULARY[character] for character in text)]


def texts(draws):
    return [draw.text for draw in draws]


def logits_after(folder, ids):
    llama = Llama.load(folder)
    return (llama.hidden(np.array([ids])) @ llama.head)[0, -1].astype(float)


def softmax(logits):
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def test_is_an_engine_and_a_step_timer(engine):
    assert isinstance(engine, Engine)
    assert isinstance(engine, StepTimer)
    assert engine.version == f"embedded {planner.__version__}"
    assert (engine.model, engine.max_context_tokens) == ("tiny", 256)
    assert engine.count_tokens("A1+2:") == 6


def test_greedy_is_the_argmax_of_recomputed_logits(folder, engine):
    for prompt in PROMPTS[:2]:
        request = Request(prompt=prompt, temperature=0, max_tokens=12)
        ((draw,),) = draw_all(engine, [request])
        ids = encoded(prompt)
        for _ in range(draw.output_tokens):
            ids.append(int(logits_after(folder, ids).argmax()))
        made = ids[len(encoded(prompt)) :]
        ended = made[-1] == EOS
        assert ended or len(made) == 12
        assert draw.finish_reason == ("stop" if ended else "length")
        assert draw.text == "".join(TEXT.get(i, "") for i in made if i > EOS)


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (1.3, 0.6)])
def test_first_tokens_have_the_right_odds(folder, engine, temperature, top_p):
    n = 4000
    request = Request(
        prompt="A1+2:", n=n, max_tokens=1, temperature=temperature, top_p=top_p, seed=5
    )
    (draws,) = draw_all(engine, [request])
    odds = softmax(logits_after(folder, encoded("A1+2:")) / temperature)
    order = np.argsort(-odds)
    kept = order[: np.searchsorted(odds[order].cumsum(), top_p) + 1]
    odds = np.where(np.isin(np.arange(len(odds)), kept), odds, 0)
    odds /= odds.sum()
    found = texts(draws)
    for token, i in VOCABULARY.items():
        if i <= EOS:
            continue
        share = found.count(token) / n
        error = np.sqrt(odds[i] * (1 - odds[i]) / n)
        assert abs(share - odds[i]) <= Z * error, token
    ended = sum(draw.finish_reason == "stop" for draw in draws) / n
    assert abs(ended - odds[EOS]) <= Z * np.sqrt(odds[EOS] * (1 - odds[EOS]) / n)


def test_later_tokens_have_the_right_odds(folder, engine):
    """The second token given the first, through the cache."""
    request = Request(prompt="A1+2:", n=6000, max_tokens=2, seed=11)
    (draws,) = draw_all(engine, [request])
    first = max("0123456789+-*=", key=lambda c: sum(d.text.startswith(c) for d in draws))
    followed = [draw for draw in draws if draw.text.startswith(first)]
    n, odds = len(followed), softmax(logits_after(folder, encoded("A1+2:" + first)))
    assert n > 200
    for token, i in VOCABULARY.items():
        if i > EOS:
            share = sum(draw.text == first + token for draw in followed) / n
            assert abs(share - odds[i]) <= Z * np.sqrt(odds[i] * (1 - odds[i]) / n), token


def test_a_seed_fixes_the_draws_whatever_else_runs(folder):
    probe = Request(prompt="A1+2:", n=5, max_tokens=30, seed=7)
    (alone,) = draw_all(EmbeddedEngine("tiny", folder), [probe])
    others = [Request(prompt=p, n=20, max_tokens=25, seed=i) for i, p in enumerate(PROMPTS)]
    crowd = [*others, probe, *others]
    for max_batch, threads in [(256, 1), (256, 3), (24, 1), (1, 1)]:
        engine = EmbeddedEngine("tiny", folder, max_batch=max_batch, threads=threads)
        draws = draw_all(engine, crowd if max_batch > 1 else [probe])
        assert texts(draws[5 if max_batch > 1 else 0]) == texts(alone)
        engine.close()
    assert len(set(texts(alone))) > 1
    other_seed = Request(prompt="A1+2:", n=5, max_tokens=30, seed=8)
    assert texts(draw_all(EmbeddedEngine("tiny", folder), [other_seed])[0]) != texts(alone)


def test_every_draw_comes_back_once_in_a_small_batch(folder):
    engine = EmbeddedEngine("tiny", folder, max_batch=6)
    with engine.session() as session:
        for key, prompt in enumerate(PROMPTS):
            session.submit(key, Request(prompt=prompt, n=7, max_tokens=20, seed=key))
        assert session.outstanding == 35
        seen = []
        while session.outstanding:
            assert session.outstanding == 35 - len(seen)
            seen += [(done.key, done.index) for done in session.poll()]
    assert sorted(seen) == [(key, index) for key in range(5) for index in range(7)]


def test_memory_stays_bounded(folder):
    engine = EmbeddedEngine("tiny", folder, max_batch=16)
    with engine.session() as session:
        for key in range(60):
            prompt = PROMPTS[key % 5]
            session.submit(
                key, Request(prompt=prompt, n=1 + key % 4, max_tokens=60, seed=key)
            )
        while session.outstanding:
            session.poll(timeout_s=0)
            rows = sum(block.kv.shape[2] for block in session._blocks)
            assert sum(block.rows for block in session._blocks) <= 16
            assert rows <= 32
            assert len(session._blocks) <= 16


def test_requests_may_join_while_others_run(engine, folder):
    late = Request(prompt="A1+2:", n=3, max_tokens=25, seed=3)
    (alone,) = draw_all(EmbeddedEngine("tiny", folder), [late])
    found = {}
    with engine.session() as session:
        session.submit(0, Request(prompt="C2,2>4:", n=30, max_tokens=60, seed=1))
        for _ in range(5):
            session.poll(timeout_s=0)
        session.submit(1, late)
        while session.outstanding:
            found |= {done.index: done.draw for done in session.poll() if done.key == 1}
    assert texts(found[i] for i in range(3)) == texts(alone)


def test_a_stop_string_ends_the_draw_and_is_left_out(engine):
    free = Request(prompt="A1+2:", n=60, max_tokens=40, seed=2)
    (whole,) = draw_all(engine, [free])
    stop = ("+", "-1", *(f"{digit}+" for digit in "0123456789"))  # two end in one
    held = Request(prompt="A1+2:", n=60, max_tokens=40, seed=2, stop=stop)
    (cut,) = draw_all(engine, [held])
    for before, after in zip(whole, cut, strict=True):
        ends = [before.text.find(s) + len(s) for s in stop if s in before.text]
        if not ends:
            assert (after.text, after.output_tokens) == (before.text, before.output_tokens)
            continue
        complete = before.text[: min(ends)]  # up to the first stop string to be complete
        found = min(complete.find(s) for s in stop if s in complete)
        assert after.text == before.text[:found]
        assert after.finish_reason == "stop"
        assert after.output_tokens >= min(ends)
    assert texts(whole) != texts(cut)


def test_counts_and_reasons(engine):
    (draws,) = draw_all(engine, [Request(prompt="A1+2:", n=200, max_tokens=20, seed=4)])
    reasons = {draw.finish_reason for draw in draws}
    assert reasons == {"stop", "length"}
    for draw in draws:
        assert draw.prompt_tokens == 6
        if draw.finish_reason == "length":
            assert draw.output_tokens == 20
        else:  # the end-of-sequence token counts; pad and BOS have no text
            assert len(draw.text) + 1 <= draw.output_tokens <= 20
        assert 0 < draw.ttft_s <= draw.latency_s
        assert draw.logprobs is None


def test_logprobs_are_those_of_temperature_one(folder, engine):
    request = Request(
        prompt="A1+2:", n=4, max_tokens=8, temperature=0.4, top_p=0.8, seed=1, logprobs=True
    )
    (draws,) = draw_all(engine, [request])
    for draw in draws:
        assert draw.logprobs is not None
        assert len(draw.logprobs) == draw.output_tokens
        ids = encoded("A1+2:")
        if len(draw.text) < draw.output_tokens - 1:
            continue  # holds a token without text
        for character, logprob in zip(draw.text, draw.logprobs, strict=False):
            expected = np.log(softmax(logits_after(folder, ids))[VOCABULARY[character]])
            assert logprob == pytest.approx(expected, abs=1e-4)
            ids.append(VOCABULARY[character])


def test_cancel_returns_what_there_was(folder):
    engine = EmbeddedEngine("tiny", folder, max_batch=8)
    request = Request(prompt="A1+2:", n=10, max_tokens=200, seed=1, logprobs=True)
    (whole,) = draw_all(engine, [request])
    with engine.session() as session:
        session.submit(3, request)
        session.submit(4, Request(prompt="C2,2>4:", n=2, max_tokens=5, seed=1))
        ended = [done for _ in range(4) for done in session.poll(timeout_s=0)]
        session.cancel(3)
        session.cancel(99)  # unknown: ignored
        while session.outstanding:
            ended += session.poll()
    assert sorted((d.key, d.index) for d in ended) == [
        *((3, i) for i in range(10)),
        *((4, i) for i in range(2)),
    ]
    dropped = [d for d in ended if d.draw.finish_reason == "cancelled"]
    assert dropped
    assert {d.key for d in dropped} == {3}
    assert any(d.draw.output_tokens == 0 for d in dropped)  # was still in the queue
    assert any(d.draw.output_tokens > 0 for d in dropped)
    for done in dropped:
        assert whole[done.index].text.startswith(done.draw.text)
        assert len(done.draw.logprobs) == done.draw.output_tokens


def test_closing_ends_everything(engine):
    session = engine.session()
    session.submit(0, Request(prompt="A1+2:", n=4, seed=1, max_tokens=100))
    session.poll(timeout_s=0)
    session.close()
    session.close()
    assert session.outstanding == 0
    assert session.poll() == []
    with pytest.raises(InputError, match="closed"):
        session.submit(1, Request(prompt="A1+2:", max_tokens=1))


def test_bad_requests_are_refused(engine):
    with engine.session() as session:
        with pytest.raises(InputError, match="'x' at 2"):
            session.submit(0, Request(prompt="A1x:", max_tokens=4))
        with pytest.raises(InputError, match="256 positions"):
            session.submit(0, Request(prompt="A1+2:", max_tokens=251))
        session.submit(0, Request(prompt="A1+2:", max_tokens=250))
        with pytest.raises(InputError, match="key 0"):
            session.submit(0, Request(prompt="A1+2:", max_tokens=4))
        session.cancel(0)


def test_a_draw_may_fill_every_position(tiny_model):
    engine = EmbeddedEngine("tiny", tiny_model(max_positions=48, eos_token_id=None))
    (draws,) = draw_all(engine, [Request(prompt="A1+2:", n=3, max_tokens=42, seed=1)])
    assert {draw.output_tokens for draw in draws} == {42}


def test_without_a_seed_draws_differ(engine):
    requests = [Request(prompt="A1+2:", n=3, max_tokens=30) for _ in range(2)]
    first, second = draw_all(engine, requests)
    assert texts(first) != texts(second)


def test_vocabulary_mismatch_is_refused(tiny_model):
    with pytest.raises(InputError, match="vocab_size 32"):
        EmbeddedEngine("tiny", tiny_model(eos_token_id=400))


def test_steps_are_timed_over_threads_too(folder):
    engine = EmbeddedEngine("tiny", folder, threads=2)
    for seconds in (engine.time_prefill(3, 20, 4), engine.time_decode(40, 60, 4)):
        assert len(seconds) == 4
        assert min(seconds) > 0
    with pytest.raises(InputError, match="positions"):
        engine.time_decode(1, 256, 1)
    engine.close()


def test_scores_are_the_heads_at_the_last_token(tiny_model, monkeypatch):
    folder = tiny_model(verifier=True)
    llama, scorer = Llama.load(folder, head="score"), EmbeddedScorer(folder)
    prompts = [prompt for prompt in PROMPTS for _ in range(3)]
    answers = [f"{i * 37}={i}" * (1 + i % 4) for i in range(len(prompts))]
    found = scorer.score(prompts, answers)
    assert found.dtype == np.float64
    for prompt, answer, score in zip(prompts, answers, found, strict=True):
        ids = np.array([[*encoded(prompt + answer), EOS]])
        assert score == pytest.approx((llama.hidden(ids) @ llama.head)[0, -1, 0], abs=1e-5)
    monkeypatch.setattr("planner.engines.embedded.default_threads", lambda: 3)
    np.testing.assert_allclose(scorer.score(prompts, answers), found, atol=1e-5)


def test_what_cannot_be_scored_is_a_plain_no(tiny_model):
    scorer = EmbeddedScorer(tiny_model(verifier=True))
    found = scorer.score(["A1+2:"] * 3, ["3", "hello", "1" * 300])
    assert found[0] > UNSCORABLE
    assert (found[1:] == UNSCORABLE).all()
    assert scorer.score([], []).shape == (0,)
    with pytest.raises(InputError, match="2 prompts for 1 texts"):
        scorer.score(["A", "A"], ["1"])
