"""Success rates of several options on the same problems, drawn together.

A problem that is hard for one option is likely hard for others. Drawn as if independent,
the best of many options would solve every problem. Hence an item response model,

    logit p_mi = skill_m + slope_m ease_i + noise_mi,    ease_i ~ N(0, s^2),
    noise_mi ~ N(0, t_m^2),    c_mi ~ Binomial(n_mi, p_mi),

whose posterior Gibbs sampling draws: normal given the logits, Metropolis for the logits.
"""

from collections.abc import Iterator

import numpy as np
from scipy.special import expit

from planner.models.prediction import Array

_BURN_IN, _THIN, _STEPS = 400, 3, 2  # sweeps, sweeps a draw, steps of the logits a sweep
_SKILL_SD, _SLOPE_SD = 5.0, 0.5  # of the priors N(0, .) and N(1, .)
_SHAPE, _RATE = 1.0, 0.5  # of the inverse gamma priors of both variances


def joint_rates(
    n_correct: Array, n_samples: Array, rng: np.random.Generator, size: int
) -> Iterator[Array]:
    """Draws of the success rates, each (n_options, n_problems).

    Args:
        n_correct: Right draws, (n_options, n_problems).
        n_samples: Draws, same shape.
        rng: For the chain.
        size: How many draws.
    """
    c, n = n_correct, n_samples
    options, problems = c.shape
    start = (c + 0.5) / (n + 1)
    x = np.log(start / (1 - start))
    step = 2 / np.sqrt(0.3 + n * start * (1 - start))
    ease = x.mean(axis=0) - x.mean()
    noise = np.ones(options)  # variances t^2
    prior_precision = np.array([_SKILL_SD**-2, _SLOPE_SD**-2])
    for sweep in range(_BURN_IN + _THIN * size):
        # skill and slope: a regression of each option's logits on the ease
        gram = np.array([[problems, ease.sum()], [ease.sum(), (ease**2).sum()]])
        precision = gram / noise[:, None, None] + np.diag(prior_precision)
        moment = np.stack([x.sum(axis=1), x @ ease], axis=1) / noise[:, None]
        moment[:, 1] += prior_precision[1]
        root = np.linalg.cholesky(np.linalg.inv(precision))
        mean = np.linalg.solve(precision, moment[..., None])
        drawn = mean + root @ rng.standard_normal((options, 2, 1))
        skill, slope = drawn[:, :1, 0], drawn[:, 1:, 0]
        spread = (_RATE + (ease**2).sum() / 2) / rng.standard_gamma(_SHAPE + problems / 2)
        weight = slope[:, 0] / noise
        tight = 1 / spread + (slope[:, 0] * weight).sum()
        ease = weight @ (x - skill) / tight + rng.standard_normal(problems) / np.sqrt(tight)
        expected = skill + slope * ease
        squares = ((x - expected) ** 2).sum(axis=1)
        noise = (_RATE + squares / 2) / rng.standard_gamma(_SHAPE + problems / 2, options)
        for _ in range(_STEPS):
            trial = x + step * rng.standard_normal(x.shape)
            gain = c * (trial - x) - n * (np.logaddexp(0, trial) - np.logaddexp(0, x))
            gain -= ((trial - expected) ** 2 - (x - expected) ** 2) / (2 * noise[:, None])
            x = np.where(-rng.standard_exponential(x.shape) < gain, trial, x)
        if sweep >= _BURN_IN and (sweep - _BURN_IN) % _THIN == 0:
            yield np.asarray(expit(x))
