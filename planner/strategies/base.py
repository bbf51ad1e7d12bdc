"""What a strategy is: a frozen object that says what to draw next and what to answer.

Pure ask/tell: no I/O, no clock, no progress inside. The same object runs against a live
engine and against recorded samples, so a policy is evaluated on the code that serves it.
"""

from dataclasses import dataclass
from typing import Protocol, Self

from planner.models.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one draw, as the executor tells it."""

    answer: str  # what is voted on; "" when the text holds none
    verified: bool | None = None  # of an exact verifier; None when there is none
    score: float | None = None  # of a scored verifier, higher is better
    failed: bool = False  # cancelled, or the server gave up: never chosen


@dataclass(frozen=True)
class State:
    """All a run of a strategy has learned; save it and the run resumes."""

    asked: int = 0
    told: tuple[tuple[int, Outcome], ...] = ()  # in draw order

    def with_asked(self, asked: int) -> Self:
        """The state after draws up to `asked` were started."""
        return type(self)(asked, self.told)

    def with_outcome(self, draw: int, outcome: Outcome) -> Self:
        """The state after a draw ended; a draw told twice keeps its first outcome.

        Raises:
            InputError: The draw was never asked for.
        """
        if not 0 <= draw < self.asked:
            raise InputError(f"draw {draw} was never asked for")
        told = dict(self.told)
        told.setdefault(draw, outcome)
        return type(self)(self.asked, tuple(sorted(told.items())))


@dataclass(frozen=True)
class Choice:
    """The draw that answers, and how sure the strategy is of it."""

    draw: int
    confidence: float  # in [0, 1]; 1 only for a verified answer


class Strategy(Protocol):
    """Settings of one strategy; progress lives in the State."""

    @property
    def name(self) -> str:
        """As a plan writes it: single, best_of_n, best_of_n_scored or self_consistency."""
        ...

    @property
    def n(self) -> int:
        """Most draws it ever asks for."""
        ...

    def ask(self, state: State, slots: int) -> tuple[State, range]:
        """Draws to start now, at most `slots`; empty when none is worth starting."""
        ...

    def tell(self, state: State, draw: int, outcome: Outcome) -> State:
        """Record how a draw ended; idempotent."""
        ...

    def done(self, state: State) -> bool:
        """Whether no further outcome can matter: running draws may be cancelled."""
        ...

    def choose(self, state: State) -> Choice | None:
        """The answer; None when no draw gave one. The earliest of equals."""
        ...
