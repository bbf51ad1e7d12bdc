import numpy as np

from planner.models.coverage_baselines import NLS_POWER_LAW, Observed
from planner.models.stacking import toward_power_law

COUNTS = np.array([0, 0, 0, 1, 2, 4, 8, 0, 1, 3])
DRAWS = np.linspace(0.5, 0.7, 101)[:, None] + np.zeros(3)
K = np.array([4.0, 32.0, 1024.0])


def test_the_centre_moves_a_third_of_the_way_and_only_beyond_the_draws():
    moved = toward_power_law(DRAWS, K, COUNTS, np.full(10, 8))
    power_law = NLS_POWER_LAW.forecast(Observed.of(COUNTS, 8), K[1:])
    np.testing.assert_array_equal(moved[:, 0], DRAWS[:, 0])
    assert 0.63 < power_law[0] < 0.8  # near enough to be reached
    assert np.isclose(moved[:, 1].mean(), (2 * 0.6 + power_law[0]) / 3, atol=0.002)
    assert set(moved[:, 1]) <= set(DRAWS[:, 1])  # nothing that did not occur
    assert (np.diff(moved[:, 1]) >= 0).all()  # ranks kept


def test_nothing_moves_without_a_curve_to_go_by():
    for counts, samples in (
        (COUNTS, np.arange(8, 18)),  # unequal: the mean curve is biased
        (np.zeros(10, int), np.full(10, 8)),  # no power law
        (np.minimum(COUNTS, 2), np.full(10, 2)),  # too short
    ):
        np.testing.assert_array_equal(toward_power_law(DRAWS, K, counts, samples), DRAWS)


def test_draws_stay_probabilities():
    moved = toward_power_law(np.full((9, 1), 0.999), K[2:], COUNTS, np.full(10, 8))
    assert ((moved >= 0) & (moved <= 1)).all()
