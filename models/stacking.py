"""A forecast of coverage drawn part of the way to the exponentiated power law.

Published sets follow exp(-A k**-B) closely (Brown et al. 2024, arXiv:2407.21787), a form
that no mixture of problems gives exactly and that knows nothing of other models. Where it
errs it errs otherwise than ours, so that a share of it lowers the error of both.
"""

import numpy as np

from planner.models.counts import IntArray
from planner.models.coverage_baselines import NLS_POWER_LAW, Observed
from planner.models.errors import FitError
from planner.models.importance import shares
from planner.models.prediction import Array

# Of the power law in the centre of a forecast: a round figure, set on three public sets,
# the reference models' and two simulated ones. 1/2 did alike where it was tried.
_WEIGHT = 1 / 3
_STEEPEST = 1.5  # tilt: standard deviations that a normal's mean moves at most
_LEAST_DRAWS = 4  # a curve of fewer points does not say how it bends


def toward_power_law(
    draws: Array, k: Array, n_correct: IntArray, n_samples: IntArray
) -> Array:
    """Draws of coverage whose centre is moved part of the way to the power law's.

    Nothing moves up to the draws made, where problems have unequal numbers of draws (their
    mean curve is biased when draws were sent where they were needed), or where the power
    law cannot be fitted.

    Args:
        draws: Of the coverage of these problems, (n_draws, n_k).
        k: Shape (n_k,).
        n_correct: Behind the forecast, (n_problems,).
        n_samples: Same shape.
    """
    n = int(n_samples[0])
    beyond = k > n
    if n < _LEAST_DRAWS or (n_samples != n).any() or not beyond.any():
        return draws
    observed = Observed.of(n_correct, n)
    try:
        power_law = NLS_POWER_LAW.forecast(observed, k[beyond])
    except FitError:
        return draws
    moved = draws.copy()
    off = _WEIGHT * (power_law - np.median(draws[:, beyond], axis=0))
    for column, by in zip(np.flatnonzero(beyond), off, strict=True):
        moved[:, column] = _tilted(draws[:, column], float(by))
    return moved


def _tilted(values: Array, by: float) -> Array:
    """Values reweighed by exp(t value) so that their mean moves `by`, ranks kept.

    Only values that occurred come back: what cannot be stays impossible.
    """
    spread = float(values.std())
    if spread == 0:
        return values
    z = (np.sort(values) - values.mean()) / spread
    low, high = -_STEEPEST, _STEEPEST
    for _ in range(40):
        tilt = (low + high) / 2
        share = shares(tilt * z)
        low, high = (tilt, high) if share @ z * spread < by else (low, tilt)
    upto = np.cumsum(share)
    at = np.searchsorted(upto, (np.arange(len(z)) + 0.5) / len(z))
    rank = np.argsort(np.argsort(values, kind="stable"), kind="stable")
    return np.asarray(np.sort(values)[np.minimum(at, len(z) - 1)][rank])
