"""Models never sampled, or sampled a few times: pass@k from their siblings.

Siblings measured on the same problems say how hard each problem is
(`planner.models.items`); their sizes and families say how able the new model will be
(`planner.models.sizes`). From both follow its success rate on every problem and

    pass@k = mean over problems of 1 - (1 - p_i)**k

The path - size to skill, skill and difficulty to the rate of each problem, rates to
coverage - is that of Sloth's forecasts of test-time scaling (arXiv:2412.06540). A forecast
carries what is not known of the ability, of each difficulty, and of the scatter of this one
model about both; a few draws of the model narrow all three.
"""

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from planner.models.counts import (
    CountTable,
    IntArray,
    coverage_points,
    distinct_counts,
)
from planner.models.coverage import none_correct
from planner.models.errors import FitError, InputError, NotMeasuredError
from planner.models.items import Items, fit_items, log_table, shapes
from planner.models.prediction import Array, Prediction
from planner.models.sizes import Covariates, Mixture, Scale, SizeLaw, normal_given

# Of ability, log slope and log concentration. Vague on what size brings (published tasks
# gain from nothing to five logits a decade); models of 1 to 72 billion parameters on two
# public code benchmarks scatter by 0.3 in log slope and 0.5 to 0.8 in log concentration.
_SCALES = (
    Scale(mean=0.0, sd=5.0, slope=1.0, slope_sd=3.0, scatter_sd=0.6),
    Scale(mean=0.0, sd=0.3, slope=0.0, slope_sd=0.3, scatter_sd=0.3),
    Scale(mean=0.0, sd=1.5, slope=0.0, slope_sd=0.8, scatter_sd=0.7),
)
_DRAWS = 300  # each goes through every problem
_NEW = -1  # number of a family or model that no cell has


@dataclass(frozen=True, eq=False)
class FamilyForecast:
    """What one model will show on the problems of one benchmark."""

    parameters: Mixture
    nodes: Array  # (n_nodes,), easiness in logits
    weights: Array  # (n_problems, n_nodes), of each problem, by its siblings' draws
    problems: IntArray  # (n_problems,), ascending, their numbers in the siblings' table
    n_correct: Array  # (n_problems,), of the model's own draws
    n_samples: Array  # (n_problems,), 0 where it has none

    def update(
        self, n_correct: ArrayLike, n_samples: ArrayLike, problem: ArrayLike | None = None
    ) -> "FamilyForecast":
        """Learn from draws of the model itself.

        Args:
            n_correct: Correct draws of each problem.
            n_samples: Draws of each problem; a scalar serves for all.
            problem: Their numbers, as in the siblings' table; by default all, ascending.

        Raises:
            InputError: Not whole counts with 0 <= n_correct <= n_samples, a problem twice,
                one that no sibling has, or draws came in before.
        """
        ids = self.problems if problem is None else np.asarray(problem, np.int64)
        new = CountTable.of(n_correct, n_samples, problem=ids)
        if self.n_samples.any():
            raise InputError("the model's draws came in before; update with all at once")
        at = np.minimum(np.searchsorted(self.problems, ids), len(self.problems) - 1)
        unknown = self.problems[at] != ids
        if unknown.any():
            raise InputError(
                f"problem {ids[unknown.argmax()]} has no draw of a sibling; leave it out"
            )
        c, n = np.zeros((2, len(self.problems)))
        c[at], n[at] = new.n_correct, new.n_samples
        parameters = _posterior(self.parameters, self.nodes, self.weights, c, n)
        return replace(self, parameters=parameters, n_correct=c, n_samples=n)

    def predict(
        self, k: ArrayLike, rng: np.random.Generator, *, size: int = _DRAWS
    ) -> Prediction:
        """Expected coverage of these very problems at k draws each.

        Raises:
            InputError: k below 1.
        """
        points = coverage_points(k)
        draws = np.zeros((size, len(points)))
        for i, p in enumerate(self.rates(rng, size)):
            draws[i] = -np.expm1(np.outer(points, np.log1p(-p))).mean(axis=1)
        return Prediction(draws, "1", self._extrapolated(points))

    def predict_measured(
        self, k: ArrayLike, n: int, rng: np.random.Generator, *, size: int = _DRAWS
    ) -> Prediction:
        """What the unbiased pass@k of these problems will read once n draws are made.

        The model's own draws, if any, are among the n. Wider than `predict`: n draws are
        noisy.

        Raises:
            InputError: k below 1 or above n, or n below the draws made.
        """
        points = coverage_points(k)
        if max(points.max(initial=1), self.n_samples.max()) > n:
            raise InputError(f"k and the draws made must be at most n = {n}")
        draws, total = np.zeros((size, len(points))), np.full(len(self.problems), float(n))
        more = (n - self.n_samples).astype(np.int64)
        for i, p in enumerate(self.rates(rng, size)):
            correct = self.n_correct + rng.binomial(more, p)
            draws[i] = 1 - none_correct(correct, total, points).mean(axis=0)
        return Prediction(draws, "1", self._extrapolated(points))

    def rates(self, rng: np.random.Generator, size: int) -> Iterator[Array]:
        """Draws of the success rates, one at a time; `size` arrays (n_problems,)."""
        wrong = self.n_samples - self.n_correct
        distinct, code = distinct_counts(self.n_correct, self.n_samples)
        up_to = np.triu(np.ones((len(self.nodes), len(self.nodes))))
        sums = self.weights @ up_to  # a cumulative sum, several times faster
        for x in self.parameters.draw(rng, size):
            if self.n_samples.any():
                own, _ = _likelihood(x, self.nodes, distinct)
                sums = (self.weights * own[code]) @ up_to
            u = rng.random(len(sums)) * sums[:, -1]
            node = (sums >= u[:, None]).argmax(axis=1)
            a, b = shapes(x, self.nodes)
            rate = rng.beta(a[node] + self.n_correct, b[node] + wrong)
            yield np.minimum(rate, 1 - 1e-15)

    def _extrapolated(self, points: Array) -> NDArray[np.bool_]:
        """A model never drawn is extrapolated at every k."""
        return np.asarray(points > self.n_samples.max())


