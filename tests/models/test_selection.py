from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.models.coverage import pass_at_k
from planner.models.errors import InputError
from planner.models.lengths import Recorded
from planner.models.selection import scored_curves, verified_curves

DRAWS = st.lists(
    st.tuples(
        st.booleans(), st.integers(1, 9), st.sampled_from([0.0, 1.0, 2.0, float("nan")])
    ),
    min_size=1, max_size=6,
)  # fmt: skip


def recorded(draws):
    correct, tokens, score = (np.array([values]) for values in zip(*draws, strict=True))
    return Recorded(np.array([len(draws)]), correct, np.zeros_like(tokens), tokens, score)


@settings(max_examples=40, deadline=None)
@given(DRAWS)
def test_stopping_at_the_first_success_matches_every_order(draws):
    grid = tuple(range(1, len(draws) + 1))
    curves = verified_curves(recorded(draws), grid)
    for j, n in enumerate(grid):
        outcomes = []
        for order in permutations(draws):
            flags = [correct for correct, _, _ in order[:n]]
            made = flags.index(True) + 1 if any(flags) else n
            outcomes.append(
                (any(flags), made, sum(tokens for _, tokens, _ in order[:made]))
            )
        expected = np.mean(outcomes, axis=0)
        got = curves.accuracy[0, j], curves.draws[0, j], curves.output_tokens[0, j]
        np.testing.assert_allclose(got, expected, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(DRAWS)
def test_the_best_scored_draw_matches_every_order(draws):
    grid = tuple(range(1, len(draws) + 1))
    curves = scored_curves(recorded(draws), grid)
    for j, n in enumerate(grid):
        chosen = []
        for order in permutations(draws):
            scored = [d for d in order[:n] if not np.isnan(d[2])]
            # max keeps the first of equals: the earliest
            chosen.append(max(scored, key=lambda d: d[2])[0] if scored else False)
        assert curves.accuracy[0, j] == pytest.approx(np.mean(chosen), abs=1e-9)
        assert curves.output_tokens[0, j] == pytest.approx(
            n * np.mean([d[1] for d in draws])
        )


def test_a_perfect_score_selects_as_well_as_coverage_and_noise_as_well_as_chance(rng):
    p, n, grid = 40, 16, (1, 4, 16)
    correct = rng.random((p, n)) < rng.beta(0.5, 1, (p, 1))
    tokens, codes = np.ones((p, n), int), np.zeros((p, n), int)
    perfect = Recorded(np.full(p, n), correct, codes, tokens, correct.astype(float))
    constant = Recorded(np.full(p, n), correct, codes, tokens, np.zeros((p, n)))
    coverage = pass_at_k(correct.sum(axis=1), n, grid)
    np.testing.assert_allclose(scored_curves(perfect, grid).accuracy, coverage, atol=1e-12)
    flat = np.tile(correct.mean(axis=1)[:, None], len(grid))
    np.testing.assert_allclose(scored_curves(constant, grid).accuracy, flat, atol=1e-12)


def test_cut_draws_are_wrong_unscored_and_cost_the_cap():
    whole = recorded([(True, 10, 5.0), (False, 3, 1.0)]).capped(4)
    assert whole.correct.tolist() == [[False, False]]
    assert whole.answer.tolist() == [[-1, 0]]
    assert whole.output_tokens.tolist() == [[4, 3]]
    assert np.isnan(whole.score[0, 0])
    assert scored_curves(whole, (2,)).accuracy[0, 0] == 0


def test_spread_of_tokens_is_that_of_simulated_requests(rng):
    p, most, m = 0.3, 6, 4000
    correct = rng.random((m, most)) < p
    tokens = rng.integers(5, 20, (m, most))
    made = np.where(correct.any(axis=1), correct.argmax(axis=1) + 1, most)
    used = np.cumsum(tokens, axis=1)[np.arange(m), made - 1]
    # one problem with very many draws: nothing is spread between problems
    many = rng.random((1, 4000)) < p
    lengths = rng.integers(5, 20, (1, 4000))
    table = Recorded(np.array([4000]), many, np.zeros_like(lengths), lengths,
                     np.full((1, 4000), np.nan))  # fmt: skip
    curves = verified_curves(table, (most,))
    assert curves.tokens_sd()[0] == pytest.approx(used.std(), rel=0.06)
    error = 4 * used.std() / np.sqrt(m) + 4 * 40 * np.sqrt(p * (1 - p) / 4000)
    assert abs(curves.output_tokens[0, 0] - used.mean()) < error


def test_n_beyond_the_draws_is_refused():
    for curves in (verified_curves, scored_curves):
        with pytest.raises(InputError, match="best-of-N needs n"):
            curves(recorded([(True, 1, 0.0)]), (2,))
