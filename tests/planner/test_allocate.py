"""The allocation is the optimum of its relaxation; the pacer keeps to what is left."""

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from planner.allocate import Ladder, Pacer, hull, undominated
from planner.models.errors import InfeasibleError, InputError

SEEDS = st.integers(0, 2**32 - 1)


def random_options(rng, n_groups, per_group):
    group = np.repeat(np.arange(n_groups), per_group)
    cost = rng.lognormal(0, 1.5, len(group))
    # costly options are better on the whole, with ties and duds
    accuracy = np.round(
        np.clip(0.2 * np.log1p(cost) + rng.normal(0, 0.15, len(group)), 0, 1), 2
    )
    return group, cost, accuracy


def brute_force_optimum(group, cost, accuracy, weights, budget):
    """The relaxation, written out: a share of every option in every group."""
    n_groups = len(weights)
    each = np.zeros((n_groups, len(group)))
    each[group, np.arange(len(group))] = 1
    w = weights[group]
    best = linprog(
        -w * accuracy, A_ub=[w * cost], b_ub=[budget], A_eq=each, b_eq=np.ones(n_groups)
    )
    assert best.success
    return -best.fun / weights.sum()


@given(seed=SEEDS, n_groups=st.integers(1, 5), fill=st.floats(0, 1.2))
@settings(max_examples=40, deadline=None)
def test_it_is_the_linear_programs_optimum(seed, n_groups, fill):
    rng = np.random.default_rng(seed)
    group, cost, accuracy = random_options(rng, n_groups, 12)
    weights = rng.uniform(0.1, 5, n_groups)
    ladder = Ladder.of_options(group, cost, accuracy, n_groups)
    low, high = ladder.cheapest(weights), ladder.dearest(weights)
    budget = low + fill * (high - low) + 1e-9
    best = ladder.allocate(weights, budget)
    exact = brute_force_optimum(group, cost, accuracy, weights, budget)
    assert best.accuracy == pytest.approx(exact, abs=1e-7)
    # what it says it spends and gets is what its choices add up to, and within the budget
    total = weights.sum()
    parts = [
        (w * s / total, r) for w, c in zip(weights, best.choices, strict=True) for r, s in c
    ]
    assert best.spend == pytest.approx(sum(w * cost[r] for w, r in parts))
    assert best.accuracy == pytest.approx(sum(w * accuracy[r] for w, r in parts))
    assert best.spend * total <= budget * (1 + 1e-9)
    assert sum(len(c) > 1 for c in best.choices) <= 1


@given(seed=SEEDS, budgets=st.lists(st.floats(0, 1.5), min_size=2, max_size=6))
@settings(max_examples=40, deadline=None)
def test_a_larger_budget_never_gives_less(seed, budgets):
    rng = np.random.default_rng(seed)
    ladder = Ladder.of_options(*random_options(rng, 4, 10), 4)
    weights = rng.dirichlet(np.ones(4))
    low, high = ladder.cheapest(weights), ladder.dearest(weights)
    found = [
        ladder.allocate(weights, low + f * (high - low) + 1e-9) for f in sorted(budgets)
    ]
    for smaller, larger in itertools.pairwise(found):
        assert larger.accuracy >= smaller.accuracy - 1e-12
        assert larger.shadow_price <= smaller.shadow_price + 1e-12


@given(seed=SEEDS)
@settings(max_examples=60, deadline=None)
def test_fronts_hold_what_nothing_beats(seed):
    rng = np.random.default_rng(seed)
    _, cost, accuracy = random_options(rng, 1, 15)
    front = undominated(cost, accuracy)
    for i in range(len(cost)):
        beaten = ((cost <= cost[i]) & (accuracy > accuracy[i])).any()
        assert not (i in front and beaten)
    assert (np.diff(cost[front]) > 0).all()
    assert (np.diff(accuracy[front]) > 0).all()
    upper = hull(cost, accuracy)
    assert set(upper.tolist()) <= set(front.tolist())
    slopes = np.diff(accuracy[upper]) / np.diff(cost[upper])
    assert (np.diff(slopes) < 0).all()
    # every option lies on or below the hull
    roof = np.interp(cost, cost[upper], accuracy[upper])
    assert (accuracy <= roof + 1e-9).all()


