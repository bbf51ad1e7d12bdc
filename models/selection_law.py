"""Best-of-N by an imperfect score beyond the draws made.

Within one problem only the order of the scores counts. Let u be the share of the model's
draws that score higher than a draw, and h(u) the chance that a draw at that depth is
correct. The best of N draws lies at u ~ Beta(1, N), so that

    accuracy(N) = E[h(u)] = N pi int f1(s) G(s)^(N - 1) ds,    pi = int h(u) du,

with f1 the density of correct scores and G the cdf of all: the problem's pi and ROC say
everything (ROC-n-reroll, Dorner et al. 2026, arXiv:2507.12399). As N grows, accuracy goes
to pi m / (pi m + 1 - pi), m the slope of the ROC at its origin: the false-positive ceiling
(`planner.models.verification.ceiling`). It lies beyond every draw made and takes a model.

Ours is the binormal ROC, problem by problem: up to a monotone map wrong draws score as
Normal(0, 1), correct ones as Normal(d, s^2). Problems differ: pi ~ Beta(a, b) is the
coverage law, d ~ Normal(mean + trend (2 pi - 1), spread^2), and s is one of a few values.
s < 1, as where all correct draws say the same, makes the curve rise and then fall: sooner
or later a wrong draw scores higher. The likelihood is of the order of a problem's draws.

Up to the draws made the exact order statistics are known, with their noise: the law's level
is moved toward them, and the law gives the change from there.
"""

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betainc, expit, gammaln, log_expit, ndtr

from planner.models.coverage import WEAK_PRIOR, CoverageLaw, ShapePrior
from planner.models.errors import InputError, NotMeasuredError
from planner.models.lengths import IntArray, Recorded
from planner.models.prediction import Array, Prediction
from planner.models.selection import ranked_correct, scored_curves

_DRAWS = 100  # of the posterior
_EM_STEPS = 12  # of each draw, from where the fit's mean ended
_LOGIT_PI = np.linspace(-12.0, 9.6, 37)
_SHIFT = np.linspace(-4.5, 4.5, 19)
_SCALE = np.array([0.02, 0.35, 0.7, 1.0, 1.5])
_GRID = (len(_LOGIT_PI), len(_SHIFT), len(_SCALE))
_TREND = 2 * expit(_LOGIT_PI) - 1  # what the trend of the shifts multiplies
# edges of the cells of depth u that integrals are sums over; fine at the top
_LIMIT = 1e9  # draws that count as without end
_EDGES = np.concatenate([[0.0], np.logspace(-np.log10(_LIMIT), 0, 136)])
_N_GRID = np.unique(np.round(2.0 ** np.arange(0, 20.5, 0.5)))
# error of the binormal form, a doubling beyond the draws made; read off the reference
# models' curves (n = 8-32 against 64-256), where without it the intervals were too narrow
_FORM_SD = 0.02
_LEVEL_SD = 0.05  # of the law's level about the truth, before the exact curve is seen
_HURTS = 0.002  # a fall in accuracy that counts as one
# weak priors: of the mean and trend of the shifts (normal), their spread (log-normal, worth
# some problems), and the shares of the scales (problems each counts for)
_MEAN_SD, _TREND_SD, _SPREAD_SD, _SPREAD_WORTH, _SCALE_WORTH = 1.5, 1.0, 0.5, 4.0, 1.0


class BestN(NamedTuple):
    """The number of draws after which more of them hurt."""

    n: Array  # (n_draws,) its posterior; inf where accuracy never falls
    probability_hurts: float  # that accuracy falls again at some N


class _Nodes(NamedTuple):
    """Problems there may be: all of success rate x shift x scale, (g,) flattened."""

    success: Array  # (g,)
    precision: Array  # (g, n_cells) h(u)


@cache
def _nodes() -> _Nodes:
    """The precision curve of each node."""
    logit, shift, scale = (
        m.ravel() for m in np.meshgrid(_LOGIT_PI, _SHIFT, _SCALE, indexing="ij")
    )
    z = np.linspace(13.0, -13.0, 521)  # from the top down
    success = expit(logit)
    precision = np.empty((len(logit), len(_EDGES) - 1))
    width = np.diff(_EDGES)
    for i, (pi, d, s) in enumerate(zip(success, shift, scale, strict=True)):
        # near a sharp peak of the correct scores the grid must be as sharp
        at = np.sort(np.concatenate([z, d + s * z]))[::-1]
        right = pi * ndtr((d - at) / s)
        depth = right + (1 - pi) * ndtr(-at)
        mass = np.diff(np.interp(_EDGES, depth, right, left=0.0, right=pi))
        precision[i] = mass / width
    return _Nodes(success, np.clip(precision, 0.0, 1.0))


