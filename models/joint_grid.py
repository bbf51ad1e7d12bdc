"""The settings of one strategy that were measured, as a grid without holes where possible.

A grid has an axis for difficulty class, temperature, token cap and n. Calibration need not
have measured every corner. One that is missing is, in this order,

- *combined*, where the effect of its temperature was measured at another cap and that of
  its cap at another temperature: the two are added on the logit scale of accuracy, and
  multiplied for draws and tokens. The smaller effect may well vanish or double where the
  other applies, and it is no surer than a quarter of the larger: an interaction, uniform
  within +- max(small, large / 4), joins the noise of the three measurements;
- *between*, where measured ones lie on both sides of it along one axis;
- unknown.

A curve that rises between two measured values d apart may do so anywhere: a standard
deviation of d / sqrt(12) half-way, and less towards the ends, joins that of the
measurements (a quarter of it in n, whose curves bend smoothly).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from planner.models.artifact import Cell, StrategyCurve
from planner.models.prediction import Array

Ints = NDArray[np.intp]

MEASURED, COMBINED, BETWEEN, UNKNOWN = range(4)  # how a corner is known; worse is larger
DOUBT_BETWEEN, DOUBT_IN_N = 1.0, 0.25  # share of d / sqrt(12) above
# What a corner holds at each n.
(ACCURACY, SD, DRAWS, TOKENS, TOKENS_SD, PROMPT, PROBLEMS, N_MAX) = range(8)
_POWERS = (DRAWS, TOKENS, TOKENS_SD)  # powers of n, products of effects
# Gauss-Hermite nodes and weights of a standard normal: moments of a logit-normal
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(15)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


def between_sd(apart: Array, spread: Array, doubt: float) -> Array:
    """Standard deviation of where a curve runs between measured points; see the module.

    Args:
        apart: Largest difference of the points' values.
        spread: 1 - the sum of their squared weights: 2 w (1 - w) of two.
        doubt: How freely it may run.
    """
    return np.asarray(doubt * apart / np.sqrt(12) * np.minimum(2 * spread, 1.0))


@dataclass(frozen=True, eq=False, kw_only=True)
class Grid:
    """One strategy's settings: values where known, NaN elsewhere."""

    classes: Ints  # difficulty classes, rising
    temperatures: Array  # rising
    caps: Array  # rising
    ns: Array  # rising
    values: Array  # (classes, temperatures, caps, ns, 8), quantities as named above
    how: Ints  # (classes, temperatures, caps): MEASURED .. UNKNOWN
    nearest: Ints  # (classes, temperatures, caps), flat corner whose measurement weighs most

    @classmethod
    def of(cls, cells: Sequence[Cell], strategy: str) -> Self:
        """Gather a strategy's curves; one draw of any strategy is "single"."""
        curves = [(cell, curve) for cell in cells if (curve := _curve(cell, strategy))]
        classes = np.unique([cell.difficulty for cell, _ in curves])
        temperatures = np.unique([cell.temperature for cell, _ in curves])
        caps = np.unique([float(cell.max_tokens) for cell, _ in curves])
        ns = np.unique([float(n) for _, curve in curves for n in curve.n])
        shape = (len(classes), len(temperatures), len(caps))
        values = np.full((*shape, len(ns), N_MAX + 1), np.nan)
        how = np.full(shape, UNKNOWN, np.intp)
        for cell, curve in curves:
            at = (
                int(np.searchsorted(classes, cell.difficulty)),
                int(np.searchsorted(temperatures, cell.temperature)),
                int(np.searchsorted(caps, cell.max_tokens)),
            )
            values[at] = _at_ns(_rows(cell, curve), np.array(curve.n, float), ns)
            how[at] = MEASURED
        nearest = np.broadcast_to(np.arange(shape[1] * shape[2]).reshape(shape[1:]), shape)
        grid = cls(
            classes=classes, temperatures=temperatures, caps=caps, ns=ns, values=values,
            how=how, nearest=nearest.copy(),
        )  # fmt: skip
        grid._fill()
        return grid

    def _fill(self) -> None:
        """Combine or read between, from what is known, until nothing more can be."""
        for k in range(len(self.classes)):
            while True:
                known = self.how[k] != UNKNOWN
                found = {
                    at: filled
                    for at in map(tuple, np.argwhere(~known).tolist())
                    if (filled := self._combined(k, at, known))
                } or {
                    at: filled
                    for at in map(tuple, np.argwhere(~known).tolist())
                    if (filled := self._between(k, at, known))
                }
                if not found:
                    break
                for at, (values, how, nearest) in found.items():
                    self.values[k][at] = values
                    self.how[k][at], self.nearest[k][at] = how, nearest

    def _combined(
        self, k: int, at: tuple[int, int], known: NDArray[np.bool_]
    ) -> tuple[Array, int, int] | None:
        """A corner from the closest three that complete it to a rectangle."""
        i, j = at
        others = [
            (abs(i - a) + abs(j - b), a, b)
            for a, b in np.argwhere(known).tolist()
            if a != i and b != j and known[i, b] and known[a, j]
        ]
        if not others:
            return None
        _, a, b = min(others)
        v = self.values[k]
        values = _combine(v[i, b], v[a, j], v[a, b], self.ns, self.ns * self.caps[j])
        return values, COMBINED, int(self.nearest[k, i, b])

    def _between(
        self, k: int, at: tuple[int, int], known: NDArray[np.bool_]
    ) -> tuple[Array, int, int] | None:
        """A corner from those on both sides of it, along the caps or the temperatures."""
        i, j = at
        lines = (
            (known[i], self.caps, j, lambda x: (i, x)),
            (known[:, j], self.temperatures, i, lambda x: (x, j)),
        )
        for there, axis, own, corner in lines:
            below, above = np.flatnonzero(there[:own]), np.flatnonzero(there[own + 1 :])
            if len(below) and len(above):
                low, high = int(below[-1]), int(above[0]) + own + 1
                w = float((axis[own] - axis[low]) / (axis[high] - axis[low]))
                one, two = self.values[k][corner(low)], self.values[k][corner(high)]
                closer = corner(high if w > 0.5 else low)
                return _mixed(one, two, w), BETWEEN, int(self.nearest[k][closer])
        return None


