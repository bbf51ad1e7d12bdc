import numpy as np
import pytest

from planner.models.errors import InputError
from planner.models.lengths import LengthLaw, Recorded, cap_grid


def of_lengths(tokens):
    tokens = np.asarray(tokens)
    shape = tokens.shape
    return Recorded(
        np.full(shape[0], shape[1]), np.zeros(shape, bool), np.zeros(shape, int), tokens,
        np.full(shape, np.nan),
    )  # fmt: skip


def test_caps_are_quantiles_that_cut_something():
    assert cap_grid(np.arange(1, 101), 100) == (51, 76, 100)  # 91 is too near to 100
    assert cap_grid(np.arange(1, 101), 512) == (51, 76, 91, 512)
    assert cap_grid(np.full(50, 7), 128) == (128,)  # nothing to cut


def test_capped_mean_sd_and_quantiles(rng):
    tokens = rng.integers(1, 100, (30, 16))
    law = LengthLaw.fit(of_lengths(tokens), 128)
    cut = np.minimum(tokens, 40)
    assert law.mean(40) == pytest.approx(cut.mean())
    assert law.sd(40) == pytest.approx(cut.std())
    np.testing.assert_allclose(
        law.quantile([0.1, 0.5, 0.99], 40),
        np.quantile(cut, [0.1, 0.5, 0.99], method="inverted_cdf"),
    )


def test_problems_weigh_alike_whatever_their_draws():
    recorded = Recorded(
        np.array([1, 4]), np.zeros((2, 4), bool), np.zeros((2, 4), int),
        np.array([[10, 0, 0, 0], [20] * 4]), np.full((2, 4), np.nan),
    )  # fmt: skip
    law = LengthLaw.fit(recorded, 32)
    assert law.mean(32) == 15
    mean, variance = recorded.tokens_by_problem()
    assert (mean.tolist(), variance.tolist()) == ([10, 20], [0, 0])


def test_predicted_mean_holds_the_truth_and_flags_a_longer_cap(rng):
    hits, repeats = 0, 200
    for _ in range(repeats):
        tokens = rng.poisson(rng.gamma(4, 10, (40, 1)), (40, 8)) + 1
        prediction = LengthLaw.fit(of_lengths(tokens), 400).predict([400, 500], rng)
        low, high = prediction.interval(0.9)
        hits += int(low[0] <= 41 <= high[0])
    assert abs(hits / repeats - 0.9) < 4 * np.sqrt(0.09 / repeats)
    assert prediction.extrapolated.tolist() == [False, True]


def test_bad_shapes_are_refused():
    with pytest.raises(InputError, match="one shape"):
        Recorded(np.array([2]), np.zeros((1, 2), bool), np.zeros((1, 3), int),
                 np.zeros((1, 2), int), np.zeros((1, 2)))  # fmt: skip
    with pytest.raises(InputError, match="recorded draws"):
        Recorded(np.array([0]), np.zeros((1, 2), bool), np.zeros((1, 2), int),
                 np.zeros((1, 2), int), np.zeros((1, 2)))  # fmt: skip
    with pytest.raises(InputError):
        LengthLaw.fit(of_lengths(np.zeros((0, 4), int)), 8)
