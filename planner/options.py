"""Every way to answer a prompt of a group, and what the laws forecast for it.

A *group* is a task and a difficulty class. An option's accuracy is an estimate from the
problems of its cell, so it is off; estimates of one group are off together, because they
share problems. The noise model, in standard deviations of the estimate:

    noise = sqrt(g s) z_group + sqrt((h - g) s) z_model
            + sqrt(f (1 - h s)) z_model,temperature + sqrt((1 - f) (1 - h s)) z_curve

with s the part of the variance that comes from which problems were drawn (with m samples a
problem: v / (v + w / m), v the variance of the problems' success rates and w the mean of
p (1 - p)); g and h are how far another model, and another setting of the same model, agree
on which problems are hard; f is how far curves of one temperature agree, which are read off
the same draws. One z serves all n of a curve.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import NormalDist
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from planner.models.artifact import Cell, Laws, StrategyCurve
from planner.models.cost import UNITS, CostModel
from planner.models.errors import NotMeasuredError
from planner.models.joint import JointLaw, OptionPoints
from planner.models.prediction import Array
from planner.models.shapes import Shapes
from planner.plan import Forecast, Interval, Option

Ints = NDArray[np.intp]
GroupKey = tuple[str, int]  # task, difficulty
Curve = tuple[GroupKey, str, str, float, int]  # model, strategy, temperature, max_tokens

Z90 = 1.6448536269514722  # 95th percentile of a standard normal: half of a 90 % interval
# Pass rates of two models correlate by 0.5 to 0.7 over the problems of a benchmark; those
# of one model at two temperatures or caps by more.
_BETWEEN_MODELS, _WITHIN_MODEL = 0.5, 0.9  # g and h above
_SAME_DRAWS = 0.8  # f above


@dataclass(frozen=True, kw_only=True)
class Point:
    """One option of one group, as the laws see it; costs come from the cost model."""

    group: GroupKey
    option: Option
    accuracy: float
    accuracy_sd: float
    draws: float  # expected draws made
    prompt_tokens: float
    output_tokens: float  # expected total of the draws
    output_tokens_sd: float  # between prompts
    n_problems: int
    series: int  # column of the table's noise
    extrapolated: tuple[str, ...]
    origin: Literal["grid", "optuna"]


@dataclass(frozen=True, eq=False, kw_only=True)
class OptionTable:
    """Columns, one entry an option; rows of one group need not be neighbours."""

    groups: tuple[GroupKey, ...]
    group: Ints  # (n_options,), index into groups
    points: tuple[Point, ...]
    accuracy: Array  # (n_options,)
    accuracy_sd: Array
    noise: Array  # (n_draws, n_series), standard normal
    series: Ints  # (n_options,), column of noise
    cost: Array  # (n_options, 6), expected a prompt, columns as UNITS; NaN: not known
    cost_p95: Array  # (n_options, 6), 95th percentile between prompts
    laws: Mapping[tuple[str, str], JointLaw]  # by task and model
    series_of: Mapping[Curve, int]  # columns of noise

    @classmethod
    def of_points(
        cls,
        groups: Sequence[GroupKey],
        points: Sequence[Point],
        noise: Array,
        laws: Mapping[tuple[str, str], JointLaw],
        series_of: Mapping[Curve, int],
    ) -> Self:
        """Work out the columns.

        Args:
            groups: In the order that `group` indexes.
            points: One an option.
            noise: Standard normal, (n_draws, n_series).
            laws: By task and model.
            series_of: Column of noise of each measured curve.
        """
        costs = {model: law.cost_model for (_, model), law in laws.items()}
        index = {key: i for i, key in enumerate(groups)}
        column = np.array([(p.accuracy, p.accuracy_sd) for p in points]).reshape(-1, 2)
        return cls(
            groups=tuple(groups),
            group=np.array([index[p.group] for p in points], np.intp),
            points=tuple(points),
            accuracy=column[:, 0],
            accuracy_sd=column[:, 1],
            noise=noise,
            series=np.array([p.series for p in points], np.intp),
            cost=expected_cost(points, costs),
            cost_p95=cost_quantile(points, costs, Z90),
            laws=laws,
            series_of=series_of,
        )

    def __len__(self) -> int:
        return len(self.points)

    @cached_property
    def rows_of(self) -> tuple[Ints, ...]:
        """Row numbers of each group."""
        return tuple(np.flatnonzero(self.group == g) for g in range(len(self.groups)))

    @cached_property
    def cost_models(self) -> dict[str, CostModel]:
        """By model."""
        return {model: law.cost_model for (_, model), law in self.laws.items()}

    def read(self, group: GroupKey, options: Sequence[Option]) -> list[Point]:
        """Any options of a group, measured or not.

        Raises:
            NotMeasuredError: One is out of the joint law's reach.
        """
        return _read(self.laws, self.series_of, group, options)

    def offsets(self, rows: Ints) -> Array:
        """Draws of how far each row's accuracy is off, (n_draws, n_rows); mean zero."""
        return np.asarray(self.noise[:, self.series[rows]] * self.accuracy_sd[rows])

    def accuracy_draws(self, rows: Ints) -> Array:
        """Draws of the accuracy of some rows, (n_draws, n_rows), in [0, 1]."""
        return np.clip(self.accuracy[rows] + self.offsets(rows), 0.0, 1.0)

    def column(self, unit: str) -> Array:
        """Expected cost of every row in one unit."""
        return np.asarray(self.cost[:, UNITS.index(unit)])

    def take(self, rows: Ints) -> Self:
        """The table of some rows; groups and noise stay."""
        return replace(
            self, group=self.group[rows], points=tuple(self.points[i] for i in rows),
            accuracy=self.accuracy[rows], accuracy_sd=self.accuracy_sd[rows],
            series=self.series[rows], cost=self.cost[rows], cost_p95=self.cost_p95[rows],
        )  # fmt: skip

    def with_points(self, points: Sequence[Point]) -> Self:
        """The table with further rows at its end."""
        more = self.of_points(self.groups, points, self.noise, self.laws, self.series_of)
        return replace(
            self, points=self.points + more.points,
            group=np.concatenate([self.group, more.group]),
            accuracy=np.concatenate([self.accuracy, more.accuracy]),
            accuracy_sd=np.concatenate([self.accuracy_sd, more.accuracy_sd]),
            series=np.concatenate([self.series, more.series]),
            cost=np.concatenate([self.cost, more.cost]),
            cost_p95=np.concatenate([self.cost_p95, more.cost_p95]),
        )  # fmt: skip

    def latency_s(self, percentile: float) -> Array:
        """Seconds of an answer, draws one after another, at a percentile of prompts."""
        z = NormalDist().inv_cdf(percentile / 100)
        return np.asarray(cost_quantile(self.points, self.cost_models, z)[:, 1])

    def token_times_s(self) -> tuple[Array, Array]:
        """Seconds to the first token, and between tokens, of one expected draw."""
        first = _each_draw_s(self.points, self.cost_models, lambda p: 1.0)
        whole = _each_draw_s(self.points, self.cost_models, _tokens_a_draw)
        steps = np.array([_tokens_a_draw(p) - 1 for p in self.points])
        return first, (whole - first) / np.maximum(steps, 1.0)

    def forecast(self, row: int) -> Forecast:
        """One row as the plan states it."""
        point, half = self.points[row], Z90 * float(self.accuracy_sd[row])
        mean = float(self.accuracy[row])
        return Forecast(
            option=point.option,
            accuracy=Interval(
                mean=mean, low=max(0.0, mean - half), high=min(1.0, mean + half)
            ),
            cost=_known(self.cost[row]),
            cost_p95=_known(self.cost_p95[row]),
            extrapolated=point.extrapolated,
            origin=point.origin,
        )


