"""Draws in flight: reserve, submit, poll, cancel, settle. Knows nothing of strategies."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Self

from planner.engines.base import Engine, Finished, Request, Session
from planner.ledger import Ledger, Reservation
from planner.models.cost import Cost, CostModel
from planner.models.errors import InputError, ServingError
from planner.models.records import Draw

_log = logging.getLogger(__name__)

_POLL_S = 1.0  # an engine may work this long before another gets its turn
_IMPATIENT_S = 0.02  # the same, for one that had nothing to show last time
_DEAD_AFTER = 16  # draws given up in a row; the server, not a prompt, is to blame


@dataclass(frozen=True, kw_only=True)
class Ticket:
    """One draw to make; a retried draw gets another ticket."""

    owner: int  # the prompt it is for
    draw: int  # index among the prompt's draws
    model: str
    request: Request  # of one draw
    attempt: int = 0

    def again(self) -> Self:
        """The ticket of the next attempt; the same seed, hence the same draw."""
        return replace(self, attempt=self.attempt + 1)


@dataclass(frozen=True)
class Landed:
    """What became of a ticket, settled."""

    ticket: Ticket
    draw: Draw | None  # None: failed
    cost: Cost
    cancelled: bool
    error: ServingError | None


@dataclass(frozen=True)
class _Flight:
    ticket: Ticket
    reservation: Reservation
    upper: Cost


class Lane:
    """The draws of one engine."""

    def __init__(self, engine: Engine, cost_model: CostModel, ledger: Ledger) -> None:
        self.engine = engine
        self.flights: dict[int, _Flight] = {}
        self.error: ServingError | None = None  # of the draw given up last
        self._ledger = ledger
        self._cost = lru_cache(maxsize=65_536)(cost_model.of_draw)  # lengths recur
        self._session: Session | None = None
        self._submitted = 0
        self._patience_s = _POLL_S
        self._given_up = 0  # in a row
        self._served = False
        self._excess_tokens = 0  # of prompts, beyond what the engine had counted
        self._early: list[Landed] = []

    @property
    def in_flight(self) -> int:
        """Draws that `poll` still has to return."""
        return len(self.flights) + len(self._early)

    @property
    def dead(self) -> bool:
        """Whether the server, not a prompt, is at fault."""
        return self._given_up >= _DEAD_AFTER

    @property
    def never_served(self) -> bool:
        """Whether draws failed and none was ever served."""
        return self._given_up > 0 and not self._served

    def give_up(self, error: ServingError) -> None:
        """Count a draw that no attempt could get."""
        self.error = error
        self._given_up += 1

    def launch(self, ticket: Ticket) -> bool:
        """Reserve the worst case and start the draw; False when it could cross the budget.

        Raises:
            InputError: The engine cannot honour the request.
            NotMeasuredError: The draw's cost in the budget's unit is not known.
        """
        request = ticket.request
        prompt_tokens = self.engine.count_tokens(request.prompt) + self._excess_tokens
        upper = self._cost(prompt_tokens, request.max_tokens)
        reservation = self._ledger.reserve(upper.in_unit(self._ledger.budget.unit))
        if reservation is None:
            return False
        try:
            if self._session is None:
                self._session = self.engine.session()
            self._session.submit(self._submitted, request)
        except ServingError as error:
            self._ledger.release(reservation)
            self._early.append(Landed(ticket, None, Cost(), False, error))
            return True
        except BaseException:
            self._ledger.release(reservation)
            raise
        self.flights[self._submitted] = _Flight(ticket, reservation, upper)
        self._submitted += 1
        return True

    def poll(self, timeout_s: float, *, alone: bool) -> list[Landed]:
        """Draws that ended, settled; a server that failed as a whole fails them all.

        Args:
            timeout_s: Longest wait.
            alone: No other lane waits for its turn.
        """
        landed, self._early = self._early, []
        if landed or self._session is None:
            return landed
        try:
            finished = self._session.poll(
                timeout_s if alone else min(timeout_s, self._patience_s)
            )
        except ServingError as error:
            return self.lose(error)
        self._patience_s = _POLL_S if finished else _IMPATIENT_S
        return [self._land(one) for one in finished if one.key in self.flights]

    def _land(self, finished: Finished) -> Landed:
        flight, draw = self.flights.pop(finished.key), finished.draw
        cost = Cost()
        if draw.prompt_tokens or draw.output_tokens:
            cost = self._cost(draw.prompt_tokens, draw.output_tokens)
        cancelled = finished.error is None and draw.finish_reason == "cancelled"
        overrun = self._ledger.overrun
        self._ledger.settle(flight.reservation, cost, cancelled=cancelled)
        if self._ledger.overrun > overrun:
            self._widen(flight, draw)
        if finished.error is not None:
            return Landed(flight.ticket, None, cost, False, finished.error)
        self._given_up, self._served = 0, True
        return Landed(flight.ticket, draw, cost, cancelled, None)

    def _widen(self, flight: _Flight, draw: Draw) -> None:
        """Reserve more from now on: the engine's count was no upper bound."""
        counted = self.engine.count_tokens(flight.ticket.request.prompt)
        self._excess_tokens = max(self._excess_tokens, draw.prompt_tokens - counted)
        _log.warning(
            "%s: a draw took %d + %d tokens, more than the %d + %d reserved for it",
            flight.ticket.model, draw.prompt_tokens, draw.output_tokens,
            counted, flight.ticket.request.max_tokens,
        )  # fmt: skip

    def lose(self, error: ServingError) -> list[Landed]:
        """Settle draws whose end was never seen at the worst case: no more is known."""
        self.close()
        lost = []
        for flight in self.flights.values():
            self._ledger.settle(flight.reservation, flight.upper)
            lost.append(Landed(flight.ticket, None, flight.upper, False, error))
        self.flights.clear()
        return lost

    def cancel(self, owner: int | None) -> None:
        """Cancel the draws of one prompt, or of all; `poll` returns them."""
        for key, flight in self.flights.items():
            if self._session is not None and owner in {None, flight.ticket.owner}:
                self._session.cancel(key)

    def close(self) -> None:
        """Close the session; the next launch opens another."""
        session, self._session = self._session, None
        if session is not None:
            session.close()


