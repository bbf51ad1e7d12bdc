from math import comb

import numpy as np
import pytest
from scipy.stats import binom

from planner.models.attempts import Attempts
from planner.models.errors import FitError, InputError
from planner.models.joint_rates import joint_rates
from planner.models.metrics import (
    all_correct,
    area_under_curve,
    arise,
    arise_scores,
    cost_of_pass,
    e3_score,
    frontier_cost_of_pass,
    needs_another_run,
    reliability,
)

MANY = 1_000_000  # draws a problem: nothing is left open


def held(repeats, one):
    """Assert that a 90 % interval holds as often as it says, to 0.1 % tails."""
    hits = sum(one() for _ in range(repeats))
    # 3 points of slack: priors fitted to 60 problems are not the truth
    low, high = binom.ppf(0.001, repeats, 0.87), binom.ppf(0.999, repeats, 0.93)
    assert low <= hits <= high, hits


def covers(prediction, truth):
    low, high = prediction.interval()
    return int(low[0] <= truth <= high[0])


def test_cost_of_pass_is_mean_cost_over_mean_accuracy(rng):
    rate = np.array([[0.5, 0.25], [0.9, 0.6]])
    attempts = Attempts.of(MANY * rate, MANY, [[2.0, 4.0], [8.0, 1.0]], "usd")
    said = cost_of_pass(attempts, rng)
    np.testing.assert_allclose(said.mean, [3 / 0.375, 4.5 / 0.75], rtol=1e-3)
    assert said.unit == "usd"


def test_frontier_sends_each_problem_to_its_cheapest_and_gain_is_counterfactual(rng):
    # costs of pass: option 0: 4, 400; option 1: 10, 5; humans 20
    attempts = Attempts.of(
        [[MANY / 2, MANY / 200], [MANY / 2, MANY / 2]],
        MANY,
        [[2.0, 2.0], [5.0, 2.5]],
        "usd",
    )
    cost, gain = frontier_cost_of_pass(attempts, 20.0, rng, size=200)
    assert cost.mean[0] == pytest.approx((4 + 5) / 2, rel=0.01)
    # without option 0: (10 + 5) / 2; without option 1: (4 + 20) / 2
    np.testing.assert_allclose(gain.mean, [1 - 4.5 / 7.5, 1 - 4.5 / 12], rtol=0.01)


def test_frontier_never_costs_more_than_humans_even_if_nothing_is_right(rng):
    attempts = Attempts.of(np.zeros((2, 5)), 4, 1.0, "usd")
    cost, gain = frontier_cost_of_pass(attempts, [3.0, 3, 3, 3, 8], rng, size=200)
    assert (cost.draws <= 4 + 1e-9).all()
    assert ((gain.draws >= 0) & (gain.draws < 1)).all()
    with pytest.raises(InputError, match="human cost"):
        frontier_cost_of_pass(attempts, 0.0, rng)
    with pytest.raises(InputError, match="human cost"):
        frontier_cost_of_pass(attempts, np.nan, rng)


def test_nothing_right_has_no_cost_of_pass(rng):
    with pytest.raises(FitError, match="option 1 has no right draw"):
        cost_of_pass(Attempts.of([[1, 0], [0, 0]], 4, 1.0, "usd"), rng)


def test_few_right_draws_give_a_wide_interval(rng):
    low, high = cost_of_pass(Attempts.of([1, 0, 0], 1, 1.0, "usd"), rng).interval()
    assert np.isfinite(high[0])
    assert high[0] > 3 * low[0]


def test_e3_is_accuracy_squared_over_cost(rng):
    attempts = Attempts.of([0.6 * MANY, 0.8 * MANY], MANY, [900.0, 1100.0], "tokens")
    said = e3_score(attempts, rng)
    assert said.mean[0] == pytest.approx(0.7**2 / 1000, rel=1e-3)
    assert said.unit == "1/tokens"


def rates(rng, problems=60):
    return rng.beta(0.5, 0.8, problems)


def test_cost_of_pass_interval_holds(rng):
    def one():
        p, cost = rates(rng), np.exp(0.5 * rng.standard_normal(60))
        attempts = Attempts.of(rng.binomial(8, p), 8, cost, "usd")
        return covers(cost_of_pass(attempts, rng, size=200), cost.sum() / p.sum())

    held(60, one)


def test_cost_of_pass_interval_holds_for_new_problems(rng):
    def one():
        attempts = Attempts.of(rng.binomial(8, rates(rng)), 8, 1.0, "usd")
        return covers(cost_of_pass(attempts, rng, new_problems=True, size=200), 1.3 / 0.5)

    held(60, one)


