"""Draws that run side by side, of which the first to finish decide.

`k` draws start together. When the m-th of them finishes the rest are cancelled, and the m
vote; of answers with equal votes the one that finished first wins. m = 1 is first-finish
(arXiv:2505.18149), m < k short-m@k (arXiv:2505.17813), m = k the plain majority vote.

Tokens and latency are order statistics of a problem's recorded lengths, exact: with T(r)
the r-th shortest, F(r, j) the probability that j of the k draws are among the r shortest,

    latency = sum_r [T(r + 1) - T(r)] sum_{j<m} F(r, j)
    tokens  = sum_r [T(r + 1) - T(r)] sum_{j<m} F(r, j) (k - j)

F is hypergeometric while k is at most the draws recorded, and binomial beyond (the recorded
draws then stand for all lengths, and the prediction is flagged). So is the accuracy at
m = 1; votes of more are replayed.
"""

from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gammaln, xlog1py, xlogy

from planner.models.errors import InputError
from planner.models.fitting import weigh_problems
from planner.models.lengths import NO_ANSWER, IntArray, Recorded
from planner.models.prediction import Array, Prediction

_DRAWS = 1000
_ALL_SUBSETS = 512  # as many or fewer are all replayed, else _REPLAYS of them
_REPLAYS = 128
_FORECAST_SD = 0.02  # of accuracy, a doubling of k beyond the draws recorded