def _known(row: Array) -> dict[str, float]:
    return {
        u: float(v) for u, v in zip(UNITS, row.tolist(), strict=True) if not math.isnan(v)
    }


def expected_cost(points: Sequence[Point], models: Mapping[str, CostModel]) -> Array:
    """Expected cost of each point a prompt, (n_points, 6).

    Draws times the cost of the mean draw: cost is all but linear in tokens.
    """
    draws = np.array([p.draws for p in points])
    return _cost(points, models, draws, np.array([p.output_tokens for p in points]))


def cost_quantile(
    points: Sequence[Point], models: Mapping[str, CostModel], z: float
) -> Array:
    """Cost of each point at a quantile of prompts, (n_points, 6).

    Output tokens between prompts are taken as gamma-distributed (its quantile after Wilson
    and Hilferty, 1931), no more than n full draws; draws go with the tokens.

    Args:
        points: The options.
        models: By model.
        z: The quantile, as that of a standard normal.
    """
    table = np.array(
        [
            (p.output_tokens, p.output_tokens_sd, p.draws, p.option.n, p.option.max_tokens)
            for p in points
        ]
    ).reshape(-1, 5)
    mean, sd, draws, n, cap = table.T
    with np.errstate(divide="ignore", invalid="ignore"):
        ninth = np.where(mean > 0, (sd / mean) ** 2, 0.0) / 9
        tokens = mean * np.maximum(1 - ninth + z * np.sqrt(ninth), 0.0) ** 3
        tokens = np.minimum(tokens, np.maximum(n * cap, mean))
        many = np.where(
            mean > 0, np.clip(draws * tokens / mean, 1.0, np.maximum(n, draws)), n
        )
    return _cost(points, models, many, tokens)


