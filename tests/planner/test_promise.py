"""A promise holds on fresh prompts, in accuracy and in spend."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from planner.allocate import Ladder
from planner.options import build_options, known_groups
from planner.promise import (
    Mix,
    accuracy_interval,
    spend_interval,
    whole_counts,
)  # fmt: skip

Z = 3.5  # standard errors; two-sided chance of 5e-4


def ladder_of(table, unit="eflop"):
    return Ladder.of_options(
        table.group, table.column(unit), table.accuracy, len(table.groups)
    )


@pytest.fixture
def world(known_laws, rng):
    """A table whose accuracies are taken for the truth, and its twin with other noise."""
    laws = known_laws(rng, n_problems=15, true_problems=50).laws
    groups = known_groups(laws)
    truth = build_options(laws, groups, np.random.default_rng(1), n_draws=400)
    return truth, build_options(laws, groups, np.random.default_rng(2), n_draws=400)


def test_intervals_hold_the_fresh_result_as_often_as_they_say(known_laws):
    n_prompts, repeats, hits = 150, 70, 0
    rng = np.random.default_rng(11)
    truth = known_laws(rng, n_problems=10, true_problems=20_000).truth
    for seed in range(repeats):
        # a whole calibration of 40 problems a class, then prompts nobody measured
        laws = known_laws(np.random.default_rng(seed), n_problems=40, true_problems=5).laws
        groups = known_groups(laws)
        table = build_options(laws, groups, np.random.default_rng(seed), n_draws=200)
        shares = np.full(len(groups), 1 / len(groups))
        best = ladder_of(table).allocate(shares, 2e8)
        mix = Mix.of(best, shares)
        promise = accuracy_interval(table, mix, n_prompts=n_prompts, rng=rng)
        rates = []
        for row in mix.rows.tolist():
            p = table.points[row]
            o = p.option
            key = (*p.group, o.model, o.strategy, o.n, o.max_tokens, o.temperature)
            rates.append(truth[key])
        counts = whole_counts(mix.weights.tolist(), n_prompts)
        correct = int(rng.binomial(counts, rates).sum())
        hits += promise.low <= correct / n_prompts <= promise.high
    low, high = stats.binom.ppf([0.001, 0.999], repeats, 0.9)
    assert low <= hits <= high


def test_fresh_prompts_add_their_own_luck(world, rng):
    table, _ = world
    mix = Mix(rows=table.rows_of[1][:1], weights=np.ones(1))
    exact = replace(
        table, accuracy_sd=np.zeros(len(table)), accuracy=np.full(len(table), 0.4)
    )
    certain = accuracy_interval(exact, mix)
    assert certain.low == pytest.approx(0.4)
    assert certain.high == pytest.approx(0.4)
    fresh = accuracy_interval(exact, mix, n_prompts=50, rng=rng)
    low, high = stats.binom.ppf([0.05, 0.95], 50, 0.4) / 50
    assert fresh.low == pytest.approx(low, abs=0.021)  # a prompt either way: 400 draws
    assert fresh.high == pytest.approx(high, abs=0.021)


def test_spend_is_capped_and_its_interval_holds(world, rng):
    table, _ = world
    rows = np.array(
        [
            r[4 if task == "code" else 0]
            for (task, _), r in zip(table.groups, table.rows_of, strict=True)
        ],
        np.intp,
    )  # best of 16, which stops early, and single draws
    mix = Mix(rows=rows, weights=np.full(len(rows), 1 / len(rows)))
    n = 120
    promise = spend_interval(table, mix, "tokens", n_prompts=n, cap=1e12)
    counts = whole_counts(mix.weights.tolist(), n)
    hits, repeats = 0, 200
    for _ in range(repeats):
        total = 0.0
        for row, count in zip(rows.tolist(), counts.tolist(), strict=True):
            p = table.points[row]
            mean, sd = p.output_tokens, p.output_tokens_sd
            off = rng.normal(1, sd / mean / np.sqrt(p.n_problems))  # of the measured mean
            tokens = rng.gamma((mean / sd) ** 2, sd**2 / mean, count) * off
            draws = p.draws * (tokens / mean if p.option.strategy == "best_of_n" else 1.0)
            total += float(np.sum(tokens + draws * p.prompt_tokens))
        hits += promise.low <= total <= promise.high
    assert hits >= stats.binom.ppf(0.001, repeats, 0.9)
    capped = spend_interval(table, mix, "tokens", n_prompts=n, cap=promise.mean * 0.9)
    assert capped.high == capped.mean == pytest.approx(promise.mean * 0.9)


def test_whole_counts_add_up():
    assert whole_counts([0.5, 0.3, 0.2], 7).tolist() == [4, 2, 1]
    assert whole_counts([1, 1, 1], 2).sum() == 2
