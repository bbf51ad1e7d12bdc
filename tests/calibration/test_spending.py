"""Where the next draws go, and that choosing by counts biases nothing."""

import time

import numpy as np
import pytest

from planner.calibration.spending import allocate, next_round, widths
from planner.models.counts import CountTable
from planner.models.coverage import fit_pooled
from planner.models.errors import InputError
from planner.models.forecast import fit_coverage

K = 100


def drawn(rng, p, n, cell=None):
    return CountTable.of(rng.binomial(n, p), n, cell=cell)


def test_draws_go_to_what_is_not_known():
    """A solved problem says nothing of coverage; an unsolved one does."""
    table = CountTable.of([8] * 20 + [0] * 20 + [1] * 10, 8)
    add = allocate(table, k=K, quota=80, n_max=64, step=8)
    assert add[:20].sum() == 0
    assert add[20:40].sum() == 80
    assert set(add.tolist()) <= {0, 8, 16, 24, 32}


def test_accuracy_of_one_draw_asks_for_the_undecided():
    table = CountTable.of([8] * 20 + [0] * 20 + [4] * 20, 8)
    add = allocate(table, k=1, quota=160, n_max=64, step=8)
    assert add[40:].sum() == 160


def test_the_wider_cell_gets_more():
    sure, unsure = [8] * 30 + [0] * 2, [8] * 4 + [0] * 28
    table = CountTable.of(sure + unsure, 8, cell=[0] * 32 + [1] * 32)
    add = allocate(table, k=K, quota=160, n_max=64, step=8)
    assert add[32:].sum() > 3 * add[:32].sum()


def test_gains_are_those_of_a_simulation(rng):
    """Cov(Q, z)^2 / var(z) from draws of everything that is uncertain."""
    k, n = 10, 8
    counts = np.repeat([0, 1, 3, 8], [12, 6, 5, 17])
    table = CountTable.of(counts, n)
    law = fit_pooled(counts, np.full(40, n), table.cell, table.benchmark)[0]
    a, b = law.shapes(rng, 100_000)
    p = rng.beta(a + counts, b + n - counts)
    q = ((1 - p) ** k).mean(axis=1)
    gain = {
        int(c): np.cov(q, p[:, i])[0, 1] ** 2 / (p[:, i].mean() * (1 - p[:, i].mean()))
        for c, i in zip(*np.unique(counts, return_index=True), strict=True)
    }
    order = sorted(gain, key=gain.__getitem__, reverse=True)
    quota = 0
    for i, c in enumerate(order[:-1]):  # each kind is exhausted before the next is touched
        quota += int((counts == c).sum())
        add = allocate(table, k=k, quota=quota, n_max=n + 1, step=1)
        assert set(counts[add > 0].tolist()) == set(order[: i + 1])


@pytest.mark.parametrize("quota", [1, 7, 8, 100, 10_000])
def test_a_quota_is_kept_and_no_problem_passes_its_most(rng, quota):
    table = drawn(rng, rng.beta(0.3, 1.0, 60), 8, np.repeat([0, 1, 2], 20))
    add = allocate(table, k=K, quota=quota, n_max=30, step=8)
    assert (add >= 0).all()
    assert (table.n_samples + add).max() <= 30
    room = int((30 - table.n_samples).sum())
    assert min(quota, room) <= add.sum() < quota + 8
    again = allocate(table, k=K, quota=quota, n_max=30, step=8)
    np.testing.assert_array_equal(add, again)


def test_nothing_is_left_to_draw(rng):
    table = CountTable.of([3, 0, 1], 4)
    assert allocate(table, k=K, quota=10, n_max=4, step=8).sum() == 0
    spending = next_round(table, ks=[K], until_width=0.01, n_max=4, step=8, rng=rng)
    assert not spending.reached
    assert spending.add.sum() == 0


@pytest.mark.parametrize("c", [0, 8])
def test_counts_that_say_little_still_get_draws(rng, c):
    table = CountTable.of([c] * 10, 8)
    spending = next_round(table, ks=[1, K], until_width=0.001, n_max=64, step=8, rng=rng)
    assert spending.add.sum() >= 8


def test_a_target_reached_ends_it(rng):
    table = drawn(rng, rng.beta(2, 2, 200), 16)
    spending = next_round(table, ks=[16], until_width=0.5, n_max=64, step=8, rng=rng)
    assert spending.reached
    assert spending.add.sum() == 0
    assert spending.widest.value <= 0.5


