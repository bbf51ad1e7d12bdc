import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.models.effort import EffortLaw
from planner.models.errors import FitError, InputError, NotMeasuredError
from planner.models.lengths import Recorded
from planner.models.overthinking import LengthEffect
from planner.models.thinking import CapLaw

# Epoch AI Benchmarking Hub (CC-BY-4.0): mean output tokens and accuracy by effort level.
GPQA_DIAMOND = [
    [(1028, 0.827), (1921, 0.879), (3408, 0.882), (12_881, 0.914)],
    [(3224, 0.850), (8049, 0.876)],
    [(3755, 0.854), (6932, 0.862)],
    [(2652, 0.717), (7446, 0.750)],
    [(5070, 0.676), (12_161, 0.694)],
    [(740, 0.807), (5596, 0.855), (8065, 0.860)],
    [(5923, 0.905), (6918, 0.887)],
]
OTIS_MOCK_AIME = [
    [(4538, 0.789), (7995, 0.939), (11_017, 0.961), (18_615, 0.961)],
    [(4328, 0.639), (11_280, 0.856), (21_847, 0.886)],
    [(9697, 0.872), (16_367, 0.914)],
    [(6959, 0.783), (16_491, 0.867)],
    [(14_594, 0.742), (31_208, 0.811)],
    [(1194, 0.481), (11_179, 0.817), (17_523, 0.861)],
    [(16_040, 0.931), (17_751, 0.944)],
]


def recorded(correct, tokens):
    correct, tokens = np.asarray(correct, bool), np.asarray(tokens, np.int64)
    n = np.full(len(tokens), tokens.shape[1])
    return Recorded(
        n, correct, np.where(correct, 0, 1), tokens, np.full(tokens.shape, np.nan)
    )


def of_tails(rng, *, right, shape, scale=40.0, p=120, n=16):
    """Lengths of Weibull tails, problems unlike in scale and in chance."""
    size = scale * np.exp(rng.normal(0, 0.3, (p, 1)))
    tokens = np.maximum(size * rng.weibull(shape, (p, n)), 1).astype(int)
    return recorded(rng.random((p, n)) < rng.beta(8 * right, 8 - 8 * right, (p, 1)), tokens)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 30)), min_size=2, max_size=8),
    st.integers(1, 30),
)
def test_below_the_cap_accuracy_is_that_of_the_cut_draws(draws, cap):
    correct, tokens = zip(*draws, strict=True)
    table = recorded([correct], [tokens])
    law = CapLaw.fit(table, 30)
    cut = table.capped(cap)
    expected = cut.n_correct / cut.n_samples
    assert law.accuracy(cap)[:, 0] == pytest.approx(expected)
    prediction = law.predict_measured(cap, np.random.default_rng(0))
    assert np.ptp(prediction.draws) == 0
    assert not prediction.extrapolated.any()


def test_tails_of_any_shape_are_forecast_within_their_interval(rng):
    """Exponential and heavier tails, cut at the median; not knowing either."""
    held, off, flat = [], [], []
    for shape in (0.6, 1.0):
        for right in (0.3, 0.8):
            for _ in range(6):
                full = of_tails(rng, right=right, shape=shape)
                cap = int(np.median(full.output_tokens))
                law = CapLaw.fit(full.capped(cap), cap)
                prediction = law.predict_measured([2 * cap], rng)
                truth = full.capped(2 * cap).n_correct.sum() / full.correct.size
                low, high = prediction.interval()
                held.append(low[0] <= truth <= high[0])
                off.append(abs(prediction.mean[0] - truth))
                flat.append(abs(law.accuracy(cap).mean() - truth))
                assert prediction.extrapolated.all()
    assert np.mean(off) < np.mean(flat) / 3
    assert np.mean(held) > 0.9 - 3 * np.sqrt(0.09 / len(held))


def test_beyond_the_cap_accuracy_and_tokens_rise_and_grow_unsure(rng):
    full = of_tails(rng, right=0.6, shape=0.8)
    law = CapLaw.fit(full.capped(40), 40)
    caps = [20, 40, 60, 120, 400]
    for prediction in (law.predict(caps, rng), law.predict_tokens(caps, rng)):
        assert (np.diff(prediction.mean) > 0).all()
        low, high = prediction.interval()
        assert (np.diff((high - low)[1:]) > 0).all()
        assert prediction.extrapolated.tolist() == [False, False, True, True, True]
    low, high = law.predict_tokens([80], rng).interval()
    assert low[0] <= np.minimum(full.output_tokens, 80).mean() <= high[0]


