from itertools import combinations, product
from math import ceil, log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.models.coverage import pass_at_k
from planner.models.errors import FitError, InputError
from planner.models.finish import FinishLaw, by_length_rank
from planner.models.lengths import NO_ANSWER, Recorded
from planner.models.sequential import (
    RevisionLaw,
    Ttspm,
    UsefulDraws,
    measured_saturation,
)


@given(st.floats(0.05, 1.0), st.floats(0.001, 0.9), st.floats(1e-6, 0.3))
def test_saturation_is_the_first_draw_whose_next_adds_too_little(ceiling, rate, least):
    law = Ttspm(ceiling, rate)
    n = law.saturation(least)
    assert law.gain(n) <= least * (1 + 1e-6)
    if n:
        assert law.gain(n - 1) > least * (1 - 1e-6)
        formula = ceil(log(least / (ceiling * rate)) / log(1 - rate) - 1e-9)
        assert n == formula
    assert law.accuracy(n + 1) - law.accuracy(n) == pytest.approx(law.gain(n), abs=1e-12)
    assert law.accuracy(0) == 0


def test_the_papers_example_saturates_at_once_under_one_chance():
    """R1-Distill-Qwen-1.5B, AIME24: 30.0 % at one draw, 53.3 % at 32 (arXiv:2505.20522)."""
    law = Ttspm.fit([1, 32], [0.300, 0.533])
    np.testing.assert_allclose(law.accuracy([1, 32]), [0.300, 0.533], atol=0.002)
    assert law.saturation(0.001) < 10  # one chance for all: nothing left to gain by 32


def test_ttspm_is_recovered_from_its_own_curve_and_refuses_nonsense():
    truth = Ttspm(0.7, 0.1)
    n = np.array([1, 2, 4, 8, 16, 32])
    law = Ttspm.fit(n, truth.accuracy(n))
    assert law.rate == pytest.approx(0.1, rel=0.02)
    assert law.ceiling == pytest.approx(0.7, rel=0.02)
    with pytest.raises(FitError):
        Ttspm.fit([1, 2], [0.0, 0.0])
    for bad in (([1, 1], [0.1, 0.1]), ([1, 2], [0.1, np.nan]), ([0, 2], [0.1, 0.2])):
        with pytest.raises(InputError):
            Ttspm.fit(*bad)
    with pytest.raises(InputError, match="positive"):
        law.saturation(0.0)


def test_useful_draws_are_not_underestimated_when_chances_differ(rng):
    """Published shapes: alpha < 1 in 63 of 63 sets, a heavy tail of hard problems."""
    held, one, tail = [], [], []
    for _ in range(12):
        p = rng.beta(0.3, 2.0, 200)
        gains = np.mean(p[:, None] * (1 - p[:, None]) ** np.arange(5000), axis=0)
        truth = int((gains <= 0.001).argmax())
        n_correct = rng.binomial(16, p)
        samples = np.full(200, 16)
        curve = pass_at_k(n_correct, samples, np.arange(1, 17)).mean(axis=0)
        one.append(Ttspm.fit(np.arange(1, 17), curve).saturation(0.001) / truth)
        prediction = UsefulDraws.fit(n_correct, samples).saturation([0.001], rng)
        low, high = prediction.interval()
        tail.append(np.median(prediction.draws) / truth)
        held.append(low[0] <= truth <= high[0])
        assert prediction.extrapolated.all()
    assert np.median(one) < 0.5
    assert 0.8 < np.median(tail) < 1.25
    assert np.mean(held) >= 0.9 - 3 * np.sqrt(0.09 / 12)


def test_useful_draws_of_alike_problems_agree_with_ttspm(rng):
    n_correct, samples = rng.binomial(64, 0.2, 400), np.full(400, 64)
    prediction = UsefulDraws.fit(n_correct, samples).saturation([0.01], rng)
    assert np.median(prediction.draws) == pytest.approx(
        Ttspm(1.0, 0.2).saturation(0.01), abs=2
    )
    curve = UsefulDraws.fit(n_correct, samples).predict([0, 1, 10], rng)
    np.testing.assert_allclose(curve.mean, [0, 0.2, 1 - 0.8**10], atol=0.02)


