"""The answers of a problem, seen and unseen.

Of the draws that answer, a share p is right. Right and wrong draws each split over answers
like a Pitman-Yor process (Pitman and Yor 1997) with discount d and concentration t: after n
draws that gave K answers, n_k times each,

    P(answer k next) = (n_k - d) / (n + t),    P(an unseen one) = (t + d K) / (n + t)

so that unseen right answers have the probability that coverage gives them, and unseen wrong
ones what disagreement so far suggests. Problems differ, and not independently: where few
draws are right, the wrong ones agree more or less than elsewhere, and where wrong answers
scatter, so do the right ones if there are several. A problem is therefore of one of some
classes, each with a Beta of p and with (d, t) of each side distributed on a grid. All
weights are estimated from all problems of all tables at once (empirical Bayes by EM).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import betaln, gammaln

from planner.models.lengths import IntArray, Recorded
from planner.models.prediction import Array

_LOGIT = np.arange(-9.0, 9.5)  # class centres of p, on the logit scale
_LEVELS = np.array([-1.0, 0.0, 1.0, 2.0])  # of agreement: log10 of t, where the fit starts
_NARROW = 2.0  # the smaller shape of a class's Beta: a logit's standard deviation of 0.8
CLASSES = np.repeat(
    np.stack(
        [_NARROW * np.exp(np.maximum(_LOGIT, 0)), _NARROW * np.exp(np.maximum(-_LOGIT, 0))],
        axis=1,
    ),
    len(_LEVELS),
    axis=0,
)  # (B, 2), Beta shapes of p; every p at every level of agreement
_DISCOUNTS = (0.0, 0.25, 0.5, 0.75)
_CONCENTRATIONS = (1e-3, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
# every pair; "one answer and no other" is d = 0, t = 1e-3
GRID = np.array([(d, t) for d in _DISCOUNTS for t in _CONCENTRATIONS])  # (G, 2)
_EM_STEPS = 100
# problems that a prior counts for: flat in the pool, the pool in one table
_FLAT_WEIGHT, _POOL_WEIGHT = 1.0, 10.0
_SPLIT_WEIGHT = 5.0  # problems that the splits of the classes around count for in one
# how near classes are: by p alone, and only at one level
_KERNEL = np.kron(
    np.exp(-((_LOGIT[:, None] - _LOGIT) ** 2) / (2 * 2.0**2)), np.eye(len(_LEVELS))
)
_NIL = -60.0  # log likelihood ratio taken for nought: products must not underflow
_STICKS = 6  # unseen answers drawn one by one; the rest are single votes


@dataclass(frozen=True, eq=False)
class AnswerCounts:
    """Draws of each problem by answer; zeros pad."""

    right: Array  # (P, K_right), draws of each right answer
    wrong: Array  # (P, K_wrong)
    silent: Array  # (P,), draws without an answer

    @property
    def n_right(self) -> Array:
        """Votes for right answers, (P,)."""
        return np.asarray(self.right.sum(axis=1))

    @property
    def n_wrong(self) -> Array:
        """Votes for wrong answers, (P,)."""
        return np.asarray(self.wrong.sum(axis=1))


def count_answers(recorded: Recorded) -> AnswerCounts:
    """Count the draws of each answer, the most drawn first.

    An answer is right if most of its draws are.
    """
    voting = recorded.present & (recorded.answer >= 0)
    problem = np.nonzero(voting)[0]
    width = int(recorded.answer.max(initial=0)) + 1
    key, kind = np.unique(problem * width + recorded.answer[voting], return_inverse=True)
    votes = np.bincount(kind, minlength=len(key))
    is_right = 2 * np.bincount(kind, recorded.correct[voting], len(key)) > votes
    sides = []
    for own in (is_right, ~is_right):
        order = np.flatnonzero(own)[np.lexsort((-votes[own], key[own] // width))]
        of = key[order] // width
        column = np.arange(len(of)) - np.searchsorted(of, of)
        out = np.zeros((len(recorded.n_samples), int(column.max(initial=-1)) + 1))
        out[of, column] = votes[order]
        sides.append(out)
    silent = (recorded.present & (recorded.answer < 0)).sum(axis=1)
    return AnswerCounts(sides[0], sides[1], np.asarray(silent, dtype=float))


class Likelihood(NamedTuple):
    """Of each problem's counts, scaled to a maximum of 1 a problem."""

    share: Array  # (P, B), of right against wrong votes, by class
    right: Array  # (P, G), of the split of right votes, by grid point
    wrong: Array  # (P, G)


