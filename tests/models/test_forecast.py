import numpy as np
import pytest
from scipy.special import betaln
from scipy.stats import binom

from planner.models.counts import CountTable
from planner.models.coverage import pass_at_k
from planner.models.errors import InputError
from planner.models.forecast import PopulationLaw, fit_coverage
from planner.models.pooling import SORTED


def beta_coverage(a, b, k):
    return -np.expm1(betaln(a, b + np.asarray(k)) - betaln(a, b))


def alone(c, n):
    return fit_coverage(CountTable.of(c, n))[0]


def of_matrix(c, n, **settings):
    """Cells by problems that all of them see."""
    cells, problems = c.shape
    table = CountTable.of(
        c.ravel(), n, cell=np.repeat(np.arange(cells), problems),
        problem=np.tile(np.arange(problems), cells),
    )  # fmt: skip
    return fit_coverage(table, **settings)


def width(prediction):
    low, high = prediction.interval()
    return high - low


@pytest.mark.parametrize(("a", "b", "hopeless"), [(0.25, 1.0, 0.0), (0.5, 3.0, 0.03)])
def test_intervals_hold_at_the_draws_made_and_far_beyond(rng, a, b, hopeless):
    """Truth drawn by nature, not by the prior: intervals may be wide, but must hold."""
    repeats, problems, n = 30, 50, 16
    k = np.array([1, n, 10 * n, 100 * n])
    held_here, held_new, widths = np.zeros(4), np.zeros(4), np.zeros(4)
    for _ in range(repeats):
        p = rng.beta(a, b, problems) * (rng.random(problems) >= hopeless)
        forecast = alone(rng.binomial(n, p), n)
        here = (1 - (1 - p) ** k[:, None]).mean(axis=1)
        low, high = forecast.predict(k, rng, size=60).interval()
        held_here += (low <= here) & (here <= high)
        new = (1 - hopeless) * beta_coverage(a, b, k)
        low, high = forecast.predict_new(k, rng, size=100).interval()
        held_new += (low <= new) & (new <= high)
        widths += (high - low) / repeats
    least = binom.ppf(0.001, repeats, 0.9)
    assert (held_here >= least).all()
    assert (held_new >= least).all()
    assert widths.max() < 0.4  # and they do say something


def test_what_will_be_measured_is_forecast_with_the_noise_of_measuring(rng):
    repeats, n, more, held = 30, 8, 64, 0
    for _ in range(repeats):
        p = rng.beta(0.3, 1.0, 40)
        c = rng.binomial(n, p)
        final = c + rng.binomial(more - n, p)
        prediction = alone(c, n).predict_measured(32, more, rng, size=100)
        low, high = prediction.interval()
        held += int(low[0] <= pass_at_k(final, more, 32).mean() <= high[0])
        assert prediction.extrapolated.tolist() == [True]
    assert held >= binom.ppf(0.001, repeats, 0.9)


def test_draws_that_are_made_are_known(rng):
    """Of n draws with all made, pass@k is a count and has no interval."""
    c = rng.binomial(8, rng.beta(0.5, 1.0, 40))
    prediction = alone(c, 8).predict_measured([1, 4, 8], 8, rng, size=50)
    np.testing.assert_allclose(prediction.draws, np.tile(
        pass_at_k(c, 8, [1, 4, 8]).mean(axis=0), (50, 1)
    ))  # fmt: skip


def test_siblings_help_a_starved_cell(rng):
    a, mean, n, error = 0.8, 0.2, 16, np.zeros(2)
    for _ in range(8):
        c = rng.binomial(n, rng.beta(a, a * (1 - mean) / mean, (5, 60)))
        cell = np.concatenate([np.repeat(np.arange(4), 60), np.full(8, 4)])
        few = rng.binomial(2, rng.beta(a, a * (1 - mean) / mean, 8))
        counts = np.concatenate([c[:4].ravel(), few])
        drawn = np.concatenate([np.full(240, n), np.full(8, 2)])
        together = fit_coverage(CountTable.of(counts, drawn, cell=cell), paired=False)[4]
        k = 64
        truth = beta_coverage(a, a * (1 - mean) / mean, k)
        for i, forecast in enumerate((alone(few, 2), together)):
            error[i] += abs(forecast.predict_new(k, rng).mean[0] - truth)
    assert error[1] < error[0]


