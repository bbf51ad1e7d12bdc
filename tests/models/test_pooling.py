import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm
from scipy.stats import t as student

from planner.models.importance import Points
from planner.models.pooling import SORTED, WHOLE, Level, log_prior_alone, pool


def points(rng, log_a, size=400):
    """Shapes along the tail exponent, evenly: the likelihood decides alone."""
    theta = np.tile([0.0, -1.0, np.log(0.004), -4.5], (size, 1))
    theta[:, 0] = np.linspace(*log_a, size)
    return Points(theta, np.zeros(size))


def mean_tail(share, cell):
    return float(share @ cell.x[:, 0])


def likelihood(cell, centre, sd):
    return -0.5 * ((cell.x[:, 0] - centre) / sd) ** 2


def test_a_starved_cell_follows_its_siblings(rng):
    grid = points(rng, (-5, 2))
    known = [likelihood(grid, centre, 0.1) for centre in (-0.5, -0.4, -0.6, -0.5)]
    nothing = np.zeros(len(grid.x))
    log_mean = -np.log1p(np.exp(1.0))  # that of the points: the line does not tilt
    alone = pool([grid], [nothing], log_mean, WHOLE)[0]
    together = pool([grid] * 5, [*known, nothing], log_mean, WHOLE)[-1]
    assert mean_tail(alone, grid) == pytest.approx(WHOLE.mean, abs=0.15)
    assert mean_tail(together, grid) > mean_tail(alone, grid) + 0.5
    spread = [
        np.sqrt(s @ (grid.x[:, 0] - mean_tail(s, grid)) ** 2) for s in (alone, together)
    ]
    assert spread[1] < 0.85 * spread[0]


def test_a_well_measured_cell_keeps_its_own_tail(rng):
    grid = points(rng, (-5, 2))
    likely = [likelihood(grid, -0.5, 0.05), *(likelihood(grid, -2.5, 0.05),) * 3]
    share = pool([grid] * 4, likely, -1.3, WHOLE)
    assert mean_tail(share[0], grid) == pytest.approx(-0.5, abs=0.05)


def test_the_prior_of_a_single_cell_is_its_level_and_scatter(rng):
    """Against the integral over the level, by hand: a normal and a Student about it.

    Its own counts weigh in once, as the likelihood, and not as evidence of the level.
    """
    grid = points(rng, (-4, 1), size=801)
    log_mean = -np.log1p(np.exp(1.0))
    likely = likelihood(grid, -2.8, 0.5)
    share = pool([grid], [likely], log_mean, WHOLE)[0] / np.exp(likely)
    at = [100, 400, 600]
    level, half = norm(WHOLE.mean, WHOLE.sd), 2.5 * WHOLE.sd
    density = [
        quad(
            lambda u, x=x: level.pdf(u) * student.pdf((x - u) / 0.3, 3),
            WHOLE.mean - half, WHOLE.mean + half,
        )[0]
        for x in grid.x[at, 0]
    ]  # fmt: skip
    # 21 levels, those at the ends with full weight, stand for the integral
    np.testing.assert_allclose(share[at] / share[400], np.array(density) / density[1], 0.05)


def test_permuting_cells_permutes_the_posteriors(rng):
    cells = [points(rng, (-4, 1)) for _ in range(4)]
    likely = [likelihood(c, x, 0.3) for c, x in zip(cells, (-2, -1, 0, -3), strict=True)]
    order = [2, 0, 3, 1]
    straight = pool(cells, likely, -1.0, SORTED)
    moved = pool([cells[i] for i in order], [likely[i] for i in order], -1.0, SORTED)
    for i, share in zip(order, moved, strict=True):
        np.testing.assert_allclose(share, straight[i], rtol=1e-9)
        assert share.sum() == pytest.approx(1)


def test_a_prior_is_highest_at_its_level():
    theta = np.tile([0.0, -2.0, np.log(0.004), -4.5], (200, 1))
    theta[:, 0] = np.linspace(-4, 1, 200)
    for level in (WHOLE, SORTED, Level(-3.0, 0.2)):
        best = theta[np.argmax(log_prior_alone(theta, level)), 0]
        assert best == pytest.approx(level.mean, abs=0.03)
        mean, covariance = level.proposal()
        assert mean[0] == level.mean
        assert covariance[0, 0] > level.sd**2