def test_the_shadow_price_is_the_slope_of_the_next_unit():
    rng = np.random.default_rng(1)
    ladder = Ladder.of_options(*random_options(rng, 3, 10), 3)
    weights = np.array([0.5, 0.3, 0.2])
    middle = (ladder.cheapest(weights) + ladder.dearest(weights)) / 2
    here, more = ladder.allocate(weights, middle), ladder.allocate(weights, middle + 1e-6)
    assert (more.accuracy - here.accuracy) / 1e-6 == pytest.approx(
        here.shadow_price, rel=1e-3
    )
    assert ladder.allocate(weights, 2 * ladder.dearest(weights)).shadow_price == 0


def test_a_budget_below_the_cheapest_options_says_what_is_needed():
    ladder = Ladder.of_options(
        np.array([0, 0, 1]), np.array([2.0, 5.0, 3.0]), np.array([0.1, 0.9, 0.5]), 2
    )
    with pytest.raises(InfeasibleError) as caught:
        ladder.allocate(np.array([10.0, 10.0]), 49.9)
    assert caught.value.nearest == 50.0
    with pytest.raises(InputError, match="group 1"):
        Ladder.of_options(np.array([0]), np.array([1.0]), np.array([0.5]), 2)


def paced_run(rng, ladder, cost, order, budget, reserve, running=1, noise=0.5):
    """A run with random costs; `running` prompts are under way when the next one starts."""
    counts = np.bincount(order, minlength=len(ladder.rows)).tolist()
    pacer = Pacer(ladder, counts, reserve=reserve)
    spent, flying, rows = 0.0, [], []
    for i, g in enumerate(order.tolist()):
        while len(flying) >= running:
            spent += flying.pop(0)[1]
        left = budget - spent - sum(expected for expected, _ in flying)
        rows.append(pacer.choose(g, left, len(order) - i))
        expected = cost[rows[-1]]
        flying.append((expected, expected * rng.gamma(1 / noise**2, noise**2)))
    return np.array(rows), spent + sum(actual for _, actual in flying)


@pytest.mark.parametrize("shape", ["mixed", "sorted", "reversed"])
@pytest.mark.parametrize("running", [1, 40])
def test_the_pacer_uses_the_budget_whatever_the_order(shape, running):
    rng = np.random.default_rng(7)
    group, cost, accuracy = random_options(rng, 5, 12)
    ladder = Ladder.of_options(group, cost, accuracy, 5)
    order = np.sort(rng.choice(5, 300, p=[0.4, 0.25, 0.2, 0.1, 0.05]))
    if shape != "sorted":
        order = order[::-1] if shape == "reversed" else rng.permutation(order)
    weights = np.bincount(order, minlength=5).astype(float)
    budget = (ladder.cheapest(weights) + ladder.dearest(weights)) / 2
    reserve = 0.02 * budget
    promised = ladder.allocate(weights, budget - reserve).accuracy
    used, accuracies = [], []
    for _ in range(20):
        rows, spent = paced_run(rng, ladder, cost, order, budget, reserve, running)
        used.append(spent / budget)
        accuracies.append(accuracy[rows].mean())
        assert (group[rows] == order).all()
    assert 0.95 < np.mean(used) < 1.0
    assert np.mean(accuracies) == pytest.approx(promised, abs=0.01)


def test_the_pacer_splits_a_group_by_share():
    ladder = Ladder.of_options(
        np.zeros(2, int), np.array([1.0, 3.0]), np.array([0.2, 0.8]), 1
    )
    pacer = Pacer(ladder, [100], reserve=0.0)
    left, rows = 150.0, []
    for i in range(100):
        rows.append(pacer.choose(0, left, 100 - i))
        left -= (1.0, 3.0)[rows[-1]]
    assert sum(rows) in (24, 25)  # 100 + 2 n = 150
    assert left >= -1e-9
    # spread out, not first come first served
    assert 10 <= sum(rows[:50]) <= 15


def test_the_pacer_falls_back_to_the_cheapest_when_little_is_left():
    ladder = Ladder.of_options(
        np.zeros(2, int), np.array([1.0, 3.0]), np.array([0.2, 0.8]), 1
    )
    assert Pacer(ladder, [10], reserve=0.0).choose(0, 0.5, 10) == 0


def test_a_choice_takes_microseconds():
    rng = np.random.default_rng(3)
    ladder = Ladder.of_options(*random_options(rng, 12, 400), 12)
    pacer = Pacer(ladder, [1000] * 12, reserve=0.0)
    order = rng.integers(0, 12, 2000).tolist()
    start_s = time.perf_counter()
    for i, g in enumerate(order):
        pacer.choose(g, 20_000.0, 12_000 - i)
    assert (time.perf_counter() - start_s) / len(order) < 500e-6  # about 30 on an idle core
