"""One draw, and the asking and telling that every strategy shares."""

from dataclasses import dataclass

from planner.models.errors import InputError
from planner.strategies.base import Choice, Outcome, State

UNKNOWN = 0.5  # confidence in an answer that nothing speaks for or against


@dataclass(frozen=True)
class Sampler:
    """At most n draws of one prompt; `done` says when to stop. Settings, never progress."""

    n: int

    def __post_init__(self) -> None:
        if self.n < 1:
            raise InputError(f"a strategy needs n of at least 1, got {self.n}")

    def ask(self, state: State, slots: int) -> tuple[State, range]:
        """Draws to start now, at most `slots`; empty when none is worth starting."""
        count = 0 if self.done(state) else max(0, min(slots, self.n - state.asked))
        last = state.asked + count
        return state.with_asked(last), range(state.asked, last)

    def tell(self, state: State, draw: int, outcome: Outcome) -> State:
        """Record how a draw ended; a draw told twice keeps its first outcome.

        Raises:
            InputError: The draw was never asked for.
        """
        return state.with_outcome(draw, outcome)

    def done(self, state: State) -> bool:
        """Whether no further outcome can matter."""
        return len(state.told) >= self.n


def answered(state: State) -> list[tuple[int, Outcome]]:
    """Draws that may answer, in draw order: those that did not fail and hold an answer."""
    return [(draw, out) for draw, out in state.told if not out.failed and out.answer]


def sure(outcome: Outcome, otherwise: float) -> float:
    """Confidence in a draw: an exact verifier's word where there is one.

    Args:
        outcome: The draw's.
        otherwise: Where no exact verifier spoke; kept below 1, which only a proof earns.
    """
    if outcome.verified is not None:
        return float(outcome.verified)
    return min(max(otherwise, 0.0), 1 - 1e-9)


@dataclass(frozen=True)
class Single(Sampler):
    """One draw; its answer is the answer."""

    n: int = 1

    def __post_init__(self) -> None:
        if self.n != 1:
            raise InputError(f"strategy 'single' makes one draw, got n = {self.n}")

    @property
    def name(self) -> str:
        """Its name in a plan."""
        return "single"

    def choose(self, state: State) -> Choice | None:
        """The draw, if it gave an answer."""
        for draw, outcome in answered(state):
            return Choice(draw, sure(outcome, UNKNOWN))
        return None
