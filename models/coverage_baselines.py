"""Published coverage laws, fitted as published: what our own forecast is judged against.

Each forecasts the mean pass@k of a set of problems for k beyond the n draws of each that
were made; none of them gives an interval.

Power law (Brown et al. 2024, arXiv:2407.21787):       pass@k = exp(-A k^-B)
Beta-binomial (Levi 2024, arXiv:2410.16377; Schaeffer et al. 2025, arXiv:2502.17578; Kazdan
et al. 2025, arXiv:2510.05197):                        pass@k = 1 - B(a, b + k) / B(a, b)
Scaled (Schaeffer et al.):  success rate s x with x ~ Beta(a, b) or Kumaraswamy(a, b); the
scale s = min(1, (P + 1) / P max_i c_i / n) over the P problems is set, not fitted.
Zero-inflated:  a share of the problems is never solved, the others are beta-binomial.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import curve_fit, minimize
from scipy.special import betainc, betaln, gammaln

from planner.models.coverage import none_correct
from planner.models.errors import FitError, InputError
from planner.models.prediction import Array

# Bounds on both shapes. Schaeffer et al. search (0.01, 100). The wide box is all but none:
# it shows how much of a law's accuracy is its box.
_BOX = (0.01, 200.0)
_NARROW_BOX = (0.01, 100.0)
_WIDE_BOX = (1e-6, 1e8)
_LS_POINTS, _NLS_POINTS = 100, 40  # k of the regressions, spaced evenly in log k
_FAR = (
    30.0  # log-odds at which the quadrature ends; what lies beyond is added in closed form
)


@dataclass(frozen=True, eq=False)
class Observed:
    """Correct counts of problems with n draws each, equal counts together."""

    correct: Array  # (n_distinct,), rising
    problems: Array  # (n_distinct,), how many have that count
    n: int  # draws of each problem

    @classmethod
    def of(cls, n_correct: ArrayLike, n: int) -> Self:
        """Check and sort counts.

        Raises:
            InputError: No problem, or not whole counts within 0..n.
        """
        c = np.asarray(n_correct, dtype=float)
        if c.ndim != 1 or not c.size or not ((c >= 0) & (c <= n) & (c % 1 == 0)).all():
            raise InputError(f"need one whole count within 0..{n} a problem")
        correct, problems = np.unique(c, return_counts=True)
        return cls(correct, problems.astype(float), n)

    def coverage(self, k: Array) -> Array:
        """Unbiased mean pass@k, k <= n; (n_k,)."""
        wrong = none_correct(self.correct, np.full(len(self.correct), float(self.n)), k)
        return np.asarray(1 - self.problems @ wrong / self.problems.sum())


@dataclass(frozen=True)
class PublishedLaw:
    """One of the laws of this module."""

    name: str  # stable: rows of a backtest carry it
    title: str
    forecast_mean: Callable[[Observed, Array], Array]

    def forecast(self, observed: Observed, k: ArrayLike) -> Array:
        """Mean pass@k of the observed problems, (n_k,); a point, for want of an interval.

        Raises:
            InputError: k below 1.
            FitError: The counts do not determine the law; with no correct draw at all,
                that is every law but the flat one.
        """
        points = np.atleast_1d(np.asarray(k, dtype=float))
        if points.size and points.min() < 1:
            raise InputError(f"coverage needs k >= 1, got {points.min():g}")
        mean = self.forecast_mean(observed, points)
        if not np.isfinite(mean).all():
            raise FitError(f"{self.name}: the fit diverged")
        return np.asarray(np.clip(mean, 0.0, 1.0))


def _flat(observed: Observed, k: Array) -> Array:
    """The coverage seen, as if more draws solved nothing more."""
    return observed.coverage(np.minimum(k, observed.n))


def _curve(observed: Observed, points: int) -> tuple[Array, Array]:
    """K and measured coverage at whole k up to n, where 0 < coverage < 1."""
    k = np.unique(np.geomspace(1, observed.n, points).round())
    y = observed.coverage(k)
    inside = (y > 0) & (y < 1)
    if inside.sum() < 2:
        raise FitError("a power law needs a coverage within (0, 1) at two k or more")
    return k[inside], y[inside]


def _line(observed: Observed, points: int) -> tuple[float, float]:
    """Least squares of log(-log coverage) on log k: log A and -B."""
    k, y = _curve(observed, points)
    slope, intercept = np.polyfit(np.log(k), np.log(-np.log(y)), 1)
    return float(intercept), float(slope)


def _power_law(k: Array, log_a: float, slope: float) -> Array:
    return np.asarray(np.exp(-np.exp(np.clip(log_a + slope * np.log(k), -700, 700))))


def _ls_power_law(observed: Observed, k: Array) -> Array:
    return _power_law(k, *_line(observed, _LS_POINTS))


def _nls_power_law(observed: Observed, k: Array) -> Array:
    """Least squares on the coverage itself, started at the line's."""
    grid, y = _curve(observed, _NLS_POINTS)
    start = _line(observed, _NLS_POINTS)

    def jacobian(x: Array, log_a: float, slope: float) -> Array:
        value = _power_law(x, log_a, slope)
        inner = value * np.log(np.maximum(value, 1e-300))
        return np.stack([inner, inner * np.log(x)], axis=1)

    try:
        best = curve_fit(_power_law, grid, y, start, jac=jacobian, full_output=True)[0]
    except RuntimeError as error:
        raise FitError(f"nls_power_law: {error}") from None
    return _power_law(k, *best)


