"""The replay: what it serves, in which order, at what virtual cost, and what it refuses."""

from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest

from planner.engines.base import Finished, Request, draw_all
from planner.engines.recorded import RecordedEngine
from planner.models.errors import InputError, NotMeasuredError, StoreError

LENGTHS = (4, 9, 2, 7, 5)  # output tokens of the recorded draws


def rows(**more: Any) -> pd.DataFrame:
    """Five draws of one prompt: token j comes at 0.1 s x j."""
    return pd.DataFrame(
        [
            {
                "model": "tiny", "prompt": "2+2=", "temperature": 1.0, "top_p": 1.0,
                "max_tokens": 10, "draw": i, "engine": "embedded 0.1.0",
                "text": f"text {i}", "finish_reason": "stop",
                "prompt_tokens": 5, "output_tokens": tokens,
                "ttft_s": 0.1, "latency_s": 0.1 * tokens,
            }
            | more
            for i, tokens in enumerate(LENGTHS)
        ]
    )  # fmt: skip


def ask(n: int = 1, max_tokens: int = 10, **more: Any) -> Request:
    return Request(prompt="2+2=", n=n, max_tokens=max_tokens, **more)


def drain(session: Any) -> list[Finished]:
    ended: list[Finished] = []
    while session.outstanding:
        ended += session.poll()
    return ended


def test_draws_come_in_recorded_order_each_once_until_they_run_out() -> None:
    engine = RecordedEngine("tiny", rows().sample(frac=1, random_state=3))
    with engine.session() as session:
        session.submit(0, ask(2))
        session.submit(1, ask(2))
        texts = {(done.key, done.index): done.draw.text for done in drain(session)}
        assert texts == {
            (0, 0): "text 0",
            (0, 1): "text 1",
            (1, 0): "text 2",
            (1, 1): "text 3",
        }
        with pytest.raises(
            NotMeasuredError, match=r"'tiny'.*'2\+2='.*temperature 1.*1 left of 5"
        ):
            session.submit(2, ask(2))
        session.submit(2, ask(1))  # the refused request took nothing
        assert drain(session)[0].draw.text == "text 4"
    with engine.session() as again:
        again.submit(0, ask(5))
        assert len(drain(again)) == 5


def test_a_seed_is_an_order_of_its_own() -> None:
    engine = RecordedEngine("tiny", rows())
    orders = [
        tuple(draw.text for draw in draw_all(engine, [ask(5, seed=seed)])[0])
        for seed in range(20)
    ]
    assert len(set(orders)) > 5
    assert {frozenset(order) for order in orders} == {frozenset(rows()["text"])}
    assert orders[3] == tuple(d.text for d in draw_all(engine, [ask(5, seed=3)])[0])


def test_time_is_virtual_and_ends_come_in_its_order() -> None:
    with RecordedEngine("tiny", rows()).session() as session:
        session.submit(0, ask(5))
        assert [done.index for done in drain(session)] == [2, 0, 4, 3, 1]


def test_a_cancelled_draw_has_the_tokens_it_would_have_had_by_then() -> None:
    with RecordedEngine("tiny", rows()).session() as session:
        session.submit(0, ask(3))
        session.submit(1, ask(1))  # the 7-token draw, at 0.7 s
        assert [(done.key, done.index) for done in session.poll()] == [(0, 2)]  # at 0.2 s
        assert [(done.key, done.index) for done in session.poll()] == [(0, 0)]  # at 0.4 s
        session.submit(2, ask(1))  # starts at 0.4 s
        session.cancel(0)
        session.cancel(2)
        cut = {done.key: done.draw for done in session.poll()}
        assert {draw.finish_reason for draw in cut.values()} == {"cancelled"}
        assert cut[0].output_tokens == 4  # of 9, one each 0.1 s
        assert cut[0].latency_s == pytest.approx(0.4)
        assert cut[2].output_tokens == 0
        assert cut[2].latency_s == 0
        assert [done.key for done in drain(session)] == [1]


def test_a_longer_draw_than_asked_for_is_cut_without_text() -> None:
    draws = draw_all(RecordedEngine("tiny", rows()), [ask(5, max_tokens=5)])[0]
    assert [draw.output_tokens for draw in draws] == [4, 5, 2, 5, 5]
    assert [draw.finish_reason for draw in draws] == [
        "stop",
        "length",
        "stop",
        "length",
        "stop",
    ]
    assert [draw.text for draw in draws] == ["text 0", "", "text 2", "", "text 4"]
    assert draws[1].latency_s == pytest.approx(0.5)  # 5 of 9 tokens


def test_a_draw_that_was_cut_is_no_answer_to_a_longer_request() -> None:
    table = rows()
    table.loc[1, "finish_reason"] = "length"
    engine = RecordedEngine("tiny", table)
    assert len(draw_all(engine, [ask(5, max_tokens=9)])[0]) == 5
    with pytest.raises(
        NotMeasuredError, match="1 of 5 recorded draws were cut at 10 tokens"
    ):
        draw_all(engine, [ask(1, max_tokens=12)])
    whole = RecordedEngine("tiny", rows())
    assert len(draw_all(whole, [ask(5, max_tokens=500)])[0]) == 5


def test_cancelled_rows_are_not_draws() -> None:
    table = rows()
    table.loc[0, "finish_reason"] = "cancelled"
    assert draw_all(RecordedEngine("tiny", table), [ask()])[0][0].text == "text 1"


@pytest.mark.parametrize(
    ("request_", "error", "message"),
    [
        (ask(stop=("=",)), InputError, "stop"),
        (ask(logprobs=True), InputError, "logprobs"),
        (
            ask(top_p=0.9),
            NotMeasuredError,
            r"top_p 0.9 not recorded; there is temperature 1",
        ),
        (ask(temperature=0.5), NotMeasuredError, "temperature 0.5"),
        (
            Request(prompt="3+3="),
            NotMeasuredError,
            "not recorded; there are 1 other prompts",
        ),
    ],
)
def test_what_was_not_recorded_is_refused(
    request_: Request, error: type[Exception], message: str
) -> None:
    engine = RecordedEngine("tiny", rows())
    with engine.session() as session, pytest.raises(error, match=message):
        session.submit(0, request_)


def test_files_and_tables_that_cannot_be_used(tmp_path: Path) -> None:
    duckdb.from_df(rows()).write_parquet(str(tmp_path / "samples.parquet"))
    engine = RecordedEngine("tiny", tmp_path / "samples.parquet")
    assert engine.version == "recorded (embedded 0.1.0)"
    assert engine.count_tokens("2+2=") == 5
    assert engine.count_tokens("new") == 3 + 8  # bytes and a margin: an upper bound
    with pytest.raises(InputError, match="no sample of model 'big'; there is tiny"):
        RecordedEngine("big", tmp_path)
    with pytest.raises(InputError, match="lacks the column 'text'"):
        RecordedEngine("tiny", rows().drop(columns="text"))
    with pytest.raises(InputError, match="no such"):
        RecordedEngine("tiny", tmp_path / "missing.parquet")
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(StoreError, match="torn"):
        RecordedEngine("tiny", tmp_path / "torn.parquet")
