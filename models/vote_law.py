"""Majority votes of any number of draws (self-consistency, arXiv:2203.11171), forecast.

Answer distributions of all problems, seen and unseen answers alike, are drawn from their
posterior (`answers`), and put to the vote. The most voted answer wins; of equals the one
whose first vote came earliest, which in a random order is each of them equally often. As N
grows the vote tends to the *modal ceiling*, the share of problems whose likeliest answer is
right: reached soon where the lead is wide (`vote_error_bound`), and from above where easy
problems settle before hard ones turn wrong (`two_class_vote`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from planner.models.answers import AnswerLaw, count_answers, fit_answers
from planner.models.coverage import WEAK_PRIOR, CoverageLaw
from planner.models.errors import FitError, InputError
from planner.models.fitting import weigh_problems
from planner.models.lengths import Recorded
from planner.models.prediction import Array, Prediction
from planner.models.vote_race import Side, run_votes
from planner.models.vote_theory import effective_votes

_ROWS = 1 << 17  # posterior draws of one problem's answers, all problems together
_MIN_DRAWS, _MAX_DRAWS = 100, 400
_BATCH = 1024  # rows drawn at once
_MAX_VOTES = 16  # of one posterior draw, whose mean is taken; as the rows allow
_REPEAT = 4  # every so many posterior draws are put to the vote twice, to see its luck
# What the law itself errs by, per doubling beyond the draws made, at an accuracy of 1/2:
# public vote curves strayed by this from any form fitted to them. Votes settle, so it ends.
_MODEL_SD, _MODEL_DOUBLINGS = 0.012, 5.0


@dataclass(frozen=True, eq=False)
class VoteLaw:
    """A fitted law of one table's votes."""

    answers: AnswerLaw
    silent: CoverageLaw | None  # share of draws without an answer; None if all answer
    n_max: int  # draws a problem behind the fit

    @classmethod
    def fit(cls, recorded: Recorded) -> Self:
        """Fit one table by itself; raises as `fit_votes` does."""
        law = fit_votes([recorded])[0]
        return cls(law.answers, law.silent, law.n_max)

    def predict(
        self, n: ArrayLike, rng: np.random.Generator, *, rho: float = 0.0
    ) -> Prediction:
        """Expected accuracy of the vote of n new draws on these very problems.

        Args:
            n: Draws of each vote, 1 or more.
            rng: For the posterior.
            rho: Correlation of the draws of one vote, see `vote_correlation`; 0 for draws
                made independently.

        Raises:
            InputError: n below 1, or rho outside [0, 1].
        """
        points = _points(n)
        wins, noise = self._votes(effective_votes(points, rho), rng, measured=False)
        return self._prediction(_without_noise(wins.mean(axis=1), noise), points, rng)

    def predict_measured(self, n: ArrayLike, rng: np.random.Generator) -> Prediction:
        """What the vote of these problems will read once n draws of each are made.

        The draws behind the fit are among the n. One vote a problem, so that the interval
        holds the luck of the vote.

        Raises:
            InputError: n below the draws made.
        """
        points = _points(n)
        if points.min(initial=np.inf) < self.n_max:
            raise InputError(f"{self.n_max} draws are made; n must not be smaller")
        wins, _ = self._votes(points, rng, measured=True)
        return self._prediction(wins.mean(axis=1), points, rng)

    def predict_new(
        self, n: ArrayLike, rng: np.random.Generator, *, rho: float = 0.0
    ) -> Prediction:
        """Expected accuracy on new problems of the same kind (Bayesian bootstrap).

        Raises:
            InputError: As `predict`.
        """
        points = _points(n)
        wins, _ = self._votes(effective_votes(points, rho), rng, measured=False)
        return self._prediction(_population(wins, rng), points, rng)

    def ceiling(self, rng: np.random.Generator) -> Prediction:
        """Modal ceiling: share of these problems whose likeliest answer is right."""
        return self.predict([np.inf], rng)

    def _votes(
        self, points: Array, rng: np.random.Generator, measured: bool
    ) -> tuple[Array, Array]:
        """Whether the vote is right, and the variance of its mean that is luck.

        Returns:
            (S, P, n_points), posterior draws by problem; and (n_points,).
        """
        counts = self.answers.counts
        problems = len(counts.silent)
        size = int(np.clip(_ROWS // problems, _MIN_DRAWS, _MAX_DRAWS))
        chains = int(np.clip(_BATCH // problems, 1, size))
        steps = -(-size // chains)
        votes = 1 if measured else int(np.clip(_ROWS // (problems * size), 1, _MAX_VOTES))
        made = counts.n_right + counts.n_wrong + counts.silent
        begun = np.tile(made if measured else np.zeros(problems), chains)[:, None]
        order = np.argsort(points)
        wins = np.empty((steps, chains * problems, len(points)))
        luck = np.zeros(len(points))
        for step, shares in zip(
            range(steps), self.answers.draws(rng, chains), strict=False
        ):
            answering = 1 - self._silent(rng, chains)
            right = _side(
                shares.right, shares.rest[..., 0], counts.right * measured, answering
            )
            wrong = _side(
                shares.wrong, shares.rest[..., 1], counts.wrong * measured, answering
            )
            # a fraction of a vote is one vote so often
            new = np.maximum(points[order] - begun, 0.0)
            new = np.floor(new + rng.random((len(begun), 1)))
            first = _mean_vote(right, wrong, new, votes, rng)
            wins[step][:, order] = first
            if not measured and step % _REPEAT == 0:
                again = _mean_vote(right, wrong, new, votes, rng)
                luck[order] += ((first - again) ** 2).sum(axis=0)
        luck /= 2 * -(-steps // _REPEAT) * chains * problems**2
        return wins.reshape(steps * chains, problems, len(points)), luck

    def _prediction(
        self, draws: Array, points: Array, rng: np.random.Generator
    ) -> Prediction:
        """Draws, widened beyond n_max by what the law itself may be wrong by."""
        doublings = np.clip(np.log2(points / self.n_max), 0.0, _MODEL_DOUBLINGS)
        mean = np.clip(draws.mean(axis=0), 0.0, 1.0)
        sd = _MODEL_SD * doublings * 2 * np.sqrt(mean * (1 - mean))
        off = rng.standard_normal((len(draws), 1)) * sd
        return Prediction(np.clip(draws + off, 0.0, 1.0), "1", points > self.n_max)

    def _silent(self, rng: np.random.Generator, chains: int) -> Array:
        """Share of draws without an answer, (chains, P, 1)."""
        counts = self.answers.counts
        if self.silent is None:
            return np.zeros((chains, len(counts.silent), 1))
        a, b = self.silent.shapes(rng, chains)
        votes = counts.n_right + counts.n_wrong
        return np.asarray(rng.beta(a + counts.silent, b + votes)[..., None])


def fit_votes(tables: Sequence[Recorded]) -> list[VoteLaw]:
    """Fit tables of one task at once: how answers split in one is news of the others.

    Args:
        tables: Of models, or temperatures; no draw twice.

    Raises:
        InputError: No table, or one without a problem.
        FitError: No problem of a table with two draws that answer.
    """
    counts = [count_answers(table) for table in tables]
    if not counts or not all(len(c.silent) for c in counts):
        raise InputError("a vote law needs tables of at least one problem each")
    for i, c in enumerate(counts):
        if (c.n_right + c.n_wrong).max() < 2:
            raise FitError(
                f"table {i}: no problem has two draws with an answer, which say nothing of "
                "how far answers agree; draw at least two of each problem"
            )
    silent = [
        CoverageLaw.fit(c.silent, t.n_samples, WEAK_PRIOR) if c.silent.any() else None
        for c, t in zip(counts, tables, strict=True)
    ]
    return [
        VoteLaw(law, none, int(table.n_samples.max()))
        for law, none, table in zip(fit_answers(counts), silent, tables, strict=True)
    ]


def _side(share: Array, rest: Array, begun: Array, answering: Array) -> Side:
    """Chains and problems as rows; `begun` are votes of the answers seen so far."""
    chains, problems, width = share.shape
    start = np.zeros((problems, width))
    start[:, : begun.shape[1]] = begun
    return Side.of(
        (share * answering).reshape(-1, width), np.tile(start, (chains, 1)),
        (rest * answering[..., 0]).ravel(),
    )  # fmt: skip


def _mean_vote(
    right: Side, wrong: Side, new: Array, votes: int, rng: np.random.Generator
) -> Array:
    """Mean of several votes; of few problems a single one is all or nothing."""
    total = run_votes(right, wrong, new, rng)
    for _ in range(votes - 1):
        total += run_votes(right, wrong, new, rng)
    return total / votes


def _without_noise(draws: Array, noise: Array) -> Array:
    """Draws of a mean, narrowed by the luck of the votes that made them."""
    variance = draws.var(axis=0)
    kept = np.sqrt(np.maximum(variance - noise, 0.0) / np.maximum(variance, 1e-300))
    mean = draws.mean(axis=0)
    return np.asarray(mean + kept * (draws - mean))


def _population(wins: Array, rng: np.random.Generator) -> Array:
    """Means over new problems like these, (S, n_points)."""
    weight, right = weigh_problems(wins.shape[1], len(wins), rng)
    return np.asarray(np.einsum("sp,spn->sn", weight, wins) + right)


def _points(n: ArrayLike) -> Array:
    points = np.atleast_1d(np.asarray(n, dtype=float))
    if not (points >= 1).all():
        raise InputError(f"a vote needs n >= 1 draws, got {points.min():g}")
    return points