class Weights(NamedTuple):
    """Problems of each kind: expected counts, or shares."""

    share: Array  # (..., B), classes
    right: Array  # (..., B, G), grid points within each class
    wrong: Array  # (..., B, G)

    def scaled(self, total: float) -> "Weights":
        """In proportion, to sum to `total` over the last axis."""
        return Weights(*(total * w / w.sum(axis=-1, keepdims=True) for w in self))


class Shares(NamedTuple):
    """One draw of every problem's answer distribution, by each of R chains."""

    right: Array  # (R, P, K_right + 6), answers seen in the counts' order, then unseen
    wrong: Array  # (R, P, K_wrong + 6)
    rest: Array  # (R, P, 2): all other right answers, all other wrong ones


@dataclass(frozen=True, eq=False)
class AnswerLaw:
    """Posterior of the answer distribution of each problem of one table."""

    counts: AnswerCounts
    likelihood: Likelihood
    prior: Weights  # Dirichlet
    weights: Weights  # expected, given the counts

    def draws(self, rng: np.random.Generator, chains: int) -> Iterator[Shares]:
        """Draw the distributions of all problems, and the weights they share, for ever.

        A Gibbs sampler that starts at the fit: kinds of the problems given the weights,
        weights given the kinds. Without the second step a draw would take the weights for
        known, which eight draws a problem hardly make them.

        Args:
            rng: For the draws.
            chains: R, independent chains.
        """
        now = Weights(*(np.repeat(w[None], chains, axis=0) for w in self.weights))
        while True:
            weight = _dirichlet(now, rng)
            right = self.likelihood.right @ weight.right.swapaxes(1, 2)  # (R, P, B)
            wrong = self.likelihood.wrong @ weight.wrong.swapaxes(1, 2)
            share = self.likelihood.share * weight.share[:, None]
            kind = _pick(share * right * wrong, rng)
            chain = np.arange(chains)[:, None]
            at_right = _pick(self.likelihood.right * weight.right[chain, kind], rng)
            at_wrong = _pick(self.likelihood.wrong * weight.wrong[chain, kind], rng)
            now = Weights(
                self.prior.share + _tally(kind, len(CLASSES)),
                self.prior.right + _tally_pairs(kind, at_right),
                self.prior.wrong + _tally_pairs(kind, at_wrong),
            )
            a, b = np.moveaxis(CLASSES[kind], -1, 0)
            p = rng.beta(a + self.counts.n_right, b + self.counts.n_wrong)[..., None]
            r, r_rest = _split(self.counts.right, at_right, rng)
            w, w_rest = _split(self.counts.wrong, at_wrong, rng)
            rest = np.concatenate([r_rest * p, w_rest * (1 - p)], axis=-1)
            yield Shares(r * p, w * (1 - p), rest)


def fit_answers(tables: Sequence[AnswerCounts]) -> list[AnswerLaw]:
    """Fit all tables at once; the weights of one lean on those of all."""
    likelihoods = [
        Likelihood(
            _share_likelihood(counts), _split_likelihood(counts.right),
            _split_likelihood(counts.wrong),
        )
        for counts in tables
    ]  # fmt: skip
    near = np.exp(-((np.log10(GRID[:, 1]) - _LEVELS[:, None]) ** 2) / 2)
    level = np.tile(near, (len(_LOGIT), 1))
    flat = Weights(np.ones(len(CLASSES)), level, level).scaled(_FLAT_WEIGHT)
    together = Likelihood(
        *(np.concatenate(parts) for parts in zip(*likelihoods, strict=True))
    )
    prior, pool = _em(together, flat, smooth=True)
    if len(tables) == 1:
        return [AnswerLaw(tables[0], likelihoods[0], prior, pool)]
    prior = pool.scaled(_POOL_WEIGHT)
    return [
        AnswerLaw(counts, each, prior, _em(each, prior)[1])
        for counts, each in zip(tables, likelihoods, strict=True)
    ]


def _share_likelihood(counts: AnswerCounts) -> Array:
    a, b = CLASSES.T
    c, w = counts.n_right[:, None], counts.n_wrong[:, None]
    return _scaled(betaln(a + c, b + w) - betaln(a, b))


