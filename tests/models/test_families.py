import numpy as np
import pytest

from planner.models.counts import CountTable
from planner.models.errors import FitError, InputError, NotMeasuredError
from planner.models.families import FamilyLaw
from planner.models.items import fit_items, shapes

SIZES = np.array([1e8, 3e8, 1e9, 3e9, 1e10])


def rates(rng, parameters, easiness):
    a, b = shapes(np.asarray(parameters)[:, None], easiness)
    return rng.beta(a, b)


def table_of(p, n, rng):
    """Every model draws every problem n times."""
    cell, problem = np.nonzero(np.ones_like(p))
    return CountTable.of(rng.binomial(n, p).ravel(), n, cell=cell, problem=problem)


def family(rng, n_problems=60, slope=1.5, scatter=0.3, sizes=SIZES):
    """Parameters and rates of a family that the law describes."""
    x = np.log10(sizes) - np.log10(sizes).mean()
    ability = slope * x + scatter * rng.standard_normal(len(x))
    parameters = np.stack(
        [ability, 0.1 * rng.standard_normal(len(x)), 0.3 * rng.standard_normal(len(x))], 1
    )
    return parameters, rates(rng, parameters, rng.normal(0, 1.5, n_problems))


def pass_at(p, k):
    return np.array([np.mean(1 - (1 - p) ** x) for x in k])


def test_rates_of_the_beta_have_the_centre_that_ability_and_easiness_say(rng):
    a, b = shapes(np.array([0.5, np.log(2.0), np.log(3.0)]), np.array([-1.0, 0.0, 4.0]))
    centre = 1 / (1 + np.exp(-(0.5 + 2.0 * np.array([-1.0, 0.0, 4.0]))))
    np.testing.assert_allclose(a / (a + b), centre)
    np.testing.assert_allclose(a + b, 3.0 / np.sqrt(centre * (1 - centre)))


def test_items_find_models_and_problems(rng):
    easiness = rng.normal(0, 1.5, 400)
    easiness -= easiness.mean()
    truth = np.array(
        [[-2.0, 0.2, 0.5], [-0.5, -0.2, 0.0], [1.0, 0.0, 1.0], [2.0, 0.0, 0.0]]
    )
    table = table_of(rates(rng, truth, easiness), 32, rng)
    items = fit_items(
        table.n_correct.astype(float), table.n_samples.astype(float), table.cell,
        table.problem, 400,
    )  # fmt: skip
    sd = np.sqrt(np.diagonal(items.covariance, axis1=1, axis2=2))
    off = items.parameters - truth
    off[:, 1] -= off[:, 1].mean()  # the scale of easiness is free
    assert (np.abs(off) < 4 * sd + 0.05).all()
    guess = items.weights @ items.nodes
    assert (
        np.corrcoef(guess, easiness)[0, 1] > 0.85
    )  # the scatter of four models leaves no more


def test_intervals_of_models_never_sampled_hold(rng):
    held, k = [], [1, 16, 256]
    for _ in range(12):
        _, p = family(rng, n_problems=40)
        target = int(rng.integers(len(SIZES)))
        others = np.delete(np.arange(len(SIZES)), target)
        law = FamilyLaw.fit(table_of(p[others], 32, rng), SIZES[others])
        guess = law.predict(k, rng, model_size=SIZES[target], size=200)
        low, high = guess.interval()
        truth = pass_at(p[target], k)
        held.append((low <= truth) & (truth <= high))
        assert guess.extrapolated.all()
    share = np.mean(held, axis=0)
    # below 0.9 - 3 x its standard error the intervals do not hold
    assert (share > 0.9 - 3 * np.sqrt(0.09 / 12)).all()


def test_size_tells_more_than_the_mean_of_the_siblings(rng):
    ours, mean = [], []
    for _ in range(4):
        _, p = family(rng, n_problems=40)
        for target in (0, len(SIZES) - 1):
            others = np.delete(np.arange(len(SIZES)), target)
            law = FamilyLaw.fit(table_of(p[others], 32, rng), SIZES[others])
            guess = law.predict([1], rng, model_size=SIZES[target], size=100).mean[0]
            ours.append(abs(guess - p[target].mean()))
            mean.append(abs(p[others].mean() - p[target].mean()))
    gain = np.array(mean) - np.array(ours)
    assert gain.mean() > 3 * gain.std() / np.sqrt(len(gain))


