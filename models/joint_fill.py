"""What is not measured at a corner (temperature, cap) of a grid, from corners that are.

A corner's values are rows, one an n, of the quantities named below.

Two corners are *mixed* where the wanted one lies between them. A curve that rises between
two measured values d apart may do so anywhere: a standard deviation of d / sqrt(12)
half-way, and less towards the ends, joins that of the measurements (a quarter of it in n,
whose curves bend smoothly).

Three are *combined* where they complete the wanted one to a rectangle: the effect of its
temperature, measured at another cap, and that of its cap, measured at another temperature,
are added on the logit scale of accuracy and multiplied for draws and tokens. The smaller
effect may well vanish or double where the other applies, and it is no surer than a quarter
of the larger: an interaction, uniform within +- max(small, large / 4), joins the noise of
the three measurements. Their errors correlate, since they share problems, by a half (of the
reference models' success rates on a class at 16 draws, those at two settings correlate by
0.7 to 0.9; at fewer draws by less).
"""

import numpy as np

from planner.models.prediction import Array

# What a corner holds at each n; expected or mean values but for the standard deviations.
(ACCURACY, SD, DRAWS, TOKENS, TOKENS_SD, PROMPT, PROBLEMS, N_MAX) = range(8)
POWERS = (DRAWS, TOKENS, TOKENS_SD)  # powers of n; effects on them multiply
DOUBT, DOUBT_IN_N = 1.0, 0.25  # shares of d / sqrt(12) above
_SHARED = 0.5  # correlation of the errors of two settings
# Gauss-Hermite nodes and weights of a standard normal: moments of a logit-normal
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(15)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


def between_sd(apart: Array, spread: Array | float, doubt: float) -> Array:
    """Standard deviation of where a curve runs between measured points; see the module.

    Args:
        apart: Largest difference of the points' values.
        spread: 1 - the sum of their squared weights: 2 w (1 - w) of two.
        doubt: How freely it may run.
    """
    return np.asarray(doubt * apart / np.sqrt(12) * np.minimum(2 * spread, 1.0))


def steps_in_n(values: Array, ns: Array) -> Array:
    """What turns values at one n into those at the next, same shape; zero where none is.

    A difference; of the quantities that are powers of n, the log of a ratio (a difference
    where they start from zero: fixed lengths have no spread at n = 1).
    """
    steps = np.zeros_like(values)
    steps[..., :-1, :] = np.diff(values, axis=-2)
    for q in POWERS:
        low, high = values[..., :-1, q], values[..., 1:, q]
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.log(high / low)
        steps[..., :-1, q] = np.where(low > 0, ratio, high)
    return np.nan_to_num(steps)


def step(value: Array, change: Array, weight: Array) -> Array:
    """A power of n between two n; exact at the first, and close where not every draw is."""
    return np.where(value > 0, value * np.exp(weight * change), weight * change)


def at_ns(rows: Array, own: Array, ns: Array) -> Array:
    """A curve's values at the grid's n, read on a log scale; NaN beyond its own."""
    if np.array_equal(own, ns):  # the usual case, and much faster
        return rows
    low = np.clip(np.searchsorted(own, ns, side="right") - 1, 0, len(own) - 1)
    high = np.minimum(low + 1, len(own) - 1)
    inside = (own[low] < ns) & (ns < own[high])
    w = np.zeros(len(ns))
    np.divide(np.log(ns / own[low]), np.log(own[high] / own[low]), out=w, where=inside)
    w = w[:, None]
    change = steps_in_n(rows, own)[low]
    out = rows[low] + w * change
    for q in POWERS:
        out[:, q] = step(rows[low, q], change[:, q], w[:, 0])
    doubt = between_sd(abs(change[:, ACCURACY]), 2 * w[:, 0] * (1 - w[:, 0]), DOUBT_IN_N)
    out[:, SD] = np.hypot(out[:, SD], doubt)
    out[:, PROMPT:] = rows[low, PROMPT:]
    out[(ns < own[0]) | (ns > own[-1])] = np.nan
    return out


def mixed(low: Array, high: Array, w: float) -> Array:
    """Values (ns, 8) at weight w from one corner to another."""
    out = (1 - w) * low + w * high
    apart = abs(high[:, ACCURACY] - low[:, ACCURACY])
    doubt = between_sd(apart, 2 * w * (1 - w), DOUBT)
    out[:, SD] = np.hypot(out[:, SD], doubt)
    out[:, PROBLEMS:] = np.minimum(low, high)[:, PROBLEMS:]
    return out


def combined(
    same_t: Array, same_cap: Array, other: Array, ns: Array, most_tokens: Array
) -> Array:
    """Values (ns, 8) where the effects of temperature and cap meet unmeasured.

    Args:
        same_t: At the corner's temperature and another cap.
        same_cap: At its cap and another temperature.
        other: At both others.
        ns: Of the rows.
        most_tokens: Output at most, (ns,).
    """
    out = same_t.copy()
    with np.errstate(divide="ignore", invalid="ignore"):
        product = same_t * same_cap / other
    for q, least, most in (
        (DRAWS, 1.0, ns), (TOKENS, 0.0, most_tokens), (TOKENS_SD, 0.0, np.inf)
    ):  # fmt: skip
        known = np.where(other[:, q] > 0, product[:, q], same_cap[:, q])
        out[:, q] = np.clip(known, least, most)
    for q in (PROBLEMS, N_MAX):
        out[:, q] = np.minimum(np.minimum(same_t[:, q], same_cap[:, q]), other[:, q])
    size = out[:, PROBLEMS]
    (one, sd_1), (two, sd_2), (both, sd_3) = (
        _logit(v[:, ACCURACY], v[:, SD], size) for v in (same_t, same_cap, other)
    )
    effects = np.sort([abs(one - both), abs(two - both)], axis=0)
    interaction = np.maximum(effects[0], effects[1] / 4) ** 2 / 3
    noise = sd_1**2 + sd_2**2 + sd_3**2
    noise += 2 * _SHARED * (sd_1 * sd_2 - sd_1 * sd_3 - sd_2 * sd_3)
    at, sd = one + two - both, np.sqrt(noise + interaction)
    out[:, ACCURACY], out[:, SD] = _from_logit(at, sd, size)
    return out


def _logit(accuracy: Array, sd: Array, size: Array) -> tuple[Array, Array]:
    """Empirical logit of an accuracy over `size` problems, half a problem each way added
    so that 0 and 1 have one, and its standard deviation.
    """  # noqa: D205
    p = (accuracy * size + 0.5) / (size + 1)
    slope = size / (size + 1) / (p * (1 - p))
    return np.log(p / (1 - p)), slope * sd


def _from_logit(mean: Array, sd: Array, size: Array) -> tuple[Array, Array]:
    """Mean and standard deviation of the accuracy of a normal empirical logit."""
    p = 1 / (1 + np.exp(-(mean[:, None] + sd[:, None] * _NODES)))
    values = np.clip((p * (size + 1)[:, None] - 0.5) / size[:, None], 0.0, 1.0)
    centre = values @ _WEIGHTS
    return centre, np.sqrt((values - centre[:, None]) ** 2 @ _WEIGHTS)
