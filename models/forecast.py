"""Coverage beyond the draws made: pass@k of every cell of a table of counts.

Each cell's success rates follow a shape (`planner.models.shapes`) whose prior the other
cells of the benchmark inform (`planner.models.pooling`); what other models did on a problem
says how this one will do (`planner.models.pairing`). A forecast averages over all shapes
that the counts allow, so that its interval holds both hopeless and merely hard problems;
its centre is then drawn part of the way to the power law (`planner.models.stacking`).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from planner.models.artifact import CoverageFit
from planner.models.counts import (
    CountTable,
    IntArray,
    coverage_points,
    distinct_counts,
)
from planner.models.coverage import none_correct
from planner.models.errors import InputError
from planner.models.importance import Points, explore
from planner.models.pairing import (
    Seen,
    ease_from_others,
    given_ease,
    loading_of,
    log_likelihood,
)
from planner.models.pooling import WHOLE, Level, log_prior_alone, pool
from planner.models.prediction import Array, Prediction
from planner.models.shapes import Shapes, X, binomial
from planner.models.stacking import toward_power_law

_DRAWS = 400
_POINTS = 512  # shapes a cell's posterior is made of
_KEPT = 100  # shapes of a law on disk
_ROUNDS = 2  # of learning the ease of problems and the shapes from each other
_NEGLIGIBLE = 1e-4  # of the largest share of a shape
_MOST_PAIRS = 1500  # distinct (c, n) of a cell; pairing more would take too much memory


@dataclass(frozen=True, eq=False)
class CoverageForecast:
    """What one cell's problems, and others of their kind, will show at k draws."""

    theta: Array  # (n_shapes, 4), parameters of the shapes
    shapes: Shapes
    share: Array  # (n_shapes,), posterior of each
    n_correct: IntArray  # (n_problems,)
    n_samples: IntArray
    ease: Array | None  # (n_problems, 17), by the other cells' draws; None: no pairing
    loading: float

    def predict(
        self, k: ArrayLike, rng: np.random.Generator, *, size: int = _DRAWS
    ) -> Prediction:
        """Expected coverage of these very problems at k draws each, k >= 1.

        Raises:
            InputError: k below 1.
        """
        points = coverage_points(k)
        columns = [
            -np.expm1(-np.outer(points, rates)).mean(axis=1)
            for rates in self._rates(rng, size)
        ]
        draws = rng.permutation(np.array(columns))  # they come sorted by shape
        draws = toward_power_law(draws, points, self.n_correct, self.n_samples)
        return Prediction(draws, "1", points > self.n_samples.max())

    def predict_measured(
        self, k: ArrayLike, n: int, rng: np.random.Generator, *, size: int = _DRAWS
    ) -> Prediction:
        """What the unbiased pass@k of these problems will read once n draws are made.

        The draws behind the fit are among the n. Wider than `predict`: n draws are noisy.

        Raises:
            InputError: k below 1 or above n, or n below the draws made.
        """
        points = coverage_points(k)
        if points.max(initial=1) > n or self.n_samples.max() > n:
            raise InputError(f"of n = {n} draws k = {points.max():g} cannot be read")
        further = n - self.n_samples
        c = np.array([
            self.n_correct + rng.binomial(further, -np.expm1(-rates))
            for rates in self._rates(rng, size)
        ])  # fmt: skip
        counts, index = np.unique(c, return_inverse=True)
        none = none_correct(counts.astype(float), np.full(len(counts), float(n)), points)
        read = [
            1 - none[:, i][index].reshape(c.shape).mean(axis=1) for i in range(len(points))
        ]
        draws = rng.permutation(np.stack(read, axis=1))
        draws = toward_power_law(draws, points, self.n_correct, self.n_samples)
        return Prediction(draws, "1", points > self.n_samples.max())

    def population(self, size: int = _KEPT) -> "PopulationLaw":
        """The law of all problems of this kind, as `size` equally likely shapes."""
        at = _resampled(self.share, size, np.random.default_rng(0))
        return PopulationLaw(self.theta[at], int(self.n_samples.max()))

    def predict_new(
        self, k: ArrayLike, rng: np.random.Generator, *, size: int = _DRAWS
    ) -> Prediction:
        """Mean coverage over new problems of the same kind.

        Raises:
            InputError: k below 1.
        """
        return self.population(size).predict(k, rng, size=size)

    def _rates(self, rng: np.random.Generator, size: int) -> Iterator[Array]:
        """Draws of every problem's -log(1 - p), each (n_problems,)."""
        pairs, index = distinct_counts(self.n_correct, self.n_samples)
        like = np.concatenate([(pairs[:, 0] == 0)[None], binomial(*pairs.T)])
        grid = np.concatenate([[0.0], X])
        chosen, times = np.unique(_resampled(self.share, size, rng), return_counts=True)
        for s, many in zip(chosen, times, strict=True):
            one = self.shapes.take(np.array([s]))
            if self.ease is None:
                weight = np.concatenate([one.hopeless, one.weight[0]])
                upto = np.cumsum(weight[:, None] * like, axis=0).T[index]
            else:
                by_ease = given_ease(one, self.loading)
                weight = np.column_stack([by_ease.hopeless, by_ease.weight])
                upto = np.cumsum((self.ease @ weight) * like.T[index], axis=1)
            for _ in range(many):
                level = rng.random(len(index)) * upto[:, -1]
                at = np.sum(upto < level[:, None], axis=1)
                yield np.asarray(grid[np.minimum(at, len(X))])


