"""One law of a model on a task: what any option gives and uses.

An *option* is a strategy (which says who picks the answer: a vote, a scorer, an exact
check), n, max_tokens and temperature, on prompts of one difficulty class or of a mix. The
fitted laws know some of them; the joint law reads between those, combines effects that were
not measured jointly (see `planner.models.joint_grid`), and says for every option what of it
was not measured. It goes no further than the measured temperatures, caps and n of a curve.

Accuracy is linear between two measured caps and two measured temperatures, and in log n;
draws and tokens are a power of n.

A conversation of several turns sends its history again with every turn, and each of a
turn's draws reads it: turn j (from 0) prefills (j + 1) prompts and j answers. Its accuracy
is that of one turn, and flagged.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from planner.models.artifact import Laws
from planner.models.cost import UNITS, CostModel
from planner.models.errors import InputError, NotMeasuredError
from planner.models.joint_grid import (
    ACCURACY,
    DOUBT_BETWEEN,
    DOUBT_IN_N,
    DRAWS,
    MEASURED,
    N_MAX,
    PROBLEMS,
    PROMPT,
    SD,
    TOKENS,
    TOKENS_SD,
    UNKNOWN,
    Grid,
    Ints,
    between_sd,
    step,
    steps_in_n,
    strategies,
)
from planner.models.prediction import Array, Prediction

Bools = NDArray[np.bool_]

_Z90 = 1.6448536269514722  # 95th percentile of a standard normal
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
        mix = np.atleast_2d(np.zeros((0, 0)) if shares is None else np.asarray(shares, float))
        columns = [np.atleast_1d(np.asarray(column)) for column in given]
        sizes = {len(c) for c in columns} | ({len(mix)} if shares is not None else set())
        if len(sizes - {1}) > 1 or any(c.ndim != 1 for c in columns) or mix.ndim != 2:
            raise InputError("options need columns of one length")
        size = max(sizes)
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

    points: OptionPoints
    accuracy: Array  # of the prompts' mean, in one turn
    accuracy_sd: Array  # of that, as an estimate
    draws: Array  # expected, over all turns, as are tokens
    prompt_tokens: Array  # of a turn, without the history
    output_tokens: Array  # expected total of the draws
    output_tokens_sd: Array  # between prompts
    cost: Array  # (n_points, 6), expected a prompt, columns as UNITS; NaN: not known
    n_problems: Ints  # behind the accuracy
    nearest: Array  # (n_points, 2): measured temperature and cap that weigh most
    n_max: Array  # largest n measured
    between: Array  # (n_points, 4): measured temperatures, then caps, on both sides
    separate: Bools  # rests on effects that were not measured jointly
    other_prompt: Bools  # prompt_tokens were given, and are not those measured
    batch: Ints
    context_tokens: Array  # longest: that of the last turn's end
    batch_max: float  # that was timed; infinite where seconds are not known
    context_max: float

    @property
    def low(self) -> Array:
        """Lower end of the 90 % interval of the accuracy."""
        return np.maximum(self.accuracy - _Z90 * self.accuracy_sd, 0.0)

    @property
    def high(self) -> Array:
        """Upper end of the 90 % interval of the accuracy."""
        return np.minimum(self.accuracy + _Z90 * self.accuracy_sd, 1.0)

    @property
    def measured(self) -> Bools:
        """Whether an option's very settings were measured."""
        t0, t1, c0, c1 = self.between.T
        off = (t0 != t1) | (c0 != c1) | (self.points.n > self.n_max)
        return ~(off | self.separate | (self.points.turns > 1) | self.other_prompt)