@dataclass(frozen=True, eq=False)
class FinishLaw:
    """What the first m of k draws to finish give, on problems like the recorded ones."""

    recorded: Recorded  # draws of each problem from the shortest to the longest
    m: int

    @classmethod
    def fit(cls, recorded: Recorded, m: int = 1) -> Self:
        """Sort the draws by length.

        Args:
            recorded: Draws with answers; those that hit the cap count as long as it.
            m: How many must finish; 1 for first-finish.

        Raises:
            InputError: No problem, or m below 1.
        """
        if not len(recorded.n_samples) or m < 1:
            raise InputError(f"needs recorded problems and m >= 1, got m = {m}")
        length = np.where(recorded.present, recorded.output_tokens, np.iinfo(np.int64).max)
        order = np.argsort(length, axis=1, kind="stable")

        def put(values: np.ndarray) -> np.ndarray:
            return np.take_along_axis(values, order, axis=1)

        return cls(
            Recorded(
                recorded.n_samples, put(recorded.correct), put(recorded.answer),
                put(recorded.output_tokens), put(recorded.score),
            ), m,
        )  # fmt: skip

    def accuracy(self, k: int, rng: np.random.Generator) -> Array:
        """P(the answer is right) on each problem, (P,).

        Args:
            k: Draws started.
            rng: For the replays of votes; first-finish takes none.

        Raises:
            InputError: k below m.
        """
        self._check(k)
        drawn, out = self.recorded, np.empty(len(self.recorded.n_samples))
        for n in np.unique(drawn.n_samples):
            rows = drawn.n_samples == n
            right = drawn.correct[rows, :n]
            if self.m == 1:
                first = -np.diff(_below(n, k, 1)[:, 0], append=0.0)
                out[rows] = _tie_means(drawn.output_tokens[rows, :n], right) @ first
            else:
                who = _subsets(int(n), k, rng)[:, : self.m]
                out[rows] = _vote(drawn.answer[rows, :n], right, who)
        return out

    def tokens(self, k: int) -> tuple[Array, Array]:
        """Expected tokens of all draws till they end or are cancelled, and till the answer.

        Each (P,); the second is the latency, in tokens of one sequence.

        Raises:
            InputError: k below m.
        """
        self._check(k)
        drawn = self.recorded
        spent, latency = np.empty((2, len(drawn.n_samples)))
        for n in np.unique(drawn.n_samples):
            rows = drawn.n_samples == n
            gaps = np.diff(drawn.output_tokens[rows, :n].astype(float), axis=1, prepend=0.0)
            below = _below(n, k, self.m)
            latency[rows] = gaps @ below.sum(axis=1)
            spent[rows] = gaps @ (below @ (k - np.arange(self.m)))
        return spent, latency

    def predict(self, k: ArrayLike, rng: np.random.Generator) -> Prediction:
        """Accuracy at each k on problems of this kind; Bayesian bootstrap over problems.

        Raises:
            InputError: k below m.
        """
        points = _whole(k)
        each = np.stack([self.accuracy(int(n), rng) for n in points], axis=1)
        weight, right = weigh_problems(len(each), _DRAWS, rng)
        doublings = np.log2(np.maximum(points / self._known(), 1.0))
        noise = _FORECAST_SD * doublings * rng.standard_normal((_DRAWS, 1))
        draws = np.clip(weight @ each + right + noise, 0.0, 1.0)
        return Prediction(draws, "1", doublings > 0)

    def predict_tokens(
        self, k: ArrayLike, rng: np.random.Generator
    ) -> tuple[Prediction, Prediction]:
        """Tokens spent and latency at each k, as `tokens`, over problems of this kind.

        Raises:
            InputError: k below m.
        """
        points = _whole(k)
        both = np.array([self.tokens(int(n)) for n in points])  # (n_k, 2, P)
        weight = rng.dirichlet(np.ones(both.shape[2]), _DRAWS)
        known = self._known()
        # No recorded draw is shorter than the shortest: beyond k = n m all would end at
        # once. A latency that goes on falling as it did up to n is the other extreme.
        half = max(known // 2, self.m)
        fall = np.zeros(_DRAWS)
        if half < known:
            ends = [weight @ self.tokens(k)[1] for k in (half, known)]
            fall = np.log(ends[1] / ends[0]) / np.log2(known / half)
        doublings = np.log2(np.maximum(points / (known * self.m), 1.0))
        share = np.exp(np.outer(fall * rng.random(_DRAWS), doublings))
        spent, latency = ((weight @ both[:, i].T) * share for i in range(2))
        beyond = points > known
        return Prediction(spent, "tokens", beyond), Prediction(latency, "tokens", beyond)

    def _known(self) -> int:
        return max(int(np.median(self.recorded.n_samples)), self.m)

    def _check(self, k: int) -> None:
        if k < self.m:
            raise InputError(f"of {k} draws no {self.m} can finish")


def by_length_rank(recorded: Recorded) -> tuple[float, float, float]:
    """Accuracy of each problem's shortest draw, of its longest, and of all; problems alike.

    Only problems with right and wrong draws, where length can tell: over all problems the
    differences shrink by the share of mixed ones.

    Raises:
        InputError: No problem has right and wrong draws.
    """
    mixed = (recorded.n_correct > 0) & (recorded.n_correct < recorded.n_samples)
    if not mixed.any():
        raise InputError("no problem has right and wrong draws")
    some = FinishLaw.fit(recorded.rows(mixed)).recorded
    shortest, longest = [], []
    for length, right, n in zip(
        some.output_tokens, some.correct, some.n_samples, strict=True
    ):
        shortest.append(right[:n][length[:n] == length[0]].mean())
        longest.append(right[:n][length[:n] == length[n - 1]].mean())
    mean = (some.n_correct / some.n_samples).mean()
    return float(np.mean(shortest)), float(np.mean(longest)), float(mean)


def _below(n: int, k: int, m: int) -> Array:
    """P(j of k draws are among the r shortest of n), r = 0..n-1, j = 0..m-1."""
    r = np.arange(n, dtype=float)[:, None]
    j = np.arange(m, dtype=float)
    if k <= n:
        log = _log_choose(r, j) + _log_choose(n - r, k - j) - _log_choose(n, k)
    else:
        log = _log_choose(k, j) + xlogy(j, r / n) + xlog1py(k - j, -r / n)
    return np.asarray(np.exp(log))


def _log_choose(n: ArrayLike, k: ArrayLike) -> Array:
    top, low = np.broadcast_arrays(np.asarray(n, float), np.asarray(k, float))
    possible = (low >= 0) & (low <= top)
    low = np.where(possible, low, 0.0)
    value = gammaln(top + 1) - gammaln(low + 1) - gammaln(top - low + 1)
    return np.where(possible, value, -np.inf)


def _tie_means(length: IntArray, right: np.ndarray) -> Array:
    """Mean of `right` over draws of equal length, for each draw; rows are sorted."""
    new = np.diff(length, axis=1, prepend=-1) != 0
    new[:, 0] = True
    run = np.cumsum(new.ravel()) - 1
    mean = np.bincount(run, right.ravel().astype(float)) / np.bincount(run)
    return np.asarray(mean[run].reshape(length.shape))


def _subsets(n: int, k: int, rng: np.random.Generator) -> IntArray:
    """Which k of n draws run, each row sorted by length; (n_replays, k)."""
    if k > n:
        return np.sort(rng.integers(0, n, (_REPLAYS, k)), axis=1)
    if comb(n, k) <= _ALL_SUBSETS:
        return np.array(list(combinations(range(n), k)), dtype=np.int64)
    return np.sort(
        rng.permuted(np.tile(np.arange(n), (_REPLAYS, 1)), axis=1)[:, :k], axis=1
    )


def _vote(answer: IntArray, right: np.ndarray, who: IntArray) -> Array:
    """Share of replays in which the vote is right, (P,)."""
    votes = answer[:, who]  # (P, replays, m), from the first to finish
    count = np.zeros(votes.shape, np.int64)
    for j in range(votes.shape[2]):
        count += votes == votes[:, :, j : j + 1]
    count[votes == NO_ANSWER] = 0
    lead = count.argmax(axis=2)[:, :, None]  # of equals the first to finish
    won = np.take_along_axis(right[:, who], lead, axis=2)[:, :, 0]
    voted = np.take_along_axis(count, lead, axis=2)[:, :, 0] > 0
    return np.asarray((won & voted).mean(axis=1))


def _whole(k: ArrayLike) -> Array:
    points = np.atleast_1d(np.asarray(k, dtype=float))
    if not (np.isfinite(points) & (points >= 1) & (points % 1 == 0)).all():
        raise InputError(f"draws must be whole numbers from 1, got {points.tolist()}")
    return points