def _depth_weights(a: Array, b: Array) -> Array:
    """Mass of Beta(a, b) in each cell of depth; (len(a), n_cells)."""
    return np.diff(betainc(a[:, None], b[:, None], _EDGES), axis=1)


@dataclass(frozen=True, eq=False)
class SelectionLaw:
    """A fitted law of one model, task and score."""

    likelihood: Array  # (n_problems, g) of each problem at each node, 1 at its best
    weights: Array  # (n_draws, g): draws of the nodes' shares over problems
    n_max: int  # draws a problem behind the fit; beyond it is extrapolation
    offset: Array  # (n_exact,) what the exact curve adds to the law's, at 1..n_exact draws

    @classmethod
    def fit(
        cls,
        recorded: Recorded,
        rng: np.random.Generator,
        *,
        prior: ShapePrior = WEAK_PRIOR,
        size: int = _DRAWS,
    ) -> Self:
        """Fit to the order of the scores within each problem.

        Equal scores share what was right among them; a draw without score ranks last and
        counts as wrong, as it is never chosen. The posterior's draws come from EM on
        problems reweighted at random (Newton and Raftery 1994) and priors moved at random.

        Args:
            recorded: Draws of one model at one temperature.
            rng: For the posterior's draws.
            prior: Of the success rates' Beta shapes.
            size: Draws of the posterior.

        Raises:
            InputError: No problem.
            NotMeasuredError: No draw has a score.
        """
        scored = recorded.present & ~np.isnan(recorded.score)
        if not len(recorded.n_samples):
            raise InputError("a selection law needs at least one problem")
        if not scored.any():
            raise NotMeasuredError("no draw has a score; sample with a scored verifier")
        n_correct = (scored & recorded.correct).sum(axis=1)
        coverage = CoverageLaw.fit(n_correct, recorded.n_samples, prior)
        log = _log_likelihood(ranked_correct(recorded), recorded.n_samples)
        likelihood = np.exp(log - log.max(axis=1, keepdims=True))
        a, b = coverage.shapes(rng, size)
        success = _success_shares(a, b)
        weights = _share_draws(likelihood, success, rng)
        offset = _offset(recorded, likelihood, weights.mean(axis=0))
        return cls(likelihood, weights, int(recorded.n_samples.max()), offset)

    def predict(self, n: ArrayLike, rng: np.random.Generator) -> Prediction:
        """Expected accuracy of best-of-n on these very problems.

        Raises:
            InputError: n below 1.
        """
        points = _checked(n)
        return Prediction(
            self._draw(_accuracy(points), points, rng),
            "1",
            points > self.n_max,
        )

    def predict_measured(
        self, n: ArrayLike, n_samples: int, rng: np.random.Generator
    ) -> Prediction:
        """What `scored_curves` will read at n, once n_samples draws a problem are made.

        Wider than `predict`: with few draws to choose from, luck is part of it.

        Raises:
            InputError: n below 1 or above n_samples.
        """
        points = _checked(n)
        if points.size and points.max() > n_samples:
            raise InputError(f"{n_samples} draws cannot measure n = {points.max():g}")
        right = _correct_at_rank(n_samples)
        noise = (right * (1 - right)) @ _chosen(n_samples, points) ** 2
        draws = self._draw(_accuracy(points), points, rng, noise)
        return Prediction(draws, "1", points > self.n_max)

    def predict_new(self, n: ArrayLike) -> Prediction:
        """Mean accuracy of best-of-n over new problems of the same kind.

        Raises:
            InputError: n below 1.
        """
        points = _checked(n)
        return Prediction(self.weights @ _accuracy(points), "1", points > self.n_max)

    def ceiling(self, rng: np.random.Generator) -> Prediction:
        """Accuracy on these problems at a billion draws; always extrapolated."""
        draws = self._draw(_nodes().precision[:, :1], np.array([_LIMIT]), rng)
        return Prediction(draws, "1", np.array([True]))

    def best_n(self, rng: np.random.Generator) -> BestN:
        """After how many draws more of them hurt, on these problems."""
        curves = self._draw(_accuracy(_N_GRID), _N_GRID, rng)
        falls = curves.max(axis=1) - curves[:, -1] > _HURTS
        best = np.where(falls, _N_GRID[curves.argmax(axis=1)], np.inf)
        return BestN(best, float(falls.mean()))

    def _draw(
        self,
        value: Array,
        n: Array,
        rng: np.random.Generator,
        noise: Array | None = None,
    ) -> Array:
        """Draws of the mean over problems of a quantity known at every node.

        Args:
            value: At each node, (g, n_points).
            n: Draws that each point stands for, (n_points,).
            rng: For the draws.
            noise: Variance of one problem's reading at each node, (g, n_points).
        """
        points = value.shape[1]
        second = value**2 if noise is None else value**2 + noise
        both = np.hstack([value, second])
        out = np.empty((len(self.weights), points))
        # one a curve, so that curves stay smooth
        normal, off = rng.standard_normal((2, len(out)))
        exact = len(self.offset)
        offset = np.interp(n, np.arange(1.0, exact + 1), self.offset)
        form_sd = _FORM_SD * np.log2(np.maximum(n / exact, 1))
        for i, weight in enumerate(self.weights):
            total = self.likelihood @ weight
            moments = self.likelihood @ (weight[:, None] * both) / total[:, None]
            mean = moments[:, :points]
            variance = np.maximum(moments[:, points:] - mean**2, 0)
            sd = np.sqrt(variance.sum(axis=0)) / len(mean)
            out[i] = mean.mean(axis=0) + offset + sd * normal[i] + form_sd * off[i]
        return np.clip(out, 0.0, 1.0)


