import numpy as np
import pytest

from planner.models.importance import explore, normal_lattice, shares


def log_normal_density(x, mean, covariance):
    off = x - mean
    return -0.5 * np.einsum("ni,ij,nj->n", off, np.linalg.inv(covariance), off)


@pytest.mark.parametrize("d", [1, 2, 4])
def test_the_lattice_is_standard_normal_and_evener_than_chance(d):
    z = normal_lattice(2048, d)
    by_chance = 1 / np.sqrt(2048)  # standard error of a mean of random points
    assert np.abs(z.mean(axis=0)).max() < by_chance / 2
    assert np.abs(np.cov(z.T) - np.eye(d)).max() < 4 * by_chance
    assert np.quantile(z, 0.95, axis=0) == pytest.approx([1.645] * d, abs=4 * by_chance)


@pytest.mark.parametrize("far", [0.0, 1.0])
@pytest.mark.parametrize("scale", [0.05, 1.0])
def test_a_normal_posterior_is_found_far_from_the_start_and_narrow(far, scale):
    mean = np.array([1.0, -2.0, 0.5, 3.0]) + far
    covariance = scale**2 * np.array([
        [1.0, 0.7, 0.0, 0.2], [0.7, 1.0, 0.1, 0.0],
        [0.0, 0.1, 0.5, 0.0], [0.2, 0.0, 0.0, 2.0],
    ])  # fmt: skip

    def target(x):
        return log_normal_density(x, mean, covariance)

    points = explore(target, np.zeros(4), np.eye(4), 2048)
    share = shares(target(points.x) - points.log_proposal)
    found = share @ points.x
    off = points.x - found
    effective = 1 / (share**2).sum()
    assert effective > 200
    sd = np.sqrt(np.diag(covariance))
    assert (np.abs(found - mean) < 4 * sd / np.sqrt(effective)).all()
    spread = (share[:, None] * off).T @ off
    assert np.abs(spread - covariance).max() < 4 * covariance.max() * np.sqrt(2 / effective)


def test_weights_give_the_integral_of_the_target():
    covariance = np.diag([0.3, 2.0])

    def target(x):
        return log_normal_density(x, np.array([2.0, -1.0]), covariance)

    points = explore(target, np.zeros(2), np.eye(2), 4096)
    # proposals leave out (2 pi)^(d / 2), as the target does
    integral = np.exp(target(points.x) - points.log_proposal).mean()
    assert integral == pytest.approx(np.sqrt(np.linalg.det(covariance)), rel=0.03)


def test_both_humps_of_a_target_are_kept():
    def target(x):
        return np.logaddexp(-0.5 * (x[:, 0] + 2) ** 2, -0.5 * (x[:, 0] - 2) ** 2)

    points = explore(target, np.zeros(1), np.eye(1), 1024)
    share = shares(target(points.x) - points.log_proposal)
    assert share @ (points.x[:, 0] > 0) == pytest.approx(0.5, abs=0.05)
    assert share @ points.x[:, 0] ** 2 == pytest.approx(5.0, abs=0.3)


def test_the_same_target_gives_the_same_points():
    def target(x):
        return -np.abs(x).sum(axis=1)

    first, second = (explore(target, np.ones(3), np.eye(3), 256) for _ in range(2))
    np.testing.assert_array_equal(first.x, second.x)


def test_shares_of_huge_log_weights_add_to_one():
    share = shares(np.array([-1e4, 1e4, 1e4 - np.log(3)]))
    np.testing.assert_allclose(share, [0, 0.75, 0.25])
