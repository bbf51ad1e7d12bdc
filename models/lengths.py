"""Output lengths, and what a smaller token cap does to draws already made.

A draw that needed more than the cap counts as wrong, gives no answer, is never chosen by
its score, and costs the cap. Between problems longer output goes with lower accuracy, yet
hardly within one: lengths and correctness are therefore always kept together, draw by draw.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from planner.models.errors import InputError
from planner.models.prediction import Array, Prediction

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

NO_ANSWER = -1  # code of an answer that never votes
_WORTH_A_CAP = 0.02  # share of draws that a smaller cap must cut to be worth a cell
_APART = 1.1  # ratio of neighbouring caps
_PREDICTION_DRAWS = 1000


@dataclass(frozen=True, eq=False)
class Recorded:
    """Draws of one model at one temperature, problem by problem; all arrays (P, N).

    Row i holds n_samples[i] draws in the order they were made, then padding.
    """

    n_samples: IntArray  # (P,)
    correct: BoolArray
    answer: IntArray  # codes, equal within a row where answers are; NO_ANSWER for ""
    output_tokens: IntArray
    score: Array  # NaN where a draw has none

    def __post_init__(self) -> None:
        shape = self.correct.shape
        arrays = (self.answer, self.output_tokens, self.score)
        if len(shape) != 2 or any(array.shape != shape for array in arrays):
            raise InputError("recorded draws need arrays of one shape (problems, draws)")
        if (
            self.n_samples.shape != shape[:1]
            or not ((self.n_samples >= 1) & (self.n_samples <= shape[1])).all()
        ):
            raise InputError(f"each problem needs 1..{shape[1]} recorded draws")

    @property
    def present(self) -> BoolArray:
        """Which entries are draws and not padding."""
        return np.arange(self.correct.shape[1]) < self.n_samples[:, None]

    @property
    def n_correct(self) -> IntArray:
        """Correct draws of each problem, (P,)."""
        return np.asarray((self.correct & self.present).sum(axis=1), dtype=np.int64)

    def rows(self, which: NDArray[np.int64] | BoolArray) -> "Recorded":
        """Some of the problems."""
        return Recorded(
            self.n_samples[which], self.correct[which], self.answer[which],
            self.output_tokens[which], self.score[which],
        )  # fmt: skip

    def first(self, n: int) -> "Recorded":
        """The first n draws of each problem."""
        return Recorded(
            np.minimum(self.n_samples, n), self.correct[:, :n], self.answer[:, :n],
            self.output_tokens[:, :n], self.score[:, :n],
        )  # fmt: skip

    def capped(self, max_tokens: int) -> "Recorded":
        """The same draws, cut at `max_tokens`."""
        cut = self.output_tokens > max_tokens
        return replace(
            self,
            correct=self.correct & ~cut,
            answer=np.where(cut, NO_ANSWER, self.answer),
            output_tokens=np.minimum(self.output_tokens, max_tokens),
            score=np.where(cut, np.nan, self.score),
        )

    def tokens_by_problem(self, which: BoolArray | None = None) -> tuple[Array, Array]:
        """Mean and variance of a draw's output tokens, each (P,); NaN mean without a draw.

        Args:
            which: Only these entries, (P, N); all by default.
        """
        used = self.present if which is None else self.present & which
        count = used.sum(axis=1)
        total = np.where(used, self.output_tokens, 0).sum(axis=1, dtype=float)
        mean = np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)
        off = np.where(used, self.output_tokens - np.nan_to_num(mean)[:, None], 0.0)
        return mean, (off**2).sum(axis=1) / np.maximum(count - 1, 1)


def cap_grid(output_tokens: ArrayLike, max_tokens: int) -> tuple[int, ...]:
    """Token caps worth a cell, rising: the sampled one, and quantiles of the lengths.

    Args:
        output_tokens: Of every draw, made under the cap `max_tokens`.
        max_tokens: The cap that was sampled.
    """
    tokens = np.asarray(output_tokens).ravel()
    caps = [max_tokens]
    for cap in sorted({int(np.ceil(q)) for q in np.quantile(tokens, [0.5, 0.75, 0.9])})[
        ::-1
    ]:
        if np.mean(tokens > cap) >= _WORTH_A_CAP and cap * _APART <= caps[-1]:
            caps.append(cap)
    return tuple(caps[::-1])


@dataclass(frozen=True, eq=False)
class LengthLaw:
    """Output tokens of one draw of a cell, as measured; problems weigh alike."""

    by_problem: tuple[Array, ...]  # sorted lengths of each problem's draws
    max_tokens: int  # the cap they were made under

    @classmethod
    def fit(cls, recorded: Recorded, max_tokens: int) -> Self:
        """Keep the lengths.

        Raises:
            InputError: No problem.
        """
        if not len(recorded.n_samples):
            raise InputError("a length law needs at least one problem")
        rows = zip(recorded.output_tokens, recorded.n_samples, strict=True)
        return cls(tuple(np.sort(row[:n].astype(float)) for row, n in rows), max_tokens)

    def mean(self, max_tokens: int) -> float:
        """Mean tokens of a draw under a cap."""
        return float(
            np.mean([np.minimum(row, max_tokens).mean() for row in self.by_problem])
        )

    def sd(self, max_tokens: int) -> float:
        """Standard deviation of one draw's tokens, problems and draws both varying."""
        second = np.mean([(np.minimum(r, max_tokens) ** 2).mean() for r in self.by_problem])
        return float(np.sqrt(max(float(second) - self.mean(max_tokens) ** 2, 0.0)))

    def quantile(self, level: ArrayLike, max_tokens: int) -> Array:
        """Quantiles of one draw's tokens under a cap."""
        tokens = np.concatenate(self.by_problem)
        weight = np.concatenate([np.full(len(r), 1 / len(r)) for r in self.by_problem])
        order = np.argsort(tokens)
        below = np.cumsum(weight[order]) / weight.sum()
        at = np.searchsorted(below, np.atleast_1d(np.asarray(level, float)) - 1e-12)
        return np.minimum(tokens[order][np.minimum(at, len(tokens) - 1)], max_tokens)

    def predict(self, max_tokens: ArrayLike, rng: np.random.Generator) -> Prediction:
        """Mean tokens of a draw under each cap, by the Bayesian bootstrap over problems."""
        caps = np.atleast_1d(np.asarray(max_tokens, dtype=float))
        means = np.array(
            [[np.minimum(r, cap).mean() for cap in caps] for r in self.by_problem]
        )
        weight = rng.dirichlet(np.ones(len(means)), _PREDICTION_DRAWS)
        return Prediction(weight @ means, "tokens", caps > self.max_tokens)
