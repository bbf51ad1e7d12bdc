"""One law of a model on a task: what any option gives and uses.

An *option* is a strategy (which says who picks the answer: a vote, a scorer, an exact
check), n, max_tokens and temperature, on prompts of one difficulty class or of a mix. The
fitted laws know some of them; the joint law reads between those, combines effects that were
not measured jointly (see `planner.models.joint_fill`), and says for every option what of it
was not measured. It goes no further than the measured temperatures, caps and n of a curve.

Accuracy is linear between two measured caps and two measured temperatures, and in log n;
draws and tokens are a power of n.

A conversation of several turns sends its history again with every turn, and each of a
turn's draws reads it: turn j (from 0) prefills (j + 1) prompts and j answers. Its accuracy
is that of one turn, and flagged.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from planner.models.artifact import Laws
from planner.models.cost import UNITS, CostModel
from planner.models.errors import InputError, NotMeasuredError
from planner.models.joint_fill import (
    ACCURACY,
    DRAWS,
    N_MAX,
    PROBLEMS,
    PROMPT,
    SD,
    TOKENS,
    TOKENS_SD,
)
from planner.models.joint_grid import Bools, Grid, Ints, Reading
from planner.models.prediction import Array, Prediction

_Z90 = 1.6448536269514722  # 95th percentile of a standard normal
_SAME_PROMPT = 0.5  # tokens: means are compared with whole numbers
_CHUNK = 4096  # points at a time: what is gathered for them stays in the cache


@dataclass(frozen=True, eq=False, kw_only=True)
class OptionPoints:
    """Columns, one entry an option."""

    strategy: NDArray[np.str_]
    n: Ints
    max_tokens: Ints
    temperature: Array
    shares: Array  # (n_points or 1, n_classes): of the classes, each row adding to 1; or
    difficulty: Ints  # (n_points,), where shares is empty
    turns: Ints
    prompt_tokens: Array  # of a turn; NaN: as measured
    batch: Ints  # rows of a decode step; 0: the laws' reference batch

    @classmethod
    def of(
        cls,
        strategy: ArrayLike,
        n: ArrayLike,
        max_tokens: ArrayLike,
        temperature: ArrayLike,
        difficulty: ArrayLike = 0,
        *,
        shares: ArrayLike | None = None,
        turns: ArrayLike = 1,
        prompt_tokens: ArrayLike | None = None,
        batch: ArrayLike | None = None,
    ) -> Self:
        """Check the columns and give them one length.

        Args:
            strategy: Name, one or one a point; so are all others.
            n: Draws.
            max_tokens: Cap of a draw.
            temperature: Of the draws.
            difficulty: Class of the prompts.
            shares: Of the classes, instead of one: (n_classes,) or (n_points, n_classes).
            turns: Of the conversation; every turn is answered by the option.
            prompt_tokens: That the user adds in a turn; None: as measured.
            batch: Rows of a decode step; None: the laws' reference batch.

        Raises:
            InputError: Lengths differ, or a number that cannot be.
        """
        given = [strategy, n, max_tokens, temperature, difficulty, turns]
        given += [np.nan if prompt_tokens is None else prompt_tokens]
        given += [0 if batch is None else batch]
        mix = np.atleast_2d(
            np.zeros((0, 0)) if shares is None else np.asarray(shares, float)
        )
        columns = [np.atleast_1d(np.asarray(column)) for column in given]
        sizes = {len(c) for c in columns} | ({len(mix)} if shares is not None else set())
        if len(sizes - {1}) > 1 or any(c.ndim != 1 for c in columns) or mix.ndim != 2:
            raise InputError("options need columns of one length")
        size = 0 if 0 in sizes else max(sizes)
        name, draws, cap, heat, level, rounds, prompt, rows = (
            np.broadcast_to(c, (size,)) for c in columns
        )
        for what, values, least in (
            ("n", draws, 1), ("max_tokens", cap, 1), ("difficulty", level, 0),
            ("turns", rounds, 1), ("batch", rows, 0),
        ):  # fmt: skip
            if size and not ((values >= least) & (values == np.floor(values))).all():
                raise InputError(f"{what} must be whole and at least {least}")
        if not (np.isfinite(heat).all() and (heat >= 0).all()):
            raise InputError("temperature must be finite and at least 0")
        if np.isinf(prompt).any() or (prompt < 0).any():
            raise InputError("prompt_tokens must be finite and at least 0")
        if shares is not None and not (
            (mix >= 0).all() and np.allclose(mix.sum(axis=1), 1.0, atol=1e-6)
        ):
            raise InputError("shares of the classes must be at least 0 and add to 1")
        return cls(
            strategy=name.astype(str), n=draws.astype(np.intp),
            max_tokens=cap.astype(np.intp), temperature=heat.astype(float), shares=mix,
            difficulty=level.astype(np.intp), turns=rounds.astype(np.intp),
            prompt_tokens=prompt.astype(float), batch=rows.astype(np.intp),
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.n)


@dataclass(frozen=True, eq=False, kw_only=True)
class JointPrediction:
    """What options give and use; every array has one entry an option, (n_points,)."""

    law: "JointLaw"
    points: OptionPoints
    accuracy: Array  # mean over prompts, in one turn
    accuracy_sd: Array  # of that, as an estimate
    draws: Array  # expected, over all turns, as are output tokens
    prompt_tokens: Array  # that the user adds in a turn
    output_tokens: Array
    output_tokens_sd: Array  # between prompts
    n_problems: Ints  # behind the accuracy
    n_max: Ints  # largest n measured
    between: Array  # (n_points, 4): measured temperatures, then caps, on both sides
    nearest: Array  # (n_points, 2): measured temperature and cap that weigh most
    separate: Bools  # the settings around it were not all measured jointly
    on_grid: Bools  # strategy, n, cap and temperature were measured
    other_prompts: Bools  # prompt_tokens were given, and are not those measured

    @property
    def low(self) -> Array:
        """Lower end of the 90 % interval of the accuracy."""
        return np.maximum(self.accuracy - _Z90 * self.accuracy_sd, 0.0)

    @property
    def high(self) -> Array:
        """Upper end of the 90 % interval of the accuracy."""
        return np.minimum(self.accuracy + _Z90 * self.accuracy_sd, 1.0)

    @property
    def extrapolated(self) -> Bools:
        """Whether the accuracy is of settings that were not measured themselves."""
        t0, t1, c0, c1 = self.between.T
        off = (t0 != t1) | (c0 != c1) | self.separate | (self.points.n > self.n_max)
        return np.asarray(off | (self.points.turns > 1) | self.other_prompts)

    def sample(self, rng: np.random.Generator, size: int = 400) -> Prediction:
        """Draws of the accuracy, (size, n_points).

        For intervals of each option: the draws of one law's options err together.
        """
        z = rng.standard_normal((size, 1))
        draws = np.clip(self.accuracy + self.accuracy_sd * z, 0.0, 1.0)
        return Prediction(draws, "1", self.extrapolated)

    @cached_property
    def batch(self) -> Ints:
        """Rows of a decode step."""
        reference = self.law.cost_model.reference_batch
        return np.where(self.points.batch > 0, self.points.batch, reference)

    @cached_property
    def context_tokens(self) -> Array:
        """Longest context: history, prompt and answer at the end of the last turn."""
        answer = self.output_tokens / self.draws
        return np.asarray(self.points.turns * (self.prompt_tokens + answer))

    def cost(self) -> Array:
        """Expected cost of a prompt, or conversation, (n_points, 6), columns as UNITS.

        Draws times the cost of the mean draw: cost is all but linear in tokens. NaN where a
        unit is not known.
        """
        total = np.zeros((len(self.points), len(UNITS)))
        turns, batch, each = self.points.turns, self.batch, self.output_tokens / self.draws
        for rows in np.unique(batch).tolist():
            model = replace(self.law.cost_model, reference_batch=rows)
            for turn in range(int(turns.max(initial=0))):
                at = (batch == rows) & (turns > turn)
                prompt = (turn + 1) * self.prompt_tokens[at] + turn * each[at]
                draws = self.draws[at] / turns[at]
                total[at] += draws[:, None] * model.of_draws(prompt, each[at])
        return total

    def reasons(self, i: int) -> tuple[str, ...]:
        """What of option i was not measured; empty: nothing."""
        p, found = self.points, []
        n, cap, heat = int(p.n[i]), int(p.max_tokens[i]), float(p.temperature[i])
        t0, t1, c0, c1 = self.between[i].tolist()
        if n > self.n_max[i]:
            found.append(f"n={n} beyond measured {self.n_max[i]}")
        if t0 != t1:
            found.append(f"temperature {heat:.3g} between measured {t0:g} and {t1:g}")
        if c0 != c1:
            found.append(f"max_tokens {cap} between measured {c0:g} and {c1:g}")
        if self.separate[i]:
            found.append(
                f"temperature {heat:.3g} with max_tokens {cap} not measured jointly"
            )
        if p.turns[i] > 1:
            found.append(f"turns={p.turns[i]} not measured: accuracy is that of one turn")
        if self.other_prompts[i]:
            found.append(
                f"prompts of {p.prompt_tokens[i]:g} tokens: accuracy was measured on others"
            )
        latency = self.law.cost_model.latency
        if latency is not None and self.batch[i] > latency.batch_max:
            found.append(f"batch={self.batch[i]} beyond timed {latency.batch_max}")
        if latency is not None and self.context_tokens[i] > latency.context_max:
            found.append(
                f"context of {self.context_tokens[i]:.0f} tokens beyond timed"
                f" {latency.context_max}"
            )
        return tuple(found)


@dataclass(frozen=True, eq=False, kw_only=True)
class JointLaw:
    """All that is known of one model on one task."""

    model: str
    task: str
    cost_model: CostModel
    grids: dict[str, Grid]  # by strategy

    @classmethod
    def of(cls, laws: Laws, model: str, task: str) -> Self:
        """Gather the cells of a model on a task.

        Raises:
            NotMeasuredError: There are none.
            InputError: The model's architecture lacks a dimension.
        """
        cells = [cell for cell in laws.cells if (cell.model, cell.task) == (model, task)]
        if not cells:
            raise NotMeasuredError(
                f"{model} on task {task!r}: not measured; run `planner calibrate`"
            )
        names = sorted({curve.strategy for cell in cells for curve in cell.curves})
        return cls(
            model=model, task=task, cost_model=CostModel.of(laws, model),
            grids={s: Grid.of(cells, s, f"{model} {task} {s}") for s in names},
        )  # fmt: skip

    def predict(self, points: OptionPoints) -> JointPrediction:
        """What options give and use.

        Raises:
            NotMeasuredError: A strategy, class, temperature, cap or n out of reach; it
                names the nearest that was measured.
        """
        size = len(points)
        whole = Reading(
            np.empty((size, N_MAX + 1)), np.empty((size, 4)), np.empty((size, 2)),
            np.zeros(size, bool), np.zeros(size, bool),
        )  # fmt: skip
        left = np.ones(size, bool)
        for strategy, grid in self.grids.items():
            own = np.flatnonzero(points.strategy == strategy)
            left[own] = False
            for start in range(0, len(own), _CHUNK):
                rows = own[start : start + _CHUNK]
                for into, part in zip(whole, _read(grid, points, rows), strict=True):
                    into[rows] = part
        if left.any():
            raise NotMeasuredError(
                f"{self.model} {points.strategy[left][0]} on task {self.task!r}: not"
                f" measured; measured are {', '.join(self.grids)}"
            )
        v, turns = whole.values, points.turns
        given = ~np.isnan(points.prompt_tokens)
        return JointPrediction(
            law=self, points=points, accuracy=v[:, ACCURACY], accuracy_sd=v[:, SD],
            draws=turns * v[:, DRAWS],
            prompt_tokens=np.where(given, points.prompt_tokens, v[:, PROMPT]),
            output_tokens=turns * v[:, TOKENS],
            output_tokens_sd=turns * v[:, TOKENS_SD],  # long in one turn, long in all
            n_problems=v[:, PROBLEMS].astype(np.intp), n_max=v[:, N_MAX].astype(np.intp),
            between=whole.between, nearest=whole.nearest, separate=whole.separate,
            on_grid=whole.on_grid,
            other_prompts=given & (abs(points.prompt_tokens - v[:, PROMPT]) > _SAME_PROMPT),
        )  # fmt: skip


def _read(grid: Grid, points: OptionPoints, rows: Ints) -> Reading:
    """Some points of one strategy."""
    heat, cap, n = points.temperature[rows], points.max_tokens[rows], points.n[rows]
    if not points.shares.size:
        return grid.read(points.difficulty[rows], heat, cap, n)
    shares = np.broadcast_to(points.shares, (len(points), points.shares.shape[1]))[rows]
    readings = []
    for k in np.flatnonzero(shares.any(axis=0)).tolist():
        # points without the class are read at one that has it, and weigh nothing
        level = np.where(shares[:, k] > 0, k, shares.argmax(axis=1))
        readings.append((shares[:, k], grid.read(level, heat, cap, n)))
    return _mixture(readings)


def _mixture(parts: list[tuple[Array, Reading]]) -> Reading:
    """Readings of a mix of classes, whose problems differ: errors are independent."""
    weight = np.stack([share for share, _ in parts])
    each = np.stack([reading.values for _, reading in parts])  # (classes, points, 8)
    values = (weight[..., None] * each).sum(axis=0)
    values[:, SD] = np.sqrt(((weight * each[..., SD]) ** 2).sum(axis=0))
    squares = each[..., TOKENS_SD] ** 2 + each[..., TOKENS] ** 2
    spread = (weight * squares).sum(axis=0) - values[:, TOKENS] ** 2
    values[:, TOKENS_SD] = np.sqrt(np.maximum(spread, 0.0))
    values[:, PROBLEMS:] = each[..., PROBLEMS:].min(axis=0)
    largest = parts[int(weight.sum(axis=1).argmax())][1]
    separate = np.any([reading.separate for _, reading in parts], axis=0)
    return largest._replace(values=values, separate=separate)
