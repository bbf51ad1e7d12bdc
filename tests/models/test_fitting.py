import numpy as np
import pytest

from planner.models.artifact import HoldoutRow
from planner.models.diagnostics import by_quantity, coverage_abs_error, interval_coverage
from planner.models.errors import NotMeasuredError
from planner.models.fitting import (
    Quadratic,
    minimise_many,
    ridge,
    shrink,
    weigh_problems,
)


def test_many_minima_are_found_at_once(rng):
    centre = rng.normal(0, 3, (50, 2))

    def objective(x):
        off = (
            x - centre
        )  # log cosh: convex, flat far out, where a full Newton step overshoots
        hessian = np.zeros((50, 2, 2))
        hessian[:, [0, 1], [0, 1]] = 1 / np.cosh(off) ** 2
        return Quadratic(np.log(np.cosh(off)).sum(axis=1), np.tanh(off), hessian)

    found = minimise_many(objective, np.zeros((50, 2)))
    assert found.converged.all()
    np.testing.assert_allclose(found.x, centre, atol=1e-4)


def test_an_objective_without_minimum_does_not_converge():
    def objective(x):
        return Quadratic(-x[:, 0], np.full((1, 1), -1.0), np.zeros((1, 1, 1)))

    assert not minimise_many(objective, np.zeros((1, 1))).converged[0]


@pytest.mark.parametrize("scatter", [0.0, 0.5, 3.0])
def test_shrinking_beats_both_ends(rng, scatter):
    alone = toward = shrunk = 0.0
    for _ in range(200):
        sd = rng.uniform(0.3, 2, 20)
        truth = rng.normal(0, scatter, 20) if scatter else np.zeros(20)
        estimate = rng.normal(truth, sd)
        result = shrink(estimate, sd, np.zeros(20))
        assert ((result.weight >= 0) & (result.weight <= 1)).all()
        alone += ((estimate - truth) ** 2).sum()
        toward += (truth**2).sum()
        shrunk += ((result.value - truth) ** 2).sum()
    assert shrunk < alone
    if scatter:
        assert shrunk < 1.02 * toward


def test_one_estimate_is_not_shrunk_onto_its_target():
    result = shrink(np.array([1.0]), np.array([0.1]), np.array([0.0]))
    assert result.value[0] > 0.5


def test_ridge_without_penalty_is_least_squares(rng):
    x = rng.normal(size=(30, 3))
    y = x @ [1.0, -2.0, 0.5]
    np.testing.assert_allclose(ridge(x, y, np.ones(30), 0.0), [1.0, -2.0, 0.5])
    assert np.abs(ridge(x, y, np.ones(30), 1e9)).max() < 1e-6


def row(quantity, predicted, observed, low=0.0, high=1.0):
    return HoldoutRow(
        model="m", task="t", quantity=quantity, n=4, predicted=predicted, low=low,
        high=high, observed=observed, n_problems=10,
    )  # fmt: skip


def test_diagnostics_read_the_table():
    rows = [
        row("coverage", 0.5, 0.6), row("coverage_further_draws", 0.5, 0.8, high=0.7),
        row("self_consistency", 0.5, 0.5), row("latency", 3.0, 9.0),
    ]  # fmt: skip
    assert coverage_abs_error(rows) == pytest.approx(0.2)
    assert interval_coverage(rows) == pytest.approx(2 / 3)  # latency is not a share
    assert {q: len(r) for q, r in by_quantity(rows).items()}["latency"] == 1
    with pytest.raises(NotMeasuredError):
        coverage_abs_error(rows[2:])


def test_problems_weigh_alike_and_leave_room_for_others(rng):
    weight, right = weigh_problems(4, 20_000, rng)
    np.testing.assert_allclose(weight.mean(axis=0), 1 / 4.5, atol=0.004)
    assert right.mean() == pytest.approx(0.25 / 4.5, abs=0.004)
    never = 1 - weight.sum(axis=1) - right[:, 0]
    assert never.min() > -1e-12
    assert never.mean() == pytest.approx(0.25 / 4.5, abs=0.004)