@dataclass(frozen=True, eq=False)
class FamilyLaw:
    """Problems and sizes, fitted to models that were sampled."""

    items: tuple[Items, ...]  # of each benchmark
    problems: tuple[IntArray, ...]
    sizes: tuple[SizeLaw, ...]  # of ability, log slope, log concentration
    families: tuple[Hashable, ...]
    models: tuple[Hashable, ...]

    @classmethod
    def fit(
        cls,
        table: CountTable,
        model_size: ArrayLike,
        *,
        family: Sequence[Hashable] | None = None,
        model: Sequence[Hashable] | None = None,
        train_tokens: ArrayLike | None = None,
    ) -> Self:
        """Fit difficulties, then abilities against size.

        Args:
            table: Draws of the sampled models; a cell is one model on one benchmark.
            model_size: Parameters (or training FLOP) of each cell's model; NaN if unknown.
            family: Of each cell; one family by default.
            model: Of each cell, so that benchmarks of one model are known to be of one; by
                default every cell is a model of its own.
            train_tokens: Tokens each cell's model was trained on, NaN if unknown; a second
                covariate.

        Raises:
            InputError: A size or token count that is not positive, lengths that differ, or
                a model twice on one benchmark.
            FitError: Fewer than two sizes are known: draw a sibling of another size.
        """
        x = _covariates(model_size, train_tokens, table.n_cells)
        if len(np.unique(x[~np.isnan(x[:, 0]), 0])) < 2:
            raise FitError(
                "the size of a model tells nothing yet: draw siblings of two sizes or more"
            )
        families, of_family = _numbered(family or [0] * table.n_cells, table.n_cells)
        models, of_model = _numbered(model or range(table.n_cells), table.n_cells)
        cells = Covariates(x, of_family, of_model, table.benchmark)
        pairs = np.stack([of_model, table.benchmark], axis=1)
        if len(np.unique(pairs, axis=0)) < len(pairs):
            raise InputError(
                "a model stands twice on one benchmark; fit one temperature at a time"
            )
        y, variance = np.zeros((2, table.n_cells, 3))
        items, problems = [], []
        for benchmark in range(int(table.benchmark.max()) + 1):
            mine = np.flatnonzero(table.benchmark == benchmark)
            rows = np.flatnonzero(np.isin(table.cell, mine))
            ids, row_problem = np.unique(table.problem[rows], return_inverse=True)
            fitted = fit_items(
                table.n_correct[rows].astype(float), table.n_samples[rows].astype(float),
                np.searchsorted(mine, table.cell[rows]), row_problem, len(ids),
            )  # fmt: skip
            y[mine] = fitted.parameters
            variance[mine] = np.diagonal(fitted.covariance, axis1=1, axis2=2)
            items.append(fitted)
            problems.append(ids)
        sizes = tuple(
            SizeLaw.fit(scale, cells, y[:, j], variance[:, j])
            for j, scale in enumerate(_SCALES)
        )
        return cls(tuple(items), tuple(problems), sizes, families, models)

    def forecast(
        self,
        model_size: float,
        *,
        family: Hashable = 0,
        model: Hashable | None = None,
        benchmark: int = 0,
        train_tokens: float | None = None,
    ) -> FamilyForecast:
        """What a model without draws on a benchmark will show there.

        Args:
            model_size: As in `fit`; NaN if unknown.
            family: One of `fit`'s, or another.
            model: One of `fit`'s if it was drawn on other benchmarks; None for a new one.
            benchmark: Number of one in the table.
            train_tokens: If `fit` had them.

        Raises:
            InputError: A size or token count that is not positive, or tokens that `fit`
                did not have, or the other way round.
            NotMeasuredError: No sibling was drawn on the benchmark.
        """
        if not 0 <= benchmark < len(self.items) or not len(self.problems[benchmark]):
            raise NotMeasuredError(f"no sibling was drawn on benchmark {benchmark}")
        tokens = None if train_tokens is None else [train_tokens]
        x = _covariates([model_size], tokens, 1)
        if x.shape[1] != self.sizes[0].cells.x.shape[1]:
            raise InputError("give training tokens to both fit and forecast, or to neither")
        new = Covariates(
            x,
            np.array([_find(self.families, family)]),
            np.array([_NEW if model is None else _find(self.models, model)]),
            np.array([benchmark]),
        )
        items, ids = self.items[benchmark], self.problems[benchmark]
        nothing = np.zeros(len(ids))
        return FamilyForecast(
            _mixture(self.sizes, new), items.nodes, items.weights, ids, nothing, nothing
        )

    def predict(
        self,
        k: ArrayLike,
        rng: np.random.Generator,
        *,
        model_size: float,
        family: Hashable = 0,
        benchmark: int = 0,
        train_tokens: float | None = None,
        size: int = _DRAWS,
    ) -> Prediction:
        """Expected coverage of a model never drawn, on the benchmark's problems.

        Raises:
            InputError: As `forecast`, or k below 1.
            NotMeasuredError: No sibling was drawn on the benchmark.
        """
        new = self.forecast(
            model_size, family=family, benchmark=benchmark, train_tokens=train_tokens
        )
        return new.predict(k, rng, size=size)


