"""Options between the measured ones: other token caps, temperatures and n.

Accuracy is linear between two measured caps and two measured temperatures, and in log n;
draws and tokens are a power of n. Nothing is read beyond what was measured.

A curve that rises between two measured values d apart may do so anywhere: a standard
deviation of d / sqrt(12) half-way, and less towards the ends, joins that of the
measurements (a quarter of it in n, whose curves bend smoothly).
"""

import math
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Self

from planner.models.errors import NotMeasuredError
from planner.options import GroupKey, OptionTable, Point
from planner.plan import Option

Corner = tuple[float, int]  # temperature, max_tokens


@dataclass(frozen=True, eq=False)
class Family:
    """One model and strategy in one group: measured points at each corner, by n."""

    corners: dict[Corner, tuple[Point, ...]]

    @property
    def temperatures(self) -> list[float]:
        """Measured temperatures, rising."""
        return sorted({t for t, _ in self.corners})

    @property
    def caps(self) -> list[int]:
        """Measured caps, rising."""
        return sorted({c for _, c in self.corners})

    @property
    def ns(self) -> list[int]:
        """N at the first corner, rising."""
        return [p.option.n for p in next(iter(self.corners.values()))]

    def at(self, option: Option) -> Point:
        """The forecast of an option; a measured one comes back as it is.

        Raises:
            NotMeasuredError: Outside the measured caps, temperatures or n.
        """
        where = f"{option.model} {option.strategy}"
        t0, t1, u = _between(self.temperatures, option.temperature, f"{where}: temperature")
        c0, c1, v = _between(self.caps, option.max_tokens, f"{where}: max_tokens")
        parts: list[tuple[float, Point]] = []
        for corner, weight in (
            ((t0, int(c0)), (1 - u) * (1 - v)), ((t1, int(c0)), u * (1 - v)),
            ((t0, int(c1)), (1 - u) * v), ((t1, int(c1)), u * v),
        ):  # fmt: skip
            if weight == 0:
                continue
            if corner not in self.corners:
                raise NotMeasuredError(
                    f"{where} max_tokens={corner[1]} T={corner[0]:g}: not measured"
                )
            parts.append((weight, _at_n(self.corners[corner], option.n, where)))
        reasons = list(dict.fromkeys(r for _, p in parts for r in p.extrapolated))
        if u:
            reasons.append(
                f"temperature {option.temperature:.3g} between measured {t0:g} and {t1:g}"
            )
        if v:
            reasons.append(
                f"max_tokens {option.max_tokens} between measured {c0:g} and {c1:g}"
            )
        mixed = _mix(parts, doubt=1.0)
        origin = mixed.origin if len(parts) == 1 else "optuna"
        return replace(mixed, option=option, extrapolated=tuple(reasons), origin=origin)


@dataclass(frozen=True, eq=False)
class Interpolator:
    """The measured points of one group, ready to be read between."""

    families: dict[tuple[str, str], Family]  # by model and strategy

    @classmethod
    def of_group(cls, table: OptionTable, group: GroupKey) -> Self:
        """Gather the group's grid points."""
        rows = table.rows_of[table.groups.index(group)]
        return cls.of_points(table.points[row] for row in rows.tolist())

    @classmethod
    def of_points(cls, points: Iterable[Point]) -> Self:
        """Gather the grid points among `points`, all of one group.

        A family of several n also gets the "single" point of its corner as n = 1.
        """
        corners: dict[tuple[str, str], dict[Corner, list[Point]]] = {}
        for p in points:
            if p.origin == "grid":
                of = corners.setdefault((p.option.model, p.option.strategy), {})
                of.setdefault((p.option.temperature, p.option.max_tokens), []).append(p)
        families = {}
        for (model, strategy), by_corner in corners.items():
            singles = corners.get((model, "single"), {}) if strategy != "single" else {}
            full = {
                corner: tuple(
                    sorted([*here, *singles.get(corner, [])], key=lambda p: p.option.n)
                )
                for corner, here in by_corner.items()
            }
            families[model, strategy] = Family(full)
        return cls(families)

    def at(self, option: Option) -> Point:
        """The forecast of an option, measured or between measured ones.

        Raises:
            NotMeasuredError: Outside what was measured.
        """
        family = self.families.get((option.model, option.strategy))
        if family is None:
            raise NotMeasuredError(f"{option.model} {option.strategy}: not measured")
        return family.at(option)


def _between(
    grid: list[float] | list[int], x: float, what: str
) -> tuple[float, float, float]:
    """The two neighbours of x on a grid, and the weight of the upper one."""
    if not grid[0] <= x <= grid[-1]:
        raise NotMeasuredError(
            f"{what} {x:g} is outside measured {grid[0]:g} to {grid[-1]:g}"
        )
    i = bisect_left(grid, x)
    if grid[i] == x:
        return grid[i], grid[i], 0.0
    low, high = grid[i - 1], grid[i]
    return low, high, (x - low) / (high - low)


def _at_n(points: tuple[Point, ...], n: int, where: str) -> Point:
    ns = [p.option.n for p in points]
    low, high, _ = _between(ns, n, f"{where}: n")
    lower, upper = points[ns.index(int(low))], points[ns.index(int(high))]
    if lower is upper:
        return lower
    log_weight = math.log(n / low) / math.log(high / low)
    mixed = _mix([(1 - log_weight, lower), (log_weight, upper)], doubt=0.25)

    def power(name: str) -> float:
        """A power of n through both: exact where every draw is made, close where not."""
        a, b = float(getattr(lower, name)), float(getattr(upper, name))
        return a * (b / a) ** log_weight if a > 0 else b * log_weight

    return replace(
        mixed, draws=power("draws"), output_tokens=power("output_tokens"),
        output_tokens_sd=power("output_tokens_sd"), series=upper.series,
        option=upper.option.model_copy(update={"n": n}), origin="optuna",
        extrapolated=upper.extrapolated,
    )  # fmt: skip


def _mix(parts: list[tuple[float, Point]], doubt: float = 0.0) -> Point:
    """Weighted mean of forecasts; noise and labels of the heaviest.

    Standard deviations are averaged too, as if the parts were off together: the safe side.

    Args:
        parts: Weight and forecast; the weights add to 1.
        doubt: How freely the curve may run between the parts; see the module.
    """
    heaviest, kept = max(parts, key=lambda part: part[0])[1], [p for _, p in parts]

    def mean(name: str) -> float:
        return float(sum(weight * getattr(p, name) for weight, p in parts))

    apart = max(p.accuracy for p in kept) - min(p.accuracy for p in kept)
    spread = 1 - sum(weight**2 for weight, _ in parts)  # 2 w (1 - w) of two parts
    between = doubt * apart / math.sqrt(12) * min(2 * spread, 1.0)
    return replace(
        heaviest, accuracy=mean("accuracy"),
        accuracy_sd=math.hypot(mean("accuracy_sd"), between),
        draws=mean("draws"), prompt_tokens=mean("prompt_tokens"),
        output_tokens=mean("output_tokens"), output_tokens_sd=mean("output_tokens_sd"),
        n_problems=min(p.n_problems for p in kept),
    )  # fmt: skip
