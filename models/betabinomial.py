"""The beta-binomial likelihood of many cells at once, in (log a, log b).

A cell's problems have success rates p ~ Beta(a, b); problem i shows c_i successes in n_i
draws (unequal n_i allowed, Kazdan et al. 2025, arXiv:2510.05197).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaln, polygamma, psi

from planner.models.errors import FitError
from planner.models.fitting import Quadratic, minimise_many
from planner.models.prediction import Array

IntArray = NDArray[np.int64]
_FAR = 20.0  # on |log a| and |log b|: beyond it the likelihood is flat or nil


class Counts(NamedTuple):
    """Distinct (cell, c, n) and how often each occurs: all that the likelihood needs."""

    cell: IntArray  # (u,)
    c: Array
    n: Array
    weight: Array
    m: int  # cells

    @classmethod
    def of(cls, c: Array, n: Array, cell: IntArray, m: int) -> "Counts":
        width = int(n.max(initial=0)) + 1
        key = (cell * width + n.astype(np.int64)) * width + c.astype(np.int64)
        distinct, weight = np.unique(key[n > 0], return_counts=True)
        rest, correct = np.divmod(distinct, width)
        of_cell, samples = np.divmod(rest, width)
        return cls(of_cell, correct.astype(float), samples.astype(float),
                   weight.astype(float), m)  # fmt: skip


def log_likelihood(counts: Counts, x: Array) -> Array:
    """Of every cell, (m,); without the binomial coefficients."""
    a, b = np.exp(np.clip(x[counts.cell], -_FAR, _FAR)).T
    each = betaln(a + counts.c, b + counts.n - counts.c) - betaln(a, b)
    return np.asarray(np.bincount(counts.cell, counts.weight * each, counts.m), dtype=float)


def likelihood(counts: Counts, x: Array) -> Quadratic:
    """Minus the log likelihood of every cell in (log a, log b), with derivatives."""
    cell, c, n, weight, m = counts
    a, b = np.exp(np.clip(x[cell], -_FAR, _FAR)).T

    def summed(each: Array) -> Array:
        return np.asarray(np.bincount(cell, weight * each, m), dtype=float)

    both = psi(a + b + n) - psi(a + b)
    curve = polygamma(1, a + b + n) - polygamma(1, a + b)
    slope_a = summed(a * (psi(a + c) - psi(a) - both))
    slope_b = summed(b * (psi(b + n - c) - psi(b) - both))
    curve_a = summed(a * a * (polygamma(1, a + c) - polygamma(1, a) - curve))
    curve_b = summed(b * b * (polygamma(1, b + n - c) - polygamma(1, b) - curve))
    mixed = summed(-a * b * curve)
    hessian = np.stack([curve_a + slope_a, mixed, mixed, curve_b + slope_b], axis=1)
    return Quadratic(
        -log_likelihood(counts, x),
        -np.stack([slope_a, slope_b], axis=1),
        -hessian.reshape(m, 2, 2),
    )


def posterior(counts: Counts, mean: Array, covariance: Array) -> tuple[Array, Array]:
    """Mean and covariance of every cell's (log a, log b) given a normal prior each.

    The mode comes first; the moments then from Gauss-Hermite quadrature around it, because
    counts of all zeros or all ones leave a lopsided posterior that its mode misplaces.
    """
    precision = np.linalg.inv(covariance)

    def objective(x: Array) -> Quadratic:
        data = likelihood(counts, x)
        off = x - mean
        pull = np.einsum("mij,mj->mi", precision, off)
        return Quadratic(
            data.value + 0.5 * np.einsum("mi,mi->m", off, pull),
            data.gradient + pull,
            data.hessian + precision,
        )

    best = minimise_many(objective, mean)
    if not best.converged.all():
        worst = int(np.argmin(best.converged))
        raise FitError(
            f"the fit of coverage cell {worst} did not converge; its prior is off"
        )
    factor = np.linalg.cholesky(np.linalg.inv(best.hessian))
    nodes, weights = np.polynomial.hermite_e.hermegauss(7)
    z = np.stack(np.meshgrid(nodes, nodes, indexing="ij"), axis=-1).reshape(-1, 2)
    log_weight = np.log(np.outer(weights, weights).ravel()) + 0.5 * (z**2).sum(axis=1)
    x = best.x[:, None, :] + np.einsum("mij,qj->mqi", factor, z)
    off = x - mean[:, None, :]
    log_density = -0.5 * np.einsum("mqi,mij,mqj->mq", off, precision, off)
    for q in range(len(z)):
        log_density[:, q] += log_likelihood(counts, x[:, q])
    log_density += log_weight
    share = np.exp(log_density - log_density.max(axis=1, keepdims=True))
    share /= share.sum(axis=1, keepdims=True)
    centre = np.einsum("mq,mqi->mi", share, x)
    off = x - centre[:, None, :]
    return centre, np.einsum("mq,mqi,mqj->mij", share, off, off)
