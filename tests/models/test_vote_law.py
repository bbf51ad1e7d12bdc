from math import comb

import numpy as np
import pytest
from scipy.stats import binom, multinomial

from planner.models.answers import count_answers, fit_answers
from planner.models.errors import FitError, InputError
from planner.models.lengths import NO_ANSWER, Recorded
from planner.models.vote_law import VoteLaw, fit_votes
from planner.models.vote_race import Side, run_votes
from planner.models.vote_theory import (
    effective_votes,
    two_class_best_n,
    two_class_vote,
    vote_correlation,
    vote_error_bound,
)


def recorded(answer, correct=None):
    """Answer 0 is right unless said otherwise."""
    answer = np.atleast_2d(np.asarray(answer, np.int64))
    right = answer == 0 if correct is None else np.asarray(correct)
    return Recorded(
        np.full(len(answer), answer.shape[1]), right, answer, np.ones_like(answer),
        np.full(answer.shape, np.nan),
    )  # fmt: skip


def drawn(share, n, rng):
    """Draws of n answers of each problem; share (P, K), answer 0 is right."""
    bars = np.cumsum(share, axis=1)[:, None, :]
    answer = (rng.random((len(share), n, 1)) > bars).sum(axis=-1)
    return recorded(np.minimum(answer, share.shape[1] - 1))


def random_shares(rng, problems=60, kinds=12):
    p = rng.beta(0.6, 0.6, size=problems)[:, None]
    wrong = rng.dirichlet(np.full(kinds, 0.3), problems)
    return np.concatenate([p, (1 - p) * wrong], axis=1)


def side(share, rows):
    share = np.tile(np.asarray(share, float), (rows, 1))
    return Side.of(share, np.zeros_like(share), np.zeros(rows))


def test_the_race_of_known_shares_is_the_multinomials(rng):
    right, wrong, n, rows = [0.4], [0.35, 0.25], 5, 40_000
    expected = 0.0
    for a in range(n + 1):
        for b in range(n + 1 - a):
            counts = np.array([a, b, n - a - b])
            won = (counts[0] == counts.max()) / (counts == counts.max()).sum()
            expected += won * multinomial.pmf(counts, n, [*right, *wrong])
    new = np.full((rows, 1), float(n))
    got = run_votes(side(right, rows), side(wrong, rows), new, rng)[:, 0]
    assert abs(got.mean() - expected) < 5 * got.std() / np.sqrt(rows)


