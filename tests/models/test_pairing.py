import numpy as np
import pytest
from scipy.special import logsumexp, ndtr

from planner.models.pairing import (
    EASE,
    Seen,
    ease_from_others,
    given_ease,
    loading_of,
    log_likelihood,
)
from planner.models.shapes import P, Shapes, binomial

BY_EASE = np.exp(-(EASE**2) / 2 - logsumexp(-(EASE**2) / 2))  # a normal on the grid
SHAPE = Shapes.of(np.array([[np.log(0.4), -0.5, -6.0, -3.0]]))


def seen(c, n, problem=None):
    pairs, index = np.unique(np.stack([c, n], axis=1), axis=0, return_inverse=True)
    numbers = np.arange(len(c)) if problem is None else np.asarray(problem)
    pairs = pairs.astype(float)
    return Seen(
        binomial(*pairs.T), (pairs[:, 0] == 0).astype(float), index.ravel(), numbers
    )


def draw(rng, loading, problems=150, n=16, models=3):
    """Counts of models whose problems' ranks follow the one-factor copula."""
    ease = rng.standard_normal(problems)
    upto = np.cumsum(np.concatenate([SHAPE.hopeless, SHAPE.weight[0]]))
    rates = np.concatenate([[0.0], P])
    tables = []
    for _ in range(models):
        own = loading * ease + np.sqrt(1 - loading**2) * rng.standard_normal(problems)
        p = rates[np.minimum(np.searchsorted(upto, ndtr(own)), len(P))]
        tables.append(seen(rng.binomial(n, p), np.full(problems, n)))
    return tables


@pytest.mark.parametrize("loading", [0.0, 0.6, 0.97])
def test_over_all_eases_the_problems_are_those_of_the_shape(loading):
    split = given_ease(SHAPE, loading)
    k = np.array([1.0, 10, 1000])
    # the grid of ease leaves out 0.14 % of a normal, and is coarse at a narrow rest
    tolerance = 0.003 if loading < 0.9 else 0.01
    np.testing.assert_allclose(
        BY_EASE @ split.unsolved(k), SHAPE.unsolved(k)[0], atol=tolerance
    )


def test_easier_problems_are_solved_more_often_unless_nothing_is_shared():
    k = np.array([5.0])
    assert (np.diff(given_ease(SHAPE, 0.75).unsolved(k)[:, 0]) < 0).all()
    assert np.ptp(given_ease(SHAPE, 0.0).unsolved(k)) < 1e-9


def test_the_loading_is_found_in_the_counts(rng):
    means = [SHAPE] * 3
    assert loading_of(means, draw(rng, 0.0)) <= 0.4
    assert loading_of(means, draw(rng, 0.92)) >= 0.85


def test_a_problem_that_no_other_solves_is_hard_and_one_that_all_solve_is_easy():
    others = seen(np.array([0, 8, 16]), np.full(3, 16))
    own = seen(np.array([0, 0, 0]), np.full(3, 1))
    ease, _ = ease_from_others([SHAPE, SHAPE], [own, others], 0.85)
    np.testing.assert_allclose(ease.sum(axis=1), 1)
    means = ease @ EASE
    assert means[0] < -0.5 < means[1] < means[2]


def test_own_counts_do_not_speak_for_themselves():
    """What the others say of a problem may not hold the cell's own draws."""
    others = seen(np.array([3, 3]), np.full(2, 16))
    for counts in ([0, 0], [16, 16]):
        own = seen(np.array(counts), np.full(2, 16))
        ease, _ = ease_from_others([SHAPE, SHAPE], [own, others], 0.85)
        alone = ease_from_others([SHAPE], [others], 0.85)
        np.testing.assert_allclose(alone[0], np.tile(BY_EASE, (2, 1)))
        table = given_ease(SHAPE, 0.85).likelihood(others.binomial, others.none)[:, 0]
        np.testing.assert_allclose(ease[0], BY_EASE * table / (BY_EASE @ table), rtol=1e-9)


def test_nothing_known_of_ease_is_the_plain_likelihood(rng):
    own = seen(rng.binomial(16, 0.3, 40), np.full(40, 16))
    shapes = Shapes.of(rng.normal(size=(70, 4)) * 0.5 + [-1, -0.5, -6, -3])
    plain = np.log(shapes.likelihood(own.binomial, own.none))[:, own.pair].sum(axis=1)
    unknown = np.tile(BY_EASE, (40, 1))
    # a constant apart: the grid leaves out 0.14 % of a normal
    assert np.ptp(log_likelihood(shapes, own, unknown, 0.6) - plain) < 0.01
