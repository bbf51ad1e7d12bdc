"""Regression on model size: one parameter of models, sampled and never sampled.

    y = intercept_benchmark + slope_benchmark x + smooth(x) + family + model
    x = log10 size

Everything but the intercept is shrunk toward what models have in common: slopes of
benchmarks toward one slope, families and models toward zero. `x` may have a second column,
log10 of the training tokens: skills as functions of log size and log tokens with a family
effect are those of Sloth (arXiv:2412.06540), benchmarks as functions of few skills per
family those of observational scaling (arXiv:2405.10938); our one skill is the part of the
family and model effects that benchmarks share. Sizes that are close share deviations
(`smooth`), so that neither a line nor monotony is forced.

Given the spreads of these parts the posterior is normal. The spreads are not: a posterior
over a grid of them is carried along, because three or four models hardly determine them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple, Self

import numpy as np

from planner.models.counts import IntArray
from planner.models.fitting import Quadratic, minimise_many
from planner.models.prediction import Array

_SCATTER = np.array([0.35, 0.7, 1.4, 2.8])  # in units of the scale's scatter_sd
_SCATTER_PRIOR = np.array([0.2, 0.35, 0.3, 0.15])
_FAMILY_SHARE = (0.0, 0.5, 0.9)  # of the variance between models
_BENCHMARK_SHARE = (0.0, 0.5, 0.9)  # of it that all benchmarks have in common
_SMOOTH = (0.0, 1.0)  # in units of the scale's scatter_sd
_SMOOTH_LENGTH = 0.7  # decades of size
_DIFFERENCE = 1e-3
_UNKNOWN_DECADES = 1.0  # sd of a size nobody published about the mean of the others


class Mixture(NamedTuple):
    """Normals of several parameters of one model."""

    share: Array  # (n_parts,)
    mean: Array  # (n_parts, d)
    factor: Array  # (n_parts, d, d), Cholesky factor of the covariance

    def log_density(self, x: Array) -> Array:
        """At x, shape (n, d); up to a constant."""
        white = np.linalg.solve(self.factor, (x[:, None, :] - self.mean)[..., None])[..., 0]
        diagonal = np.diagonal(self.factor, axis1=1, axis2=2)
        each = np.log(self.share) - np.log(diagonal).sum(axis=1)
        return np.asarray(np.logaddexp.reduce(each - 0.5 * (white**2).sum(-1), axis=1))

    def draw(self, rng: np.random.Generator, size: int) -> Array:
        """Shape (size, d)."""
        part = rng.choice(len(self.share), size, p=self.share)
        noise = rng.standard_normal((size, self.mean.shape[1]))
        return np.asarray(
            self.mean[part] + np.einsum("sij,sj->si", self.factor[part], noise)
        )


class Covariates(NamedTuple):
    """What is known of each cell (a model on a benchmark)."""

    x: Array  # (n, 1 or 2): log10 size, log10 training tokens; NaN where unknown
    family: IntArray  # (n,)
    model: IntArray  # (n,)
    benchmark: IntArray  # (n,)


class Scale(NamedTuple):
    """How large the parts of y are, before any is seen."""

    mean: float  # of the intercept
    sd: float
    slope: float  # a decade of size
    slope_sd: float
    scatter_sd: float  # between models


@dataclass(frozen=True, eq=False)
class SizeLaw:
    """A fitted regression."""

    scale: Scale
    cells: Covariates
    centre: Array  # (1 or 2,), subtracted from x
    y: Array  # (n,)
    variance: Array  # (n,), of the error of each y
    spreads: tuple[tuple[float, float, float, float], ...]  # the grid
    share: Array  # (n_grid,), posterior probability of each

    @classmethod
    def fit(cls, scale: Scale, cells: Covariates, y: Array, variance: Array) -> Self:
        """Weigh every spread of the parts by the likelihood of y.

        Args:
            scale: Prior of the parts.
            cells: Of the cells measured.
            y: The parameter of each, shape (n,).
            variance: Of the error of each, shape (n,).
        """
        known = ~np.isnan(cells.x)
        centre = np.array(
            [
                column[ok].mean() if ok.any() else 0.0
                for column, ok in zip(cells.x.T, known.T, strict=True)
            ]
        )
        several = len(np.unique(cells.benchmark)) > 1
        grid = list(
            product(_SCATTER * scale.scatter_sd, _FAMILY_SHARE,
                    _BENCHMARK_SHARE if several else (0.0,), _SMOOTH)
        )  # fmt: skip
        spreads = tuple((float(a), b, c, d) for a, b, c, d in grid)
        prior = np.repeat(_SCATTER_PRIOR, len(grid) // len(_SCATTER))
        law = cls(scale, cells, centre, y, variance, spreads, prior / prior.sum())
        log_share = np.log(prior)
        residual = y - law._mean(cells)
        for i, spread in enumerate(spreads):
            factor = np.linalg.cholesky(law._covariance(cells, cells, spread)
                                        + np.diag(variance))  # fmt: skip
            white = np.linalg.solve(factor, residual)
            log_share[i] -= 0.5 * white @ white + np.log(np.diag(factor)).sum()
        share = np.exp(log_share - log_share.max())
        return cls(scale, cells, centre, y, variance, spreads, share / share.sum())

    def predict(self, new: Covariates) -> tuple[Array, Array]:
        """Means and variances of y of one new cell under each spread; each (n_grid,).

        The cell's family, model and benchmark count as those of the measured cells with the
        same number; a number not among theirs is a new one.
        """
        residual = self.y - self._mean(self.cells)
        means, variances = np.zeros((2, len(self.spreads)))
        for i, spread in enumerate(self.spreads):
            inner = self._covariance(self.cells, self.cells, spread)
            across = self._covariance(new, self.cells, spread)[0]
            own = self._covariance(new, new, spread)[0, 0]
            solved = np.linalg.solve(inner + np.diag(self.variance),
                                     np.stack([residual, across], axis=1))  # fmt: skip
            means[i] = self._mean(new)[0] + across @ solved[:, 0]
            variances[i] = max(own - across @ solved[:, 1], 1e-12)
        return means, variances

    def _centred(self, cells: Covariates) -> Array:
        return np.nan_to_num(cells.x - self.centre)

    def _mean(self, cells: Covariates) -> Array:
        return self.scale.mean + self.scale.slope * self._centred(cells)[:, 0]

    def _covariance(
        self, one: Covariates, two: Covariates, spread: tuple[float, float, float, float]
    ) -> Array:
        scatter, of_family, of_all, smooth = spread
        scale = self.scale
        left, right = self._centred(one), self._centred(two)
        bench = one.benchmark[:, None] == two.benchmark
        model = one.model[:, None] == two.model
        family = one.family[:, None] == two.family
        size_known = ~np.isnan(one.x[:, 0])[:, None] & ~np.isnan(two.x[:, 0])
        # slopes: half of the variance is common to all benchmarks
        slopes = scale.slope_sd**2 * (0.5 + 0.5 * bench)
        total = scale.sd**2 * bench + slopes * (left @ right.T)
        both = of_family * family + (1 - of_family) * model
        total = total + scatter**2 * both * (of_all + (1 - of_all) * bench)
        near = np.exp(-0.5 * ((left[:, :1] - right[:, 0]) / _SMOOTH_LENGTH) ** 2)
        total += (smooth * scale.scatter_sd) ** 2 * near * size_known * (0.5 + 0.5 * bench)
        reach = (abs(scale.slope) + scale.slope_sd) * _UNKNOWN_DECADES
        return np.asarray(total + reach**2 * model * ~size_known)


def normal_given(log_density: Callable[[Array], Array], start: Array) -> Mixture:
    """The normal with the mean and covariance of a density of a few parameters.

    The mode comes first, the moments from Gauss-Hermite quadrature around it, because few
    counts leave a lopsided posterior that its mode misplaces.

    Args:
        log_density: Of points (n, d), up to a constant.
        start: Shape (d,).
    """
    d = len(start)
    steps = np.eye(d) * _DIFFERENCE
    pairs = [(i, j) for i in range(d) for j in range(i)]
    offsets = np.concatenate(
        [np.zeros((1, d)), steps, -steps, *(steps[[i]] + steps[[j]] for i, j in pairs)]
    )

    def objective(x: Array) -> Quadratic:
        value = -log_density(x[0] + offsets)
        here, up, down, both = np.split(value, [1, d + 1, 2 * d + 1])
        hessian = np.diag(up + down - 2 * here)
        for (i, j), at in zip(pairs, both, strict=True):
            hessian[i, j] = hessian[j, i] = at - up[i] - up[j] + here[0]
        gradient = (up - down) / (2 * _DIFFERENCE)
        return Quadratic(value[:1], gradient[None], hessian[None] / _DIFFERENCE**2)

    best = minimise_many(objective, start[None], max_steps=40)
    values, vectors = np.linalg.eigh(best.hessian[0])
    factor = vectors / np.sqrt(np.maximum(np.abs(values), 1e-2))
    nodes, weights = np.polynomial.hermite_e.hermegauss(5)
    z = np.stack(np.meshgrid(*[nodes] * d, indexing="ij"), axis=-1).reshape(-1, d)
    log_weight = (
        np.log(weights)[np.stack(np.meshgrid(*[range(5)] * d, indexing="ij"), -1)]
        .sum(-1)
        .ravel()
    )
    x = best.x[0] + z @ factor.T
    share = log_density(x) + 0.5 * (z**2).sum(axis=1) + log_weight
    share = np.exp(share - share.max())
    share /= share.sum()
    mean = share @ x
    covariance = (share[:, None] * (x - mean)).T @ (x - mean) + 1e-9 * np.eye(d)
    return Mixture(np.ones(1), mean[None], np.linalg.cholesky(covariance)[None])
