"""The backtest: what it draws, what it compares with, and whom it leaves out."""

import math

import numpy as np
import pandas as pd
import pytest

from planner.calibration.backtest import OURS, Backtest, Row, backtest
from planner.calibration.counts_file import NamedCounts, SetName
from planner.models.counts import CountTable
from planner.models.coverage import pass_at_k
from planner.models.coverage_baselines import PUBLISHED_LAWS
from planner.models.errors import InputError


def counts(correct: list, samples: list) -> NamedCounts:
    """One set a list of counts."""
    table = CountTable.of(
        np.concatenate(correct),
        np.concatenate(samples),
        cell=np.repeat(np.arange(len(correct)), [len(c) for c in correct]),
        problem=np.concatenate([np.arange(len(c)) for c in correct]),
        benchmark=[0] * len(correct),
    )
    return NamedCounts(table, tuple(SetName("x", f"m{i}") for i in range(len(correct))))


@pytest.fixture
def two(rng) -> NamedCounts:
    """Two sets, 30 problems, 400 draws each."""
    return counts(
        [rng.binomial(400, rng.beta(0.4, b, 30)) for b in (2.0, 8.0)], [[400] * 30] * 2
    )


def table(done: Backtest) -> pd.DataFrame:
    return pd.DataFrame(done.rows)


def test_rows_are_one_a_set_method_size_redraw_and_k(two):
    rows = table(backtest(two, n_train=[8, 40], redraws=2, seed=0))
    keys = ["benchmark", "model", "method", "n_train", "redraw", "k"]
    assert not rows.duplicated(keys).any()
    assert set(rows["method"]) == {OURS, *(law.name for law in PUBLISHED_LAWS)}
    ours = rows[rows["method"] == OURS]
    for n_train, k in [(8, [10, 100, 400]), (40, [100, 400])]:
        own = ours[(ours["n_train"] == n_train) & (ours["model"] == "m0")]
        assert own["k"].tolist() == k * 2
    assert (ours["low"] <= ours["high"]).all()
    assert rows.loc[rows["method"] != OURS, ["low", "high"]].isna().all(axis=None)
    assert np.isfinite(rows[["predicted", "truth"]]).all(axis=None)


def test_truth_is_the_unbiased_estimate_from_all_draws(two):
    rows = table(backtest(two, n_train=[8], redraws=1, seed=0))
    own = two.table.rows(1)
    for k in (10, 100, 400):
        expected = pass_at_k(two.table.n_correct[own], two.table.n_samples[own], k).mean()
        shown = rows[(rows["model"] == "m1") & (rows["k"] == k)]["truth"]
        assert shown.to_numpy() == pytest.approx(expected)


def test_training_draws_are_a_fair_part_of_all_draws(two):
    """The flat law forecasts pass@8 of the part, whose mean is pass@8 of the whole."""
    rows = table(backtest(two, n_train=[8], redraws=16, seed=3))
    flat = rows[(rows["method"] == "no_extrapolation") & (rows["k"] == 400)]
    for model, own in flat.groupby("model"):
        at = two.table.rows(int(model[1:]))
        truth = pass_at_k(two.table.n_correct[at], two.table.n_samples[at], 8).mean()
        se = own["predicted"].std() / math.sqrt(len(own))
        assert abs(own["predicted"].mean() - truth) < 4 * se


def test_a_redraw_depends_on_its_seed_alone(two):
    together = backtest(two, n_train=[8, 16], redraws=2, seed=5).rows
    alone = backtest(two, n_train=[16], redraws=2, seed=5).rows
    assert [r for r in together if r.n_train == 16] == list(alone)
    other = backtest(two, n_train=[16], redraws=2, seed=6).rows
    assert other != alone


def test_processes_give_the_same_rows(two):
    alone = backtest(two, n_train=[200], redraws=1, seed=5)
    shared = backtest(two, n_train=[200], redraws=1, seed=5, workers=2)
    assert shared == alone


def test_no_success_still_gets_our_wide_forecast():
    done = backtest(counts([[0] * 20], [[100] * 20]), n_train=[8], redraws=1, seed=0)
    rows = table(done)
    assert set(rows["method"]) == {OURS, "no_extrapolation"}
    last = rows[(rows["method"] == OURS) & (rows["k"] == 100)].iloc[0]
    assert last["high"] > 0.02  # 20 problems, 160 draws: not surely impossible


@pytest.mark.parametrize(
    ("correct", "samples"),
    [([[64] * 5], [[64] * 5]), ([[3]], [[64]]), ([[1, 0]], [[2, 2]])],
)
def test_odd_tables_are_forecast(correct, samples):
    rows = table(backtest(counts(correct, samples), n_train=[1], redraws=1, seed=0))
    assert (rows["method"] == OURS).any()
    assert rows["predicted"].between(0, 1).all()


def test_sets_too_short_are_skipped_and_noted(two):
    short = NamedCounts(
        CountTable.of(
            np.append(two.table.n_correct, [1, 2]),
            np.append(two.table.n_samples, [12, 12]),
            cell=np.append(two.table.cell, [2, 2]),
            problem=np.append(two.table.problem, [0, 1]),
            benchmark=[0, 0, 0],
        ),
        (*two.sets, SetName("x", "short")),
    )
    done = backtest(short, n_train=[8, 16], redraws=1, seed=0)
    rows = table(done)
    assert set(rows[rows["model"] == "short"]["n_train"]) == {8}
    assert any("n_train 16" in note and "x, short" in note for note in done.notes)


def test_nothing_left_to_forecast():
    with pytest.raises(InputError, match="no set has more than 8 draws"):
        backtest(counts([[1, 2]], [[8, 8]]), n_train=[8, 16], redraws=1, seed=0)


@pytest.mark.parametrize("bad", [{"n_train": [0]}, {"n_train": []}, {"redraws": 0}])
def test_settings_that_make_no_sense(two, bad):
    with pytest.raises(InputError, match="at least 1"):
        backtest(two, **{"n_train": [8], "redraws": 1, "seed": 0, **bad})


def test_unequal_draws_use_what_all_problems_have(rng):
    samples = [*rng.integers(60, 100, 19), 3]
    correct = rng.binomial(samples, 0.3)
    done = backtest(counts([correct], [samples]), n_train=[8], redraws=1, seed=0)
    assert {row.k for row in done.rows} == {10, min(samples[:-1])}
    assert any("1 of 20 problems left out" in note for note in done.notes)
    truth = pass_at_k(correct[:-1], samples[:-1], 10).mean()
    assert done.rows[0].truth == pytest.approx(truth)


def test_widths_reach_all_draws(two):
    done = backtest(two, n_train=[8], redraws=2, seed=0)
    sizes = sorted({w.n_train for w in done.widths})
    assert sizes == [8, 16, 32, 64, 128, 256, 400]
    mean = {s: np.mean([w.width for w in done.widths if w.n_train == s]) for s in sizes}
    assert mean[400] < mean[8]


def test_progress_ends_at_its_total(two):
    seen: list[tuple[int, int]] = []
    backtest(
        two, n_train=[200], redraws=3, seed=0, progress=lambda *at: seen.append(at)
    )  # fmt: skip
    assert seen == [(i, 5) for i in range(1, 6)]


def test_row_fields_are_those_of_the_file_format():
    assert Row._fields == (
        "benchmark", "model", "method", "n_train", "redraw", "k", "predicted", "low",
        "high", "truth",
    )  # fmt: skip