def _split_likelihood(counts: Array) -> Array:
    """Pitman-Yor probability of how each row splits, (P, G)."""
    n, kinds = counts.sum(axis=1), (counts > 0).sum(axis=1)
    out = np.zeros((len(counts), len(GRID)))
    steps = np.arange(1, max(int(kinds.max(initial=0)), 1))
    for d in _DISCOUNTS:
        own = np.where(counts > 0, gammaln(np.maximum(counts, 1) - d) - gammaln(1 - d), 0.0)
        within = own.sum(axis=1)
        for g in np.flatnonzero(GRID[:, 0] == d):
            t = GRID[g, 1]
            new = np.concatenate([[0.0, 0.0], np.cumsum(np.log(t + steps * d))])
            scale = gammaln(t + np.maximum(n, 1)) - gammaln(t + 1)
            out[:, g] = within + new[kinds] - scale
    return _scaled(out)


def _em(
    likelihood: Likelihood, prior: Weights, smooth: bool = False
) -> tuple[Weights, Weights]:
    """Fit the weights.

    Args:
        likelihood: Of all problems.
        prior: Problems of each kind that it counts for.
        smooth: Whether the prior of a class's splits is learned from the classes around it:
            a problem with one right vote says nothing of how right votes split.

    Returns:
        The prior, and with it the expected problems of each kind.
    """
    weights, now = prior, prior.scaled(1)
    for _ in range(_EM_STEPS):
        right = likelihood.right @ now.right.T
        wrong = likelihood.wrong @ now.wrong.T
        post = likelihood.share * now.share * right * wrong
        post /= post.sum(axis=1, keepdims=True)
        of_right = now.right * ((post / right).T @ likelihood.right)
        of_wrong = now.wrong * ((post / wrong).T @ likelihood.wrong)
        if smooth:
            around = Weights(prior.share, _KERNEL @ of_right, _KERNEL @ of_wrong)
            around = around.scaled(_SPLIT_WEIGHT)
            prior = Weights(prior.share, around.right, around.wrong)
        weights = Weights(
            prior.share + post.sum(axis=0), prior.right + of_right, prior.wrong + of_wrong
        )
        now = weights.scaled(1)
    return prior, weights


def _dirichlet(weights: Weights, rng: np.random.Generator) -> Weights:
    """Shares drawn from Dirichlets over the last axis."""
    return Weights(
        *(rng.standard_gamma(np.maximum(w, 1e-9)) + 1e-30 for w in weights)
    ).scaled(1)


def _tally(kind: IntArray, size: int) -> Array:
    """How often each value occurs in each row, (R, size)."""
    chain = np.arange(len(kind))[:, None] * size
    counts = np.bincount((chain + kind).ravel(), minlength=len(kind) * size)
    return counts.reshape(len(kind), size).astype(float)


def _tally_pairs(kind: IntArray, at: IntArray) -> Array:
    """How often each grid point occurs in each class, (R, B, G)."""
    both = _tally(kind * len(GRID) + at, len(CLASSES) * len(GRID))
    return both.reshape(len(kind), len(CLASSES), len(GRID))


def _split(counts: Array, at: IntArray, rng: np.random.Generator) -> tuple[Array, Array]:
    """Shares of a side's answers, (R, P, K + 6), and of all others, (R, P, 1)."""
    d, t = np.moveaxis(GRID[at], -1, 0)[..., None]
    left = t + d * (counts > 0).sum(axis=1, keepdims=True)
    mass = rng.standard_gamma(np.maximum(counts - d, 0.0))
    unseen = rng.standard_gamma(left)
    total = np.maximum(mass.sum(axis=-1, keepdims=True) + unseen, 1e-300)
    unseen /= total
    part = rng.beta(1 - d, left + d * np.arange(1, _STICKS + 1))
    rest = np.cumprod(1 - part, axis=-1)
    stick = part * np.concatenate([np.ones_like(unseen), rest[..., :-1]], axis=-1)
    return np.concatenate([mass / total, unseen * stick], axis=-1), unseen * rest[..., -1:]


def _pick(weight: Array, rng: np.random.Generator) -> IntArray:
    """An index of the last axis, in proportion to its weight."""
    cumulative = np.cumsum(weight, axis=-1)
    bar = cumulative[..., -1:] * rng.random((*weight.shape[:-1], 1))
    at = (cumulative < bar).sum(axis=-1)
    return np.asarray(np.minimum(at, weight.shape[-1] - 1), dtype=np.int64)


def _scaled(log_likelihood: Array) -> Array:
    top = log_likelihood.max(axis=1, keepdims=True)
    return np.asarray(np.exp(np.maximum(log_likelihood - top, _NIL)))
