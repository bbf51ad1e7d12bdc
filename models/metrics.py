"""Metrics of efficiency that users know, each with an interval.

- Cost of pass, its frontier and what an option adds to it (Erol et al. 2025,
  arXiv:2504.13359).
- E3 = accuracy^2 / tokens (Lin et al. 2025, arXiv:2505.16122).
- pass^k, the chance that k draws are all right (Yao et al. 2024, arXiv:2406.12045).
- ARISE, gains and losses along levels of effort (Yin et al. 2025, arXiv:2510.06014).
- Area under the accuracy-compute curve, the compute on a log axis.

Two kinds of interval. Where draws are counted, rates have the posterior of `attempts`: a
problem without a right draw has a small rate, not none. It speaks of these very problems;
`new_problems=True` also resamples them. Curves over levels are resampled by problem
(Bayesian bootstrap, Rubin 1981): of new problems, the noise of the runs included.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from planner.models.attempts import LEAST_RATE, Attempts, draw_cost, posterior_blocks
from planner.models.coverage import none_correct
from planner.models.errors import FitError, InputError
from planner.models.joint_rates import joint_rates
from planner.models.prediction import Array, Prediction

_DRAWS = 1000
_FEWEST_RUNS, _MOST_RUNS, _STEADY = 3, 10, 0.5  # of ARISE's adaptive runs


def cost_of_pass(
    attempts: Attempts,
    rng: np.random.Generator,
    *,
    new_problems: bool = False,
    size: int = _DRAWS,
) -> Prediction:
    """Cost of a right answer over all problems, E[cost] / E[accuracy]; a point an option.

    The ratio of means, which few right draws leave finite; the mean of ratios is not where
    rates near 0 are common, and needs the ceiling of `frontier_cost_of_pass`.

    Raises:
        FitError: An option without a right draw: its cost of pass has no upper bound.
    """
    _need_right(attempts)
    spent, right, _ = _totals(attempts, rng, new_problems, size)
    return _prediction(spent / np.maximum(right, LEAST_RATE), attempts.unit)


def e3_score(
    attempts: Attempts,
    rng: np.random.Generator,
    *,
    new_problems: bool = False,
    size: int = _DRAWS,
) -> Prediction:
    """Accuracy squared over mean cost, a point an option; accuracy in 0..1.

    The paper writes accuracy in percent and cost in tokens: 10,000 times this.
    """
    spent, right, weight = _totals(attempts, rng, new_problems, size)
    return _prediction(right**2 / (spent * weight), f"1/{attempts.unit}")


class Frontier(NamedTuple):
    """What a right answer costs when each problem goes to its cheapest option."""

    cost: Prediction  # one point
    gain: Prediction  # a point an option: share of the cost that it saves


def frontier_cost_of_pass(
    attempts: Attempts,
    human_cost: ArrayLike,
    rng: np.random.Generator,
    *,
    new_problems: bool = False,
    size: int = _DRAWS,
) -> Frontier:
    """Mean over problems of min(cost / rate over the options, human cost).

    Rates are drawn jointly (`joint_rates`): what is hard for one option is hard for others.
    `gain` is against the counterfactual frontier, without the option: 1 - with / without.

    Args:
        attempts: Options, humans not among them.
        human_cost: Of a right answer by an expert, in the unit of `attempts`: one, or one a
            problem. It bounds what an unsolved problem adds.
        rng: For the draws.
        new_problems: Whether to speak of other problems of the kind.
        size: Draws.

    Raises:
        InputError: A human cost that is not finite and above 0.
    """
    options, problems = attempts.n_correct.shape
    human = np.asarray(human_cost, dtype=float)
    if human.shape not in ((), (problems,)) or not (np.isfinite(human) & (human > 0)).all():
        raise InputError("need one finite human cost above 0, or one a problem")
    human = np.broadcast_to(human, (problems,))
    total, without = np.zeros((size, 1)), np.zeros((size, options))
    every = np.arange(problems)
    rates = joint_rates(attempts.n_correct, attempts.n_samples, rng, size)
    for draw, rate in enumerate(rates):
        weight = np.ones(problems)
        if new_problems:
            weight = rng.standard_exponential((problems,))
        weight = weight / weight.sum()
        cost = draw_cost(attempts, every, rng, 1)[0]
        price = np.vstack([cost / np.maximum(rate, LEAST_RATE), human])
        best = price.argmin(axis=0)
        cheapest = price[best, every]
        price[best, every] = np.inf
        saved = weight * (price.min(axis=0) - cheapest)  # next best, humans always remain
        total[draw] = weight @ cheapest
        added = np.bincount(best, saved, options + 1)[:options]
        without[draw] = total[draw] + added
    return Frontier(
        _prediction(total, attempts.unit), _prediction(1 - total / without, "1")
    )


def all_correct(n_correct: ArrayLike, n_samples: ArrayLike, k: ArrayLike) -> Array:
    """Unbiased pass^k, C(c, k) / C(n, k), the chance that k draws are all right.

    Returns:
        Shape (n_problems, n_k).

    Raises:
        InputError: Not whole counts with 0 <= n_correct <= n_samples, or k not in 1..n:
            beyond the draws made see `reliability`.
    """
    c, n = _counts(n_correct, n_samples)
    points = _levels(k)
    if points.size and points.max() > n.min():
        raise InputError(
            f"pass^k needs k <= n = {n.min():.0f}, got {points.max():g}; see `reliability`"
        )
    return none_correct(n - c, n, points)


def reliability(
    n_correct: ArrayLike,
    n_samples: ArrayLike,
    k: ArrayLike,
    rng: np.random.Generator,
    *,
    new_problems: bool = False,
    size: int = _DRAWS,
) -> Prediction:
    """Mean pass^k over the problems, a point a k; beyond the draws made it extrapolates.

    Raises:
        InputError: Not whole counts with 0 <= n_correct <= n_samples, or k below 1.
    """
    c, n = _counts(n_correct, n_samples)
    points = _levels(k)
    attempts = Attempts.of(c, n, 1.0, "1")
    total, weight = np.zeros((size, len(points))), np.zeros((size, 1))
    for block in posterior_blocks(attempts, rng, new_problems, size):
        weight += block.weight.sum(axis=2)
        log_rate = np.log(block.rate[:, 0])
        for i, power in enumerate(points):
            total[:, i] += (block.weight[:, 0] * np.exp(power * log_rate)).sum(axis=1)
    return Prediction(total / weight, "1", points > n.max())


def arise_scores(accuracy: ArrayLike, tokens: ArrayLike) -> Array:
    """ARISE of each problem: sum over levels of da (t_before / t_after)^sign(da).

    A gain counts less the more tokens it took, a loss counts more.

    Args:
        accuracy: Of each problem at each level of effort, in 0..1 (a mean over runs, or one
            run); shape (n_problems, n_levels), levels in order of effort.
        tokens: Mean tokens there; same shape.

    Raises:
        InputError: Shapes that differ, one level, accuracy outside 0..1, or tokens not
            above 0.
    """
    a, t = _per_level(accuracy), np.asarray(tokens, dtype=float)
    if t.shape != a.shape or not (np.isfinite(t) & (t > 0)).all():
        raise InputError("need tokens above 0 for every problem and level")
    change = np.diff(a, axis=1)
    ratio = t[:, :-1] / t[:, 1:]
    return np.asarray((change * ratio ** np.sign(change)).sum(axis=1))


def arise(
    accuracy: ArrayLike,
    tokens: ArrayLike,
    rng: np.random.Generator,
    *,
    size: int = _DRAWS,
) -> Prediction:
    """Mean ARISE at the number of runs made; the interval is for new problems.

    Noise lowers it, since a chance loss costs more than a chance gain brings: compare
    models at equal runs a level.

    Raises:
        InputError: As `arise_scores`, or fewer than two problems.
    """
    return _bootstrap(arise_scores(accuracy, tokens)[:, None], rng, size)


def needs_another_run(correct: ArrayLike, tokens: ArrayLike) -> bool:
    """ARISE's rule for one problem at one level: 3 to 10 runs, more while they scatter.

    Args:
        correct: Of the runs so far, 0 or 1.
        tokens: Of the same runs.

    Raises:
        InputError: Lengths that differ, or values that are not finite.
    """
    a, t = np.asarray(correct, dtype=float), np.asarray(tokens, dtype=float)
    if a.shape != t.shape or a.ndim != 1 or not np.isfinite([a, t]).all():
        raise InputError("need one flag and one token count a run")
    if len(a) < _FEWEST_RUNS:
        return True
    scatter = sum(float(x.std() / (x.mean() + 1e-8)) for x in (a, t))
    return len(a) < _MOST_RUNS and scatter > _STEADY


def area_under_curve(
    accuracy: ArrayLike,
    compute: ArrayLike,
    rng: np.random.Generator,
    *,
    span: tuple[float, float] | None = None,
    size: int = _DRAWS,
) -> Prediction:
    """Area under accuracy against log compute, over its width: 0..1.

    Straight lines in log compute between levels. Curves are compared over one `span`.

    Args:
        accuracy: Of each problem at each level, in 0..1; shape (n_problems, n_levels).
        compute: Mean of each level, rising; shape (n_levels,). Tokens, FLOP or dollars.
        rng: For the bootstrap over problems.
        span: Compute from, to; the measured range by default.
        size: Draws.

    Raises:
        InputError: Shapes that differ, one level, compute not rising from above 0, a span
            beyond the measured range, or fewer than two problems.
    """
    a, c = _per_level(accuracy), np.asarray(compute, dtype=float)
    rising = c.shape == a.shape[1:] and np.isfinite(c).all() and c[0] > 0
    if not rising or not (np.diff(c) > 0).all():
        raise InputError("need a rising compute above 0, one a level")
    low, high = span or (float(c[0]), float(c[-1]))
    if not c[0] <= low < high <= c[-1]:
        raise InputError(f"span must rise within the measured {c[0]:g}..{c[-1]:g}")
    x = np.log(c)
    knots = np.unique(np.clip(x, np.log(low), np.log(high)))
    # weights of the levels, the same for every problem
    hats = np.array([np.interp(knots, x, unit) for unit in np.eye(len(c))])
    weights = np.trapezoid(hats, knots, axis=1) / (knots[-1] - knots[0])
    return _bootstrap((a @ weights)[:, None], rng, size)


def _totals(
    attempts: Attempts, rng: np.random.Generator, new_problems: bool, size: int
) -> tuple[Array, Array, Array]:
    """Cost, accuracy and weight summed over the problems; (size, n_options), (size, 1)."""
    options = len(attempts.n_correct)
    spent, right = np.zeros((size, options)), np.zeros((size, options))
    weight = np.zeros((size, 1))
    for block in posterior_blocks(attempts, rng, new_problems, size):
        spent += (block.weight * block.cost).sum(axis=2)
        right += (block.weight * block.rate).sum(axis=2)
        weight += block.weight.sum(axis=2)
    return spent, right, weight


def _need_right(attempts: Attempts) -> None:
    total = attempts.n_correct.sum(axis=1)
    if (total == 0).any():
        raise FitError(
            f"option {int((total == 0).argmax())} has no right draw, so that its cost of "
            "pass has no upper bound; draw more, or take the frontier with a human cost"
        )


def _bootstrap(score: Array, rng: np.random.Generator, size: int) -> Prediction:
    """Mean of the problems' scores (n_problems, n_points) by the Bayesian bootstrap."""
    if len(score) < 2:
        raise InputError("an interval over problems needs at least two of them")
    weight = rng.standard_exponential((size, len(score)))
    return _prediction(weight @ score / weight.sum(axis=1, keepdims=True), "1")


def _prediction(draws: Array, unit: str) -> Prediction:
    return Prediction(np.asarray(draws), unit, np.zeros(draws.shape[1], dtype=np.bool_))


def _counts(n_correct: ArrayLike, n_samples: ArrayLike) -> tuple[Array, Array]:
    attempts = Attempts.of(np.atleast_1d(n_correct), n_samples, 1.0, "1")
    if len(attempts.n_correct) != 1:
        raise InputError("need the counts of one option, one a problem")
    return attempts.n_correct[0], attempts.n_samples[0]


def _levels(k: ArrayLike) -> Array:
    points = np.atleast_1d(np.asarray(k, dtype=float))
    if not ((points >= 1) & (points % 1 == 0)).all():
        raise InputError("k must be whole and at least 1")
    return points


def _per_level(accuracy: ArrayLike) -> Array:
    a = np.asarray(accuracy, dtype=float)
    if a.ndim != 2 or a.shape[1] < 2 or not len(a) or not ((a >= 0) & (a <= 1)).all():
        raise InputError(
            "need accuracies in 0..1, (problems, levels), of two levels or more"
        )
    return a
