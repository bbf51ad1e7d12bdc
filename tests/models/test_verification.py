import numpy as np
import pytest

from planner.models.errors import InputError
from planner.models.verification import (
    GenerativeVerifier,
    ImperfectTest,
    best_of_n,
    ceiling,
    rejection_at_budget,
    rejection_sampling,
)

F, T = np.array([0, 0.1, 0.4, 1]), np.array([0, 0.5, 0.8, 1])  # concave
# easy and hard problems of arXiv:2411.17501
TEST = ImperfectTest(
    completeness=1.0, soundness=0.75, success=(0.87, 0.13), shares=(0.58, 0.42)
)
# arXiv:2504.01005's setting: up to 256 solutions and 32 verdicts each
GENRM = GenerativeVerifier(success=(0.7, 0.7), yes_if_correct=(4, 1), yes_if_wrong=(1, 3))
BUDGETS = 2.0 ** np.arange(3, 15)


def test_best_of_n_from_a_roc_matches_simulation(rng):
    pi, m, n = 0.3, 40_000, (1, 5, 20)
    for many, expected in zip(n, best_of_n(pi, F, T, n), strict=True):
        right = rng.random((m, many)) < pi
        # 1 - u: the share of its own kind that scores above, mapped to the wrong draws' F
        u = rng.random((m, many))
        f = np.where(right, np.interp(u, T, F), u)
        got = right[np.arange(m), f.argmin(axis=1)].mean()
        assert abs(got - expected) < 4 * np.sqrt(0.25 / m)
    assert best_of_n(pi, F, T, 10**9)[0] == pytest.approx(ceiling(pi, 5.0), abs=1e-6)


def test_rejection_sampling_is_no_worse_at_equal_compute_and_shares_the_ceiling():
    n = np.array([1, 2, 3, 5, 8, 50, 1e6])
    for pi in (0.02, 0.3, 0.9):
        rs, bon = rejection_at_budget(pi, F, T, n), best_of_n(pi, F, T, n)
        assert (rs >= bon - 1e-12).all()
        assert rs[2] > bon[2] + 1e-3
        assert rs[-1] == pytest.approx(ceiling(pi, 5.0), abs=1e-9)
    at = rejection_sampling(0.3, 0.1, 0.5)
    assert at.accuracy == pytest.approx(0.15 / 0.22)
    assert at.draws == pytest.approx(1 / 0.22)
    never = rejection_sampling(0.0, 0.0, 1.0)
    assert np.isnan(never.accuracy)
    assert never.draws == np.inf


def test_ceiling_at_its_edges():
    assert ceiling([0, 1, 0.5, 0.5, 0.5], [np.inf, 0.5, 0, np.inf, 1]).tolist() == [
        0, 1, 0, 1, 0.5,
    ]  # fmt: skip


def test_resampling_reproduces_the_published_easy_and_hard_problems():
    np.testing.assert_allclose(TEST.rejected, [0.0975, 0.6525])
    np.testing.assert_allclose(TEST.accepted_accuracy, [0.87 / 0.9025, 0.13 / 0.3475])
    assert all(1 <= TEST.best_attempts(v) < 10 for v in (-0.7, -1.0, -2.0))
    assert [TEST.best_attempts(v) for v in (-0.7, -1.0, -2.0)] == [3, 2, 1]
    np.testing.assert_allclose(TEST.belief(1), [[0.58, 0.42]])
    assert TEST.belief(5)[0, 1] > 0.99
    assert TEST.value(0, -1.0)[0] == 0


def test_value_of_resampling_matches_simulation(rng):
    m, k, wrong_value = 200_000, 4, -1.0
    r = np.where(rng.random(m) < 0.58, 0.87, 0.13)[:, None]
    right = rng.random((m, k)) < r
    accept = right | (rng.random((m, k)) < 0.25)
    first = accept.argmax(axis=1)
    value = np.where(right[np.arange(m), first], 1.0, wrong_value) * accept.any(axis=1)
    assert abs(value.mean() - TEST.value(k, wrong_value)[0]) < 4 * value.std() / m**0.5