def _mixture(sizes: Sequence[SizeLaw], new: Covariates) -> Mixture:
    """Ability keeps its mixture of spreads; the others are one normal each."""
    means, variances = sizes[0].predict(new)
    mean, factor = np.zeros((len(means), 3)), np.zeros((len(means), 3, 3))
    mean[:, 0], factor[:, 0, 0] = means, np.sqrt(variances)
    for j in (1, 2):
        each, spread = sizes[j].predict(new)
        share = sizes[j].share
        mean[:, j] = share @ each
        factor[:, j, j] = np.sqrt(share @ (spread + (each - share @ each) ** 2))
    return Mixture(np.maximum(sizes[0].share, 1e-300), mean, factor)


def _posterior(prior: Mixture, nodes: Array, weights: Array, c: Array, n: Array) -> Mixture:
    """One normal, of the posterior's mean and covariance given the model's own counts."""
    drawn = n > 0
    weights = weights[drawn]
    distinct, code = distinct_counts(c[drawn], n[drawn])
    problem = np.arange(len(code))

    def log_density(x: Array) -> Array:
        each = np.zeros(len(x))
        for i in range(len(x)):
            own, top = _likelihood(x[i], nodes, distinct)
            seen = (weights @ own.T)[problem, code]
            each[i] = (np.log(seen) + top[code]).sum()
        return each + prior.log_density(x)

    return normal_given(log_density, prior.share @ prior.mean)


def _likelihood(x: Array, nodes: Array, distinct: Array) -> tuple[Array, Array]:
    """Of distinct counts at each node over its maximum, and the log of that."""
    c, n = distinct.T
    table = log_table(x[None], nodes, c, n, np.zeros(len(c), np.int64))
    top = table.max(axis=1)
    return np.maximum(np.exp(table - top[:, None]), 1e-300), top


def _covariates(size: ArrayLike, tokens: ArrayLike | None, count: int) -> Array:
    """log10 of what is known of each model; (count, 1 or 2)."""
    columns = [size] if tokens is None else [size, tokens]
    out = np.zeros((count, len(columns)))
    for j, column in enumerate(columns):
        values = np.asarray(column, dtype=float)
        if values.shape != (count,):
            raise InputError(f"need a size (and token count) for each of {count} cells")
        if not (np.isnan(values) | ((values > 0) & np.isfinite(values))).all():
            raise InputError("a model's size and training tokens are positive, or NaN")
        out[:, j] = np.log10(values)
    return out


def _numbered(
    labels: Iterable[Hashable], count: int
) -> tuple[tuple[Hashable, ...], IntArray]:
    """Distinct labels in order of appearance, and the number of each label."""
    every = list(labels)
    if len(every) != count:
        raise InputError(f"need a family and a model for each of {count} cells")
    number = {label: i for i, label in enumerate(dict.fromkeys(every))}
    return tuple(number), np.array([number[label] for label in every], np.int64)


def _find(labels: tuple[Hashable, ...], label: Hashable) -> int:
    return labels.index(label) if label in labels else _NEW
