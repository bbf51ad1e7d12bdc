"""Coverage (pass@k): the unbiased estimator, and the beta-binomial law.

Problem i is solved by one draw with probability p_i ~ Beta(a, b), so

    coverage(k) = 1 - B(a, b + k) / B(a, b)

and 1 - coverage(k) falls as k**-a for large k (Levi 2024, arXiv:2410.16377; Schaeffer et
al. 2025, arXiv:2502.17578): the power law that Brown et al. 2024 (arXiv:2407.21787)
measured. Few counts determine (a, b) badly, so that cells lend each other strength: the
prior of one is learned from the others (`fit_pooled`). Far beyond the draws made use
`planner.models.forecast`: a Beta knows no hopeless problems.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gammaln

from planner.models.betabinomial import Counts, IntArray, likelihood, posterior
from planner.models.counts import coverage_points
from planner.models.errors import FitError, InputError
from planner.models.fitting import minimise_many
from planner.models.prediction import Array, Prediction

_BOUND = (
    7.0  # on |log a| and |log b|; a fit without a prior that reaches it is not identified
)
_PREDICTION_DRAWS = 1000
_POOLING_ROUNDS = 4
_PARENT_WEIGHT = 2.0  # cells that a parent prior counts for when cells are pooled
_ELLIPSE = 2.45  # standard deviations that hold 95 % of a normal in two dimensions


def pass_at_k(n_correct: ArrayLike, n_samples: ArrayLike, k: ArrayLike) -> Array:
    """Unbiased pass@k, 1 - C(n - c, k) / C(n, k) (Chen et al. 2021, arXiv:2107.03374).

    Args:
        n_correct: c, correct draws of each problem; shape (n_problems,).
        n_samples: n, draws of each problem; same shape, or a scalar.
        k: Shape (n_k,), or a scalar.

    Returns:
        Shape (n_problems, n_k).

    Raises:
        InputError: Not 0 <= c <= n, or k not in 1..n: beyond n it takes a law.
    """
    c, n = _checked(n_correct, n_samples)
    points = np.atleast_1d(np.asarray(k, dtype=float))
    if points.size and len(n) and (points.min() < 1 or points.max() > n.min()):
        raise InputError(
            f"pass@k needs 1 <= k <= n = {n.min():.0f}, got k = {points.min():g}.."
            f"{points.max():g}; use a forecast beyond the draws made"
        )
    return np.abs(np.expm1(_log_none_correct(c, n, points)))  # c = 0 gives 0, not -0


def none_correct(n_correct: Array, n_samples: Array, k: Array) -> Array:
    """P(k draws without replacement are all wrong), C(n - c, k) / C(n, k); (problems, k).

    Zero where k > n - c, unless c = 0; k = 0 gives 1.
    """
    return np.asarray(np.exp(_log_none_correct(n_correct, n_samples, k)))


def _log_none_correct(n_correct: Array, n_samples: Array, k: Array) -> Array:
    """Log of C(n - c, k) / C(n, k), the sum of log(1 - k / (n - i)) over i < c.

    One table for each distinct n: exact where differences of log-gammas would cancel.
    """
    c, out = n_correct.astype(np.int64), np.zeros((len(n_correct), len(k)))
    for n in np.unique(n_samples):
        rows = n_samples == n
        left = n - np.arange(c[rows].max(initial=0))[:, None]
        terms = np.full((len(left), len(k)), -np.inf)
        np.log1p(-k / left, out=terms, where=k < left)
        sums = np.concatenate([np.zeros((1, len(k))), np.cumsum(terms, axis=0)])
        out[rows] = sums[c[rows]]
    return out


@dataclass(frozen=True, eq=False)
class ShapePrior:
    """A normal prior of (log a, log b)."""

    mean: Array  # (2,)
    covariance: Array  # (2, 2)


# Wide enough to hold the fits to 63 public sets of models on code and mathematics: medians
# a 0.14-0.8, b 0.16-1000. Used where nothing else is known.
WEAK_PRIOR = ShapePrior(np.array([-0.7, 0.7]), np.diag([1.5**2, 2.5**2]))


@dataclass(frozen=True, eq=False)
class CoverageLaw:
    """A fitted law: the normal approximation of the posterior of (log a, log b)."""

    log_shape: Array  # (2,): log a, log b
    covariance: Array  # (2, 2), of log_shape
    k_max: int  # draws a problem behind the fit; beyond it a prediction is extrapolated

    @classmethod
    def fit(
        cls, n_correct: ArrayLike, n_samples: ArrayLike, prior: ShapePrior | None = None
    ) -> Self:
        """Fit the beta-binomial likelihood, unequal n allowed (arXiv:2510.05197).

        Without a prior the counts alone must determine both a and b. With one, counts that
        do not give a wide law.

        Args:
            n_correct: Correct draws of each problem; shape (n_problems,).
            n_samples: Draws of each problem; same shape.
            prior: Of (log a, log b); WEAK_PRIOR where nothing is known.

        Raises:
            InputError: Not 0 <= n_correct <= n_samples, or no draw at all.
            FitError: No prior, and the counts do not determine both a and b.
        """
        c, n = _checked(n_correct, n_samples)
        if not n.sum():
            raise InputError("coverage needs at least one draw of one problem")
        counts = Counts.of(c, n, np.zeros(len(c), dtype=np.int64), 1)
        if prior is not None:
            shape, covariance = posterior(counts, prior.mean[None], prior.covariance[None])
            return cls(shape[0], covariance[0], int(n.max()))
        best = minimise_many(lambda x: likelihood(counts, x), np.zeros((1, 2)))
        at_bound = np.abs(best.x).max() > _BOUND
        positive = np.linalg.eigvalsh(best.hessian[0])[0] > 1e-6
        if not best.converged[0] or at_bound or not positive:
            raise FitError(
                f"{len(c)} problems, {c.sum():.0f} of {n.sum():.0f} draws correct, do not "
                "determine the coverage law; draw more, or fit with a prior"
            )
        return cls(best.x[0], np.linalg.inv(best.hessian[0]), int(n.max()))

    def predict(
        self, k: ArrayLike, rng: np.random.Generator, *, size: int = _PREDICTION_DRAWS
    ) -> Prediction:
        """Mean coverage over problems at k draws; the spread is the fit's, not theirs.

        Raises:
            InputError: k below 1.
        """
        points = coverage_points(k)
        a, b = self.shapes(rng, size)
        return Prediction(1 - _all_wrong(a, b, points), "1", points > self.k_max)

    def shapes(
        self, rng: np.random.Generator, size: int = _PREDICTION_DRAWS
    ) -> tuple[Array, Array]:
        """Draws of (a, b) from the fit's posterior, each (size, 1)."""
        factor = np.linalg.cholesky(self.covariance + 1e-15 * np.eye(2))
        shape = self.log_shape + rng.standard_normal((size, 2)) @ factor.T
        a, b = np.exp(np.clip(shape, -20, 20)).T[..., None]
        return a, b


