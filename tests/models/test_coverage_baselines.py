"""The published laws recover their own truth and refuse what they cannot fit."""

import math

import numpy as np
import pytest
from scipy.special import betaln

from planner.models.coverage import CoverageLaw
from planner.models.coverage_baselines import PUBLISHED_LAWS, Observed
from planner.models.errors import FitError, InputError

LAWS = {law.name: law for law in PUBLISHED_LAWS}
K = np.array([100.0, 1000.0, 10_000.0])


def beta_coverage(a, b, k):
    return 1 - np.exp(betaln(a, b + k) - betaln(a, b))


def test_names_are_unique_and_stable():
    assert list(LAWS) == [
        "no_extrapolation", "ls_power_law", "nls_power_law", "beta_binomial",
        "beta_binomial_wide", "scaled_beta_binomial", "scaled_kumaraswamy_binomial",
        "zero_inflated_beta_binomial",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "name",
    ["beta_binomial", "beta_binomial_wide", "scaled_beta_binomial"],
)
def test_beta_laws_recover_a_beta_truth(name, rng):
    a, b, n = 0.4, 3.0, 32
    c = rng.binomial(n, rng.beta(a, b, 20_000))  # rates reach 1: the scale is 1 too
    forecast = LAWS[name].forecast(Observed.of(c, n), K)
    # the law's own standard error, from the curvature of the same likelihood
    law = CoverageLaw.fit(c, n)
    sd = law.predict(K, rng).draws.std(axis=0)
    assert (np.abs(forecast - beta_coverage(a, b, K)) < 4 * sd).all()


def test_bounded_beta_binomial_is_the_maximum_of_its_likelihood(rng):
    c = rng.binomial(16, rng.beta(0.3, 2.0, 300))
    law = CoverageLaw.fit(c, 16)  # another optimiser: Newton's
    a, b = np.exp(law.log_shape)
    forecast = LAWS["beta_binomial"].forecast(Observed.of(c, 16), K)
    assert forecast == pytest.approx(beta_coverage(a, b, K), abs=1e-4)


def test_scale_caps_the_rate(rng):
    # half of the problems at a rate of one half, the others at nil: only a law whose rates
    # end near one half sees that there is little in between
    c = np.minimum(rng.binomial(10, np.where(np.arange(1000) % 2, 0.5, 0)), 6)
    observed = Observed.of(c, 10)
    assert LAWS["scaled_beta_binomial"].forecast(observed, [100.0])[0] < 0.62
    assert LAWS["scaled_kumaraswamy_binomial"].forecast(observed, [100.0])[0] < 0.62
    assert LAWS["beta_binomial"].forecast(observed, [100.0])[0] > 0.7


def test_quadrature_keeps_what_lies_beyond_its_grid(rng):
    # of Beta(0.03, 0.03) a fifth lies below a rate of e^-30
    observed = Observed.of(rng.binomial(8, rng.beta(0.03, 0.03, 5000)), 8)
    closed = LAWS["beta_binomial"].forecast(observed, K)
    assert LAWS["scaled_beta_binomial"].forecast(observed, K) == pytest.approx(
        closed, abs=2e-3
    )


def test_kumaraswamy_recovers_a_kumaraswamy_truth(rng):
    a, b, n = 0.5, 2.0, 32
    x = (1 - (1 - rng.random(20_000)) ** (1 / b)) ** (1 / a)  # the inverse of its cdf
    c = rng.binomial(n, x)
    fresh = (1 - (1 - rng.random(400_000)) ** (1 / b)) ** (1 / a)
    truth = np.array([(1 - (1 - fresh) ** k).mean() for k in K[:2]])
    error = LAWS["scaled_kumaraswamy_binomial"].forecast(Observed.of(c, n), K[:2]) - truth
    # what 20,000 problems leave open: as the beta law of the same counts has it
    sd = CoverageLaw.fit(c, n).predict(K[:2], rng).draws.std(axis=0)
    assert (np.abs(error) < 5 * sd).all()


def test_zero_inflated_finds_the_share_that_is_never_solved(rng):
    n, never = 64, 0.3
    p = np.where(rng.random(20_000) < never, 0.0, rng.beta(3.0, 10.0, 20_000))
    forecast = LAWS["zero_inflated_beta_binomial"].forecast(
        Observed.of(rng.binomial(n, p), n), [1e6]
    )[0]
    assert abs(forecast - (1 - never)) < 5 * math.sqrt(never * (1 - never) / 20_000)


@pytest.mark.parametrize("name", ["ls_power_law", "nls_power_law"])
def test_power_laws_follow_a_power_law(name, rng):
    # Beta(a, b) with small a: coverage is near exp(-A k^-B) over a decade
    c = rng.binomial(1000, rng.beta(0.3, 30.0, 20_000))
    observed = Observed.of(c, 1000)
    k = np.array([200.0, 500.0, 1000.0])
    assert LAWS[name].forecast(observed, k) == pytest.approx(observed.coverage(k), abs=0.02)


def test_power_law_by_hand():
    # two problems, one draw in two right: pass@1 = 1/4, pass@2 = 1/2
    forecast = LAWS["ls_power_law"].forecast(Observed.of([0, 1], 2), [4.0])[0]
    slope = math.log(math.log(1 / 0.5) / math.log(1 / 0.25)) / math.log(2)
    assert forecast == pytest.approx(math.exp(-math.log(4) * 4**slope), rel=1e-9)


@pytest.mark.parametrize("law", PUBLISHED_LAWS, ids=lambda law: law.name)
def test_forecasts_are_shares_that_rise_with_k(law, rng):
    for n, a, b in [(8, 0.2, 5.0), (32, 0.8, 0.2), (300, 0.3, 30.0)]:
        observed = Observed.of(rng.binomial(n, rng.beta(a, b, 128)), n)
        forecast = law.forecast(observed, n * np.array([1.0, 3.0, 30.0, 1000.0]))
        assert ((forecast >= 0) & (forecast <= 1)).all()
        assert (np.diff(forecast) >= -1e-9).all()


@pytest.mark.parametrize("law", PUBLISHED_LAWS[1:], ids=lambda law: law.name)
def test_no_success_is_refused(law):
    with pytest.raises(FitError):
        law.forecast(Observed.of([0, 0, 0], 8), K)


def test_flat_law_stays_at_the_coverage_seen():
    observed = Observed.of([0, 1, 8], 8)
    assert LAWS["no_extrapolation"].forecast(observed, K) == pytest.approx([2 / 3] * 3)


@pytest.mark.parametrize("counts", [[], [9], [-1], [0.5], [math.nan], [[1]]])
def test_counts_that_cannot_be_are_refused(counts):
    with pytest.raises(InputError, match="whole count"):
        Observed.of(counts, 8)


def test_k_below_one_is_refused():
    with pytest.raises(InputError, match="k >= 1"):
        LAWS["beta_binomial"].forecast(Observed.of([1, 2], 8), [0.5])
