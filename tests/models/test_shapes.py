import numpy as np
import pytest
from scipy.special import betaln, expit

from planner.models.shapes import P, Shapes, X, binomial

STRAIGHT, NONE = -30.0, -40.0  # log g and logit h that are all but no bend, no hopeless


def beta_shape(a, m, log_g=STRAIGHT, logit_h=NONE):
    return Shapes.of(np.array([[np.log(a), np.log(m / (1 - m)), log_g, logit_h]]))


@pytest.mark.parametrize(
    ("a", "m"), [(0.2, 0.3), (0.5, 0.05), (1, 0.5), (2, 0.9), (20, 0.5)]
)
def test_without_bend_and_hopeless_problems_a_shape_is_a_beta(a, m):
    k = np.array([1.0, 2, 10, 100, 1e4, 1e6])
    b = a * (1 - m) / m
    unsolved = np.exp(betaln(a, b + k) - betaln(a, b))
    np.testing.assert_allclose(beta_shape(a, m).unsolved(k)[0], unsolved, atol=3e-4)


def test_a_uniform_shape_makes_every_count_as_likely():
    c = np.arange(8.0)
    likely = beta_shape(1, 0.5).likelihood(binomial(c, np.full(8, 7.0)), c == 0)
    np.testing.assert_allclose(likely[0], 1 / 8, rtol=1e-6)


def test_counts_of_any_shape_have_chances_that_add_to_one(rng):
    theta = rng.normal(size=(50, 4)) * [1, 3, 3, 3] + [-1, -1, -5, -4]
    c = np.arange(21.0)
    likely = Shapes.of(theta).likelihood(binomial(c, np.full(21, 20.0)), c == 0)
    np.testing.assert_allclose(likely.sum(axis=1), 1)


def test_far_out_parameters_still_give_shares():
    theta = np.array([
        [-90.0, 90, 90, 90], [90, -90, -90, -90], [90, 90, 90, -90], [-90, -90, 90, 0]
    ])  # fmt: skip
    shapes = Shapes.of(theta)
    np.testing.assert_allclose(shapes.weight.sum(axis=1) + shapes.hopeless, 1)
    assert np.isfinite(shapes.unsolved(np.array([1.0, 1e9]))).all()


def test_draws_to_success_adds_up_the_chances_to_go_on(rng):
    theta = rng.normal(size=(20, 4)) * [1, 2, 2, 2] + [-1, -1, -5, -4]
    shapes, n = Shapes.of(theta), 300
    going_on = np.cumsum(shapes.unsolved(np.arange(n, dtype=float)), axis=1)
    made = shapes.draws_to_success(np.array([1.0, 7, n]))
    np.testing.assert_allclose(made, going_on[:, [0, 6, n - 1]], rtol=1e-9)


def test_hopeless_problems_are_what_no_number_of_draws_solves():
    left = beta_shape(2.0, 0.5, logit_h=-2.0).unsolved(np.array([1e7]))
    assert left[0, 0] == pytest.approx(expit(-2.0), rel=1e-3)


def test_a_bend_makes_the_tail_fall_ever_faster():
    k = np.array([1e2, 1e3, 1e4, 1e5])
    slopes = [
        -np.diff(np.log(beta_shape(0.3, 0.3, log_g).unsolved(k)[0])) / np.log(10)
        for log_g in (STRAIGHT, np.log(0.1))
    ]
    np.testing.assert_allclose(slopes[0], 0.3, atol=0.02)  # a power law of exponent a
    assert (np.diff(slopes[1]) > 0.05).all()


def test_a_mixture_of_shapes_is_one_shape(rng):
    shapes = Shapes.of(rng.normal(size=(3, 4)) - 2)
    share, k = np.array([0.5, 0.2, 0.3]), np.array([1.0, 30.0])
    np.testing.assert_allclose(
        shapes.mean(share).unsolved(k)[0], share @ shapes.unsolved(k)
    )
    np.testing.assert_array_equal(shapes.take(np.array([2])).weight[0], shapes.weight[2])


def test_the_grid_holds_rates_from_never_to_always():
    assert P[0] < 1e-7
    assert P[-1] > 1 - 1e-10
    np.testing.assert_allclose(P, 1 - np.exp(-X))