def _cost(
    points: Sequence[Point], models: Mapping[str, CostModel], draws: Array, output: Array
) -> Array:
    table = np.full((len(points), len(UNITS)), np.nan)
    prompt = np.array([p.prompt_tokens for p in points])
    names = np.array([p.option.model for p in points])
    for name in dict.fromkeys(names.tolist()):
        at = names == name
        each = models[name].of_draws(prompt[at], output[at] / draws[at])
        table[at] = each * draws[at, None]
    return table


def _tokens_a_draw(point: Point) -> float:
    return max(point.output_tokens / point.draws, 1.0)


def _each_draw_s(
    points: Sequence[Point],
    models: Mapping[str, CostModel],
    tokens: Callable[[Point], float],
) -> Array:
    single = [replace(p, draws=1.0) for p in points]
    table = _cost(
        single, models, np.ones(len(points)), np.array([tokens(p) for p in points])
    )
    return np.asarray(table[:, UNITS.index("s")])


def cost_models(laws: Laws) -> dict[str, CostModel]:
    """Cost side of every model of the laws.

    Raises:
        InputError: A model's architecture lacks a dimension.
    """
    return {law.model: CostModel.of(laws, law.model) for law in laws.models}


def known_groups(laws: Laws) -> tuple[GroupKey, ...]:
    """Every group that has a cell, sorted."""
    return tuple(sorted({(cell.task, cell.difficulty) for cell in laws.cells}))


