"""Best of at most n draws, by an exact verifier or by a scored one."""

import math
from dataclasses import dataclass

from planner.strategies.base import Choice, Outcome, State
from planner.strategies.single import UNKNOWN, Sampler, answered, sure


@dataclass(frozen=True)
class BestOfN(Sampler):
    """Draw until an exact verifier accepts one. Its accuracy is the coverage, pass@n."""

    @property
    def name(self) -> str:
        """Its name in a plan."""
        return "best_of_n"

    def done(self, state: State) -> bool:
        """Whether a draw is verified, or none is left."""
        return super().done(state) or any(_verified(out) for _, out in state.told)

    def choose(self, state: State) -> Choice | None:
        """The first verified draw; else the first answer, which is likely wrong."""
        candidates = answered(state)
        verified = [(draw, out) for draw, out in state.told if _verified(out)]
        for draw, outcome in verified or candidates:
            return Choice(draw, sure(outcome, UNKNOWN / self.n))
        return None


def _verified(outcome: Outcome) -> bool:
    return outcome.verified is True and not outcome.failed


@dataclass(frozen=True)
class BestOfNScored(Sampler):
    """Draw n, keep the best-scored. The judge may err: more is not always better."""

    @property
    def name(self) -> str:
        """Its name in a plan."""
        return "best_of_n_scored"

    def choose(self, state: State) -> Choice | None:
        """The highest score, the earliest of equals; its log-odds are the confidence.

        Draws without a score come last: the judge never saw them.
        """
        candidates = answered(state)
        if not candidates:
            return None
        draw, best = max(candidates, key=lambda told: (_score(told[1]), -told[0]))
        score = _score(best)
        logistic = (
            UNKNOWN / self.n if score == -math.inf else 0.5 * (1 + math.tanh(score / 2))
        )
        return Choice(draw, sure(best, logistic))


def _score(outcome: Outcome) -> float:
    if outcome.score is None or math.isnan(outcome.score):
        return -math.inf
    return outcome.score