def _offset(recorded: Recorded, likelihood: Array, weight: Array) -> Array:
    """Exact accuracy less the law's, at 1 to as many draws as every problem has.

    Shrunk by the noise of the exact curve: few problems do not move the law.
    """
    most = int(recorded.n_samples.min())
    points = np.arange(1.0, most + 1)
    exact = scored_curves(recorded, tuple(range(1, most + 1))).accuracy
    where = likelihood * weight
    where /= where.sum(axis=1, keepdims=True)
    right = _correct_at_rank(most)
    noise = where @ ((right * (1 - right)) @ _chosen(most, points) ** 2)
    variance = noise.mean(axis=0) / len(where)
    gap = exact.mean(axis=0) - (where @ _accuracy(points)).mean(axis=0)
    return np.asarray(gap * _LEVEL_SD**2 / (_LEVEL_SD**2 + variance))


def _accuracy(n: Array) -> Array:
    """E[h(u)], u ~ Beta(1, n), at each node; (g, n_points)."""
    return np.asarray(_nodes().precision @ _depth_weights(np.ones_like(n), n).T)


def _correct_at_rank(n: int) -> Array:
    """P(the r-th best of n draws is correct) at each node, (g, n).

    It lies at depth u ~ Beta(r, n - r + 1).
    """
    ranks = np.arange(1.0, n + 1)
    return np.asarray(_nodes().precision @ _depth_weights(ranks, n + 1 - ranks).T)


def _log_likelihood(right: Array, n_samples: IntArray) -> Array:
    """Of each problem's ranked draws at each node, (n_problems, g).

    That the draws of a problem share their depths is neglected.
    """
    out = np.empty((len(right), len(_nodes().success)))
    for n in np.unique(n_samples):
        rows = n_samples == n
        chance = np.clip(_correct_at_rank(int(n)), 1e-12, 1 - 1e-12)
        won, lost = np.log(chance), np.log1p(-chance)
        out[rows] = right[rows, :n] @ (won - lost).T + lost.sum(axis=1)
    return out


def _success_shares(a: Array, b: Array) -> Array:
    """Share of the problems at each success rate, p ~ Beta(a, b); (n_draws, n_success)."""
    log = a * log_expit(_LOGIT_PI) + b * log_expit(-_LOGIT_PI)  # density of logit p
    share = np.exp(log - log.max(axis=1, keepdims=True))
    return np.asarray(share / share.sum(axis=1, keepdims=True))


class _Hyper(NamedTuple):
    """How shifts and scales are spread over problems, for each of S draws."""

    mean: Array  # (S,)
    trend: Array  # (S,)
    spread: Array  # (S,)
    scales: Array  # (S, n_scales), shares; of a prior pseudo-counts

    @classmethod
    def centre(cls, size: int) -> "_Hyper":
        """Centre of the weak priors."""
        nought, one = np.zeros(size), np.ones(size)
        return cls(nought, nought, one, np.full((size, len(_SCALE)), _SCALE_WORTH))

    def weights(self, success: Array) -> Array:
        """Share of each node, (S, g), given that of each success rate, (S, n_success)."""
        mean, trend, spread = (x[:, None, None] for x in self[:3])
        off = (_SHIFT - mean - trend * _TREND[:, None]) / spread
        shift = np.exp(-0.5 * off**2) + 1e-12
        shift *= (success / shift.sum(axis=2))[:, :, None]
        nodes = shift[..., None] * self.scales[:, None, None, :]
        return np.asarray(nodes.reshape(len(nodes), -1))


