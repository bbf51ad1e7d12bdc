from pathlib import Path

import duckdb
import numpy as np
import pytest

from planner.models.errors import InputError, NotMeasuredError
from planner.models.lengths import Recorded
from planner.models.selection import (
    best_of_majority_curves,
    pooled_auc,
    scored_curves,
    weighted_vote_curves,
    within_problem_auc,
)
from planner.models.selection_law import SelectionLaw

RM = Path(__file__).parents[3] / "shared/data/passk/qwen25math_rm_n8_samples.parquet"


def recorded(correct, score, answer=None):
    correct = np.asarray(correct, bool)
    codes = np.where(correct, 0, 1) if answer is None else np.asarray(answer)
    return Recorded(
        np.full(len(correct), correct.shape[1]), correct, codes,
        np.ones(correct.shape, np.int64), np.asarray(score, float),
    )  # fmt: skip


def simulate(rng, n, p=150, shift=1.0, scale=1.0):
    """Problems of success rate ~ Beta(1, 1) with a binormal score."""
    correct = rng.random((p, n)) < rng.beta(1, 1, (p, 1))
    noise = rng.standard_normal((p, n))
    return recorded(correct, np.where(correct, shift + scale * noise, noise))


@pytest.mark.parametrize(
    ("shift", "scale"), [(1.0, 1.0), (2.5, 1.0), (0.0, 0.02), (-1.5, 1.0)]
)
def test_forecast_of_further_draws_holds_the_truth(rng, shift, scale):
    whole = simulate(rng, 256, shift=shift, scale=scale)
    law = SelectionLaw.fit(whole.first(12), rng)
    truth = scored_curves(whole, (32, 128)).accuracy.mean(axis=0)
    predicted = law.predict_measured([32, 128], 256, rng)
    low, high = predicted.interval(0.99)
    assert ((low <= truth) & (truth <= high)).all()
    assert (abs(predicted.mean - truth) < 0.1).all()
    assert predicted.extrapolated.all()
    # new problems of the kind: the law saw 150, and these are others
    others = scored_curves(simulate(rng, 64, p=1500, shift=shift, scale=scale), (1, 64))
    gap = law.predict_new([1, 64]).mean - others.accuracy.mean(axis=0)
    assert (abs(gap) < 0.15).all()


def test_a_wider_score_of_wrong_draws_makes_more_draws_hurt(rng):
    worse = SelectionLaw.fit(simulate(rng, 32, scale=0.02), rng)
    better = SelectionLaw.fit(simulate(rng, 32, shift=2.5), rng)
    hurt, fine = worse.best_n(rng), better.best_n(rng)
    assert hurt.probability_hurts > 0.9
    assert np.median(hurt.n) < 200
    assert fine.probability_hurts < hurt.probability_hurts
    assert worse.ceiling(rng).mean[0] < better.ceiling(rng).mean[0] - 0.1
    assert worse.ceiling(rng).extrapolated.all()


def test_up_to_the_draws_made_the_law_keeps_to_the_exact_curve(rng):
    table = simulate(rng, 8, p=40)
    law = SelectionLaw.fit(table, rng)
    exact = scored_curves(table, (1, 4, 8)).accuracy.mean(axis=0)
    predicted = law.predict([1, 4, 8], rng)
    assert (abs(predicted.mean - exact) < 3 * np.sqrt(0.1 / 40)).all()  # its own noise
    low, high = predicted.interval()
    far_low, far_high = law.predict([8, 64, 4096], rng).interval()
    assert (np.diff(far_high - far_low) > 0).all()
    noisy = law.predict_measured([8], 8, rng).interval()
    assert noisy[1][0] - noisy[0][0] > high[2] - low[2]