def test_loops_that_never_end_do_not_become_right_answers(rng):
    full = of_tails(rng, right=0.7, shape=1.5)
    loops = rng.random(full.correct.shape) < 0.3
    looping = recorded(full.correct & ~loops, np.where(loops, 1000, full.output_tokens))
    law = CapLaw.fit(looping.capped(200), 200)  # all that ends has ended
    known = law.accuracy(200).mean()
    assert looping.capped(400).n_correct.sum() / looping.correct.size - known < 0.005
    _, high = law.predict_measured([400], rng).interval()
    assert high[0] - known < law.cut.mean() / 5


def test_nothing_is_added_where_no_draw_was_cut(rng):
    table = recorded([[True, False]] * 3, [[5, 6]] * 3)
    assert CapLaw.fit(table, 100).predict_measured([100, 200], rng).mean == pytest.approx(
        0.5
    )


def test_when_all_draws_were_cut_the_forecast_is_wide(rng):
    table = recorded(np.zeros((5, 2)), np.full((5, 2), 64))
    low, high = CapLaw.fit(table, 64).predict([128, 512], rng).interval()
    assert (high - low > [0.1, 0.3]).all()


@pytest.mark.parametrize("right", [True, False])
def test_one_problem_says_little_of_others(rng, right):
    law = CapLaw.fit(recorded([[right] * 4], [[5, 6, 7, 8]]), 10)
    low, high = law.predict([10, 20], rng).interval()
    assert (high - low > 0.5).all()
    assert ((high > 0.99) if right else (low < 0.01)).all()


def test_bad_caps_are_refused(rng):
    law = CapLaw.fit(recorded([[True]], [[5]]), 10)
    with pytest.raises(InputError, match="at least 1"):
        law.predict([0], rng)
    with pytest.raises(InputError, match="use predict"):
        law.accuracy(11)
    for cap in (0, np.nan, np.inf):
        with pytest.raises(InputError, match="a cap >= 1"):
            CapLaw.fit(recorded([[True]], [[5]]), cap)
    with pytest.raises(InputError, match="under a cap"):
        CapLaw.fit(recorded([[True]], [[50]]), 10)


def simulate_slopes(rng, within, between, p=400, n=8):
    """Hard problems take longer by e; length acts on one problem by `within`."""
    hard = rng.normal(0, 1, (p, 1))
    log_tokens = 6 + hard + rng.normal(0, 0.5, (p, n))
    level = (between - within) * hard
    chance = 1 / (1 + np.exp(-(level + within * (log_tokens - 6))))
    return recorded(rng.random((p, n)) < chance, np.exp(log_tokens).astype(int) + 1)


@pytest.mark.parametrize("within", [-1.0, 0.0, 1.0])
def test_slope_within_problems_is_not_taken_in_by_simpson(rng, within):
    effect = LengthEffect.fit(simulate_slopes(rng, within, -2.0))
    assert abs(effect.within.value - within) < 4 * effect.within.se
    assert effect.within.se < 0.2
    assert effect.between.value < -1.2
    assert effect.pooled.value < effect.within.value - 0.5


def test_slope_of_one_pair_of_draws_a_problem_has_a_closed_form(rng):
    """Two draws, one right: logistic regression of which, on the difference."""
    x = rng.integers(5, 50, (300, 2))
    gap = np.log(x[:, 0] / x[:, 1])
    first = rng.random(300) < 1 / (1 + np.exp(-0.7 * gap))
    slope = LengthEffect.fit(recorded(np.stack([first, ~first], 1), x)).within.value
    score = (gap * (first - 1 / (1 + np.exp(-slope * gap)))).sum()
    assert abs(score) < 1e-6


def test_interval_of_the_slope_holds(rng):
    hits = 0
    for _ in range(100):
        low, high = LengthEffect.fit(simulate_slopes(rng, -0.5, -2, p=80)).within.interval()
        hits += low <= -0.5 <= high
    assert abs(hits / 100 - 0.9) < 4 * 0.03