def test_four_draws_a_problem_narrow_the_forecast_and_hold(rng):
    held, widths, k = [], [], [1, 16]
    for _ in range(10):
        _, p = family(rng)
        law = FamilyLaw.fit(table_of(p[:-1], 64, rng), SIZES[:-1])
        never = law.forecast(SIZES[-1])
        known = never.update(rng.binomial(4, p[-1]), 4)
        wide, narrow = (f.predict(k, rng, size=200).interval() for f in (never, known))
        widths.append([narrow[1] - narrow[0], wide[1] - wide[0]])
        truth = pass_at(p[-1], k)
        held.append((narrow[0] <= truth) & (truth <= narrow[1]))
    # both k of a family miss together
    assert np.mean(held) > 0.9 - 3 * np.sqrt(0.09 / 10)
    of_few, of_none = np.mean(widths, axis=0)
    assert (of_few < 0.6 * of_none).all()


def test_many_draws_override_the_siblings(rng):
    _, p = family(rng)
    law = FamilyLaw.fit(table_of(p[:-1], 32, rng), SIZES[:-1])
    other = rng.permutation(p[0])  # a model unlike any sibling
    known = law.forecast(SIZES[-1]).update(rng.binomial(5000, other), 5000)
    guess = known.predict([1, 8], rng, size=200)
    se = np.sqrt(np.mean(other * (1 - other)) / 5000 / len(other))
    assert abs(guess.mean[0] - other.mean()) < 4 * se + 1e-3
    np.testing.assert_array_equal(guess.extrapolated, False)


def test_draws_that_come_later_tell_what_draws_in_the_table_tell(rng):
    _, p = family(rng, n_problems=200)
    p = p[:4]
    table = table_of(p, 16, rng)
    last = table.cell == 3
    siblings = CountTable.of(
        table.n_correct[~last], 16, cell=table.cell[~last], problem=table.problem[~last]
    )
    at_once = FamilyLaw.fit(table, SIZES[:4])
    at_once_ability = at_once.items[0].parameters[3, 0] - at_once.items[0].parameters[2, 0]
    law = FamilyLaw.fit(siblings, SIZES[:3])
    (later,) = law.forecast(SIZES[3]).update(table.n_correct[last], 16).parameters.mean
    off = later[0] - law.items[0].parameters[2, 0] - at_once_ability
    assert abs(off) < 0.1
    assert abs(later[2] - at_once.items[0].parameters[3, 2]) < 0.25


def test_measured_coverage_is_exact_once_all_draws_are_in(rng):
    _, p = family(rng)
    law = FamilyLaw.fit(table_of(p[:-1], 32, rng), SIZES[:-1])
    c = rng.binomial(8, p[-1])
    known = law.forecast(SIZES[-1]).update(c, 8)
    guess = known.predict_measured([1, 8], 8, rng, size=20)
    np.testing.assert_allclose(guess.draws, [[c.mean() / 8, np.mean(c > 0)]] * 20)
    with pytest.raises(InputError, match="at most n"):
        known.predict_measured([9], 8, rng)


def test_a_model_known_on_another_benchmark_is_forecast_better(rng):
    """Skill that no size explains shows on every benchmark."""
    x = np.log10(SIZES) - 9
    with_model, without = [], []
    for _ in range(4):
        skill = 1.5 * x + 1.2 * rng.standard_normal(len(x))
        parameters = np.stack([skill, 0 * x, 0 * x], 1)
        p = [rates(rng, parameters, rng.normal(0, 1, 40)) for _ in range(2)]
        cell = np.repeat(np.arange(9), 40)
        c = np.concatenate(
            [rng.binomial(32, p[0]).ravel(), rng.binomial(32, p[1][:4]).ravel()]
        )
        table = CountTable.of(
            c, 32, cell=cell, problem=np.tile(np.arange(40), 9), benchmark=[0] * 5 + [1] * 4
        )
        names = [0, 1, 2, 3, 4, 0, 1, 2, 3]
        law = FamilyLaw.fit(table, SIZES[names], model=names)
        truth = p[1][4].mean()
        for model, errors in ((4, with_model), (None, without)):
            new = law.forecast(SIZES[4], model=model, benchmark=1)
            errors.append(abs(new.predict([1], rng, size=100).mean[0] - truth))
    assert np.mean(with_model) < np.mean(without)


def test_families_differ(rng):
    """Two families a long way apart: the target follows its own."""
    x = np.tile(np.log10(SIZES[:4]) - 8.7, 2)
    parameters = np.stack([x + np.repeat([1.5, -1.5], 4), 0 * x, 0 * x], 1)
    p = rates(rng, parameters, rng.normal(0, 1, 60))
    law = FamilyLaw.fit(
        table_of(p, 32, rng), np.tile(SIZES[:4], 2), family=["a"] * 4 + ["b"] * 4
    )
    strong, weak, new = (
        law.predict([1], rng, model_size=SIZES[4], family=f) for f in ("a", "b", "c")
    )
    assert strong.interval()[0][0] > weak.interval()[1][0]
    width = [np.ptp(q.interval()) for q in (strong, weak, new)]
    assert width[2] > max(width[:2])


