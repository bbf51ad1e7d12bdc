import numpy as np
import pytest

from planner.models.errors import FitError, InputError
from planner.models.rare import RareSuccess, successes_needed


def near(values, truth):
    """Mean within 4 standard errors of the truth."""
    values = np.asarray(values)
    return abs(values.mean() - truth) < 4 * values.std() / np.sqrt(len(values))


@pytest.mark.parametrize("p", [0.02, 0.3])
def test_estimates_are_unbiased(rng, p):
    n = rng.negative_binomial(3, p, 40_000) + 3
    rare = RareSuccess.fit(np.full(40_000, 3), n, r=3)
    assert near(rare.rate, p)
    assert not near(3 / n, p)  # what a fixed number of draws would suggest
    for k in (1, 5, 20):
        assert near(rare.pass_at_k(k)[:, 0], 1 - (1 - p) ** k)


def test_estimates_are_unbiased_under_a_cap(rng):
    flags = rng.random((20_000, 60)) < 0.04
    total = np.cumsum(flags, axis=1)
    ended = total[:, -1] >= 2
    n = np.where(ended, (total >= 2).argmax(axis=1) + 1, 60)
    rare = RareSuccess.fit(np.minimum(total[:, -1], 2), n, r=2)
    assert near(rare.rate, 0.04)
    for k in (1, 30, 60):
        assert near(rare.pass_at_k(k)[:, 0], 1 - 0.96**k)
    with pytest.raises(InputError, match="k <= 60"):
        rare.pass_at_k(61)
    low, high = rare.interval()
    held = np.mean((low <= 0.04) & (high >= 0.04))
    assert held > 0.9 - 4 * np.sqrt(0.09 / 20_000)
    assert held < 0.98  # not vacuous


def test_known_values():
    rare = RareSuccess.fit([2, 2, 0, 1], [2, 11, 10, 10], r=2)
    np.testing.assert_allclose(rare.rate, [1.0, 0.1, 0.0, 0.1])
    # one success, somewhere in the first ten draws: k failures in front (10 - k) / 10
    np.testing.assert_allclose(rare.pass_at_k([1, 4])[1], [0.1, 0.4])
    np.testing.assert_allclose(rare.pass_at_k([1, 4])[[0, 2]], [[1, 1], [0, 0]])
    low, high = rare.interval()
    assert high[0] == 1.0
    assert low[2] == 0.0
    assert high[2] == pytest.approx(1 - 0.05 ** (1 / 10))


def test_error_of_the_rate_is_as_promised(rng):
    r = successes_needed(0.25)
    assert r == 18
    n = rng.negative_binomial(r, 0.001, 20_000) + r
    rate = RareSuccess.fit(np.full(20_000, r), n, r=r).rate
    assert rate.std() / 0.001 == pytest.approx(0.25, rel=0.05)


def test_predict_reaches_beyond_the_draws(rng):
    n = rng.negative_binomial(5, 0.01, 200) + 5
    guess = RareSuccess.fit(np.full(200, 5), n, r=5).predict([1, 10**4], rng, size=200)
    assert guess.mean[0] == pytest.approx(0.01, rel=0.4)
    assert guess.mean[1] > 0.99
    assert guess.extrapolated.tolist() == [False, bool(n.max() < 10**4)]


def test_what_cannot_be_used_is_refused(rng):
    with pytest.raises(FitError, match="2 successes"):
        RareSuccess.fit([1], [9], r=1)
    with pytest.raises(InputError, match="cannot have more"):
        RareSuccess.fit([4], [9], r=3)
    with pytest.raises(InputError, match="row 0"):
        RareSuccess.fit([np.nan], [9], r=3)
    with pytest.raises(InputError, match="k >= 1"):
        RareSuccess.fit([3], [9], r=3).predict([0], rng)
    with pytest.raises(FitError, match="2 successes"):
        RareSuccess.fit([1], [9], r=np.nan)
    with pytest.raises(InputError, match="at least one problem"):
        RareSuccess.fit([], [], r=2)
    for relative_sd in (0.0, np.inf):
        with pytest.raises(InputError, match="positive"):
            successes_needed(relative_sd)
