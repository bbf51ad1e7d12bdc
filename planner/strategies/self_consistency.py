"""The most frequent answer of at most n draws (Wang et al. 2022, arXiv:2203.11171).

Drawing stops as soon as the vote is settled: no outcome of the draws left can overturn it,
or the leader is ahead of the runner-up with the asked confidence (Aggarwal et al. 2023,
arXiv:2305.11860): with l and r votes, the leader's share of the two is Beta(l + 1, r + 1)
a posteriori, and it leads with probability 1 - I_{1/2}(l + 1, r + 1).
"""

from dataclasses import dataclass

from scipy.special import betainc

from planner.models.errors import InputError
from planner.models.voting import is_decided
from planner.strategies.base import Choice, State
from planner.strategies.single import Sampler, answered, sure


@dataclass(frozen=True)
class SelfConsistency(Sampler):
    """Plurality of answers; of equals, the one whose first vote came earliest."""

    confidence: float = 0.95  # that the leader is ahead, at which drawing stops

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.5 < self.confidence <= 1:
            raise InputError(
                f"self_consistency needs a confidence in (0.5, 1], got {self.confidence}"
            )

    @property
    def name(self) -> str:
        """Its name in a plan."""
        return "self_consistency"

    def done(self, state: State) -> bool:
        """Whether the vote is settled, or no draw is left."""
        if super().done(state):
            return True
        leader, runner_up = _lead(state)
        return is_decided(leader, runner_up, self.n - len(state.told), self.confidence)

    def choose(self, state: State) -> Choice | None:
        """The earliest draw that gave the winning answer."""
        votes = _votes(state)
        if not votes:
            return None
        winner = max(votes, key=lambda answer: len(votes[answer]))  # ties: the first key
        leader, runner_up = _lead(state)
        ahead = 1 - float(betainc(leader + 1, runner_up + 1, 0.5))
        first = votes[winner][0]
        return Choice(first, sure(dict(state.told)[first], ahead))


def _votes(state: State) -> dict[str, list[int]]:
    """Draws that gave each answer; answers in the order of their first vote."""
    votes: dict[str, list[int]] = {}
    for draw, outcome in answered(state):
        votes.setdefault(outcome.answer, []).append(draw)
    return votes


def _lead(state: State) -> tuple[int, int]:
    """Votes of the leader and of the runner-up."""
    counts = sorted((len(draws) for draws in _votes(state).values()), reverse=True)
    return (*counts, 0, 0)[0], (*counts, 0, 0)[1]