def test_little_data_gives_a_wide_interval_or_an_error(rng):
    one = SelectionLaw.fit(recorded([[1, 0]], [[1.0, 0.0]]), rng)
    low, high = one.predict([64], rng).interval()
    assert high[0] - low[0] > 0.3
    for flag in (0, 1):  # never, always right
        same = recorded(np.full((5, 4), flag), rng.random((5, 4)))
        low, high = SelectionLaw.fit(same, rng).predict([256], rng).interval()
        assert high[0] - low[0] > 0.05
        assert low[0] <= flag <= high[0] or abs(flag - (low, high)[flag][0]) < 0.1
    with pytest.raises(NotMeasuredError, match="no draw has a score"):
        SelectionLaw.fit(recorded([[1, 0]], [[np.nan, np.nan]]), rng)
    with pytest.raises(InputError, match="at least one problem"):
        SelectionLaw.fit(recorded(np.empty((0, 2)), np.empty((0, 2))), rng)
    with pytest.raises(InputError, match="n >= 1"):
        one.predict([0], rng)
    with pytest.raises(InputError, match="cannot measure"):
        one.predict_measured([8], 4, rng)


def test_pooled_auc_sees_the_level_of_a_problem_and_within_does_not(rng):
    correct = rng.random((200, 30)) < rng.beta(0.5, 0.5, (200, 1))
    level = correct.mean(axis=1, keepdims=True)
    table = recorded(correct, 5 * level + rng.standard_normal(correct.shape))
    assert pooled_auc(table) > 0.8
    mixed = int(((level > 0) & (level < 1)).sum())
    assert abs(within_problem_auc(table) - 0.5) < 4 * 0.15 / np.sqrt(mixed)
    tied = recorded([[1, 0, 0]], [[1.0, 1.0, 0.0]])
    assert within_problem_auc(tied) == pooled_auc(tied) == 0.75
    for area in (pooled_auc, within_problem_auc):
        with pytest.raises(NotMeasuredError):
            area(recorded([[1, 1]], [[0.0, 1.0]]))


def test_best_of_majority_between_the_vote_and_best_of_n(rng):
    # one wrong answer scores highest but comes once; the right one has most votes
    table = recorded([[1, 1, 1, 0, 0]], [[1, 2, 0, 3, 9]], [[0, 0, 0, 1, 2]])
    grid = (1, 5)
    by_share = [
        best_of_majority_curves(table, grid, share, rng).accuracy[0, 1]
        for share in (0.0, 0.4, 1.0)
    ]
    assert by_share == [0.0, 1.0, 1.0]
    weighted = weighted_vote_curves(table, grid, rng)
    assert weighted.accuracy[0, 1] == 1.0
    error = 4 * np.sqrt(0.24 / 256)
    assert abs(weighted.accuracy[0, 0] - 0.6) < error
    assert weighted.output_tokens[0].tolist() == [1.0, 5.0]
    with pytest.raises(InputError, match="share of votes"):
        best_of_majority_curves(table, grid, 1.5, rng)


@pytest.mark.skipif(not RM.exists(), reason="shared data absent")
def test_a_public_reward_model(rng):
    rows = (
        duckdb.connect()
        .execute(
            f"select problem_id, answer, correct, reward from '{RM}' "
            "order by problem_id, sample_idx"
        )
        .fetchnumpy()
    )
    p = len(rows["correct"]) // 8
    codes = np.unique(rows["answer"].astype(str), return_inverse=True)[1].reshape(p, 8)
    table = recorded(rows["correct"].reshape(p, 8), rows["reward"].reshape(p, 8), codes)
    assert pooled_auc(table) == pytest.approx(0.968, abs=0.0006)
    assert within_problem_auc(table) == pytest.approx(0.90, abs=0.006)
    curve = scored_curves(table, (1, 8)).accuracy.mean(axis=0)
    np.testing.assert_allclose(curve, [0.910, 0.940], atol=0.0006)
    weighted = weighted_vote_curves(table, (8,), rng).accuracy.mean()
    assert weighted == pytest.approx(0.940, abs=0.0006)
    low, high = (
        SelectionLaw.fit(table.first(4), rng).predict_measured([8], 8, rng).interval()
    )
    assert low[0] <= curve[1] <= high[0]