def test_training_tokens_explain_what_size_does_not(rng):
    sizes, tokens = np.full(6, 1e9) * [1, 1.1, 1, 1.1, 1, 1.1], np.geomspace(1e10, 1e12, 6)
    ability = 2.0 * (np.log10(tokens) - 11)
    parameters = np.stack([ability, 0 * ability, 0 * ability], 1)
    p = rates(rng, parameters, rng.normal(0, 1, 60))
    table = table_of(p[:5], 32, rng)
    law = FamilyLaw.fit(table, sizes[:5], train_tokens=tokens[:5])
    guess = law.predict([1], rng, model_size=1e9, train_tokens=tokens[5])
    low, high = guess.interval()
    assert low[0] <= p[5].mean() <= high[0]
    plain = FamilyLaw.fit(table, sizes[:5]).predict([1], rng, model_size=1e9)
    assert abs(guess.mean[0] - p[5].mean()) < abs(plain.mean[0] - p[5].mean())
    with pytest.raises(InputError, match="both fit and forecast"):
        law.forecast(1e9)


@pytest.mark.parametrize("correct", [0, 8])
def test_counts_all_wrong_or_all_right_leave_a_wide_interval(rng, correct):
    table = CountTable.of(
        [correct] * 30, 8, cell=np.repeat([0, 1, 2], 10), problem=np.tile(np.arange(10), 3)
    )
    guess = FamilyLaw.fit(table, SIZES[:3]).predict([1, 1000], rng, model_size=SIZES[4])
    low, high = guess.interval()
    at = 1 if correct == 0 else 0
    assert high[at] - low[at] > 0.2


def test_one_problem_leaves_a_wide_interval(rng):
    table = CountTable.of([1, 4, 6], 8, cell=[0, 1, 2], problem=[0, 0, 0])
    law = FamilyLaw.fit(table, SIZES[:3])
    low, high = law.predict([1], rng, model_size=SIZES[3]).interval()
    assert high[0] - low[0] > 0.5


def test_unequal_draws_and_missing_problems(rng):
    _, p = family(rng, n_problems=50)
    n = rng.integers(1, 40, p.shape)
    keep = rng.random(p.shape) < 0.7
    cell, problem = np.nonzero(keep)
    table = CountTable.of(
        rng.binomial(n, p)[keep],
        n[keep],
        cell=cell,
        problem=problem * 7,  # gaps are fine
    )
    law = FamilyLaw.fit(table, [*SIZES[:-1], np.nan])
    low, high = law.predict([1, 8], rng, model_size=np.nan).interval()
    assert (high - low > 0.3).all()
    new = law.forecast(SIZES[-1])
    with pytest.raises(InputError, match="problem 5 has no draw"):
        new.update([1], 4, [5])
    known = new.update([1, 0], [4, 2], [7, 14])
    with pytest.raises(InputError, match="came in before"):
        known.update([1], 4, [21])


def test_what_cannot_be_used_is_refused(rng):
    _, p = family(rng, n_problems=5)
    table = table_of(p[:3], 8, rng)
    with pytest.raises(FitError, match="two sizes"):
        FamilyLaw.fit(table, [1e9, 1e9, np.nan])
    for bad in ([1e9, -1, 1e8], [1e9, 1e8], [1e9, np.inf, 1e8]):
        with pytest.raises(InputError, match="size"):
            FamilyLaw.fit(table, bad)
    with pytest.raises(InputError, match="one temperature"):
        FamilyLaw.fit(table, SIZES[:3], model=["a", "a", "b"])
    with pytest.raises(InputError, match="family"):
        FamilyLaw.fit(table, SIZES[:3], family=["a"])
    law = FamilyLaw.fit(table, SIZES[:3])
    for k in (0, np.nan, np.inf):
        with pytest.raises(InputError, match="finite k"):
            law.predict(k, rng, model_size=1e9)
    with pytest.raises(NotMeasuredError, match="benchmark 1"):
        law.forecast(1e9, benchmark=1)
    with pytest.raises(InputError, match="k >= 1"):
        law.predict([0], rng, model_size=1e9)
    with pytest.raises(InputError, match="row 0"):
        law.forecast(1e9).update([5] * 5, 4)
