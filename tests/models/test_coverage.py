from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import betaln
from scipy.stats import binom

from planner.models.coverage import (
    WEAK_PRIOR,
    CoverageLaw,
    ShapePrior,
    fit_pooled,
    pass_at_k,
)
from planner.models.errors import FitError, InputError

EXACT = np.eye(2) * 1e-12


def coverage(a, b, k):
    return -np.expm1(betaln(a, b + k) - betaln(a, b))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))))
def test_pass_at_k_counts_the_subsets_with_a_success(counts):
    n, c = counts
    flags = [1] * c + [0] * (n - c)
    for k in range(1, n + 1):
        subsets = list(combinations(flags, k))
        expected = sum(map(any, subsets)) / len(subsets)
        assert pass_at_k([c], n, k)[0, 0] == pytest.approx(expected, abs=1e-12)


def test_pass_at_k_is_exact_at_its_ends_and_stable_for_many_draws():
    np.testing.assert_array_equal(
        pass_at_k([0, 10_000], 10_000, [1, 10_000]), [[0, 0], [1, 1]]
    )
    # one success in n: k / n
    np.testing.assert_allclose(
        pass_at_k([1], 10_000, [1, 7, 9_999])[0], [1e-4, 7e-4, 0.9999]
    )


def test_pass_at_k_beyond_the_draws_is_refused():
    with pytest.raises(InputError, match="beyond the draws"):
        pass_at_k([0, 3], [8, 16], 9)
    with pytest.raises(InputError):
        pass_at_k([1], 8, 0)
    with pytest.raises(InputError, match="n_correct <= n_samples"):
        pass_at_k([9], 8, 1)


def test_uniform_difficulty_has_a_closed_form(rng):
    law = CoverageLaw(np.zeros(2), EXACT, k_max=4)  # Beta(1, 1): k / (k + 1)
    prediction = law.predict([1, 4, 9], rng)
    np.testing.assert_allclose(prediction.draws[0], [1 / 2, 4 / 5, 9 / 10], 1e-4)
    assert prediction.extrapolated.tolist() == [False, False, True]


def test_interval_holds_the_truth_as_often_as_it_says(rng):
    a, b, k, repeats, hits = 0.5, 2.0, 50, 200, 0
    for _ in range(repeats):
        n_correct = rng.binomial(40, rng.beta(a, b, size=150))
        law = CoverageLaw.fit(n_correct, np.full(150, 40))
        low, high = law.predict(k, rng).interval(0.9)
        hits += int(low[0] <= coverage(a, b, k) <= high[0])
    assert binom.ppf(0.001, repeats, 0.9) <= hits <= binom.ppf(0.999, repeats, 0.9)


def test_small_cells_hold_the_truth_with_the_prior_they_come_from(rng):
    mean, covariance = np.array([-0.7, 0.3]), np.array([[0.5, 0.2], [0.2, 1.5]])
    prior, repeats = ShapePrior(mean, covariance), 300
    hits = np.zeros(3)
    for _ in range(repeats):
        a, b = np.exp(rng.multivariate_normal(mean, covariance))
        problems, n = rng.integers(12, 41), rng.integers(8, 25)
        n_correct = rng.binomial(n, rng.beta(a, b, problems))
        law = CoverageLaw.fit(n_correct, np.full(problems, n), prior)
        k = np.array([1, n, 4 * n])
        low, high = law.predict(k, rng).interval(0.9)
        hits += (low <= coverage(a, b, k)) & (coverage(a, b, k) <= high)
    lowest, highest = binom.ppf([0.001, 0.999], repeats, 0.9)
    assert (lowest <= hits).all()
    assert (hits <= highest).all()


def simulate_cells(rng, cells):
    shapes = rng.multivariate_normal([-0.7, 0.3], [[0.5, 0.2], [0.2, 1.5]], cells)
    parts = []
    for i, (a, b) in enumerate(np.exp(shapes)):
        problems, n = rng.integers(12, 41), rng.integers(8, 25)
        counts = rng.binomial(n, rng.beta(a, b, problems))
        parts.append(np.stack([counts, np.full(problems, n), np.full(problems, i)]))
    return np.exp(shapes), np.concatenate(parts, axis=1)


def test_small_cells_hold_the_truth_with_a_prior_pooled_from_each_other(rng):
    hits, total, better, k = 0, 0, 0.0, 64
    for _ in range(10):
        shapes, (c, n, cell) = simulate_cells(rng, 24)
        laws = fit_pooled(c, n, cell, np.arange(24) % 3)
        for i, ((a, b), law) in enumerate(zip(shapes, laws, strict=True)):
            prediction = law.predict(k, rng)
            low, high = prediction.interval(0.9)
            truth = coverage(a, b, k)
            hits += int(low[0] <= truth <= high[0])
            alone = CoverageLaw.fit(c[cell == i], n[cell == i], WEAK_PRIOR)
            error = abs(alone.predict(k, rng).mean[0] - truth)
            better += error - abs(prediction.mean[0] - truth)
            total += 1
    # cells of one pool are not quite independent: four standard errors of independent ones
    assert abs(hits / total - 0.9) < 4 * np.sqrt(0.09 / total)
    assert better / total > 0  # pooling forecasts better than a weak prior


@pytest.mark.parametrize("share", [0, 1])
def test_all_alike_counts_give_a_wide_law_with_a_prior_and_an_error_without(share, rng):
    counts, n = np.full(12, 16 * share), np.full(12, 16)
    with pytest.raises(FitError, match="do not determine"):
        CoverageLaw.fit(counts, n)
    law = CoverageLaw.fit(counts, n, WEAK_PRIOR)
    low, high = law.predict(1, rng).interval(0.9)
    assert high[0] - low[0] > 0.01
    assert low[0] > 0.8 if share else high[0] < 0.2


def test_one_draw_of_one_problem_says_little(rng):
    with pytest.raises(FitError):
        CoverageLaw.fit([1], [1])
    low, high = CoverageLaw.fit([1], [1], WEAK_PRIOR).predict(1, rng).interval(0.9)
    assert high[0] - low[0] > 0.4


def test_one_draw_a_problem_does_not_determine_the_law(rng):
    with pytest.raises(FitError):
        CoverageLaw.fit(rng.integers(0, 2, 100), np.ones(100))


def test_unequal_draws_recover_the_truth(rng):
    n = rng.integers(4, 40, 3000)
    law = CoverageLaw.fit(rng.binomial(n, rng.beta(0.5, 2.0, 3000)), n)
    off = law.log_shape - np.log([0.5, 2.0])
    assert off @ np.linalg.solve(law.covariance, off) < 18.4  # chi-squared, 2: 1 in 10,000
    assert law.k_max == n.max()


def test_bad_counts_are_refused():
    with pytest.raises(InputError):
        CoverageLaw.fit([3], [2])
    with pytest.raises(InputError, match="at least one draw"):
        CoverageLaw.fit([0], [0], WEAK_PRIOR)
    with pytest.raises(InputError, match="cell 1"):
        fit_pooled([1], [2], [0], [0, 0])