def fit_pooled(
    n_correct: ArrayLike,
    n_samples: ArrayLike,
    cell: ArrayLike,
    group: ArrayLike,
    base: ShapePrior = WEAK_PRIOR,
) -> list[CoverageLaw]:
    """Fit many cells at once, each with a prior learned from the others.

    The prior of a cell is pooled from the other cells of its group (say, a task), and that
    pool leans on the pool of all other cells, and that on `base`. Cells must be
    independent: pass no draw twice.

    Args:
        n_correct: Correct draws of each row (a problem in a cell); shape (n_rows,).
        n_samples: Draws of each row; same shape.
        cell: Cell of each row, 0..n_cells - 1; same shape.
        group: Group of each cell; shape (n_cells,).
        base: Prior of everything.

    Raises:
        InputError: Not 0 <= n_correct <= n_samples, or a cell without a draw.
    """
    c, n = _checked(n_correct, n_samples)
    row_cell, groups = np.asarray(cell, np.int64), np.asarray(group, np.int64)
    m = len(groups)
    k_max = np.zeros(m)
    np.maximum.at(k_max, row_cell, n)
    if m and k_max.min() < 1:
        raise InputError(f"cell {int(k_max.argmin())} has no draw")
    counts = Counts.of(c, n, row_cell, m)
    means, covariances = np.tile(base.mean, (m, 1)), np.tile(base.covariance, (m, 1, 1))
    shape, covariance = posterior(counts, means, covariances)
    tiled, everything = (means, covariances), np.zeros(m, dtype=np.int64)
    for _ in range(_POOLING_ROUNDS if m > 1 else 0):
        over_all = _pool_others(shape, covariance, everything, *tiled)
        means, covariances = _pool_others(shape, covariance, groups, *over_all)
        means, covariances = _within(base, means, covariances)
        shape, covariance = posterior(counts, means, covariances)
    return [CoverageLaw(shape[i], covariance[i], int(k_max[i])) for i in range(m)]