@dataclass(frozen=True, eq=False)
class PopulationLaw:
    """Coverage over the problems of a kind, seen or not: draws of their shape."""

    theta: Array  # (n_draws, 4)
    k_max: int  # draws a problem behind the fit; beyond it a prediction is extrapolated

    @classmethod
    def from_fit(cls, fit: CoverageFit) -> "PopulationLaw":
        """The law that `laws.json` holds."""
        return cls(np.array(fit.shapes), fit.k_max)

    def to_fit(self) -> CoverageFit:
        """What goes into `laws.json`."""
        rows = np.round(self.theta, 4).tolist()
        return CoverageFit(
            shapes=tuple((a, m, g, h) for a, m, g, h in rows), k_max=self.k_max
        )

    def predict(
        self, k: ArrayLike, rng: np.random.Generator, *, size: int = _DRAWS
    ) -> Prediction:
        """Mean coverage over problems at k draws; the spread is the law's, not theirs.

        Raises:
            InputError: k below 1.
        """
        points = coverage_points(k)
        unsolved = self._shapes(rng, size).unsolved(points)
        return Prediction(1 - unsolved, "1", points > self.k_max)

    def expected_draws(
        self, n: ArrayLike, rng: np.random.Generator, *, size: int = _DRAWS
    ) -> Prediction:
        """Draws made, at most n, to the first success: sum of 1 - coverage(j) over j < n.

        Raises:
            InputError: n below 1.
        """
        points = coverage_points(n)
        draws = self._shapes(rng, size).draws_to_success(points)
        return Prediction(draws, "1", points > self.k_max)

    def _shapes(self, rng: np.random.Generator, size: int) -> Shapes:
        equal = np.full(len(self.theta), 1 / len(self.theta))
        return Shapes.of(self.theta[_resampled(equal, size, rng)])


def fit_coverage(
    table: CountTable, *, level: Level = WHOLE, paired: bool = True
) -> tuple[CoverageForecast, ...]:
    """Fit every cell of a table at once; cells of a benchmark lend each other strength.

    Args:
        table: The counts.
        level: Prior of the tail exponents; SORTED for problems of one difficulty class.
        paired: Whether other cells' draws on a problem are to say how hard it is. The
            costly part; it helps with these very problems, less with others of their kind.

    Returns:
        One forecast a cell, in the order of the table's cells.
    """
    forecasts: dict[int, CoverageForecast] = {}
    for group in np.unique(table.benchmark):
        members = np.flatnonzero(table.benchmark == group)
        cells = [_Cell.of(table, int(m), level) for m in members]
        fitted = _fit_together(cells, level, paired)
        forecasts.update(zip(members.tolist(), fitted, strict=True))
    return tuple(forecasts[i] for i in range(table.n_cells))