def test_draws_the_cap_cut_do_not_pass_for_overthinking(rng):
    full = simulate_slopes(rng, 0.0, -2.0)
    cap = int(np.quantile(full.output_tokens, 0.8))
    cut = full.capped(cap)
    assert LengthEffect.fit(cut).within.interval()[1] < 0
    effect = LengthEffect.fit(cut, cap)
    assert abs(effect.within.value) < 5 * effect.within.se


def test_accuracy_of_draws_of_a_given_length(rng):
    effect = LengthEffect.fit(simulate_slopes(rng, -1.0, -2.0))
    prediction = effect.predict([0.5, 1.0, 2.0, 100.0], rng)
    assert (np.diff(prediction.mean) < 0).all()
    assert prediction.extrapolated.tolist() == [False, False, False, True]
    with pytest.raises(InputError):
        effect.predict([0.0], rng)


def test_slopes_need_mixed_problems(rng):
    with pytest.raises(FitError, match="draw more samples"):
        LengthEffect.fit(recorded([[True, True], [False, False]], [[5, 6], [7, 8]]))
    with pytest.raises(FitError):
        LengthEffect.fit(recorded([[True, False]] * 4, [[5, 5]] * 4))  # no spread
    separated = recorded([[True, False]] * 9, [[5, 50 + i] for i in range(9)])
    with pytest.raises(FitError, match="overlap"):
        LengthEffect.fit(separated)


@pytest.mark.parametrize(("curves", "n"), [(GPQA_DIAMOND, 198 * 8), (OTIS_MOCK_AIME, 360)])
def test_highest_effort_is_forecast_better_than_by_the_last_value(curves, n, rng):
    points = [(i, *point) for i, curve in enumerate(curves) for point in curve[:-1]]
    model, tokens, accuracy = map(np.array, zip(*points, strict=True))
    sd = np.sqrt(accuracy * (1 - accuracy) / n)
    law = EffortLaw.fit(model, tokens, accuracy, sd)
    errors, last, held = [], [], 0
    for i, curve in enumerate(curves):
        prediction = law.predict(i, curve[-1][0], rng)
        low, high = prediction.interval()
        truth = curve[-1][1]
        errors.append(abs(prediction.mean[0] - truth))
        last.append(abs(curve[-2][1] - truth))
        held += low[0] <= truth <= high[0]
        assert prediction.extrapolated.all()
    assert np.mean(errors) < 0.6 * np.mean(last)
    assert held >= 5  # of 7; 90 % intervals


def test_accuracy_that_falls_with_effort_is_forecast_to_fall(rng):
    tokens = np.tile([500, 1000, 2000, 4000], 3)
    accuracy = np.tile([0.70, 0.65, 0.60, 0.55], 3)
    law = EffortLaw.fit(np.repeat([0, 1, 2], 4), tokens, accuracy, np.full(12, 0.01))
    prediction = law.predict(1, [1000, 8000], rng)
    assert prediction.mean[1] < 0.55
    assert prediction.extrapolated.tolist() == [False, True]


def test_effort_intervals_widen_and_stay_in_range(rng):
    law = EffortLaw.fit([0, 0, 1], [1000, 4000, 1000], [0.2, 0.4, 0.3], [0.03] * 3)
    prediction = law.predict(1, [1000, 4000, 64_000], rng)
    low, high = prediction.interval()
    assert (np.diff(high - low) > 0).all()
    assert ((prediction.draws >= 0) & (prediction.draws <= 1)).all()


def test_effort_law_refuses_what_it_cannot_tell(rng):
    with pytest.raises(FitError, match="two efforts"):
        EffortLaw.fit([0, 1], [1000, 2000], [0.5, 0.6], [0.1, 0.1])
    for bad in ([np.nan, 0.5], [1.5, 0.5]):
        with pytest.raises(InputError):
            EffortLaw.fit([0, 0], [1000, 2000], bad, [0.1, 0.1])
    with pytest.raises(InputError):
        EffortLaw.fit([0, 0], [1000, 2000], [0.4, 0.5], [0.1, 0.0])
    law = EffortLaw.fit([0, 0], [1000, 2000], [0.4, 0.5], [0.1, 0.1])
    with pytest.raises(NotMeasuredError):
        law.predict(3, [1000], rng)