def _pool_others(
    shape: Array,
    covariance: Array,
    group: IntArray,
    base_mean: Array,
    base_covariance: Array,
) -> tuple[Array, Array]:
    """Prior of each cell from the others of its group: one step of EM, leaving it out."""
    size = np.bincount(group)
    total = np.zeros((len(size), 2))
    np.add.at(total, group, shape)
    others = (size[group] - 1.0)[:, None]
    weight = _PARENT_WEIGHT
    mean = (total[group] - shape + weight * base_mean) / (others + weight)
    second = shape[:, :, None] * shape[:, None, :] + covariance  # E[x x'] of each cell
    total_second = np.zeros((len(size), 2, 2))
    np.add.at(total_second, group, second)
    about = total_second[group] - second  # of the others, then moved to their mean
    cross = (total[group] - shape)[:, :, None] * mean[:, None, :]
    outer = mean[:, :, None] * mean[:, None, :]
    scatter = about - cross - cross.transpose(0, 2, 1) + others[..., None] * outer
    off = base_mean - mean
    scatter += weight * (base_covariance + off[:, :, None] * off[:, None, :])
    # a prior read off few cells is itself uncertain: the spread of a new cell about `mean`
    widened = (others + weight + 1) / (others + weight - 1)
    return mean, widened[..., None] * scatter / (others[..., None] + weight)


def _within(base: ShapePrior, mean: Array, covariance: Array) -> tuple[Array, Array]:
    """Pooled priors, kept no wider than `base` and within its 95 % ellipse.

    Cells that are all right or all wrong ask for a prior ever further out, round by round.
    """
    root = np.linalg.cholesky(base.covariance)
    inverse = np.linalg.inv(root)
    off = (mean - base.mean) @ inverse.T
    off *= np.minimum(1.0, _ELLIPSE / np.maximum(np.linalg.norm(off, axis=1), 1e-9))[
        :, None
    ]
    values, vectors = np.linalg.eigh(inverse @ covariance @ inverse.T)
    spread = root @ vectors * np.sqrt(np.minimum(values, 1.0))[:, None, :]
    return base.mean + off @ root.T, spread @ spread.transpose(0, 2, 1)


def _all_wrong(a: Array, b: Array, k: Array) -> Array:
    """1 - coverage(k), (n_draws, n_k); 1 at k = 0."""
    return np.exp(
        np.minimum(gammaln(b + k) - gammaln(b) - gammaln(a + b + k) + gammaln(a + b), 0.0)
    )


def _checked(n_correct: ArrayLike, n_samples: ArrayLike) -> tuple[Array, Array]:
    c = np.atleast_1d(np.asarray(n_correct, dtype=float))
    n = np.broadcast_to(np.asarray(n_samples, dtype=float), c.shape)
    if c.ndim != 1 or not ((c >= 0) & (c <= n)).all() or (c % 1).any() or (n % 1).any():
        raise InputError(
            "need whole counts with 0 <= n_correct <= n_samples, one a problem"
        )
    return c, n
