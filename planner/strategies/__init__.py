"""What to draw next and what to answer: pure ask/tell objects, by name."""

from collections.abc import Callable

from planner.models.errors import InputError
from planner.strategies.base import Choice, Outcome, State, Strategy
from planner.strategies.best_of_n import BestOfN, BestOfNScored
from planner.strategies.self_consistency import SelfConsistency
from planner.strategies.single import Single

__all__ = [
    "BestOfN",
    "BestOfNScored",
    "Choice",
    "Outcome",
    "SelfConsistency",
    "Single",
    "State",
    "Strategy",
    "make_strategy",
    "strategy_names",
]

# by name: (n, stop confidence) -> strategy
_MAKERS: dict[str, Callable[[int, float], Strategy]] = {
    "single": lambda n, _: Single(n),
    "best_of_n": lambda n, _: BestOfN(n),
    "best_of_n_scored": lambda n, _: BestOfNScored(n),
    "self_consistency": SelfConsistency,
}


def strategy_names() -> tuple[str, ...]:
    """Names that `make_strategy` knows."""
    return tuple(_MAKERS)


def make_strategy(name: str, n: int, *, confidence: float = 0.95) -> Strategy:
    """The strategy of that name.

    Args:
        name: One of `strategy_names()`.
        n: Most draws it may ask for.
        confidence: That the leader is ahead, at which self_consistency stops early.

    Raises:
        InputError: No such strategy, or a setting it cannot use.
    """
    if name not in _MAKERS:
        raise InputError(f"strategy {name!r} is not known; use one of {', '.join(_MAKERS)}")
    return _MAKERS[name](n, confidence)
