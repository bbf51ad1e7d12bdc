"""The settings of one strategy that were measured, as a grid that can be read anywhere.

The axes are difficulty class, temperature, token cap and n. Calibration need not have
measured every corner (temperature, cap): a missing one is combined from three others, else
read between two, else unknown; see `planner.models.joint_fill`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, NoReturn, Self

import numpy as np
from numpy.typing import NDArray

from planner.models.artifact import Cell, StrategyCurve
from planner.models.errors import NotMeasuredError
from planner.models.joint_fill import (
    ACCURACY,
    DOUBT,
    DOUBT_IN_N,
    N_MAX,
    POWERS,
    PROBLEMS,
    PROMPT,
    SD,
    at_ns,
    between_sd,
    combined,
    mixed,
    step,
    steps_in_n,
)
from planner.models.prediction import Array

Ints = NDArray[np.intp]
Bools = NDArray[np.bool_]
Corner = tuple[int, int]  # index of the temperature and of the cap


class Reading(NamedTuple):
    """Values at some points, and what they rest on."""

    values: Array  # (n_points, 8), quantities of joint_fill
    between: Array  # (n_points, 4): measured temperatures, then caps, on both sides
    nearest: Array  # (n_points, 2): measured temperature and cap that weigh most
    separate: Bools  # (n_points,): some corner was not measured itself
    on_grid: Bools  # (n_points,): the very settings were measured


@dataclass(frozen=True, eq=False, kw_only=True)
class Grid:
    """One strategy's settings: values where known, NaN elsewhere."""

    name: str  # for errors
    classes: Ints  # difficulty classes, rising
    temperatures: Array  # rising
    caps: Array  # rising
    ns: Array  # rising
    values: Array  # (classes, temperatures, caps, ns, 8)
    measured: Bools  # (classes, temperatures, caps)
    nearest: (
        Ints  # (classes, temperatures, caps): flat corner whose measurement weighs most
    )

    @classmethod
    def of(cls, cells: Sequence[Cell], strategy: str, name: str) -> Self:
        """Gather a strategy's curves, and fill what follows from them.

        One draw of any strategy is "single", where that was measured.
        """
        curves = [(cell, curve) for cell in cells if (curve := _curve(cell, strategy))]
        classes = np.unique([cell.difficulty for cell, _ in curves])
        temperatures = np.unique([cell.temperature for cell, _ in curves])
        caps = np.unique([float(cell.max_tokens) for cell, _ in curves])
        ns = np.unique([float(n) for _, curve in curves for n in curve.n])
        shape = (len(classes), len(temperatures), len(caps))
        values = np.full((*shape, len(ns), N_MAX + 1), np.nan)
        measured = np.zeros(shape, bool)
        for cell, curve in curves:
            at = (
                int(np.searchsorted(classes, cell.difficulty)),
                int(np.searchsorted(temperatures, cell.temperature)),
                int(np.searchsorted(caps, cell.max_tokens)),
            )
            values[at] = at_ns(_rows(cell, curve), np.array(curve.n, float), ns)
            measured[at] = True
        corners = np.arange(shape[1] * shape[2]).reshape(shape[1:])
        nearest = np.repeat(corners[None], shape[0], axis=0)
        for k in range(shape[0]):
            _fill(values[k], measured[k], nearest[k], temperatures, caps, ns)
        return cls(
            name=name, classes=classes, temperatures=temperatures, caps=caps, ns=ns,
            values=values, measured=measured, nearest=nearest,
        )  # fmt: skip

    @cached_property
    def _nodes(self) -> Array:
        """Values, and the steps of those that change with n; (all corners and n, 13)."""
        steps = steps_in_n(self.values, self.ns)[..., :PROMPT]
        return np.concatenate([self.values, steps], axis=-1).reshape(-1, N_MAX + 1 + PROMPT)

    @cached_property
    def _largest_n(self) -> Array:
        """Largest n known at each corner of all classes, flat; 0 where none is."""
        known = np.isfinite(self.values[..., ACCURACY])
        return np.asarray(np.where(known, self.ns, 0.0).max(axis=-1)).ravel()

    def read(self, difficulty: Ints, temperature: Array, cap: Ints, n: Ints) -> Reading:
        """Values at some points, all arrays (n_points,).

        Raises:
            NotMeasuredError: A point out of reach; it names the nearest measured.
        """
        k = np.searchsorted(self.classes, difficulty)
        k = np.minimum(k, len(self.classes) - 1)
        if (off := self.classes[k] != difficulty).any():
            raise NotMeasuredError(
                f"{self.name}: class {difficulty[off][0]} is not measured; measured are"
                f" {', '.join(map(str, self.classes.tolist()))}"
            )
        i, i_up, u = _bracket(self.temperatures, temperature, f"{self.name}: temperature")
        j, j_up, v = _bracket(self.caps, cap, f"{self.name}: max_tokens")
        at, at_up, _ = _bracket(self.ns, n, f"{self.name}: n")
        inside = at_up > at
        w = np.zeros(len(n))
        ratio = np.where(inside, self.ns[at_up] / self.ns[at], np.e)
        np.divide(np.log(n / self.ns[at]), np.log(ratio), out=w, where=inside)

        low, up = (k * len(self.temperatures) + i), (k * len(self.temperatures) + i_up)
        width = len(self.caps)
        corner = np.stack(
            [low * width + j, up * width + j, low * width + j_up, up * width + j_up]
        )
        weight = np.stack([(1 - u) * (1 - v), u * (1 - v), (1 - u) * v, u * v])
        if (off := (self._largest_n[corner] < n).any(axis=0)).any():
            self._refuse(int(k[off][0]), temperature[off][0], cap[off][0], n[off][0])
        heaviest = corner[weight.argmax(axis=0), np.arange(len(n))]
        nearest = self.nearest.ravel()[heaviest]
        separate = np.asarray((~self.measured.ravel()[corner]).any(axis=0))
        return Reading(
            values=_mix(self._nodes[corner * len(self.ns) + at], weight, w),
            between=np.stack(
                [
                    self.temperatures[i], self.temperatures[i_up],
                    self.caps[j], self.caps[j_up],
                ], axis=1,
            ),
            nearest=np.stack(
                [self.temperatures[nearest // width], self.caps[nearest % width]], axis=1
            ),
            separate=separate,
            on_grid=~(separate | inside | (i_up > i) | (j_up > j)),
        )  # fmt: skip

    def _refuse(self, k: int, temperature: float, cap: int, n: int) -> NoReturn:
        apart = abs(self.temperatures[:, None] - temperature) + abs(np.log(self.caps / cap))
        flat = np.where(self.measured[k], apart, np.inf).argmin()
        i, j = divmod(int(flat), len(self.caps))
        largest = self._largest_n.reshape(self.measured.shape)[k, i, j]
        raise NotMeasuredError(
            f"{self.name} n={n} max_tokens={cap} T={temperature:g} class"
            f" {self.classes[k]}: not measured, nor all effects it needs; nearest measured"
            f" is max_tokens={self.caps[j]:g} T={self.temperatures[i]:g}, up to"
            f" n={largest:g}"
        )


def _curve(cell: Cell, strategy: str) -> StrategyCurve | None:
    return next((c for c in cell.curves if c.strategy == strategy), None)


def _rows(cell: Cell, curve: StrategyCurve) -> Array:
    """A curve's values at its own n, (n, 8)."""
    columns = (
        np.clip(curve.accuracy, 0.0, 1.0), curve.accuracy_sd, np.maximum(curve.draws, 1.0),
        curve.output_tokens, curve.output_tokens_sd,
        *(np.full(len(curve.n), x) for x in (cell.prompt_tokens, cell.n_problems)),
        np.full(len(curve.n), curve.n_max),
    )  # fmt: skip
    rows = np.stack(columns, axis=1).astype(float)
    single = _curve(cell, "single")
    if single is not None and single is not curve and curve.n[0] == 1:
        rows[0, :N_MAX] = _rows(cell, single)[0, :N_MAX]
    return rows


def _fill(
    values: Array,
    measured: Bools,
    nearest: Ints,
    temperatures: Array,
    caps: Array,
    ns: Array,
) -> None:
    """Fill one class's corners from those known, until nothing more follows."""
    known = measured.copy()
    while not known.all():
        missing = [(i, j) for i, j in np.argwhere(~known).tolist()]
        found: dict[Corner, tuple[Array, int]] = {}
        for i, j in missing:
            if other := _rectangle((i, j), known):
                a, b = other
                three = values[i, b], values[a, j], values[a, b]
                filled = combined(*three, ns, most_tokens=ns * caps[j])
                found[i, j] = filled, int(nearest[i, b])
        for at in missing if not found else ():
            if pair := _neighbours(at, known, temperatures, caps):
                low, up, w = pair
                closer = up if w > 0.5 else low
                found[at] = mixed(values[low], values[up], w), int(nearest[closer])
        if not found:
            return
        for at, (filled, corner) in found.items():
            values[at], nearest[at], known[at] = filled, corner, True


def _rectangle(at: Corner, known: Bools) -> Corner | None:
    """The closest corner that, with the two between it and `at`, is known."""
    i, j = at
    others = [
        (abs(i - a) + abs(j - b), a, b)
        for a, b in np.argwhere(known).tolist()
        if a != i and b != j and known[i, b] and known[a, j]
    ]
    return min(others)[1:] if others else None


def _neighbours(
    at: Corner, known: Bools, temperatures: Array, caps: Array
) -> tuple[Corner, Corner, float] | None:
    """Known corners on both sides, along the caps, else along the temperatures.

    Returns:
        Both, and the weight of the upper one.
    """
    i, j = at
    row, column = np.flatnonzero(known[i]).tolist(), np.flatnonzero(known[:, j]).tolist()
    lines: tuple[tuple[list[Corner], Array, int], ...] = (
        ([(i, b) for b in row], caps, 1), ([(a, j) for a in column], temperatures, 0)
    )  # fmt: skip
    for line, scale, axis in lines:
        below, above = [c for c in line if c < at], [c for c in line if c > at]
        if below and above:
            low, own, up = (float(scale[c[axis]]) for c in (below[-1], at, above[0]))
            return below[-1], above[0], (own - low) / (up - low)
    return None


def _bracket(grid: Array, x: NDArray[np.generic], what: str) -> tuple[Ints, Ints, Array]:
    """The neighbours of x on a grid (one, where x is on it), and the upper one's weight."""
    at = np.asarray(x, float)
    if (off := (at < grid[0]) | (at > grid[-1])).any():
        first = at[off][0]
        raise NotMeasuredError(
            f"{what} {first:g} is outside measured {grid[0]:g} to {grid[-1]:g}; nearest"
            f" measured is {min(max(first, grid[0]), grid[-1]):g}"
        )
    low = np.searchsorted(grid, at, side="right") - 1
    up = np.minimum(low + (grid[low] < at), len(grid) - 1)
    gap = np.where(up > low, grid[up] - grid[low], 1.0)
    return low, up, np.asarray((at - grid[low]) / gap)


def _mix(nodes: Array, weight: Array, w: Array) -> Array:
    """Values at points between four corners and two n.

    Args:
        nodes: Values and steps at each corner's lower n, (4, n_points, 13).
        weight: Of the corners, (4, n_points).
        w: Of the upper n, on a log scale, (n_points,).

    Returns:
        (n_points, 8).
    """
    out = np.empty((len(w), N_MAX + 1))
    change = nodes[..., N_MAX + 1 :]
    accuracy = nodes[..., ACCURACY] + w * change[..., ACCURACY]
    in_n = between_sd(abs(change[..., ACCURACY]), 2 * w * (1 - w), DOUBT_IN_N)
    sd = np.hypot(nodes[..., SD] + w * change[..., SD], in_n)
    apart = accuracy.max(axis=0) - accuracy.min(axis=0)
    doubt = between_sd(apart, 1 - (weight**2).sum(axis=0), DOUBT)
    out[:, ACCURACY] = (weight * accuracy).sum(axis=0)
    out[:, SD] = np.hypot((weight * sd).sum(axis=0), doubt)
    for q in POWERS:
        out[:, q] = (weight * step(nodes[..., q], change[..., q], w)).sum(axis=0)
    out[:, PROMPT] = (weight * nodes[..., PROMPT]).sum(axis=0)
    out[:, PROBLEMS:] = nodes[..., PROBLEMS : N_MAX + 1].min(axis=0)
    return out