class Dispatcher:
    """The lanes of all engines, polled in turn."""

    def __init__(
        self,
        engines: Mapping[str, Engine],
        cost_models: Mapping[str, CostModel],
        ledger: Ledger,
    ) -> None:
        self.lanes = {
            name: Lane(engine, cost_models[name], ledger)
            for name, engine in engines.items()
        }
        self._order = list(self.lanes.values())

    @property
    def in_flight(self) -> int:
        """Draws launched and not yet returned by `poll`."""
        return sum(lane.in_flight for lane in self._order)

    def lane(self, model: str) -> Lane:
        """The lane of a model.

        Raises:
            InputError: No engine serves it; it lists those that are served.
        """
        if model not in self.lanes:
            known = ", ".join(self.lanes) or "none"
            raise InputError(f"no engine serves model {model!r}; served are: {known}")
        return self.lanes[model]

    def poll(self, timeout_s: float) -> list[Landed]:
        """Draws that ended, of the first lane with any; the next call starts after it."""
        busy = [lane for lane in self._order if lane.in_flight]
        for lane in busy:
            landed = lane.poll(timeout_s, alone=len(busy) == 1)
            if landed:
                turn = self._order.index(lane) + 1
                self._order = self._order[turn:] + self._order[:turn]
                return landed
        return []

    def cancel(self, owner: int | None = None) -> None:
        """Cancel the draws of one prompt, or of all; `poll` returns them."""
        for lane in self._order:
            lane.cancel(owner)

    def close(self) -> list[Landed]:
        """Close all sessions; draws still in flight, settled at the worst case."""
        lost = []
        for lane in self._order:
            lost += lane.lose(ServingError("the session was closed before the draw ended"))
        return lost
