"""What has been spent, in every unit; refuses a draw that could cross the budget.

Reserve the worst case before a draw, settle what it cost after: the sum of what is spent
and what is reserved never passes the budget, however many draws run at once. Amounts in the
budget's unit are added as exact fractions, so that no rounding carries the sum over it.
"""

from dataclasses import dataclass, replace
from fractions import Fraction
from math import isfinite

from planner.limits import Budget
from planner.models.cost import Cost
from planner.models.errors import InputError


@dataclass(frozen=True)
class Reservation:
    """Budget held for one draw."""

    number: int
    upper: float  # most the draw can cost, in the budget's unit


class Ledger:
    """The account of one budget.

    In unit "s" the currency is request time as the cost model sees it (seconds of a draw
    at its reference batch, from its tokens), not a stopwatch: the wall times of draws that
    share a batch do not add up.
    """

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self._total = Fraction(budget.total)
        self._spent = Fraction(0)
        self._reserved = Fraction(0)
        self._overrun = Fraction(0)
        self._open: dict[int, Reservation] = {}
        self._issued = 0
        self._settled = 0
        self._cancelled = 0
        self._cost = Cost()
        self._cancelled_cost = Cost()

    @property
    def spent(self) -> Cost:
        """Settled so far, in every unit; NaN where a draw's cost is not known."""
        return replace(self._cost, **{self.budget.unit: float(self._spent)})

    @property
    def reserved(self) -> float:
        """Held for draws that run, in the budget's unit."""
        return float(self._reserved)

    @property
    def remaining(self) -> float:
        """Neither spent nor reserved, in the budget's unit; never below 0."""
        return float(max(self._total - self._spent - self._reserved, Fraction(0)))

    @property
    def overrun(self) -> float:
        """Spent beyond reservations, in the budget's unit.

        It is 0 unless an engine counted more tokens than the bound it gave before the draw.
        """
        return float(self._overrun)

    @property
    def draws(self) -> int:
        """Draws settled, the cancelled ones included."""
        return self._settled

    @property
    def cancelled_draws(self) -> int:
        """Draws that were cancelled and cost something all the same."""
        return self._cancelled

    @property
    def cancelled_cost(self) -> Cost:
        """What the cancelled draws cost."""
        return self._cancelled_cost

    def reserve(self, cost_upper: float) -> Reservation | None:
        """Hold the most a draw can cost; None when it could cross the budget.

        Args:
            cost_upper: In the budget's unit.

        Raises:
            InputError: The bound is negative or not finite: it bounds nothing.
        """
        if not (isfinite(cost_upper) and cost_upper >= 0):
            raise InputError(
                f"a reservation must be finite and not negative, got {cost_upper}"
            )
        if self._spent + self._reserved + Fraction(cost_upper) > self._total:
            return None
        reservation = Reservation(self._issued, cost_upper)
        self._issued += 1
        self._open[reservation.number] = reservation
        self._reserved += Fraction(cost_upper)
        return reservation

    def settle(
        self, reservation: Reservation, actual: Cost, *, cancelled: bool = False
    ) -> None:
        """Record what the draw cost and free the rest of what was held for it.

        A draw that cost more than was held is counted in full, since the money is gone, and
        shows in `overrun`; reservations that no longer fit are then refused.

        Raises:
            InputError: The reservation is not open: settled before, or of another ledger.
            NotMeasuredError: The cost is not known in the budget's unit.
        """
        amount = Fraction(actual.in_unit(self.budget.unit))
        self._close(reservation)
        self._spent += amount
        self._overrun += max(amount - Fraction(reservation.upper), Fraction(0))
        self._cost += actual
        self._settled += 1
        if cancelled:
            self._cancelled += 1
            self._cancelled_cost += actual

    def release(self, reservation: Reservation) -> None:
        """Free what was held for a draw that never started.

        Raises:
            InputError: The reservation is not open: settled before, or of another ledger.
        """
        self._close(reservation)

    def _close(self, reservation: Reservation) -> None:
        if self._open.get(reservation.number) is not reservation:
            raise InputError(
                f"reservation {reservation.number} is not open; settle or release each once"
            )
        del self._open[reservation.number]
        self._reserved -= Fraction(reservation.upper)
