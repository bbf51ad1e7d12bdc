from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import beta

from planner.models.curves import powers_of_two
from planner.models.errors import InputError
from planner.models.lengths import Recorded
from planner.models.voting import _count, flat_beyond, is_decided, vote_curves, vote_decided
from planner.strategies.base import Outcome, State
from planner.strategies.self_consistency import SelfConsistency


def recorded(answers, correct, tokens):
    """Problems of one length; answers are texts."""
    codes = {"": -1}
    for answer in answers:
        codes.setdefault(answer, len(codes) - 1)
    return Recorded(
        np.array([len(answers)]), np.array([correct]),
        np.array([[codes[a] for a in answers]]), np.array([tokens]),
        np.full((1, len(answers)), np.nan),
    )  # fmt: skip


def play(strategy, answers, correct, tokens):
    """Run the strategy that serves, one draw at a time."""
    state, used = State(), 0
    while not strategy.done(state):
        state, started = strategy.ask(state, 1)
        if not started:
            break
        for draw in started:
            state = strategy.tell(state, draw, Outcome(answer=answers[draw]))
            used += tokens[draw]
    choice = strategy.choose(state)
    return choice is not None and correct[choice.draw], len(state.told), used


DRAWS = st.lists(
    st.tuples(st.sampled_from(["", "a", "b", "c"]), st.booleans(), st.integers(1, 9)),
    min_size=1, max_size=5,
)  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(DRAWS, st.sampled_from([0.7, 0.95, 1.0]))
def test_the_law_forecasts_what_the_strategy_does(draws, confidence):
    n = len(draws)
    played = np.array(
        [
            play(SelfConsistency(n=n, confidence=confidence),
                 *zip(*order, strict=True))
            for order in permutations(draws)
        ], dtype=float,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    curves = vote_curves(recorded(*zip(*draws, strict=True)), (n,), confidence, rng)
    got = np.array([curves.accuracy[0, 0], curves.draws[0, 0], curves.output_tokens[0, 0]])
    if n == 1:
        # "" never votes, and is never right
        assert got.tolist() == played.mean(axis=0).tolist()
        return
    replays = 256
    error = played.std(axis=0) / np.sqrt(replays)
    assert (np.abs(got - played.mean(axis=0)) <= 5 * error + 1e-9).all()


@settings(max_examples=40, deadline=None)
@given(DRAWS)
def test_after_each_draw_the_winner_is_the_strategys(draws):
    """Order by order: which of two equals wins does not show in averages over orders."""
    answers, correct, tokens = zip(*draws, strict=True)
    table = recorded(answers, correct, tokens)
    right, first, second = _count(table.answer, table.correct)
    for n in range(1, len(draws) + 1):
        lossless = play(SelfConsistency(n=n, confidence=1.0), answers, correct, tokens)
        votes = sorted((answers[:n].count(a) for a in {*answers[:n]} - {""}), reverse=True)
        assert (first[0, n - 1], second[0, n - 1]) == (*votes, 0, 0)[:2]
        if lossless[1] == n:  # it did not stop before
            assert right[0, n - 1] == lossless[0]


def test_the_vote_finds_the_mode_with_enough_draws(rng):
    p, n = 60, 48
    kinds = rng.choice(4, size=(p, n), p=[0.45, 0.25, 0.2, 0.1])
    table = Recorded(
        np.full(p, n), kinds == 0, kinds, np.full((p, n), 10), np.full((p, n), np.nan)
    )
    curves = vote_curves(table, powers_of_two(n), 0.95, rng)
    mean = curves.accuracy.mean(axis=0)
    assert abs(mean[0] - 0.45) < 4 * np.sqrt(0.45 * 0.55 / (p * n))
    assert abs(mean[1] - mean[0]) < 0.05  # a vote of two is the first draw
    assert mean[-1] > 0.85
    assert (curves.draws <= np.array(curves.n) + 1e-9).all()
    np.testing.assert_allclose(curves.output_tokens, 10 * curves.draws)


def test_stopping_early_saves_draws_and_the_lossless_rule_costs_no_accuracy(rng):
    p, n = 80, 16
    kinds = (rng.random((p, n)) > 0.8).astype(int) * rng.integers(1, 4, (p, n))
    table = Recorded(
        np.full(p, n), kinds == 0, kinds, np.ones((p, n), int), np.full((p, n), np.nan)
    )
    lossless = vote_curves(table, (n,), 1.0, np.random.default_rng(3))
    bold = vote_curves(table, (n,), 0.9, np.random.default_rng(3))
    winner = [np.bincount(row).argmax() == 0 for row in kinds]
    top = [np.sort(np.bincount(row, minlength=2)) for row in kinds]
    ties = [votes[-1] == votes[-2] for votes in top]
    clear = ~np.array(ties)
    np.testing.assert_array_equal(lossless.accuracy[clear, 0], np.array(winner)[clear])
    assert bold.draws.mean() < lossless.draws.mean() < n


def test_beta_rule_is_the_posterior_of_the_leaders_share():
    for leader, runner_up in [(4, 0), (3, 1), (6, 2), (1, 0), (0, 0)]:
        ahead = quad(beta(leader + 1, runner_up + 1).pdf, 0.5, 1)[0]
        for confidence in (0.6, 0.9, 0.95, 0.99):
            expected = ahead >= confidence
            assert is_decided(leader, runner_up, 100, confidence) == expected
    decided = vote_decided([5, 3, 2], [0, 2, 1], [4, 1, 1], 1.0)
    assert decided.tolist() == [True, False, False]


@pytest.mark.parametrize("confidence", [0.5, 0.0, 1.01, float("nan")])
def test_a_confidence_that_means_nothing_is_refused(confidence):
    with pytest.raises(InputError, match="confidence"):
        vote_decided(1, 0, 3, confidence)


def test_problems_with_fewer_draws_are_resampled(rng):
    table = Recorded(
        np.array([2, 8]), np.array([[True] * 2 + [False] * 6, [True] * 8]),
        np.array([[0, 0] + [-1] * 6, [0] * 8]), np.ones((2, 8), int),
        np.full((2, 8), np.nan),
    )  # fmt: skip
    curves = vote_curves(table, (1, 8), 1.0, rng)
    np.testing.assert_array_equal(curves.accuracy, 1)
    np.testing.assert_array_equal(curves.draws[:, 1], 5)
    with pytest.raises(InputError):
        vote_curves(table, (16,), 1.0, rng)


def test_beyond_the_draws_the_vote_stays_flat_and_grows_unsure():
    assert flat_beyond(8, 16, 0.7, 0.02) == (0.7, 0.02, False)
    mean, sd, extrapolated = flat_beyond(64, 16, 0.7, 0.02)
    assert mean == 0.7
    assert extrapolated
    assert sd > flat_beyond(32, 16, 0.7, 0.02)[1] > 0.02


def test_spread_of_tokens_covers_draws_that_all_are_made(rng):
    p, n = 200, 16
    tokens = rng.integers(10, 50, (p, n))
    kinds = np.tile(np.arange(n), (p, 1))  # never agree: every draw is made
    table = Recorded(np.full(p, n), kinds == 0, kinds, tokens, np.full((p, n), np.nan))
    sd = vote_curves(table, (n,), 1.0, rng).tokens_sd()[0]
    # the sum of n independent draws; the recorded sums alone already vary as much
    expected = np.sqrt(2 * n * tokens.var())
    assert sd == pytest.approx(expected, rel=5 / np.sqrt(2 * p))