@dataclass(frozen=True, eq=False)
class _Cell:
    n_correct: IntArray
    n_samples: IntArray
    seen: Seen
    weight: Array  # (n_pairs,), problems of each pair
    points: Points
    shapes: Shapes
    likely: Array  # (n_points,), log likelihood without the other cells

    @classmethod
    def of(cls, table: CountTable, cell: int, level: Level) -> "_Cell":
        rows = table.rows(cell)
        c, n = table.n_correct[rows], table.n_samples[rows]
        pairs, index = distinct_counts(c, n)
        like, none = binomial(*pairs.T), (pairs[:, 0] == 0).astype(float)
        weight = np.bincount(index).astype(float)

        def log_like(shapes: Shapes) -> Array:
            likely = np.log(np.maximum(shapes.likelihood(like, none), 1e-300))
            return np.asarray(likely @ weight)

        def log_target(theta: Array) -> Array:
            return log_like(Shapes.of(theta)) + log_prior_alone(theta, level)

        points = explore(log_target, *level.proposal(), _POINTS)
        shapes = Shapes.of(points.x)
        problem = table.problem[rows]
        return cls(
            c, n, Seen(like, none, index, problem), weight, points, shapes,
            log_like(shapes),
        )  # fmt: skip

    def only(self, which: NDArray[np.bool_]) -> "_Cell":
        """The same with some of the points."""
        kept = np.flatnonzero(which)
        points = Points(self.points.x[kept], self.points.log_proposal[kept])
        return replace(
            self, points=points, shapes=self.shapes.take(kept), likely=self.likely[kept]
        )

    @property
    def log_mean(self) -> float:
        """Log pass@1, with half a draw each way."""
        return float(np.log((self.n_correct.sum() + 0.5) / (self.n_samples.sum() + 1)))


def _fit_together(cells: list[_Cell], level: Level, paired: bool) -> list[CoverageForecast]:
    points = [cell.points for cell in cells]
    log_mean = float(np.mean([cell.log_mean for cell in cells]))
    share = pool(points, [cell.likely for cell in cells], log_mean, level)
    # pairing is the costly part: leave out shapes that it will not bring back
    cells = [c.only(s > _NEGLIGIBLE * s.max()) for c, s in zip(cells, share, strict=True)]
    points = [cell.points for cell in cells]
    share = pool(points, [cell.likely for cell in cells], log_mean, level)
    seen = _on_common_problems([cell.seen for cell in cells])
    few = max(len(c.weight) for c in cells) <= _MOST_PAIRS
    loading, ease = 0.0, []
    if paired and few and len(cells) > 1:
        loading = loading_of(_means(cells, share), seen)
    for _ in range(_ROUNDS if loading else 0):
        ease = ease_from_others(_means(cells, share), seen, loading)
        likely = [
            log_likelihood(cell.shapes, own, others, loading)
            for cell, own, others in zip(cells, seen, ease, strict=True)
        ]
        share = pool(points, likely, log_mean, level)
    return [
        CoverageForecast(
            cell.points.x, cell.shapes, share[i], cell.n_correct, cell.n_samples,
            ease[i] if loading else None, loading,
        )
        for i, cell in enumerate(cells)
    ]  # fmt: skip


def _means(cells: list[_Cell], share: list[Array]) -> list[Shapes]:
    return [cell.shapes.mean(s) for cell, s in zip(cells, share, strict=True)]


def _on_common_problems(seen: list[Seen]) -> list[Seen]:
    """The same, with problems numbered from 0."""
    _, number = np.unique(np.concatenate([s.problem for s in seen]), return_inverse=True)
    ends = np.cumsum([len(s.problem) for s in seen])[:-1]
    return [
        s._replace(problem=p) for s, p in zip(seen, np.split(number, ends), strict=True)
    ]


def _resampled(share: Array, size: int, rng: np.random.Generator) -> IntArray:
    """Indices drawn with these shares, by systematic resampling (least noise).

    In random order: sums over cells take the draws of each for independent.
    """
    at = (rng.permutation(size) + rng.random()) / size
    return np.minimum(np.searchsorted(np.cumsum(share), at), len(share) - 1)
