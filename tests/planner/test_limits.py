"""Budgets and latency targets are read as written, or refused."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.limits import Budget, Slo
from planner.models.cost import UNITS
from planner.models.errors import InputError


@pytest.mark.parametrize(
    ("text", "total", "unit"),
    [
        ("0.002 usd", 0.002, "usd"), ("$5", 5, "usd"), ("$ .5", 0.5, "usd"),
        ("5$", 5, "usd"), ("200k tokens", 200e3, "tokens"),
        ("1_000 tokens", 1000, "tokens"),
        ("3 M tokens", 3e6, "tokens"), ("90 s", 90, "s"), ("90 seconds", 90, "s"),
        ("800 ms", 0.8, "s"), ("5 min", 300, "s"), ("2 h", 7200, "s"),
        ("3 Teflop", 3e12, "eflop"), ("3 eflop", 3, "eflop"), ("1e18 FLOP", 1e18, "flop"),
        ("2 pflop", 2e15, "flop"), ("4 GB", 4e9, "bytes"), ("7 bytes", 7, "bytes"),
        ("2 dollars", 2, "usd"),
    ],
)  # fmt: skip
def test_a_budget_is_read_as_written(text, total, unit):
    budget = Budget.parse(text)
    assert budget.unit == unit
    assert budget.total == pytest.approx(total, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("usd", "no amount"), ("", "no amount"), ("-3 usd", "no amount"), ("5", "no unit"),
        ("5 euro", "not one of"), ("2 m usd", "not one of"), ("2 ks", "not one of"),
        ("$5 tokens", "not one of"), ("0 usd", "positive"), ("1e999 usd", "finite"),
    ],
)  # fmt: skip
def test_what_is_no_budget_is_refused(text, says):
    with pytest.raises(InputError, match=says):
        Budget.parse(text)


@given(total=st.floats(1e-12, 1e30, allow_nan=False), unit=st.sampled_from(UNITS))
def test_a_printed_budget_reads_back(total, unit):
    again = Budget.parse(str(Budget(total, unit)))
    assert again.unit == unit
    assert math.isclose(again.total, total, rel_tol=1e-5)


def test_a_budget_of_nothing_known_is_refused():
    with pytest.raises(InputError, match="not one of tokens"):
        Budget(1.0, "joule")
    with pytest.raises(InputError, match="positive"):
        Budget(math.nan, "usd")


def test_a_latency_target_must_be_one():
    assert Slo(latency_s=0.5).percentile == 95
    with pytest.raises(InputError, match="latency_s"):
        Slo(latency_s=0)
    with pytest.raises(InputError, match="percentile"):
        Slo(ttft_s=1.0, percentile=100)