def test_many_votes_are_nearly_binomial(rng):
    rows, n = 40_000, 401  # above the size that is drawn exactly
    new = np.full((rows, 1), float(n))
    got = run_votes(side([0.51], rows), side([0.49], rows), new, rng)[:, 0]
    exact = binom.sf(n // 2, n, 0.51)
    assert abs(got.mean() - exact) < 5 * got.std() / np.sqrt(rows) + 1 / n


def test_scattered_answers_win_as_often_as_they_are_drawn(rng):
    """Every answer once: the earliest wins, right with the share of right draws."""
    rows = 20_000
    none = np.zeros((rows, 1))
    right = Side(none, none, np.full(rows, 0.3))
    wrong = Side(none, none, np.full(rows, 0.7))
    got = run_votes(right, wrong, np.full((rows, 1), 8.0), rng)[:, 0]
    assert abs(got.mean() - 0.3) < 5 * got.std() / np.sqrt(rows)


def test_counts_of_answers_ignore_padding_and_silence():
    table = recorded([[3, 0, 3, NO_ANSWER, 0, 0], [1, 2, 1, 1, NO_ANSWER, 5]])
    counts = count_answers(table)
    assert counts.right.tolist() == [[3], [0]]
    assert counts.wrong.tolist() == [[2, 0, 0], [3, 1, 1]]
    assert counts.silent.tolist() == [1, 1]


def test_the_vote_of_one_is_a_draw(rng):
    table = drawn(random_shares(rng), 64, rng)
    mean = VoteLaw.fit(table).predict(1, rng).mean[0]
    assert abs(mean - table.correct.mean()) < 0.01


def test_the_interval_holds_the_truth_as_often_as_it_says(rng):
    """Fits from eight draws a problem; the truth is a vote of 128 made in earnest."""
    repeats, hits = 18, 0
    for _ in range(repeats):
        whole = drawn(random_shares(rng, 30), 128, rng)
        low, high = VoteLaw.fit(whole.first(8)).predict_measured(128, rng).interval(0.9)
        counts = count_answers(whole)
        truth = (counts.right[:, 0] > counts.wrong[:, 0]).mean()
        hits += int(low[0] <= truth <= high[0])
    assert binom.ppf(0.001, repeats, 0.9) <= hits


def test_agreeing_wrong_answers_set_the_ceiling(rng):
    easy, hard = [0.7, 0.1, 0.1, 0.1], [0.3, 0.7, 0.0, 0.0]
    table = drawn(np.array([easy] * 30 + [hard] * 30), 64, rng)
    law = VoteLaw.fit(table)
    assert abs(law.ceiling(rng).mean[0] - 0.5) < 0.02
    assert law.ceiling(rng).extrapolated.all()
    assert abs(law.predict(10_000, rng).mean[0] - 0.5) < 0.02


def test_a_curve_may_rise_and_fall(rng):
    table = drawn(np.array([[0.85, 0.15]] * 40 + [[0.42, 0.58]] * 60), 200, rng)
    first, peak, last = VoteLaw.fit(table).predict([1, 5, 500], rng).mean
    assert peak > first
    assert peak > last + 0.02
    n = np.arange(1, 200, 2)
    curve = two_class_vote(n, 0.4, 0.85, 0.42)
    assert abs(n[curve.argmax()] - two_class_best_n(0.4, 0.85, 0.42)) <= 1


def test_correlated_votes_stop_at_one_over_rho(rng):
    np.testing.assert_allclose(effective_votes([1, 10, np.inf], 0.1), [1, 10 / 1.9, 10])
    law = VoteLaw.fit(drawn(random_shares(rng), 32, rng))
    alone, free = law.predict([64], rng, rho=1.0).mean, law.predict([64], rng).mean
    assert abs(alone - law.predict(1, rng).mean)[0] < 0.02
    assert free > alone


def test_correlation_is_seen_between_batches_only(rng):
    problems, batches, size, copied = 300, 4, 5, 0.4
    answer = rng.integers(0, 4, (problems, batches, size))
    leader = np.repeat(answer[..., :1], size, axis=2)
    answer = np.where(rng.random(answer.shape) < np.sqrt(copied), leader, answer)
    batch = np.tile(np.repeat(np.arange(batches), size), (problems, 1))
    table = recorded(answer.reshape(problems, -1))
    low, high = vote_correlation(table, batch, rng).interval(0.99)
    # the first of a batch always copies itself, so pairs with it agree more
    pairs = (2 * np.sqrt(copied) + (size - 2) * copied) / size
    assert low[0] <= pairs <= high[0]
    with pytest.raises(FitError, match="batches"):
        vote_correlation(table, np.zeros_like(batch), rng)


def test_chernoffs_bound_holds(rng):
    r, w, n = 0.5, 0.3, 25
    ties_or_worse = sum(
        multinomial.pmf([a, b, n - a - b], n, [r, w, 1 - r - w])
        for a in range(n + 1) for b in range(a, n + 1 - a)
    )  # fmt: skip
    assert ties_or_worse <= vote_error_bound(r, w, n) <= 5 * ties_or_worse
    with pytest.raises(InputError):
        vote_error_bound(0.3, 0.5, 3)


def test_two_classes_are_two_binomials():
    n = 7
    own = [
        sum(comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(4, 8)) for p in (0.8, 0.4)
    ]
    got = two_class_vote(n, 0.25, 0.8, 0.4)[0]
    assert got == pytest.approx(0.25 * own[0] + 0.75 * own[1])


def test_tables_fitted_together_lend_each_other_strength(rng):
    tables = [drawn(random_shares(rng, 20), 4, rng) for _ in range(6)]
    laws = fit_votes(tables)
    assert len(laws) == 6
    assert all(law.n_max == 4 for law in laws)
    widths = [np.diff(law.predict(100, rng).interval(0.9), axis=0).item() for law in laws]
    assert max(widths) < 0.5


@pytest.mark.parametrize("right", [True, False])
def test_all_alike_stay_a_little_open(right, rng):
    law = VoteLaw.fit(recorded(np.full((30, 4), 0 if right else 1)))
    low, high = law.predict_new(100, rng).interval(0.9)
    assert high[0] > 0.99 if right else low[0] < 0.01
    assert high[0] - low[0] > 0.005


def test_one_problem_leaves_its_own_rate_open(rng):
    low, high = VoteLaw.fit(recorded([[1] * 8])).predict(1, rng).interval(0.9)
    assert low[0] < 0.01 < 0.03 < high[0]


def test_one_problem_is_not_a_population(rng):
    low, high = VoteLaw.fit(recorded([[0, 0, 1, 0]])).predict_new(50, rng).interval(0.9)
    assert high[0] - low[0] > 0.5


def test_bad_input_is_refused(rng):
    with pytest.raises(FitError, match="two draws"):
        VoteLaw.fit(recorded([[0], [1]]))
    with pytest.raises(FitError, match="two draws"):
        VoteLaw.fit(recorded(np.full((3, 8), NO_ANSWER), np.zeros((3, 8), bool)))
    with pytest.raises(InputError, match="at least one"):
        fit_votes([])
    table = drawn(random_shares(rng, 10), 4, rng)
    law = VoteLaw.fit(table)
    for n in (0, np.nan, -3):
        with pytest.raises(InputError, match="n >= 1"):
            law.predict(n, rng)
    with pytest.raises(InputError, match="correlation"):
        law.predict(4, rng, rho=1.5)
    with pytest.raises(InputError, match="made"):
        law.predict_measured(2, rng)


def test_draws_already_made_stay_made(rng):
    table = drawn(random_shares(rng), 9, rng)
    counts = count_answers(table)
    wrong, right = counts.wrong.max(axis=1), counts.right[:, 0]
    tied = right == wrong
    now = np.mean(right > wrong) + np.mean(
        tied / (1.0 + (counts.wrong == wrong[:, None]).sum(1))
    )
    got = VoteLaw.fit(table).predict_measured(9, rng)
    np.testing.assert_allclose(got.draws, now)
    assert not got.extrapolated.any()


def test_a_draw_is_a_distribution(rng):
    table = drawn(random_shares(rng, 7), 16, rng)
    law = fit_answers([count_answers(table)])[0]
    shares = next(law.draws(rng, 3))
    total = shares.right.sum(-1) + shares.wrong.sum(-1) + shares.rest.sum(-1)
    np.testing.assert_allclose(total, 1.0)
    assert shares.right.shape[:2] == (3, 7)
