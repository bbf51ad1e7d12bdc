"""The prior of a cell's shape, learned from the other cells of its benchmark.

Across benchmarks the tail exponent a is all but unrelated to how hard a benchmark is.
Within one it falls as a model gets weaker, so that the cells of a benchmark are taken to
lie about one line,

    log a = level + slope * (log m - its mean over the cells) + noise,

whose level they share, and to have similar bends. The level and the common bend live on a
grid. Cells see the same problems, so that their evidence is not independent: the others'
counts for less than as many cells would.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from planner.models.importance import Points, shares
from planner.models.prediction import Array

# Round figures from public sets of code and mathematics: a is 0.05-0.8 in 63 of 63, near
# 0.2 where pass@1 is low and 0.6 where it is high; slope 0.4-0.7 between sizes of a family.
# The bend's says that a Beta is the rule, and all problems solvable not rare.
_SLOPE = 0.5
_NOISE = 0.3  # of log a about the line
_BEND = np.log(0.004), 1.5  # of log g
_BEND_NOISE = 0.7
_LOGIT_MEAN = -2.0, 3.0
_LOGIT_HOPELESS = -4.5, 1.5
_SHARED = 0.3  # correlation between the evidence of cells that see the same problems
_FREEDOM = 3.0  # of every Student distribution here: what is rare must stay possible

_BENDS = np.linspace(_BEND[0] - 2.5 * _BEND[1], _BEND[0] + 2.5 * _BEND[1], 13)


class Level(NamedTuple):
    """Prior of the level that the cells of a benchmark share, a normal."""

    mean: float  # of log a
    sd: float

    def grid(self) -> Array:
        """Levels that stand for the normal, (n_levels,)."""
        return self.mean + self.sd * np.linspace(-2.5, 2.5, 21)

    def proposal(self) -> tuple[Array, Array]:
        """Mean and covariance of the shapes to look at first, (4,) and (4, 4)."""
        centre = [self.mean, _LOGIT_MEAN[0], _BEND[0], _LOGIT_HOPELESS[0]]
        variance = [
            self.sd**2 + 3 * _NOISE**2,
            _LOGIT_MEAN[1] ** 2,
            3 * _BEND[1] ** 2,
            3 * _LOGIT_HOPELESS[1] ** 2,
        ]
        return np.array(centre), np.diag(variance)


WHOLE = Level(float(np.log(0.3)), 0.5)  # all problems of a benchmark
# Problems sorted by difficulty beforehand are more alike, which is a higher tail exponent;
# how much higher depends on the sorting.
SORTED = Level(float(np.log(0.5)), 1.0)


def log_prior_alone(theta: Array, level: Level) -> Array:
    """Log prior of shapes (n, 4) when nothing is known of their benchmark."""
    spread = float(np.hypot(level.sd, _NOISE))
    return np.asarray(
        _student(theta[:, 0] - level.mean, spread)
        + _student(theta[:, 2] - _BEND[0], _BEND[1])
        + _log_prior_rest(theta)
    )


def pool(
    points: Sequence[Points],
    log_likelihood: Sequence[Array],
    log_mean: float,
    level: Level,
) -> list[Array]:
    """Posterior shares of each cell's points, every cell with a prior from the others.

    Args:
        points: Of each cell of one benchmark, x the shapes' parameters.
        log_likelihood: Of each cell's points.
        log_mean: Mean over the cells of log pass@1.
        level: Prior of the level.
    """
    levels = level.grid()
    tails, bends, weights, evidence = [], [], [], []
    for (theta, log_proposal), likely in zip(points, log_likelihood, strict=True):
        log_weight = likely + _log_prior_rest(theta) - log_proposal
        weights.append(np.exp(log_weight - log_weight.max()))
        log_m = -np.logaddexp(0.0, -theta[:, 1])
        about = theta[:, 0] - _SLOPE * (log_m - log_mean)
        tails.append(np.exp(_student(about[:, None] - levels, _NOISE)))
        bends.append(np.exp(_student(theta[:, 2][:, None] - _BENDS, _BEND_NOISE)))
        table = (tails[-1] * weights[-1][:, None]).T @ bends[-1]
        evidence.append(np.log(np.maximum(table, 1e-300)))
    prior = -0.5 * ((levels - level.mean) / level.sd)[:, None] ** 2
    prior = prior + _student(_BENDS - _BEND[0], _BEND[1])
    total = np.sum(evidence, axis=0)
    worth = 1 / (1 + max(len(points) - 2, 0) * _SHARED)
    posterior = []
    for tail, bend, weight, own in zip(tails, bends, weights, evidence, strict=True):
        common = shares(prior + worth * (total - own))
        of_points = weight * np.einsum("sl,lb,sb->s", tail, common, bend, optimize=True)
        posterior.append(of_points / of_points.sum())
    return posterior


def _log_prior_rest(theta: Array) -> Array:
    mean = (theta[:, 1] - _LOGIT_MEAN[0]) / _LOGIT_MEAN[1]
    hopeless = _student(theta[:, 3] - _LOGIT_HOPELESS[0], _LOGIT_HOPELESS[1])
    return np.asarray(hopeless - 0.5 * mean**2)


def _student(off: Array, scale: float) -> Array:
    return np.asarray(
        -(_FREEDOM + 1) / 2 * np.log1p((off / scale) ** 2 / _FREEDOM) - np.log(scale)
    )