def _share_draws(likelihood: Array, success: Array, rng: np.random.Generator) -> Array:
    """Draws of the nodes' shares, (n_draws, g)."""
    size, p = len(success), len(likelihood)
    start, centre = _Hyper.centre(1), _Hyper.centre(1)
    start = start._replace(scales=start.scales / start.scales.sum())
    for _ in range(2 * _EM_STEPS):
        start = _em_step(
            likelihood, success.mean(axis=0)[None], start, np.ones((1, p)), centre
        )
    # all draws at once: the products with the likelihood are then of matrices
    weight, prior = rng.standard_exponential((size, p)), _draw_priors(rng, size)
    hyper = _Hyper(*(np.repeat(x, size, axis=0) for x in start))
    for _ in range(_EM_STEPS):
        hyper = _em_step(likelihood, success, hyper, weight, prior)
    return hyper.weights(success)


def _draw_priors(rng: np.random.Generator, size: int) -> _Hyper:
    """Priors moved at random, so that what the data do not say stays spread out."""
    mean, trend, spread = rng.standard_normal((3, size))
    return _Hyper(
        _MEAN_SD * mean, _TREND_SD * trend, np.exp(_SPREAD_SD * spread),
        rng.standard_gamma(_SCALE_WORTH, (size, len(_SCALE))),
    )  # fmt: skip


def _em_step(
    likelihood: Array, success: Array, hyper: _Hyper, weight: Array, prior: _Hyper
) -> _Hyper:
    """One step of EM: where problems lie given the spread, then the spread given that.

    Args:
        likelihood: Of each problem at each node, (P, g).
        success: Share of each success rate, (S, n_success).
        hyper: Where the step starts.
        weight: Of each problem, (S, P).
        prior: Of the spread.
    """
    share = hyper.weights(success)
    count = share * ((weight / (share @ likelihood.T)) @ likelihood)
    count = count.reshape(-1, *_GRID)
    at, precision = count.sum(axis=3), 1 / hyper.spread**2
    rows, shifts = at.sum(axis=2), at @ _SHIFT
    gram = np.empty((len(count), 2, 2))
    gram[:, 0, 0] = precision * rows.sum(axis=1) + _MEAN_SD**-2
    gram[:, 0, 1] = gram[:, 1, 0] = precision * (rows @ _TREND)
    gram[:, 1, 1] = precision * (rows @ _TREND**2) + _TREND_SD**-2
    pull = np.stack(
        [
            precision * shifts.sum(axis=1) + prior.mean / _MEAN_SD**2,
            precision * (shifts @ _TREND) + prior.trend / _TREND_SD**2,
        ],
        axis=1,
    )
    mean, slope = np.linalg.solve(gram, pull[..., None])[..., 0].T
    off = _SHIFT - mean[:, None, None] - slope[:, None, None] * _TREND[:, None]
    variance = ((at * off**2).sum(axis=(1, 2)) + _SPREAD_WORTH * prior.spread**2) / (
        at.sum(axis=(1, 2)) + _SPREAD_WORTH
    )
    scales = count.sum(axis=(1, 2)) + prior.scales
    return _Hyper(
        mean, slope, np.sqrt(variance), scales / scales.sum(axis=1, keepdims=True)
    )


def _chosen(m: int, n: Array) -> Array:
    """P(the r-th best of m draws is the best of n random ones of them); (m, n_points)."""
    below = m - np.arange(1.0, m + 1)[:, None]
    possible = below >= n - 1
    left = np.where(possible, below - n + 1, 0.0)
    log = (
        gammaln(below + 1) - gammaln(n) - gammaln(left + 1)
        - gammaln(m + 1) + gammaln(n + 1) + gammaln(m - n + 1)
    )  # fmt: skip
    return np.asarray(np.where(possible, np.exp(log), 0.0))


def _checked(n: ArrayLike) -> Array:
    points = np.atleast_1d(np.asarray(n, dtype=float))
    if points.ndim != 1 or not (points >= 1).all():
        raise InputError(f"best-of-N needs n >= 1, got {points!r}")
    return points