def test_generative_best_of_n_and_pooling_match_simulation(rng):
    m, s, v = 40_000, 6, 4
    law = GenerativeVerifier(
        success=(2, 3), yes_if_correct=(4, 1), yes_if_wrong=(1, 2), shared_wrong=1.0
    )
    right = rng.random((m, s)) < rng.beta(2, 3, (m, 1))
    yes = rng.binomial(v, np.where(right, rng.beta(4, 1, (m, s)), rng.beta(1, 2, (m, s))))
    best = (yes + rng.random((m, s)) / 2).argmax(axis=1)
    error = 4 * np.sqrt(0.25 / m) + 0.002  # and the nodes of the sum over problems
    assert abs(right[np.arange(m), best].mean() - law.best_of_n(s, v)[0]) < error
    lead = np.where(right, yes + 0.5, -yes - 0.5).sum(axis=1)
    pooled = (lead > 0).mean() + (lead == 0).mean() / 2
    assert abs(pooled - law.pooled(s, v)[0]) < error
    alone = law.pooled([1], 3)[0]
    assert alone == pytest.approx(law.best_of_n(1, 3)[0], abs=1e-9)


@pytest.mark.parametrize("ratio", [1.0, 2.0])
def test_solutions_grow_faster_than_verifications(ratio):
    got = GENRM.exponents(BUDGETS, ratio, max_solutions=256, max_verifications=32)
    assert abs(got.solutions - 0.57) < 0.07
    assert abs(got.verifications - 0.39) < 0.07
    assert 1.4 < got.solutions / got.verifications < 2  # published: 1.5-2x


def test_the_best_split_keeps_to_its_budget_and_beats_its_neighbours():
    split = GENRM.best_split(64, 1.0)
    assert split.solutions * (1 + split.verifications) <= 64
    for v in range(64):
        assert GENRM.best_of_n(64 // (1 + v), v)[0] <= split.accuracy + 1e-12


def test_a_fit_recovers_the_verifier(rng):
    p, s, v = 400, 16, 16
    right = rng.random((p, s)) < rng.beta(1, 1, (p, 1))
    rate = np.where(right, rng.beta(4, 1, (p, s)), rng.beta(1, 3, (p, s)))
    law = GenerativeVerifier.fit(rng.binomial(v, rate), np.full((p, s), v), right)
    np.testing.assert_allclose(law.yes_if_correct, (4, 1), rtol=0.15)
    np.testing.assert_allclose(law.yes_if_wrong, (1, 3), rtol=0.15)
    with pytest.raises(InputError, match="wrong solutions"):
        GenerativeVerifier.fit([[1]], [[1]], [[True]])


def test_bad_input_is_refused():
    with pytest.raises(InputError, match="ROC rises"):
        best_of_n(0.5, [0, 1], [0.1, 1], 2)
    with pytest.raises(InputError, match="pi must be"):
        best_of_n(1.5, F, T, 2)
    with pytest.raises(InputError, match="slope"):
        ceiling(0.5, -1)
    with pytest.raises(InputError, match="sum to"):
        ImperfectTest(completeness=1, soundness=1, success=(1,), shares=(0.5,))
    for budget in (0.5, np.nan, np.inf):
        with pytest.raises(InputError, match="budget"):
            GENRM.best_split(budget, 1.0)
    with pytest.raises(InputError, match="ROC rises"):
        best_of_n(0.5, [0, np.nan, 1], [0, 0.5, 1], 2)
    with pytest.raises(InputError, match="whole"):
        GENRM.pooled(2.5, 1)
    for attempts in (-1, 2.5, np.nan):
        with pytest.raises(InputError, match="whole"):
            TEST.value(attempts, -1.0)
    with pytest.raises(InputError, match="finite"):
        TEST.best_attempts(np.nan)
    with pytest.raises(InputError, match="at least one solution"):
        GENRM.pooled(0, 1)
