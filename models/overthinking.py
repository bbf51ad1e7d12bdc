"""Accuracy against the tokens that draws realise, without Simpson's trap.

Between problems accuracy falls with length because hard problems take longer; that says
nothing about longer thought on one problem. `LengthEffect` keeps the two apart: the slope
within problems is that of the conditional likelihood (Chamberlain 1980), which no trait of
a problem can confound. It may be negative: overthinking (arXiv:2502.07266, 2505.17813).
"""

from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit

from planner.models.errors import FitError, InputError
from planner.models.fitting import Quadratic, minimise_many
from planner.models.lengths import BoolArray, IntArray, Recorded
from planner.models.prediction import Array, Prediction

_DRAWS = 1000


class Slope(NamedTuple):
    """Change of the log-odds of a right answer per unit of log tokens."""

    value: float
    se: float  # robust to draws of one problem being alike

    def interval(self) -> tuple[float, float]:
        """Equal-tailed, 90 %."""
        return self.value - 1.645 * self.se, self.value + 1.645 * self.se


@dataclass(frozen=True, eq=False)
class LengthEffect:
    """How accuracy goes with the tokens realised, within and between problems."""

    within: Slope  # longer and shorter draws of one problem
    between: Slope  # problems with longer and with shorter draws: mostly their difficulty
    pooled: Slope  # all draws in one heap: a mixture of both, not an effect of length
    n_mixed: int  # problems with right and wrong draws: all that `within` rests on
    level: Array  # (P,), log-odds of a draw of the problem's typical length
    log_tokens_range: tuple[float, float]  # of draws around their problem's mean

    @classmethod
    def fit(
        cls, recorded: Recorded, max_tokens: float = np.inf, run: ArrayLike | None = None
    ) -> Self:
        """Estimate the three slopes.

        Args:
            recorded: Draws; rows of several runs may be stacked.
            max_tokens: The cap: draws that reached it and are not right were cut, which
                says nothing of longer thought, and are left out.
            run: Which run each row belongs to, (P,); runs have a level of their own.

        Raises:
            InputError: Lengths below 1, or `run` not one a row.
            FitError: Too few problems with right and wrong draws, or no spread of lengths.
        """
        tokens = recorded.output_tokens
        used: BoolArray = recorded.present & ((tokens < max_tokens) | recorded.correct)
        if (tokens[used] < 1).any():
            raise InputError("realised lengths need at least one token a draw")
        rows = np.asarray(used.any(axis=1))
        runs = np.zeros(len(rows), np.int64) if run is None else np.asarray(run)
        if runs.shape != rows.shape:
            raise InputError("run needs one entry a row of the draws")
        used, runs = used[rows], np.unique(runs[rows], return_inverse=True)[1]
        x = np.where(used, np.log(np.maximum(tokens[rows], 1)), 0.0)
        y = recorded.correct[rows] & used
        n, c = used.sum(axis=1), y.sum(axis=1)
        mean = x.sum(axis=1) / n
        off = np.where(used, x - mean[:, None], 0.0)
        mixed = (c > 0) & (c < n) & (np.ptp(off, axis=1) > 0)
        if mixed.sum() < 2:
            raise FitError(
                f"{mixed.sum()} problems have right and wrong draws of unlike lengths; the "
                "slope within problems needs two or more: draw more samples a problem"
            )
        _check_overlap(off[mixed], y[mixed], used[mixed])
        within = _conditional_slope(off[mixed], y[mixed], used[mixed])
        ones = np.ones(len(n))
        between = _logistic_slope(mean, c / n, ones, runs, np.arange(len(n)))
        row, at = np.nonzero(used)
        pooled = _logistic_slope(
            x[row, at], y[row, at].astype(float), 1.0 / n[row], runs[row], row
        )
        level = _levels(off, used, c, n, within.value)
        low, high = np.quantile(off[used], [0.05, 0.95])
        return cls(
            within, between, pooled, int(mixed.sum()), level, (float(low), float(high))
        )

    def predict(self, ratio: ArrayLike, rng: np.random.Generator) -> Prediction:
        """Accuracy of draws that take `ratio` times their problem's typical tokens.

        An association within problems; problems always or never solved stay so.

        Raises:
            InputError: A ratio that is not positive.
        """
        ratios = np.atleast_1d(np.asarray(ratio, dtype=float))
        if not (np.isfinite(ratios) & (ratios > 0)).all():
            raise InputError("lengths relative to the typical one must be positive")
        x = np.log(ratios)
        slope = self.within.value + self.within.se * rng.standard_normal(_DRAWS)
        weight = rng.dirichlet(np.ones(len(self.level)), _DRAWS)
        draws = np.stack(
            [
                np.einsum("dp,dp->d", weight, expit(self.level + slope[:, None] * at))
                for at in x
            ],
            axis=1,
        )
        low, high = self.log_tokens_range
        return Prediction(draws, "1", (x < low) | (x > high))