def test_e3_interval_holds_from_draws_of_random_length(rng):
    def one():
        p, mean = rates(rng), 500 * np.exp(0.4 * rng.standard_normal(60))
        correct = (rng.random((60, 6)) < p[:, None]).astype(float)
        tokens = mean[:, None] * rng.gamma(4, 1 / 4, (60, 6))
        attempts = Attempts.of_draws(correct, tokens, "tokens")
        return covers(e3_score(attempts, rng, size=200), p.mean() ** 2 / mean.mean())

    held(60, one)


def test_frontier_interval_holds_where_problems_are_hard_for_all(rng):
    price = np.geomspace(1, 10, 8)[:, None]

    def one():
        ease = 2.5 * rng.standard_normal(50)
        skill = np.linspace(-1, 1.5, 8)[:, None]
        p = 1 / (1 + np.exp(-(skill + ease + 0.6 * rng.standard_normal((8, 50)))))
        attempts = Attempts.of(rng.binomial(8, p), 8, price, "usd")
        truth = np.minimum((price / p).min(axis=0), 60).mean()
        said = frontier_cost_of_pass(attempts, 60.0, rng, size=50).cost
        return covers(said, truth)

    held(8, one)


def test_joint_rates_agree_with_counts_and_learn_from_the_other_options(rng):
    easy, hard = np.full(30, 40), np.zeros(30)
    others = np.tile(np.concatenate([easy, hard]), (5, 1))
    mine = np.concatenate([np.full(30, 1), np.full(30, 0)])
    n = np.vstack([np.full((5, 60), 40), np.ones((1, 60))])
    draws = np.array(list(joint_rates(np.vstack([others, mine]), n, rng, 200)))
    assert draws[:, 5, :30].mean() > 0.8
    assert draws[:, 5, 30:].mean() < 0.2
    assert draws[:, 0, 30:].mean() < 0.05


def test_all_correct_counts_the_subsets():
    for n, c, k in ((5, 3, 2), (8, 8, 8), (8, 7, 8), (6, 0, 1)):
        assert all_correct([c], n, k)[0, 0] == pytest.approx(comb(c, k) / comb(n, k))
    with pytest.raises(InputError, match="k <= n"):
        all_correct([3], 5, 6)
    with pytest.raises(InputError, match="at least 1"):
        all_correct([3], 5, 0)
    with pytest.raises(InputError, match="n_correct <= n_samples"):
        all_correct([6], 5, 1)


def test_all_correct_is_unbiased(rng):
    p, k, repeats = 0.7, 3, 4000
    said = all_correct(rng.binomial(6, p, repeats), 6, k)[:, 0]
    assert abs(said.mean() - p**k) < 4 * said.std() / np.sqrt(repeats)


def test_reliability_holds_within_and_beyond_the_draws(rng):
    k = np.array([4, 8, 32])
    hits = np.zeros(3)
    for _ in range(60):
        p = rates(rng)
        said = reliability(rng.binomial(8, p), 8, k, rng, size=200)
        low, high = said.interval()
        truth = (p[:, None] ** k).mean(axis=0)
        hits += (low <= truth) & (truth <= high)
    np.testing.assert_array_equal(said.extrapolated, [False, False, True])
    low, high = binom.ppf(0.001, 60, 0.87), binom.ppf(0.999, 60, 0.93)
    assert ((low <= hits) & (hits <= high)).all(), hits


def test_reliability_of_flawless_draws_is_not_certain(rng):
    said = reliability(np.full(10, 4), 4, [1, 100], rng)
    low, _ = said.interval()
    assert low[0] < 0.99
    assert low[1] < 0.7


def test_arise_weighs_losses_by_tokens_and_gains_against_them():
    # arXiv:2510.06014: 0 -> 1 with twice the tokens +1/2; 1 -> 0 with twice -2
    scores = arise_scores(
        [[0, 1, 1], [1, 0, 0], [0, 1, 0], [1, 1, 1]],
        [[100, 200, 400], [100, 200, 400], [100, 200, 600], [100, 200, 300]],
    )
    np.testing.assert_allclose(scores, [0.5, -2, 0.5 - 3, 0])
    # means over runs, fewer tokens at the higher level
    assert arise_scores([[0.2, 0.6]], [[300, 150]])[0] == pytest.approx(0.4 * 2)


