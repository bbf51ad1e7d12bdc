"""Posteriors by adaptive importance sampling, for a handful of parameters.

No optimiser that may fail and no chain that may not have mixed: points of a lattice, warped
to a normal that is moved step by step to where the posterior is (population Monte Carlo,
Cappe et al. 2004), and weights that correct for it. The same data give the same result.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.special import ndtri

from planner.models.prediction import Array

_LEAST_EFFECTIVE = 0.2  # of the points, at each step towards the posterior
_WIDENED = 1.4  # variance of a proposal over that of the points it was fitted to
_RIDGE = 1e-4
_STEPS = 12


class Points(NamedTuple):
    """Weighted points: expectations are sums with exp(log_target - log_proposal)."""

    x: Array  # (n_points, d)
    log_proposal: Array  # (n_points,)


def explore(
    log_target: Callable[[Array], Array], mean: Array, covariance: Array, size: int
) -> Points:
    """Points that cover where `log_target` is high.

    Args:
        log_target: Log density up to a constant, of points (n, d).
        mean: Where to start, (d,).
        covariance: How far to look, (d, d).
        size: Points.
    """
    lattice = normal_lattice(size, len(mean))
    for step in range(_STEPS):
        factor = np.linalg.cholesky(covariance)
        x = mean + lattice @ factor.T
        log_proposal = -0.5 * (lattice**2).sum(axis=1) - np.log(np.diag(factor)).sum()
        log_weight = log_target(x) - log_proposal
        share, power = _tempered(log_weight)
        if power == 1 and step > 0:
            return Points(x, log_proposal)
        mean = share @ x
        off = x - mean
        covariance = _WIDENED * (share[:, None] * off).T @ off
        covariance += _RIDGE * np.eye(len(mean))
    return Points(x, log_proposal)


def shares(log_weight: Array) -> Array:
    """Weights that sum to 1, of log weights (n_points,)."""
    weight = np.exp(log_weight - log_weight.max())
    return np.asarray(weight / weight.sum())


def normal_lattice(size: int, d: int) -> Array:
    """Standard normal points (size, d), evenly spread by the golden ratio's kin."""
    ratio = 2.0
    for _ in range(64):  # the root of r**(d + 1) = r + 1
        ratio = (1 + ratio) ** (1 / (d + 1))
    steps = ratio ** -np.arange(1.0, d + 1)
    uniform = (0.5 + np.outer(np.arange(1, size + 1), steps)) % 1.0
    return np.asarray(ndtri(np.clip(uniform, 1e-9, 1 - 1e-9)))


def _tempered(log_weight: Array) -> tuple[Array, float]:
    """Shares under the largest power <= 1 of the weights that keeps enough points."""
    low, high = 0.0, 1.0
    if _effective(log_weight) >= _LEAST_EFFECTIVE:
        return shares(log_weight), 1.0
    for _ in range(30):
        middle = (low + high) / 2
        if _effective(middle * log_weight) >= _LEAST_EFFECTIVE:
            low = middle
        else:
            high = middle
    return shares(low * log_weight), low


def _effective(log_weight: Array) -> float:
    """Effective share of the points (Kish)."""
    share = shares(log_weight)
    return float(1 / (share**2).sum() / len(share))