def _maximise(
    log_likelihood: Callable[[Array], float],
    start: Sequence[float],
    bounds: Sequence[tuple[float, float]],
) -> Array:
    """Where the likelihood is largest within the bounds."""

    def objective(x: Array) -> float:
        value = -log_likelihood(x)
        return value if np.isfinite(value) else 1e12

    best = minimize(objective, start, method="L-BFGS-B", bounds=bounds)
    return np.asarray(best.x)


def _need_success(observed: Observed) -> None:
    if not observed.correct.any():
        raise FitError("no draw is correct: every forecast from 0 up fits as well")


def _start(observed: Observed, box: tuple[float, float]) -> tuple[float, float]:
    """Log shapes with the mean rate of the counts, and a wide spread."""
    rate = (observed.correct @ observed.problems + 0.5) / (
        observed.n * observed.problems.sum() + 1
    )
    low, high = np.log(box)
    return (
        float(np.clip(np.log(0.3), low, high)),
        float(np.clip(np.log(0.3 * (1 - rate) / rate), low, high)),
    )


def _beta_binomial(observed: Observed, k: Array, box: tuple[float, float]) -> Array:
    _need_success(observed)
    c, n, weight = observed.correct, observed.n, observed.problems

    def log_likelihood(x: Array) -> float:
        a, b = np.exp(x)
        return float(weight @ betaln(a + c, b + n - c) - weight.sum() * betaln(a, b))

    bounds = [(np.log(box[0]), np.log(box[1]))] * 2
    a, b = np.exp(_maximise(log_likelihood, _start(observed, box), bounds))
    return np.asarray(1 - _never(a, b, k))


def _never(a: float, b: float, k: Array) -> Array:
    """B(a, b + k) / B(a, b): that k draws of a problem are all wrong."""
    return np.asarray(np.exp(betaln(a, b + k) - betaln(a, b)))


def _bounded(observed: Observed, k: Array) -> Array:
    return _beta_binomial(observed, k, _BOX)


def _wide(observed: Observed, k: Array) -> Array:
    return _beta_binomial(observed, k, _WIDE_BOX)


def _zero_inflated(observed: Observed, k: Array) -> Array:
    _need_success(observed)
    c, n, weight = observed.correct, observed.n, observed.problems

    def log_likelihood(x: Array) -> float:
        (a, b), never = np.exp(x[:2]), x[2]
        log_share = betaln(a + c, b + n - c) - betaln(a, b) + np.log1p(-never)
        log_share = np.where(c == 0, np.logaddexp(np.log(never), log_share), log_share)
        return float(weight @ log_share)

    shape = (np.log(_BOX[0]), np.log(_BOX[1]))
    unsolved = float(weight[c == 0].sum() / weight.sum())
    start = (*_start(observed, _BOX), min(max(unsolved / 2, 1e-3), 0.9))
    log_a, log_b, never = _maximise(log_likelihood, start, [shape, shape, (1e-9, 1 - 1e-9)])
    return np.asarray((1 - never) * (1 - _never(np.exp(log_a), np.exp(log_b), k)))


Density = Callable[[Array, float, float], tuple[Array, float, float]]