def test_a_problem_that_no_other_model_solves_is_forecast_lower(rng):
    ease = rng.normal(0, 2.5, 40)
    rates = 1 / (1 + np.exp(-(ease + rng.normal(0, 0.5, (3, 40)))))
    c = rng.binomial(16, rates)
    c[0, :2] = 0  # this model saw nothing on two problems,
    c[1:, 0], c[1:, 1] = 0, 16  # one of which the others never solve, the other always

    paired, unpaired = (of_matrix(c, 16, paired=p)[0] for p in (True, False))

    def solved_of_100(forecast):
        rates = np.array(list(forecast._rates(rng, 200)))[:, :2]
        return -np.expm1(-100 * rates).mean(axis=0)

    never, always = solved_of_100(paired)
    assert never < always - 0.2
    alike = solved_of_100(unpaired)
    assert abs(alike[0] - alike[1]) < 4 * np.sqrt(0.5 / 200)


@pytest.mark.parametrize("c", [0, 16])
def test_counts_all_alike_leave_a_wide_interval(rng, c):
    forecast = alone(np.full(10, c), 16)
    once, beyond = width(forecast.predict_new([1, 1000], rng))
    assert once > (0.05 if c else 0.005)
    assert beyond > (0.02 if c else 0.2)  # hopeless or merely hard: not known
    if not c:
        assert width(forecast.predict(1000, rng))[0] > 0.2


@pytest.mark.parametrize("paired", [False, True])
def test_problems_that_never_came_right_may_never_do(rng, paired):
    c = np.where(np.arange(40) < 20, rng.binomial(500, 0.5, (2, 40)), 0)
    forecast = of_matrix(c, 500, paired=paired)[0]
    assert (forecast.ease is not None) == paired
    assert forecast.predict(1e7, rng, size=50).mean[0] < 0.65
    assert forecast.predict_new(1e7, rng).mean[0] < 0.65


@pytest.mark.parametrize(("c", "n"), [([0], 1), ([1], 1), ([0], 16), ([16], 16)])
def test_one_problem_says_little_of_its_kind(rng, c, n):
    law = alone(c, n).population()
    assert width(law.predict([1, 10 * n], rng)).max() > 0.3


def test_one_draw_a_problem_tells_the_mean_and_not_the_tail(rng):
    law = alone(rng.binomial(1, 0.3, 200), 1).population()
    low, high = law.predict([1, 1000], rng).interval()
    assert low[0] < 0.3 < high[0]
    assert high[0] - low[0] < 0.2
    assert high[1] - low[1] > 0.25


def test_the_order_of_rows_and_cells_does_not_matter(rng):
    c = rng.binomial(8, rng.beta(0.4, 1.0, (3, 30)))
    straight = of_matrix(c, 8)
    cells, problems = np.array([2, 0, 1]), rng.permutation(30)
    moved = of_matrix(c[cells][:, problems], 8)
    for i, forecast in zip(cells, moved, strict=True):
        mean = forecast.predict([1, 100], np.random.default_rng(0)).mean
        expected = straight[i].predict([1, 100], np.random.default_rng(0)).mean
        # the same posterior; the Monte Carlo draws of problems differ
        np.testing.assert_allclose(mean, expected, atol=0.01)
        np.testing.assert_allclose(
            np.sort(forecast.share), np.sort(straight[i].share), rtol=1e-6, atol=1e-12
        )