def test_arise_interval_holds_for_new_problems(rng):
    def draw(problems):
        p = rates(rng, problems)
        a = np.stack([rng.random(problems) < q for q in (p, np.sqrt(p))], axis=1)
        t = 400 * np.exp(0.3 * rng.standard_normal((problems, 2))) * [1, 3]
        return a.astype(float), t

    truth = arise_scores(*draw(400_000)).mean()
    held(100, lambda: covers(arise(*draw(80), rng, size=400), truth))


def test_arise_runs_stop_between_three_and_ten():
    steady, mixed = [100.0] * 3, [1, 0, 0]
    assert needs_another_run([1, 1], [100, 100])
    assert not needs_another_run([1, 1, 1], steady)
    assert needs_another_run(mixed, steady)  # sd / mean of the flags is 1.4
    assert not needs_another_run([1, 0] * 5, [100, 900] * 5)
    with pytest.raises(InputError):
        needs_another_run([1, 0], [100.0])
    with pytest.raises(InputError, match="token count"):
        needs_another_run([1, 0, np.nan], [100.0, 100.0, 100.0])


def test_area_under_curve_is_the_mean_accuracy_in_log_compute(rng):
    compute = [1.0, 10.0, 1000.0]
    flat = area_under_curve(np.full((4, 3), 0.3), compute, rng)
    np.testing.assert_allclose(flat.draws, 0.3)
    same = np.tile([0.0, 0.6, 0.9], (5, 1))
    # trapezia: (0.3 * 1 + 0.75 * 2) / 3 decades
    assert area_under_curve(same, compute, rng).mean[0] == pytest.approx(0.6)
    # half a decade into each: 0.3..0.6 over 1/2, 0.6..0.675 over 1/2
    part = area_under_curve(same, compute, rng, span=(10**0.5, 10**1.5))
    assert part.mean[0] == pytest.approx((0.45 + 0.6375) / 2)
    for bad in ((0.5, 10.0), (10.0, 10.0), (1.0, 2000.0)):
        with pytest.raises(InputError, match="span"):
            area_under_curve(same, compute, rng, span=bad)
    with pytest.raises(InputError, match="rising"):
        area_under_curve(same, [1.0, 1.0, 2.0], rng)
    with pytest.raises(InputError, match="two of them"):
        area_under_curve(same[:1], compute, rng)


def test_area_interval_holds_for_new_problems(rng):
    def draw(problems):
        p = rates(rng, problems)[:, None] ** [1.0, 0.5, 0.25]
        return rng.binomial(4, p) / 4

    compute = [1.0, 4.0, 16.0]
    truth = area_under_curve(draw(400_000), compute, rng, size=1).mean[0]
    held(100, lambda: covers(area_under_curve(draw(80), compute, rng, size=400), truth))


def test_draws_become_attempts():
    nan = np.nan
    correct = [[[1, 0, nan], [1, 1, 0]]]
    tokens = [[[10, 30, nan], [40, 50, 60]]]
    attempts = Attempts.of_draws(correct, tokens, "tokens")
    np.testing.assert_array_equal(attempts.n_correct, [[1, 2]])
    np.testing.assert_array_equal(attempts.n_samples, [[2, 3]])
    np.testing.assert_allclose(attempts.cost, [[20, 50]])
    # squared deviations over the mean: 2 / 4 and 2 / 25, over 1 + 2 degrees of freedom
    spread = np.sqrt((0.5 + 0.08) / 3)
    np.testing.assert_allclose(
        attempts.cost_se, [[spread * 20 / np.sqrt(2), spread * 50 / np.sqrt(3)]]
    )


@pytest.mark.parametrize(
    ("n_correct", "n_samples", "cost"),
    [
        ([3], 2, 1.0),
        ([1.5], 2, 1.0),
        ([np.nan], 2, 1.0),
        ([0], 0, 1.0),
        ([1], 2, 0.0),
        ([1], 2, np.nan),
        ([1, 1], [2, 2, 2], 1.0),
        ([], 2, 1.0),
    ],
)
def test_attempts_that_cannot_be_are_refused(n_correct, n_samples, cost):
    with pytest.raises(InputError):
        Attempts.of(n_correct, n_samples, cost, "usd")


def test_draws_without_a_cost_or_with_an_odd_flag_are_refused():
    with pytest.raises(InputError, match="cost"):
        Attempts.of_draws([[1, 0]], [[1.0, np.nan]], "usd")
    with pytest.raises(InputError):
        Attempts.of_draws([[2, 0]], [[1.0, 1.0]], "usd")
    with pytest.raises(InputError, match="draw of every problem"):
        Attempts.of_draws([[np.nan]], [[1.0]], "usd")