def test_no_more_is_drawn_than_the_target_is_expected_to_need(rng):
    table = drawn(rng, rng.beta(0.4, 1.2, 200), 8)
    some, most, least = (
        allocate(table, k=K, quota=1600, n_max=64, step=8, enough=enough, least=n).sum()
        for enough, n in ((0.2, 8), (1.0, 8), (1e-6, 160))
    )
    assert 160 == least < some < most == 1600


@pytest.mark.parametrize("width", [0.0, 1.0, -1.0, float("nan")])
def test_a_width_must_make_sense(rng, width):
    table = CountTable.of([1, 2], 4)
    with pytest.raises(InputError, match="until_width"):
        next_round(table, ks=[4], until_width=width, n_max=8, step=8, rng=rng)
    with pytest.raises(InputError, match="at least one k"):
        widths(table, [], rng)
    with pytest.raises(InputError, match="quota"):
        allocate(table, k=0, quota=8, n_max=8, step=8)


def spend(rng, p, k, until_width, rounds=20, n_max=64):
    """Draw until the interval is narrow; the counts and whether it was reached."""
    c, n = rng.binomial(8, p), np.full(len(p), 8)
    for _ in range(rounds):
        table = CountTable.of(c, n)
        spending = next_round(
            table, ks=[k], until_width=until_width, n_max=n_max, step=8, rng=rng
        )
        if not spending.add.any():
            break
        c, n = c + rng.binomial(spending.add, p), n + spending.add
    return CountTable.of(c, n), spending


def test_adaptive_counts_forecast_without_bias_but_plain_means_do_not(rng):
    """The likelihood ignores how draws were chosen; a mean of n_correct / n does not.

    The first stage is fair to plain means too.
    """
    k, runs = 30, 40
    off: dict[str, list[float]] = {"one draw": [], "k draws": [], "first": [], "plain": []}
    for _ in range(runs):
        p = rng.beta(0.4, 0.6, 80)
        first = rng.binomial(8, p)
        c, n = first.copy(), np.full(80, 8)
        for _ in range(3):
            add = allocate(CountTable.of(c, n), k=k, quota=320, n_max=64, step=8)
            c, n = c + rng.binomial(add, p), n + add
        (forecast,) = fit_coverage(CountTable.of(c, n))
        one, many = forecast.predict([1, k], rng).mean
        off["one draw"].append(one - p.mean())
        off["k draws"].append(many - (1 - (1 - p) ** k).mean())
        off["first"].append((first / 8 - p).mean())
        off["plain"].append((c / n - p).mean())
    z = {name: np.mean(x) / np.std(x, ddof=1) * np.sqrt(runs) for name, x in off.items()}
    assert max(abs(z["one draw"]), abs(z["k draws"]), abs(z["first"])) < 4
    assert z["plain"] > 4


def test_the_interval_holds_although_we_stop_when_it_is_narrow(rng):
    k, runs, hits, reached = 64, 20, 0, 0
    for _ in range(runs):
        p = rng.beta(0.4, 1.2, 100)
        _, spending = spend(rng, p, k, until_width=0.07)
        reached += spending.reached
        truth = (1 - (1 - p) ** k).mean()
        hits += spending.widest.low <= truth <= spending.widest.high
    assert reached > runs / 2
    sd = np.sqrt(0.9 * 0.1 / runs)
    assert hits / runs > 0.9 - 3 * sd


def test_draws_needed_are_fewer_than_uniform_ones(rng):
    adaptive, uniform = [], []
    for _ in range(3):
        p = rng.beta(0.4, 1.2, 100)
        table, spending = spend(rng, p, 64, until_width=0.05, n_max=256)
        assert spending.reached
        adaptive.append(table.n_samples.sum())
        c, n = rng.binomial(8, p), 8
        while widths(CountTable.of(c, n), [64], rng)[0].value > 0.05:
            c, n = c + rng.binomial(8, p), n + 8
        uniform.append(n * len(p))
    assert np.mean(adaptive) < 0.85 * np.mean(uniform)


def test_ten_thousand_problems_of_ten_models_are_decided_in_a_second(rng):
    cell = np.repeat(np.arange(10), 10_000)
    p = rng.beta(0.3, 1.0, len(cell))
    n = rng.choice([8, 16, 24, 32, 64], len(cell))
    table = CountTable.of(rng.binomial(n, p), n, cell=cell)
    start = time.process_time()
    add = allocate(table, k=1000, quota=1_000_000, n_max=128, step=8)
    assert time.process_time() - start < 1
    assert add.sum() >= 1_000_000