def build_options(
    laws: Laws,
    groups: Iterable[GroupKey],
    rng: np.random.Generator,
    n_draws: int = 400,
) -> OptionTable:
    """Every measured option of some groups.

    Raises:
        NotMeasuredError: A group has no cell.
    """
    keys = tuple(groups)
    cells: dict[GroupKey, list[Cell]] = {key: [] for key in keys}
    for cell in laws.cells:
        if (cell.task, cell.difficulty) in cells:
            cells[cell.task, cell.difficulty].append(cell)
    points: list[Point] = []
    noise: list[Array] = []
    series_of: dict[Curve, int] = {}
    pairs = dict.fromkeys((cell.task, cell.model) for key in keys for cell in cells[key])
    joint = {(task, model): JointLaw.of(laws, model, task) for task, model in pairs}
    for key in keys:
        if not cells[key]:
            raise NotMeasuredError(
                f"task {key[0]!r} class {key[1]}: not measured; run `planner calibrate`"
            )
        options: list[Option] = []
        of_group = rng.standard_normal(n_draws)
        of_model = {c.model: rng.standard_normal(n_draws) for c in cells[key]}
        of_draws = {
            (c.model, c.temperature): rng.standard_normal(n_draws) for c in cells[key]
        }
        for cell in cells[key]:
            drawn = _between_share(cell)
            rest = 1 - _WITHIN_MODEL * drawn
            common = (
                math.sqrt(_BETWEEN_MODELS * drawn) * of_group
                + math.sqrt((_WITHIN_MODEL - _BETWEEN_MODELS) * drawn)
                * of_model[cell.model]
                + math.sqrt(_SAME_DRAWS * rest) * of_draws[cell.model, cell.temperature]
            )
            for curve in _useful(cell):
                options += _measured_options(cell, curve)
                setting = cell.temperature, cell.max_tokens
                series_of[key, cell.model, curve.strategy, *setting] = len(noise)
                own = rng.standard_normal(n_draws)
                noise.append(common + math.sqrt((1 - _SAME_DRAWS) * rest) * own)
        points += _read(joint, series_of, key, options)
    return OptionTable.of_points(keys, points, np.stack(noise, axis=1), joint, series_of)


def _between_share(cell: Cell) -> float:
    """Part of an estimate's variance that comes from which problems were drawn."""
    shapes = Shapes.of(np.array(cell.coverage.shapes))
    # means of 1 - p and of its square
    fail, fail_twice = shapes.unsolved(np.array([1.0, 2.0])).mean(axis=0).tolist()
    between, within = fail_twice - fail**2, fail - fail_twice
    return float(between / (between + within / max(cell.n_samples, 1)))


def _useful(cell: Cell) -> list[StrategyCurve]:
    """Curves of a cell, "single" first."""
    return sorted(cell.curves, key=lambda c: (c.strategy != "single", c.strategy))


def _measured_options(cell: Cell, curve: StrategyCurve) -> list[Option]:
    """Those that are options of their own: n = 1 is "single"."""
    has_single = any(c.strategy == "single" for c in cell.curves)
    skip = has_single and curve.strategy != "single" and curve.n[0] == 1
    return [
        Option(
            model=cell.model, strategy=curve.strategy, n=n,
            max_tokens=cell.max_tokens, temperature=cell.temperature,
        )
        for n in (curve.n[:1] if curve.strategy == "single" else curve.n[int(skip) :])
    ]  # fmt: skip


def _read(
    laws: Mapping[tuple[str, str], JointLaw],
    series_of: Mapping[Curve, int],
    group: GroupKey,
    options: Sequence[Option],
) -> list[Point]:
    """Points in the order of the options; each model's law is asked once."""
    points: dict[int, Point] = {}
    task, difficulty = group
    for model in dict.fromkeys(o.model for o in options):
        if (task, model) not in laws:
            raise NotMeasuredError(f"{model} on task {task!r}: not measured")
        rows = [i for i, o in enumerate(options) if o.model == model]
        own = [options[i] for i in rows]
        found = laws[task, model].predict(
            OptionPoints.of(
                [o.strategy for o in own], [o.n for o in own],
                [o.max_tokens for o in own], [o.temperature for o in own], difficulty,
            )
        )  # fmt: skip
        for at, (i, option) in enumerate(zip(rows, own, strict=True)):
            heat, cap = found.nearest[at].tolist()
            points[i] = Point(
                group=group, option=option, accuracy=float(found.accuracy[at]),
                accuracy_sd=float(found.accuracy_sd[at]), draws=float(found.draws[at]),
                prompt_tokens=float(found.prompt_tokens[at]),
                output_tokens=float(found.output_tokens[at]),
                output_tokens_sd=float(found.output_tokens_sd[at]),
                n_problems=int(found.n_problems[at]),
                series=series_of[group, model, option.strategy, heat, int(cap)],
                extrapolated=found.reasons(at),
                origin="grid" if found.on_grid[at] else "optuna",
            )  # fmt: skip
    return [points[i] for i in range(len(options))]
