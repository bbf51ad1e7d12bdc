"""Accuracy against thinking effort, for all models of a benchmark at once.

    accuracy = ceiling - loss * (tokens / tokens_0)**-decay

Effort levels are few (two to four a model), so that the models lend each other strength:
`ceiling` and `loss` scatter around values common to the benchmark, `decay` is common. Given
decay and scatter this is a Gaussian process with two random coefficients a model; decay and
scatter themselves are weighed on a grid by the marginal likelihood of the accuracies. A
negative loss is allowed: accuracy may fall with effort (arXiv:2502.07266).
"""

from dataclasses import dataclass
from itertools import product
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from planner.models.errors import FitError, InputError, NotMeasuredError
from planner.models.lengths import IntArray
from planner.models.prediction import Array, Prediction

_DRAWS = 1000
# The grid; accuracies are in [0, 1], so that these scales hold for any benchmark.
_DECAY = (0.1, 0.2, 0.4, 0.7, 1.0, 1.5, 2.2)
_CEILING_SD = (0.03, 0.08, 0.2)  # between models
_LOSS_SD = (0.01, 0.03, 0.1, 0.25)
_ROUGH_SD = (0.0, 0.01, 0.03)  # of a point around its curve, beyond sampling
_COMMON_SD = (0.5, 0.3)  # prior of the common ceiling around 0.5, and of the loss around 0


@dataclass(frozen=True, eq=False)
class EffortLaw:
    """A fitted law: the measured points, and how likely each entry of the grid is."""

    model: IntArray  # (n_points,), of each point
    log_tokens: Array  # (n_points,), relative to tokens_0
    accuracy: Array  # (n_points,)
    accuracy_sd: Array  # (n_points,), of sampling
    log_tokens_0: float
    grid: Array  # (n_grid, 4): decay, sd of ceiling, sd of loss, sd of roughness
    weight: Array  # (n_grid,), sums to one

    @classmethod
    def fit(
        cls,
        model: ArrayLike,
        tokens: ArrayLike,
        accuracy: ArrayLike,
        accuracy_sd: ArrayLike,
    ) -> Self:
        """Weigh the grid by the accuracies.

        Args:
            model: Of each point, 0..n_models - 1; shape (n_points,).
            tokens: Mean output tokens of a draw at that effort, same shape.
            accuracy: In [0, 1], same shape.
            accuracy_sd: Sampling error of each accuracy, same shape; positive.

        Raises:
            InputError: Shapes differ, or values outside these ranges.
            FitError: No model was measured at two efforts: nothing tells what effort does.
        """
        m = np.asarray(model)
        t, y, sd = (np.asarray(v, dtype=float) for v in (tokens, accuracy, accuracy_sd))
        if m.ndim != 1 or not len(m) or any(v.shape != m.shape for v in (t, y, sd)):
            raise InputError("an effort law needs one model, tokens, accuracy, sd a point")
        ok = np.isfinite(t) & (t > 0) & (y >= 0) & (y <= 1) & np.isfinite(sd) & (sd > 0)
        if not ok.all() or m.min() < 0 or not np.issubdtype(m.dtype, np.integer):
            raise InputError(
                f"effort point {int((~ok).argmax())}: need model >= 0, tokens > 0, an "
                "accuracy in [0, 1] and a positive sampling error"
            )
        pairs = np.unique(np.stack([m.astype(float), t]), axis=1)[0]
        if np.unique(pairs, return_counts=True)[1].max() < 2:
            raise FitError(
                "no model was measured at two efforts, so that the effect of effort is not "
                "known; measure one model at another effort level"
            )
        centre = float(np.log(t).mean())
        grid = np.array(list(product(_DECAY, _CEILING_SD, _LOSS_SD, _ROUGH_SD)))
        law = cls(m.astype(np.int64), np.log(t) - centre, y, sd, centre, grid, np.array([]))
        log_weight = np.array([law._log_likelihood(row) for row in grid])
        weight = np.exp(log_weight - log_weight.max())
        return cls(
            law.model,
            law.log_tokens,
            y,
            sd,
            centre,
            grid,
            np.asarray(weight / weight.sum()),
        )

    def predict(
        self, model: int, tokens: ArrayLike, rng: np.random.Generator
    ) -> Prediction:
        """True accuracy of one model at each mean length of a draw.

        Tokens outside the efforts measured for this model are flagged as extrapolated.

        Raises:
            InputError: Tokens not positive.
            NotMeasuredError: The law holds no point of the model.
        """
        t = np.atleast_1d(np.asarray(tokens, dtype=float))
        if not (np.isfinite(t) & (t > 0)).all():
            raise InputError(f"effort needs positive tokens, got {t.tolist()}")
        own = self.log_tokens[self.model == model]
        if not len(own):
            raise NotMeasuredError(f"no effort of model {model} was measured")
        x = np.log(t) - self.log_tokens_0
        which = rng.choice(len(self.weight), size=_DRAWS, p=self.weight)
        draws = np.empty((_DRAWS, len(x)))
        for entry in np.unique(which):
            rows = np.flatnonzero(which == entry)
            mean, covariance = self._condition(self.grid[entry], model, x)
            draws[rows] = rng.multivariate_normal(
                mean, covariance, size=len(rows), method="eigh"
            )
        outside = (x < own.min() - 1e-9) | (x > own.max() + 1e-9)
        return Prediction(np.clip(draws, 0.0, 1.0), "1", outside)

    def _covariance(
        self, row: Array, models: tuple[IntArray, IntArray], x: tuple[Array, Array]
    ) -> Array:
        decay, ceiling_sd, loss_sd, _ = row
        left, right = (np.exp(-decay * v) for v in x)
        same = (models[0][:, None] == models[1]).astype(float)
        ceiling = _COMMON_SD[0] ** 2 + same * ceiling_sd**2
        loss = _COMMON_SD[1] ** 2 + same * loss_sd**2
        return np.asarray(ceiling + np.outer(left, right) * loss)

    def _measured(self, row: Array) -> Array:
        m, x = self.model, self.log_tokens
        noise = self.accuracy_sd**2 + row[3] ** 2
        return self._covariance(row, (m, m), (x, x)) + np.diag(noise)

    def _log_likelihood(self, row: Array) -> float:
        factor = np.linalg.cholesky(self._measured(row))
        z = np.linalg.solve(factor, self.accuracy - 0.5)
        return float(-z @ z / 2 - np.log(np.diag(factor)).sum())

    def _condition(
        self, row: Array, model: int, x: Array
    ) -> tuple[Array, NDArray[np.float64]]:
        m = np.full(len(x), model, dtype=np.int64)
        across = self._covariance(row, (m, self.model), (x, self.log_tokens))
        gain = np.linalg.solve(self._measured(row), across.T).T
        mean = 0.5 + gain @ (self.accuracy - 0.5)
        own = self._covariance(row, (m, m), (x, x)) + row[3] ** 2 * np.eye(len(x))
        return mean, own - gain @ across.T
