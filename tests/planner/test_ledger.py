"""The budget holds, exactly, whatever is reserved, settled and cancelled, in any order."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.ledger import Ledger, Reservation
from planner.limits import Budget
from planner.models.cost import UNITS, Cost
from planner.models.errors import InputError, NotMeasuredError

amounts = st.floats(1e-9, 1e9)


def test_reserve_then_settle():
    ledger = Ledger(Budget(100, "tokens"))
    first, second = ledger.reserve(60), ledger.reserve(40)
    assert first is not None
    assert second is not None
    assert ledger.reserve(1) is None
    ledger.settle(first, Cost(tokens=20, usd=0.5))
    assert (ledger.spent.tokens, ledger.spent.usd, ledger.reserved) == (20, 0.5, 40)
    assert ledger.remaining == 40
    third = ledger.reserve(40)
    assert third is not None
    ledger.release(third)
    ledger.settle(second, Cost(tokens=5, usd=0.1), cancelled=True)
    assert (ledger.draws, ledger.cancelled_draws) == (2, 1)
    assert ledger.cancelled_cost == Cost(tokens=5, usd=0.1)
    assert (ledger.spent.tokens, ledger.remaining, ledger.overrun) == (25, 75, 0)


@settings(deadline=None)
@given(
    total=amounts,
    unit=st.sampled_from(UNITS),
    steps=st.lists(
        st.tuples(st.floats(1e-9, 1.0), st.floats(0, 1), st.sampled_from("swr")),
        max_size=60,
    ),
)
def test_never_spends_more_than_the_budget(total, unit, steps):
    ledger = Ledger(Budget(total, unit))
    waiting: list[Reservation] = []
    spent: list[float] = []
    for share, used, what in steps:
        reservation = ledger.reserve(share * total)
        if reservation is None:
            assert math.fsum([*spent, *(r.upper for r in waiting), share * total]) >= total
        else:
            waiting.append(reservation)
        if waiting and what == "s":  # the order of settling is not that of reserving
            done = waiting.pop(len(waiting) // 2)
            spent.append(done.upper * used)
            ledger.settle(done, Cost(**{unit: done.upper * used}))
        elif waiting and what == "r":
            ledger.release(waiting.pop())
        assert ledger.spent.in_unit(unit) <= total
        assert ledger.spent.in_unit(unit) + ledger.reserved <= total * (1 + 1e-15)
        assert ledger.remaining >= 0
    for reservation in waiting:
        ledger.settle(reservation, Cost(**{unit: reservation.upper}))
        spent.append(reservation.upper)
    assert ledger.spent.in_unit(unit) == math.fsum(spent)  # exact but for the last rounding
    assert ledger.spent.in_unit(unit) <= total
    assert (ledger.reserved, ledger.overrun) == (0, 0)


def test_rounding_does_not_open_the_budget():
    # in floats 1 + 1e-16 == 1, so that adding tiny costs one by one would never fill it
    ledger = Ledger(Budget(1.0, "usd"))
    for _ in range(2):
        reservation = ledger.reserve(0.5)
        assert reservation is not None
        ledger.settle(reservation, Cost(usd=0.5))
    assert ledger.reserve(1e-300) is None


def test_an_overrun_is_counted_and_shown_and_stops_the_spending():
    ledger = Ledger(Budget(10, "tokens"))
    reservation = ledger.reserve(10)
    assert reservation is not None
    ledger.settle(reservation, Cost(tokens=13))
    assert (ledger.spent.tokens, ledger.overrun, ledger.remaining) == (13, 3, 0)
    assert ledger.reserve(0) is None


def test_a_reservation_is_settled_once_and_by_its_ledger():
    ledger, other = Ledger(Budget(10, "tokens")), Ledger(Budget(10, "tokens"))
    reservation = ledger.reserve(5)
    assert reservation is not None
    assert other.reserve(5) is not None
    with pytest.raises(InputError, match="not open"):
        other.settle(reservation, Cost(tokens=1))
    ledger.settle(reservation, Cost(tokens=1))
    with pytest.raises(InputError, match="not open"):
        ledger.settle(reservation, Cost(tokens=1))
    with pytest.raises(InputError, match="not open"):
        ledger.release(reservation)
    assert ledger.spent.tokens == 1


@pytest.mark.parametrize("upper", [-1.0, math.nan, math.inf])
def test_a_bound_that_bounds_nothing_is_refused(upper):
    with pytest.raises(InputError, match="finite"):
        Ledger(Budget(10, "tokens")).reserve(upper)


def test_unknown_cost_in_the_budgets_unit_is_refused_and_others_stay_unknown():
    ledger = Ledger(Budget(10, "tokens"))
    reservation = ledger.reserve(5)
    assert reservation is not None
    with pytest.raises(NotMeasuredError):
        ledger.settle(reservation, Cost(tokens=math.nan))
    ledger.settle(reservation, Cost(tokens=1, usd=math.nan))
    assert math.isnan(ledger.spent.usd)
    assert ledger.spent.tokens == 1
