"""Numerical tools of the fits: Newton's method on many at once, shrinkage, bootstrap."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from planner.models.prediction import Array

_UNKNOWN = 0.25  # problems always right, and as many never, added to a population


class Quadratic(NamedTuple):
    """An objective of m problems in d unknowns, and its derivatives."""

    value: Array  # (m,)
    gradient: Array  # (m, d)
    hessian: Array  # (m, d, d)


class Minimum(NamedTuple):
    """Where m problems have their minimum."""

    x: Array  # (m, d)
    hessian: Array  # (m, d, d), at x
    converged: NDArray[np.bool_]  # (m,)


def minimise_many(
    objective: Callable[[Array], Quadratic], start: Array, *, max_steps: int = 80
) -> Minimum:
    """Damped Newton (Levenberg-Marquardt) on every row of `start` at once.

    Rows share the evaluations and nothing else: each has its own damping, and takes a step
    only if its own objective falls.

    Args:
        objective: Value, gradient and Hessian of each row.
        start: Shape (m, d).
        max_steps: Evaluations before a row counts as not converged.
    """
    x = np.array(start, dtype=float)
    at = objective(x)
    damping = np.full(len(x), 1e-3)
    done = np.zeros(len(x), dtype=bool)
    for _ in range(max_steps):
        eigenvalues, vectors = np.linalg.eigh(at.hessian)
        # |eigenvalue| turns saddle directions into descent
        scale = np.abs(eigenvalues) + damping[:, None] + 1e-12
        along = np.einsum("mij,mi->mj", vectors, at.gradient) / scale
        step = -np.einsum("mij,mj->mi", vectors, along)
        length = np.linalg.norm(step, axis=1, keepdims=True)
        step *= np.minimum(1.0, 2.0 / np.maximum(length, 1e-300))
        flat = np.abs(np.einsum("mi,mi->m", step, at.gradient)) < 1e-9 * (
            1 + np.abs(at.value)
        )
        done |= flat & (eigenvalues[:, 0] > 0)
        if done.all():
            break
        trial = np.where(done[:, None], x, x + step)
        new = objective(trial)
        better = np.isfinite(new.value) & (new.value <= at.value) & ~done
        x = np.where(better[:, None], trial, x)
        at = Quadratic(
            np.where(better, new.value, at.value),
            np.where(better[:, None], new.gradient, at.gradient),
            np.where(better[:, None, None], new.hessian, at.hessian),
        )
        damping = np.where(better, damping / 10, np.minimum(damping * 10 + 1e-6, 1e12))
    return Minimum(x, at.hessian, done)


class Shrunk(NamedTuple):
    """Noisy estimates pulled toward targets."""

    value: Array  # (m,)
    weight: Array  # (m,), kept of the estimate's own deviation, in [0, 1]
    scatter_sd: float  # of the truth around the targets


def shrink(estimate: Array, sd: Array, target: Array) -> Shrunk:
    """Empirical Bayes: truth ~ N(target, scatter^2), estimate ~ N(truth, sd^2).

    The scatter is DerSimonian and Laird's moment estimate (1986), plus what one estimate
    may add to it by chance, so that few estimates never shrink onto the target entirely.

    Args:
        estimate: Shape (m,).
        sd: Standard error of each, shape (m,); positive.
        target: What each would be without news of its own, shape (m,).
    """
    precision = 1 / sd**2
    deviation = estimate - target
    total = precision.sum()
    excess = (precision * deviation**2).sum() - len(estimate)
    spread = total - (precision**2).sum() / total if len(estimate) > 1 else total
    scatter = max(excess, 0.0) / max(spread, 1e-12) + 1 / total
    weight = scatter / (scatter + sd**2)
    return Shrunk(target + weight * deviation, weight, float(np.sqrt(scatter)))


def ridge(design: Array, y: Array, weight: Array, penalty: float) -> Array:
    """Weighted ridge regression; coefficients, shape (d,).

    Args:
        design: Shape (m, d), columns of comparable scale.
        y: Shape (m,).
        weight: Shape (m,), inverse variances.
        penalty: Inverse prior variance of each coefficient.
    """
    gram = design.T @ (weight[:, None] * design) + penalty * np.eye(design.shape[1])
    return np.asarray(np.linalg.solve(gram, design.T @ (weight * y)))


def weigh_problems(
    problems: int, size: int, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Weights of the Bayesian bootstrap (Rubin 1981), for means over new problems.

    Problems that were all solved, or none, do not say that others will be: a quarter of one
    that always is and a quarter of one that never is stand for those not seen.

    Args:
        problems: How many were seen.
        size: How many draws.
        rng: For the draws.

    Returns:
        Weights of the problems, (size, problems), and of what is always right, (size, 1);
        the rest, to 1, is never right.
    """
    alpha = np.concatenate([np.ones(problems), [_UNKNOWN, _UNKNOWN]])
    weight = rng.dirichlet(alpha, size)
    return weight[:, :problems], weight[:, -1:]