def test_nothing_solved_says_little_about_useful_draws(rng):
    law = UsefulDraws.fit(np.zeros(30), np.full(30, 8))
    low, high = law.predict([1000], rng).interval()
    assert high[0] - low[0] > 0.1
    with pytest.raises(InputError):
        law.saturation([-1.0], rng)
    with pytest.raises(InputError):
        UsefulDraws.fit([3], [2])


def test_measured_saturation_reads_the_unbiased_curve():
    correct = np.array([10, 5, 1, 0])
    n = np.full(4, 10)
    curve = np.concatenate([[0], pass_at_k(correct, n, np.arange(1, 11)).mean(axis=0)])
    at = measured_saturation(correct, n, 0.03)
    assert curve[at + 1] - curve[at] <= 0.03 < curve[at] - curve[at - 1]
    assert measured_saturation(correct, n, 1e-9) == 10


def chains(rng, fixed, broken, start, p=60, n=20, rounds=4):
    right = rng.random((p, n)) < start
    out = [right]
    for _ in range(rounds - 1):
        right = np.where(right, rng.random((p, n)) >= broken, rng.random((p, n)) < fixed)
        out.append(right)
    return np.stack(out, axis=2)


@pytest.mark.parametrize(("fixed", "broken", "start"), [(0.2, 0.05, 0.3), (0.05, 0.2, 0.8)])
def test_revision_tends_to_the_chains_limit_up_or_down(rng, fixed, broken, start):
    """The absorbing chain of TTSPM is broken = 0; with it, rounds may also hurt."""
    law = RevisionLaw.fit(chains(rng, fixed, broken, start))
    prediction = law.predict([1, 4, 8, 200], rng)
    limit = fixed / (fixed + broken)
    expected = limit + (start - limit) * (1 - fixed - broken) ** np.array([0, 3, 7, 199])
    error = np.sqrt(0.25 / (60 * 20))  # of the share right in one round
    np.testing.assert_allclose(prediction.mean, expected, atol=4 * error)
    assert prediction.extrapolated.tolist() == [False, False, True, True]


def test_revisions_that_never_break_only_gain(rng):
    law = RevisionLaw.fit(chains(rng, 0.3, 0.0, 0.2, rounds=3))
    assert (np.diff(law.predict([1, 2, 3], rng).mean) > 0).all()
    with pytest.raises(InputError):
        RevisionLaw.fit(np.zeros((3, 4, 1), bool))
    with pytest.raises(InputError):
        RevisionLaw.fit(np.zeros((3, 4, 2)))


def test_one_problem_says_little_of_others(rng):
    law = RevisionLaw.fit(np.array([[[False, True]]]))
    low, high = law.predict([2, 10], rng).interval()
    assert (high - low > 0.5).all()
    solved = one_problem([(1, 0, 5), (1, 0, 6)])
    low, high = FinishLaw.fit(solved).predict([1, 2], rng).interval()
    assert (high - low > 0.5).all()
    for rounds in (0, np.nan, np.inf):
        with pytest.raises(InputError, match="rounds"):
            law.predict([rounds], rng)


def one_problem(draws):
    correct, answer, tokens = map(np.array, zip(*draws, strict=True))
    return Recorded(
        np.array([len(draws)]), correct[None].astype(bool), answer[None], tokens[None],
        np.full((1, len(draws)), np.nan),
    )  # fmt: skip