def test_draws_of_two_cells_are_independent(rng):
    """Sums over cells add their variances: draws come in no common order."""
    c = rng.binomial(8, rng.beta(0.4, 1.0, (2, 40)))
    one, two = (f.population() for f in of_matrix(c, 8, paired=False))
    draws = [law.predict(64, rng, size=4000).draws[:, 0] for law in (one, two)]
    assert abs(np.corrcoef(*draws)[0, 1]) < 4 / np.sqrt(4000)


def test_cells_of_other_benchmarks_do_not_matter(rng):
    c = rng.binomial(8, rng.beta(0.4, 1.0, (2, 30)))
    table = CountTable.of(
        c.ravel(), 8, cell=np.repeat([0, 1], 30), problem=np.tile(np.arange(30), 2),
        benchmark=[0, 1],
    )  # fmt: skip
    for forecast, counts in zip(fit_coverage(table), c, strict=True):
        np.testing.assert_array_equal(forecast.share, alone(counts, 8).share)


def test_sorted_problems_are_taken_for_more_alike(rng):
    c = rng.binomial(4, 0.2, 12)
    whole, alike = (
        fit_coverage(CountTable.of(c, 4), **level)[0].predict_new(64, rng).mean[0]
        for level in ({}, {"level": SORTED})
    )
    assert alike > whole


def test_draws_to_success_of_a_law(rng):
    law = PopulationLaw(np.array([[0.0, 0.0, -30.0, -40.0]]), 4)  # Beta(1, 1)
    harmonic = [np.sum(1 / np.arange(1, n + 1)) for n in (1, 3, 5000)]
    drawn = law.expected_draws([1, 3, 5000], rng, size=1)
    np.testing.assert_allclose(drawn.mean, harmonic, rtol=1e-5)
    covered = law.predict([1, 4, 5], rng)
    np.testing.assert_allclose(covered.draws[0], [1 / 2, 4 / 5, 5 / 6], 1e-5)
    for prediction in (drawn, covered):
        assert prediction.extrapolated.tolist() == [False, False, True]


def test_a_law_goes_to_file_and_back(rng):
    law = alone(rng.binomial(16, rng.beta(0.5, 2.0, 60)), 16).population()
    again = PopulationLaw.from_fit(law.to_fit())
    np.testing.assert_allclose(again.theta, law.theta, atol=1e-3)
    assert again.k_max == 16
    k = [1, 16, 1000]
    expected = law.predict(k, np.random.default_rng(0)).mean
    np.testing.assert_allclose(
        again.predict(k, np.random.default_rng(0)).mean, expected, 1e-3
    )


def test_a_population_stands_for_its_posterior(rng):
    """A hundred shapes give the mean and spread of all of them."""
    forecast = alone(rng.binomial(16, rng.beta(0.5, 2.0, 60)), 16)
    exact = 1 - forecast.shapes.unsolved(np.array([1.0, 100.0]))
    mean = forecast.share @ exact
    sd = np.sqrt(forecast.share @ (exact - mean) ** 2)
    draws = forecast.population().predict([1, 100], rng, size=100).draws
    assert (np.abs(draws.mean(axis=0) - mean) < 4 * sd / np.sqrt(100)).all()
    assert (np.abs(draws.std(axis=0) / sd - 1) < 4 / np.sqrt(200)).all()


def test_fewer_than_one_draw_is_refused(rng):
    forecast = alone([3, 0, 1], 4)
    law = forecast.population()
    for call in (forecast.predict, forecast.predict_new, law.predict, law.expected_draws):
        with pytest.raises(InputError, match="k >= 1"):
            call(0.5, rng)
        with pytest.raises(InputError, match="k >= 1"):
            call([1, np.nan], rng)
    with pytest.raises(InputError, match="cannot be read"):
        forecast.predict_measured(9, 8, rng)
    with pytest.raises(InputError, match="cannot be read"):
        forecast.predict_measured(1, 3, rng)