def _beta_density(log_odds: Array, a: float, b: float) -> tuple[Array, float, float]:
    """Density of log-odds under Beta(a, b); the mass below and above the grid."""
    log_x, log_rest = -np.logaddexp(0, -log_odds), -np.logaddexp(0, log_odds)
    density = np.exp(a * log_x + b * log_rest - betaln(a, b))
    end = np.exp(-_FAR)
    return density, float(betainc(a, b, end)), float(betainc(b, a, end))


def _kumaraswamy_density(log_odds: Array, a: float, b: float) -> tuple[Array, float, float]:
    """The same under Kumaraswamy(a, b), P(x < q) = 1 - (1 - q^a)^b."""
    log_x, log_rest = -np.logaddexp(0, -log_odds), -np.logaddexp(0, log_odds)
    log_tail = np.log(-np.expm1(a * log_x))  # log(1 - x^a)
    density = np.exp(np.log(a * b) + a * log_x + (b - 1) * log_tail + log_rest)
    below = -np.expm1(b * np.log(-np.expm1(-a * _FAR)))
    above = (-np.expm1(-a * np.exp(-_FAR))) ** b
    return density, float(below), float(above)


def _scaled(observed: Observed, k: Array, density: Density) -> Array:
    """Maximum likelihood of the scaled laws, the integral over x by the trapezoid rule.

    In log-odds the integrand is smooth and falls off on both sides, so that equal steps
    converge fast; they are kept below the width that n draws, or the box, can give it.
    """
    _need_success(observed)
    c, n, weight = observed.correct, observed.n, observed.problems
    total = weight.sum()
    scale = min(1.0, (total + 1) / total * c.max() / n)
    step = min(0.14, 2 / np.sqrt(n))
    log_odds = np.arange(-_FAR, _FAR + step, step)
    rate = scale / (1 + np.exp(-log_odds))
    with np.errstate(divide="ignore"):  # scale 1: log(1 - rate) of a rate that rounds to 1
        log_rate, log_rest = np.log(rate), np.log1p(-rate)
    log_rest = np.maximum(log_rest, -700)
    binomial = gammaln(n + 1) - gammaln(c + 1) - gammaln(n - c + 1)
    of_count = np.exp(binomial[:, None] + np.outer(c, log_rate) + np.outer(n - c, log_rest))
    at_zero = (c == 0).astype(float)
    at_scale = np.exp(binomial + c * np.log(scale)) * (1 - scale) ** (n - c)

    def log_likelihood(x: Array) -> float:
        inside, below, above = density(log_odds, *np.exp(x))
        share = of_count @ inside * step + at_zero * below + at_scale * above
        return float(weight @ np.log(np.maximum(share, 1e-300)))

    bounds = [(np.log(_NARROW_BOX[0]), np.log(_NARROW_BOX[1]))] * 2
    best = _maximise(log_likelihood, _start(observed, _NARROW_BOX), bounds)
    inside, below, above = density(log_odds, *np.exp(best))
    wrong = np.exp(np.outer(k, log_rest)) @ inside * step
    return np.asarray(1 - wrong - below - above * (1 - scale) ** k)


def _scaled_beta(observed: Observed, k: Array) -> Array:
    return _scaled(observed, k, _beta_density)


def _scaled_kumaraswamy(observed: Observed, k: Array) -> Array:
    return _scaled(observed, k, _kumaraswamy_density)


NLS_POWER_LAW = PublishedLaw(
    "nls_power_law", "power law, nonlinear least squares", _nls_power_law
)
PUBLISHED_LAWS: tuple[PublishedLaw, ...] = (
    PublishedLaw("no_extrapolation", "no extrapolation", _flat),
    PublishedLaw("ls_power_law", "power law, least squares on log(-log)", _ls_power_law),
    NLS_POWER_LAW,
    PublishedLaw("beta_binomial", "beta-binomial, shapes up to 200", _bounded),
    PublishedLaw("beta_binomial_wide", "beta-binomial, shapes unbounded", _wide),
    PublishedLaw("scaled_beta_binomial", "scaled beta-binomial", _scaled_beta),
    PublishedLaw(
        "scaled_kumaraswamy_binomial", "scaled Kumaraswamy-binomial", _scaled_kumaraswamy
    ),
    PublishedLaw(
        "zero_inflated_beta_binomial", "zero-inflated beta-binomial", _zero_inflated
    ),
)