def play(draws, who, m):
    """Run the chosen draws side by side until the m-th ends."""
    order = sorted(who, key=lambda i: draws[i][2])
    end = draws[order[m - 1]][2]
    spent = sum(min(draws[i][2], end) for i in who)
    votes = [draws[i][1] for i in order[:m] if draws[i][1] != NO_ANSWER]
    if not votes:
        return False, spent, end
    winner = max(dict.fromkeys(votes), key=votes.count)  # of equals the first to end
    first = next(i for i in order[:m] if draws[i][1] == winner)
    return draws[first][0], spent, end


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 40), min_size=3, max_size=6, unique=True), st.data()
)  # fmt: skip
def test_policies_do_what_every_subset_of_draws_does(tokens, data):
    answers = data.draw(
        st.lists(st.sampled_from([NO_ANSWER, 0, 1, 2]), min_size=len(tokens),
                 max_size=len(tokens))
    )  # fmt: skip
    draws = [(a == 0, a, t) for a, t in zip(answers, tokens, strict=True)]
    k = data.draw(st.integers(1, len(draws)))
    m = data.draw(st.integers(1, k))
    runs = [play(draws, who, m) for who in combinations(range(len(draws)), k)]
    expected = np.mean(np.array(runs, dtype=float), axis=0)
    law = FinishLaw.fit(one_problem(draws), m)
    spent, latency = law.tokens(k)
    accuracy = law.accuracy(k, np.random.default_rng(0))
    got = [accuracy[0], spent[0], latency[0]]
    np.testing.assert_allclose(got, expected, atol=1e-9)


def test_beyond_the_draws_recorded_they_are_drawn_again():
    draws = [(True, 0, 3), (False, 1, 5), (False, 2, 11)]
    runs = [play(draws, [*who], 1) for who in product(range(3), repeat=4)]
    law = FinishLaw.fit(one_problem(draws))
    spent, latency = law.tokens(4)
    assert law.accuracy(4, np.random.default_rng(0))[0] == pytest.approx(
        np.mean([r[0] for r in runs])
    )
    assert spent[0] == pytest.approx(np.mean([r[1] for r in runs]))
    assert latency[0] == pytest.approx(np.mean([r[2] for r in runs]))


def test_draws_of_equal_length_share_the_finish():
    law = FinishLaw.fit(one_problem([(True, 0, 5), (False, 1, 5), (False, 1, 9)]))
    assert law.accuracy(3, np.random.default_rng(0))[0] == pytest.approx(0.5)


def many(rng, slope, p=150, n=8):
    x = rng.normal(0, 0.6, (p, n))
    correct = rng.random((p, n)) < 1 / (1 + np.exp(-slope * x))
    tokens = (200 * np.exp(x)).astype(int) + 1
    return Recorded(
        np.full(p, n), correct, np.where(correct, 0, rng.integers(1, 9, (p, n))), tokens,
        np.full((p, n), np.nan),
    )  # fmt: skip


@pytest.mark.parametrize("slope", [-2.0, 2.0])
def test_first_to_finish_is_better_or_worse_as_length_says(rng, slope):
    table = many(rng, slope)
    shortest, longest, mean = by_length_rank(table)
    assert (shortest - mean) * slope < 0 < (longest - mean) * slope
    prediction = FinishLaw.fit(table).predict([1, 4, 8], rng)
    assert (np.diff(prediction.mean) * slope < 0).all()


def test_more_draws_finish_sooner_and_forecasts_of_them_are_flagged(rng):
    table = many(rng, 0.0)
    law = FinishLaw.fit(table.first(4), 1)
    spent, latency = law.predict_tokens([1, 4, 8, 64], rng)
    assert (np.diff(latency.mean) < 0).all()
    assert spent.mean[1] == pytest.approx(4 * latency.mean[1])
    assert latency.extrapolated.tolist() == [False, False, True, True]
    truth = FinishLaw.fit(table).tokens(8)[1].mean()
    low, high = latency.interval()
    assert low[2] <= truth <= high[2]
    accuracy = law.predict([4, 64], rng)
    low, high = accuracy.interval()
    assert high[1] - low[1] > high[0] - low[0]


def test_fewer_draws_than_must_finish_are_refused(rng):
    law = FinishLaw.fit(many(rng, 0.0), 3)
    for call in (lambda: law.accuracy(2, rng), lambda: law.tokens(2)):
        with pytest.raises(InputError, match="can finish"):
            call()
    with pytest.raises(InputError, match="whole"):
        law.predict([3.5], rng)
    with pytest.raises(InputError):
        by_length_rank(one_problem([(True, 0, 5)]))
