"""Draws of some options on the same problems, counted; what they leave open.

The success rate of a problem has the posterior of its option's beta-binomial law
(`coverage`), whose own uncertainty is drawn, too. The options lend each other a prior.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from planner.models.coverage import fit_pooled
from planner.models.errors import InputError
from planner.models.prediction import Array

LEAST_RATE = 1e-12  # Beta draws underflow to 0, and a cost is divided by them
_BLOCK = 2_000_000  # rates drawn at a time, so that memory stays bounded


@dataclass(frozen=True, eq=False)
class Attempts:
    """Draws of some options on the same problems; all arrays (n_options, n_problems)."""

    n_correct: Array
    n_samples: Array
    cost: Array  # mean of one draw, in `unit`
    cost_se: Array  # standard error of that mean
    unit: str  # "usd", "tokens", "s" or "flop"

    @classmethod
    def of(
        cls,
        n_correct: ArrayLike,
        n_samples: ArrayLike,
        cost: ArrayLike,
        unit: str,
        *,
        cost_se: ArrayLike = 0.0,
    ) -> Self:
        """From counts; one option may be given as a flat list of problems.

        Raises:
            InputError: Not whole counts with 0 <= n_correct <= n_samples and a sample each,
                a cost that is not above 0, or shapes that do not fit.
        """
        c = np.atleast_2d(np.asarray(n_correct, dtype=float))
        try:
            n, mean, se = (
                np.broadcast_to(np.asarray(x, dtype=float), c.shape)
                for x in (n_samples, cost, cost_se)
            )
        except ValueError as error:
            raise InputError(
                "counts and costs need one shape (options, problems)"
            ) from error
        whole = (c % 1 == 0) & (n % 1 == 0) & (n >= 1) & (c >= 0) & (c <= n)
        if c.ndim != 2 or not c.size or not whole.all():
            raise InputError(
                "need whole counts with 0 <= n_correct <= n_samples, at least one sample "
                "of every option on every problem"
            )
        if not (np.isfinite(mean) & (mean > 0) & np.isfinite(se) & (se >= 0)).all():
            raise InputError("costs must be finite and above 0, their errors not below 0")
        return cls(c, n, mean, se, unit)

    @classmethod
    def of_draws(cls, correct: ArrayLike, cost: ArrayLike, unit: str) -> Self:
        """From draws, (n_options, n_problems, n_draws); NaN where a draw is missing.

        The relative spread of costs is pooled over an option's problems; without two draws
        of any problem it is that between problems, which is wider.

        Raises:
            InputError: As `of`, or right answers other than 0 and 1.
        """
        right, spent = np.asarray(correct, dtype=float), np.asarray(cost, dtype=float)
        if right.ndim == 2 and spent.shape == right.shape:
            right, spent = right[None], spent[None]
        if right.ndim != 3 or right.shape != spent.shape:
            raise InputError("need draws and costs of one shape (options, problems, draws)")
        there = ~np.isnan(right)
        if (np.isnan(spent) & there).any() or not np.isin(right[there], (0, 1)).all():
            raise InputError("every draw needs a cost, and to be 0 or 1")
        n = there.sum(axis=2).astype(float)
        if (n < 1).any():
            raise InputError("every option needs a draw of every problem")
        mean = np.where(there, spent, 0).sum(axis=2) / n
        relative = np.where(there, spent / np.maximum(mean, LEAST_RATE)[..., None] - 1, 0)
        freedom = (n - 1).sum(axis=1)
        within = (relative**2).sum(axis=(1, 2)) / np.maximum(freedom, 1)
        between = (mean / mean.mean(axis=1, keepdims=True) - 1).var(axis=1)
        spread = np.sqrt(np.where(freedom > 0, within, between))
        se = spread[:, None] * mean / np.sqrt(n)
        return cls.of(np.nansum(right, axis=2), n, mean, unit, cost_se=se)


class Block(NamedTuple):
    """Draws of some problems."""

    problems: NDArray[np.int64]  # (B,), their numbers
    weight: Array  # (size, 1, B), of the problems
    rate: Array  # (size, n_options, B), success rates
    cost: Array  # (size, n_options, B), of one draw


def posterior_blocks(
    attempts: Attempts, rng: np.random.Generator, new_problems: bool, size: int
) -> Iterator[Block]:
    """Draws of rates and costs given the counts, some problems at a time.

    Args:
        attempts: What was counted.
        rng: For the draws.
        new_problems: Whether problems get the random weights of the Bayesian bootstrap.
        size: Draws.
    """
    c, n = attempts.n_correct, attempts.n_samples
    options, problems = c.shape
    cell = np.repeat(np.arange(options), problems)
    laws = fit_pooled(c.ravel(), n.ravel(), cell, np.zeros(options, dtype=np.int64))
    shapes = [law.shapes(rng, size) for law in laws]
    a, b = (np.stack(part, axis=1) for part in zip(*shapes, strict=True))
    step = max(_BLOCK // (size * options), 1)
    for start in range(0, problems, step):
        which = np.arange(start, min(start + step, problems))
        rate = rng.beta(a + c[:, which], b + (n - c)[:, which])
        cost = draw_cost(attempts, which, rng, size)
        weight = (
            rng.standard_exponential((size, 1, len(which)))
            if new_problems
            else np.ones((size, 1, len(which)))
        )
        yield Block(which, weight, np.maximum(rate, LEAST_RATE), cost)


def draw_cost(
    attempts: Attempts, problems: NDArray[np.int64], rng: np.random.Generator, size: int
) -> Array:
    """Mean cost of a draw on these problems; (size, n_options, problems).

    A gamma of the relative error of the measured mean: it stays above 0.
    """
    mean = attempts.cost[:, problems]
    relative = attempts.cost_se[:, problems] / mean
    if not relative.any():
        return np.broadcast_to(mean, (size, *mean.shape))
    shape = 1 / np.maximum(relative, 1e-6) ** 2
    return np.asarray(mean * rng.gamma(shape, 1 / shape, (size, *mean.shape)))
