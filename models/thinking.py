"""Accuracy and tokens of a draw under any token cap.

A cap below the sampled one is replayed: a draw is right under it if it was right and ended
in time, which is exact and paired problem by problem. Above the sampled cap the draws that
it cut are unknown. How many of them would still have ended, and how many of these right, is
extrapolated from the late finishers: the hazard of ending per log token, and the odds that
an ending is right, each a power of the length,

    log hazard(t), log odds(t) = level + trend * log(t / cap)

(trend 0 of the hazard is a Pareto tail, 1 an exponential one, loops that never end make it
negative). Both trends may drift beyond the cap, so that intervals are wide there.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit

from planner.models.errors import InputError
from planner.models.fitting import Quadratic, minimise_many, weigh_problems
from planner.models.lengths import BoolArray, LengthLaw, Recorded
from planner.models.prediction import Array, Prediction

_DRAWS = 1000
_WINDOW, _BINS = 4.0, 4  # hazards are read from draws that ended in cap / 4 .. cap
_GRID = 65  # points of an integral over log tokens
_MAX_LOG_HAZARD = 12.0


class _Prior(NamedTuple):
    """Of a level at the cap and a trend per log token."""

    mean: tuple[float, float]
    sd: tuple[float, float]
    drift_sd: float  # of the trend beyond the cap, where nothing was seen


# One in two ends per unit of log tokens, give or take e^2; around a Pareto tail.
_HAZARD_PRIOR = _Prior((float(np.log(0.5)), 0.0), (2.0, 1.0), 0.5)
# Log-odds that an ending is right: any level, and no trend unless the endings show one.
_ODDS_PRIOR = _Prior((0.0, 0.0), (2.0, 1.0), 0.5)
# Endings below the cap do not tell whether what it cut is of their kind. In one forecast of
# four some of it (any share, rather none or all than half) has failed already: a search
# that goes on, a loop.
_FAILED_CHANCE, _FAILED_SHAPE = 0.25, 0.5


@dataclass(frozen=True, eq=False)
class CapLaw:
    """Accuracy and tokens of one draw under any cap; problems weigh alike."""

    recorded: Recorded
    max_tokens: int  # the cap that was sampled
    cut: BoolArray  # (P, N), draws that the cap stopped, not knowing where they led

    @classmethod
    def fit(cls, recorded: Recorded, max_tokens: int) -> Self:
        """Keep the draws and mark the cut ones: as long as the cap, and not right.

        Args:
            recorded: Draws of one model at one temperature.
            max_tokens: The cap they were made under.

        Raises:
            InputError: No problem, a cap below 1, or draws longer than the cap.
        """
        tokens = np.where(recorded.present, recorded.output_tokens, 0)
        if not len(tokens) or not 1 <= max_tokens < np.inf or tokens.min() < 0:
            raise InputError("a cap law needs a problem, a cap >= 1 and lengths >= 0")
        if tokens.max() > max_tokens:
            raise InputError(f"a draw of {tokens.max()} tokens under a cap of {max_tokens}")
        cut = recorded.present & (tokens >= max_tokens) & ~recorded.correct
        return cls(recorded, max_tokens, cut)

    def accuracy(self, max_tokens: ArrayLike) -> Array:
        """Share of each problem's draws that are right under a measured cap, (P, n_caps).

        Raises:
            InputError: A cap above the sampled one.
        """
        caps = _caps(max_tokens)
        if caps.max(initial=0) > self.max_tokens:
            raise InputError(f"draws were cut at {self.max_tokens}; use predict above it")
        drawn = self.recorded
        right = np.where(drawn.correct & drawn.present, drawn.output_tokens, np.inf)
        hits = np.stack([(right <= cap).sum(axis=1) for cap in caps], axis=1)
        return np.asarray(hits / drawn.n_samples[:, None])

    def predict(self, max_tokens: ArrayLike, rng: np.random.Generator) -> Prediction:
        """Accuracy of one draw on problems of this kind; Bayesian bootstrap over them.

        Raises:
            InputError: A cap below 1 or not finite.
        """
        caps = _caps(max_tokens)
        weight, right = weigh_problems(len(self.cut), _DRAWS, rng)
        draws = weight @ self.accuracy(np.minimum(caps, self.max_tokens)) + right
        beyond = caps > self.max_tokens
        if beyond.any() and self.cut.any():
            tail = self._tail(caps[beyond], weight, rng)
            draws[:, beyond] += (weight @ self._cut_share())[:, None] * tail.right
        return Prediction(draws, "1", beyond)

    def predict_measured(
        self, max_tokens: ArrayLike, rng: np.random.Generator
    ) -> Prediction:
        """What these very draws would have read, had they been let run to each cap.

        Below the sampled cap that is known. Above it only the cut draws are in doubt.

        Raises:
            InputError: A cap below 1 or not finite.
        """
        caps = _caps(max_tokens)
        known = self.accuracy(np.minimum(caps, self.max_tokens)).mean(axis=0)
        draws = np.tile(known, (_DRAWS, 1))
        beyond = caps > self.max_tokens
        if beyond.any() and self.cut.any():
            weight = rng.dirichlet(np.ones(len(self.cut)), _DRAWS)
            tail = self._tail(caps[beyond], weight, rng)
            alike = self._likeness()
            n_cut = self.cut.sum(axis=1)
            rows = np.flatnonzero(n_cut)
            for i, share in enumerate(np.flatnonzero(beyond)):
                mean = np.clip(tail.right[:, i, None], 1e-9, 1 - 1e-9)
                spread = 1 / alike - 1
                rate = rng.beta(
                    mean * spread, (1 - mean) * spread, size=(_DRAWS, len(rows))
                )
                more = rng.binomial(n_cut[rows], rate) / self.recorded.n_samples[rows]
                draws[:, share] += more.sum(axis=1) / len(self.cut)
        return Prediction(draws, "1", beyond)

    def predict_tokens(self, max_tokens: ArrayLike, rng: np.random.Generator) -> Prediction:
        """Mean output tokens of one draw under each cap, cut draws at the cap.

        Raises:
            InputError: A cap below 1 or not finite.
        """
        caps = _caps(max_tokens)
        beyond = caps > self.max_tokens
        weight = rng.dirichlet(np.ones(len(self.cut)), _DRAWS)
        rows = LengthLaw.fit(self.recorded, self.max_tokens).by_problem
        means = [[np.minimum(row, cap).mean() for cap in caps] for row in rows]
        draws = weight @ np.array(means)
        if beyond.any() and self.cut.any():
            tail = self._tail(caps[beyond], weight, rng)
            cut = (weight @ self._cut_share())[:, None]
            draws[:, beyond] += cut * tail.extra_tokens
        return Prediction(draws, "tokens", beyond)

    def _cut_share(self) -> Array:
        return np.asarray(self.cut.sum(axis=1) / self.recorded.n_samples)

    def _late(self) -> tuple[Array, Array]:
        """Endings (P, 2, bins), right and all; log tokens at risk (P, bins).

        Shares of a problem's draws: the draws of one problem are too alike to count apart.
        """
        drawn = self.recorded
        edges = np.log(self.max_tokens) - np.log(_WINDOW) * np.linspace(1, 0, _BINS + 1)
        at = np.log(np.maximum(drawn.output_tokens, 1))
        at = np.where(self.cut, np.inf, np.minimum(at, edges[-1]))[:, :, None]
        low, high = edges[:-1], edges[1:]
        here = drawn.present[:, :, None] & (at > low) & (at <= high)
        risk = np.where(drawn.present[:, :, None], np.clip(at - low, 0, high - low), 0.0)
        right = drawn.correct[:, :, None]
        n = drawn.n_samples[:, None]
        ends = np.stack([(here & right).sum(axis=1), here.sum(axis=1)], axis=1)
        return ends / n[:, None], risk.sum(axis=1) / n

    def _likeness(self) -> float:
        """Intraclass correlation of late draws ending right: how alike a problem's are.

        By analysis of variance; halfway to certain where no problem tells.
        """
        late = self.recorded.present & (
            self.cut | (self.recorded.output_tokens > self.max_tokens / _WINDOW)
        )
        n = late.sum(axis=1).astype(float)
        hits = (late & self.recorded.correct).sum(axis=1)
        several = n >= 2
        if several.sum() < 2:
            return 0.5
        n, hits = n[several], hits[several]
        rate, mean = hits / n, hits.sum() / n.sum()
        within = (hits * (1 - rate)).sum() / (n - 1).sum()
        between = (n * (rate - mean) ** 2).sum() / (len(n) - 1)
        typical = (n.sum() - (n**2).sum() / n.sum()) / (len(n) - 1)
        excess = max(between - within, 0.0) / typical
        return float(np.clip(excess / max(excess + within, 1e-12), 0.05, 0.95))

    def _tail(self, caps: Array, weight: Array, rng: np.random.Generator) -> "_Tail":
        """What becomes of a cut draw by each cap, one row a bootstrap weight."""
        ends, risk = self._late()
        scaled = weight * len(weight.T)  # a problem counts as one observation
        right, ended = scaled @ ends[:, 0], scaled @ ends[:, 1]  # (draws, bins)
        risk = scaled @ risk
        x = np.log(_WINDOW) / _BINS * (np.arange(_BINS) - _BINS + 0.5)
        design = np.stack([np.ones(_BINS), x], axis=1)

        def endings(z: Array) -> tuple[Array, Array, Array]:
            rate = risk * np.exp(np.clip(z, -30, _MAX_LOG_HAZARD))
            return rate - ended * z, rate - ended, rate

        def rights(z: Array) -> tuple[Array, Array, Array]:
            p = expit(z)
            value = ended * np.logaddexp(0, z) - right * z
            return value, ended * p - right, ended * p * (1 - p)

        hazard = _posterior(endings, design, _HAZARD_PRIOR, len(weight), rng)
        odds = _posterior(rights, design, _ODDS_PRIOR, len(weight), rng)
        hope = np.where(
            rng.random(len(weight)) < _FAILED_CHANCE,
            rng.beta(_FAILED_SHAPE, _FAILED_SHAPE, len(weight)),
            1.0,
        )
        right_share, extra = [], []
        for cap in caps:
            u = np.linspace(0, np.log(cap / self.max_tokens), _GRID)
            rate = np.exp(np.clip(hazard[0] + hazard[1] * u, -30, _MAX_LOG_HAZARD))
            steps = u[1] * (rate[:, 1:] + rate[:, :-1]) / 2
            passed = np.concatenate([np.zeros((len(rate), 1)), np.cumsum(steps, 1)], axis=1)
            alive = np.exp(-passed)
            lost = alive[:, :-1] - alive[:, 1:]
            good = expit(odds[0] + odds[1] * u)
            ends_right = (lost * (good[:, 1:] + good[:, :-1]) / 2).sum(axis=1)
            right_share.append(hope * ends_right)
            running = (alive[:, :-1] + alive[:, 1:]) / 2
            extra.append(running @ np.diff(self.max_tokens * np.exp(u)))
        return _Tail(np.stack(right_share, axis=1), np.stack(extra, axis=1))


class _Tail(NamedTuple):
    """Fate of a cut draw; arrays (n_draws, n_caps)."""

    right: Array  # P(it ends right by the cap)
    extra_tokens: Array  # expected, beyond the sampled cap


def _posterior(
    likelihood: Callable[[Array], tuple[Array, Array, Array]],
    design: Array,
    prior: "_Prior",
    rows: int,
    rng: np.random.Generator,
) -> Array:
    """Draws of level and trend at the cap and beyond it, (2, rows, 1).

    Every row has bootstrap weights of its own, and a prior mean of its own: that makes the
    maxima draws of the posterior. Beyond the cap the trend drifts, and what jumps about the
    trend below it, more than its counts explain, may jump at it.

    Args:
        likelihood: Minus log likelihood, and its two derivatives, in the linear predictor
            of each bin; arrays (rows, bins).
        design: (bins, 2).
        prior: Of level and trend.
        rows: How many draws.
        rng: For the draws.
    """
    mean, sd = np.array(prior.mean), np.array(prior.sd)
    centre = mean + sd * rng.standard_normal((rows, 2))

    def objective(theta: Array) -> Quadratic:
        value, first, second = likelihood(theta @ design.T)
        off = (theta - centre) / sd
        hessian = np.einsum("mb,bi,bj->mij", second, design, design)
        return Quadratic(
            value.sum(axis=1) + (off**2).sum(axis=1) / 2,
            first @ design + off / sd,
            hessian + np.diag(sd**-2.0),
        )

    theta = minimise_many(objective, np.tile(mean, (rows, 1))).x
    _, residual, information = likelihood(theta @ design.T)
    rough = (residual**2 - information).sum(axis=1) * len(design) / (len(design) - 2)
    jump = np.sqrt(np.clip(rough / np.maximum((information**2).sum(axis=1), 1e-12), 0, 4))
    theta[:, 0] += jump * rng.standard_normal(rows)
    theta[:, 1] += prior.drift_sd * rng.standard_normal(rows)
    return np.asarray(theta.T[:, :, None])


def _caps(max_tokens: ArrayLike) -> Array:
    caps = np.atleast_1d(np.asarray(max_tokens, dtype=float))
    if not (np.isfinite(caps) & (caps >= 1)).all():
        raise InputError(f"token caps must be at least 1, got {caps.tolist()}")
    return caps