def _check_overlap(x: Array, y: BoolArray, used: BoolArray) -> None:
    """Raise where the right draws are the shorter (or the longer) of every problem."""
    wrong = used & ~y
    for sign in (1, -1):
        right_most = np.where(y, sign * x, -np.inf).max(axis=1)
        wrong_least = np.where(wrong, sign * x, np.inf).min(axis=1)
        if (right_most <= wrong_least).all():
            raise FitError(
                "right and wrong draws do not overlap in length on any problem: the slope "
                "has no finite estimate; draw more samples a problem"
            )


def _conditional_slope(x: Array, y: BoolArray, used: BoolArray) -> Slope:
    """Maximise P(which draws are right | how many are), problems independent.

    The normaliser is an elementary symmetric polynomial of exp(slope * x), built draw by
    draw together with its derivatives, in logs.
    """
    c = y.sum(axis=1)
    right = np.where(y, x, 0.0).sum(axis=1)
    every = np.arange(len(x))

    def derivatives(slope: float) -> tuple[Array, Array]:
        width = int(c.max()) + 1
        log_e = np.full((len(x), width), -np.inf)
        log_e[:, 0] = 0.0
        first, second = np.zeros_like(log_e), np.zeros_like(log_e)
        for j in range(x.shape[1]):
            on, at = used[:, j], x[:, j : j + 1]
            added = np.where(on[:, None], log_e[:, :-1] + slope * at, -np.inf)
            total = np.logaddexp(log_e[:, 1:], added)
            seen = np.isfinite(total)
            w = np.exp(np.where(seen, added - np.where(seen, total, 0.0), -np.inf))
            moved = first[:, :-1] + at
            mean = (1 - w) * first[:, 1:] + w * moved
            square = (1 - w) * (second[:, 1:] + first[:, 1:] ** 2) + w * (
                second[:, :-1] + moved**2
            )
            log_e[:, 1:], first[:, 1:] = total, mean
            second[:, 1:] = square - mean**2
        return right - first[every, c], second[every, c]

    slope = 0.0
    for _ in range(50):
        score, information = derivatives(slope)
        step = float(score.sum() / max(information.sum(), 1e-12))
        slope += float(np.clip(step, -1.0, 1.0))
        if abs(step) < 1e-9:
            break
    score, information = derivatives(slope)
    robust = np.sqrt((score**2).sum() * len(x) / (len(x) - 1)) / information.sum()
    return Slope(slope, float(max(robust, information.sum() ** -0.5)))


def _logistic_slope(
    x: Array, y: Array, weight: Array, run: IntArray, row: IntArray
) -> Slope:
    """Slope of a logistic regression with a level a run; errors robust by problem."""
    design: Array = np.zeros((len(x), int(run.max()) + 2))
    centre = np.bincount(run, x) / np.bincount(run)
    design[:, 0] = x - centre[run]
    design[np.arange(len(x)), run + 1] = 1.0
    if not np.ptp(design[:, 0]) > 0:
        raise FitError("every problem takes the same tokens: no slope to estimate")
    # levels of runs that are always right (or wrong) would run away
    prior = np.diag([1e-4, *[0.05] * (design.shape[1] - 1)])

    def objective(theta: Array) -> Quadratic:
        z = theta @ design.T
        p = expit(z)
        value = (weight * (np.logaddexp(0, z) - y * z)).sum(1)
        hessian = np.stack([design.T @ (w[:, None] * design) for w in weight * p * (1 - p)])
        pull = theta @ prior
        return Quadratic(
            value + (theta * pull).sum(1) / 2,
            (weight * (p - y)) @ design + pull,
            hessian + prior,
        )

    best = minimise_many(objective, np.zeros((1, design.shape[1])))
    theta = best.x[0]
    residual = (weight * (y - expit(design @ theta)))[:, None] * design
    rows = int(row.max()) + 1
    scores = np.stack([np.bincount(row, r, rows) for r in residual.T], axis=1)
    bread = np.linalg.inv(best.hessian[0])
    variance = (bread @ (scores.T @ scores) @ bread)[0, 0] * rows / max(rows - 1, 1)
    return Slope(float(theta[0]), float(np.sqrt(variance)))


def _levels(off: Array, used: BoolArray, c: IntArray, n: IntArray, slope: float) -> Array:
    """Log-odds at the typical length that give each problem its share; infinite at 0, 1."""
    low, high = np.full(len(c), -60.0), np.full(len(c), 60.0)
    for _ in range(60):
        middle = (low + high) / 2
        expected = np.where(used, expit(middle[:, None] + slope * off), 0.0).sum(axis=1)
        above = expected > c
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    return np.where(c == 0, -np.inf, np.where(c == n, np.inf, (low + high) / 2))