def _curve(cell: Cell, strategy: str) -> StrategyCurve | None:
    return next((c for c in cell.curves if c.strategy == strategy), None)


def _rows(cell: Cell, curve: StrategyCurve) -> Array:
    """A curve's values at its own n, (n, 8)."""
    rows = np.empty((len(curve.n), N_MAX + 1))
    rows[:, ACCURACY] = np.clip(curve.accuracy, 0.0, 1.0)
    rows[:, SD] = curve.accuracy_sd
    rows[:, DRAWS] = np.maximum(curve.draws, 1.0)
    rows[:, TOKENS], rows[:, TOKENS_SD] = curve.output_tokens, curve.output_tokens_sd
    rows[:, PROMPT], rows[:, PROBLEMS] = cell.prompt_tokens, cell.n_problems
    rows[:, N_MAX] = curve.n_max
    single = _curve(cell, "single")
    if single is not None and single is not curve and curve.n[0] == 1:
        rows[0] = _rows(cell, single)[0]
        rows[0, N_MAX] = curve.n_max
    return rows


def steps_in_n(values: Array, ns: Array) -> Array:
    """What turns values at one n into those at the next, same shape; zero at the last.

    A difference; of the quantities that are powers of n, the log of a ratio (a difference
    where they start from zero: fixed lengths have no spread at n = 1).
    """
    steps = np.zeros_like(values)
    steps[..., :-1, :] = np.diff(values, axis=-2)
    for q in _POWERS:
        low, high = values[..., :-1, q], values[..., 1:, q]
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.log(high / low)
        steps[..., :-1, q] = np.where(low > 0, ratio, high)
    return steps


def step(value: Array, change: Array, weight: Array) -> Array:
    """A power of n between two n; exact at the first, and close where not every draw is."""
    return np.where(value > 0, value * np.exp(weight * change), weight * change)


def _at_ns(rows: Array, own: Array, ns: Array) -> Array:
    """A curve's values at the grid's n, read on a log scale; NaN beyond its own."""
    low = np.clip(np.searchsorted(own, ns, side="right") - 1, 0, len(own) - 1)
    high = np.minimum(low + 1, len(own) - 1)
    inside = (own[low] < ns) & (ns < own[high])
    w = np.zeros(len(ns))
    np.divide(np.log(ns / own[low]), np.log(own[high] / own[low]), out=w, where=inside)
    w = w[:, None]
    change = steps_in_n(rows, own)[low]
    out = rows[low] + w * change
    for q in _POWERS:
        out[:, q] = step(rows[low, q], change[:, q], w[:, 0])
    doubt = between_sd(abs(change[:, ACCURACY]), 2 * w[:, 0] * (1 - w[:, 0]), DOUBT_IN_N)
    out[:, SD] = np.hypot(out[:, SD], doubt)
    out[:, PROMPT:] = rows[low, PROMPT:]
    out[(ns < own[0]) | (ns > own[-1])] = np.nan
    return out


def _mixed(low: Array, high: Array, w: float) -> Array:
    """Values (ns, 8) at weight w from one corner to another."""
    out = (1 - w) * low + w * high
    apart = abs(high[:, ACCURACY] - low[:, ACCURACY])
    doubt = between_sd(apart, np.float64(2 * w * (1 - w)), DOUBT_BETWEEN)
    out[:, SD] = np.hypot(out[:, SD], doubt)
    out[:, PROBLEMS:] = np.minimum(low, high)[:, PROBLEMS:]
    return out


def _combine(
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
    logits, variances = zip(
        *(_logit(v[:, ACCURACY], v[:, SD], size) for v in (same_t, same_cap, other)),
        strict=True,
    )
    effects = np.sort(abs(np.stack(logits[:2]) - logits[2]), axis=0)
    interaction = np.maximum(effects[0], effects[1] / 4) ** 2 / 3
    at = logits[0] + logits[1] - logits[2]
    sd = np.sqrt(sum(variances) + interaction)
    out[:, ACCURACY], out[:, SD] = _from_logit(at, sd, size)
    return out


def _logit(accuracy: Array, sd: Array, size: Array) -> tuple[Array, Array]:
    """Empirical logit of an accuracy over `size` problems, half a problem each way added
    so that 0 and 1 have one, and its variance.
    """  # noqa: D205
    p = (accuracy * size + 0.5) / (size + 1)
    slope = size / (size + 1) / (p * (1 - p))
    return np.log(p / (1 - p)), (slope * sd) ** 2


def _from_logit(mean: Array, sd: Array, size: Array) -> tuple[Array, Array]:
    """Mean and standard deviation of the accuracy of a normal empirical logit."""
    p = 1 / (1 + np.exp(-(mean[:, None] + sd[:, None] * _NODES)))
    values = np.clip((p * (size + 1)[:, None] - 0.5) / size[:, None], 0.0, 1.0)
    centre = values @ _WEIGHTS
    return centre, np.sqrt((values - centre[:, None]) ** 2 @ _WEIGHTS)


def strategies(cells: Iterable[Cell]) -> list[str]:
    """Strategies that some cell has a curve of, sorted."""
    return sorted({curve.strategy for cell in cells for curve in cell.curves})
