"""Forecasts of options: from the laws, in every unit, and between measured settings."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from planner.models.cost import UNITS
from planner.models.errors import InputError, NotMeasuredError
from planner.options import (
    Z90,
    build_options,
    cost_models,
    cost_quantile,
    known_groups,
)  # fmt: skip
from planner.plan import Option

GROUP = ("code", 1)


@pytest.fixture
def laws(known_laws, rng):
    return known_laws(rng, true_problems=50).laws


@pytest.fixture
def table(laws, rng):
    return build_options(laws, known_groups(laws), rng)


def row_of(table, group, **wanted):
    rows = [
        i for i, p in enumerate(table.points)
        if p.group == group and all(getattr(p.option, k) == v for k, v in wanted.items())
    ]  # fmt: skip
    assert len(rows) == 1, wanted
    return rows[0]


def at(**changes):
    settings = {
        "model": "medium", "strategy": "best_of_n", "n": 4, "max_tokens": 64,
        "temperature": 1.0,
    }  # fmt: skip
    return Option(**(settings | changes))


def test_every_measured_setting_is_an_option_once(table, laws):
    # n = 1 of a strategy that draws more is the same thing as "single"
    per_cell = 1 + 4
    assert len(table) == len(laws.cells) * per_cell
    assert len({(p.group, p.option) for p in table.points}) == len(table)
    assert {p.origin for p in table.points} == {"grid"}


def test_expected_cost_is_draws_times_the_cost_models_mean_draw(table, laws):
    row = row_of(table, GROUP, **at().model_dump())
    cell = next(
        c for c in laws.cells
        if (c.task, c.difficulty, c.model) == (*GROUP, "medium")
        and c.max_tokens == 64 and c.temperature == 1.0
    )  # fmt: skip
    curve = next(c for c in cell.curves if c.strategy == "best_of_n")
    i = curve.n.index(4)
    each = cost_models(laws)["medium"].of_draws(
        20.0, curve.output_tokens[i] / curve.draws[i]
    )
    expected = curve.draws[i] * each[0]
    np.testing.assert_allclose(table.cost[row], expected, rtol=1e-12)
    forecast = table.forecast(row)
    known = [u for u in UNITS if u != "s"]  # these laws have no timings
    assert list(forecast.cost) == known
    assert forecast.cost["tokens"] == pytest.approx(
        curve.draws[i] * 20 + curve.output_tokens[i]
    )


def test_a_unit_unknown_for_a_model_is_left_out_not_zero(known_laws, rng):
    laws = known_laws(rng, priced=("small",), true_problems=50).laws
    table = build_options(laws, [GROUP], rng)
    usd = table.column("usd")
    names = np.array([p.option.model for p in table.points])
    assert np.isfinite(usd[names == "small"]).all()
    assert np.isnan(usd[names != "small"]).all()
    dear = table.forecast(row_of(table, GROUP, **at(model="large").model_dump()))
    assert "usd" not in dear.cost
    assert "usd" not in dear.cost_p95


def test_the_95th_percentile_is_that_of_a_gamma(table):
    row = row_of(table, GROUP, **at(strategy="single", n=1).model_dump())
    point = replace(
        table.points[row], output_tokens=20.0, output_tokens_sd=9.0,
        option=at(strategy="single", n=1, max_tokens=1000),
    )  # fmt: skip
    got = cost_quantile([point], table.cost_models, Z90)[0, 0]
    exact = stats.gamma(a=(20 / 9) ** 2, scale=81 / 20).ppf(0.95)
    assert got == pytest.approx(point.prompt_tokens + exact, rel=0.005)


def test_no_percentile_passes_n_full_draws(table):
    row = row_of(table, GROUP, **at().model_dump())
    wild = replace(table.points[row], output_tokens=100.0, output_tokens_sd=1000.0)
    got = cost_quantile([wild], table.cost_models, Z90)[0, 0]
    assert got <= 4 * (20 + 64) + 1e-9
    tame = replace(wild, output_tokens_sd=0.0)
    np.testing.assert_allclose(
        cost_quantile([tame], table.cost_models, Z90)[0, 0], wild.draws * 20 + 100.0
    )


def test_draws_have_the_laws_spread_and_move_together_along_n(table):
    rows = np.array(
        [row_of(table, GROUP, **at(n=n).model_dump()) for n in (2, 4, 8)], np.intp
    )
    offsets = table.offsets(rows)
    n_draws = len(offsets)
    ratio = offsets.std(axis=0) / table.accuracy_sd[rows]
    np.testing.assert_allclose(ratio, 1.0, atol=4 / math.sqrt(2 * n_draws))
    assert np.corrcoef(offsets.T).min() > 0.999
    drawn = table.accuracy_draws(rows)
    assert ((drawn >= 0) & (drawn <= 1)).all()


def test_models_of_a_group_err_together_and_groups_alone(laws):
    table = build_options(laws, known_groups(laws), np.random.default_rng(3), n_draws=4000)
    single = at(strategy="single", n=1)
    here = row_of(table, GROUP, **single.model_dump())
    other_model = row_of(
        table, GROUP, **single.model_copy(update={"model": "small"}).model_dump()
    )
    other_group = row_of(table, ("code", 2), **single.model_dump())
    both = np.corrcoef(table.offsets(np.array([here, other_model, other_group])).T)
    error = 4 / math.sqrt(4000)
    assert 0.2 < both[0, 1] < 0.6
    assert abs(both[0, 2]) < error


def test_n_beyond_the_measured_is_flagged(laws, rng):
    cell = laws.cells[0]
    curves = tuple(c.model_copy(update={"n_max": 4}) for c in cell.curves)
    short = laws.model_copy(update={"cells": (cell.model_copy(update={"curves": curves}),)})
    table = build_options(short, [(cell.task, cell.difficulty)], rng)
    flags = {p.option.n: p.extrapolated for p in table.points if p.option.n > 1}
    assert flags[4] == ()
    assert flags[8] == ("n=8 beyond measured 4",)


def test_a_group_without_measurements_is_an_error(laws, rng):
    with pytest.raises(NotMeasuredError, match="'code' class 9"):
        build_options(laws, [("code", 9)], rng)


def test_an_architecture_that_lacks_a_dimension_is_an_error(laws):
    broken = laws.models[0].model_copy(update={"architecture": {"layers": 2.0}})
    with pytest.raises(InputError, match="small: architecture"):
        cost_models(laws.model_copy(update={"models": (broken,)}))


def read(table, option, group=GROUP):
    return table.read(group, [option])[0]


def test_a_measured_option_reads_back_as_it_is(table):
    for row in table.rows_of[table.groups.index(GROUP)]:
        point = table.points[row]
        assert read(table, point.option) == point


def test_options_of_several_models_come_back_in_their_order(table):
    asked = [at(model=m, n=n) for n in (2, 6) for m in ("large", "small", "medium")]
    found = table.read(GROUP, asked)
    assert [p.option for p in found] == asked
    assert found[4] == read(table, asked[4])


def test_half_way_between_two_caps_and_temperatures(table):
    point = read(table, at(max_tokens=48, temperature=0.8))
    corners = [
        read(table, at(max_tokens=c, temperature=t)) for c in (32, 64) for t in (0.6, 1.0)
    ]
    assert point.accuracy == pytest.approx(np.mean([p.accuracy for p in corners]))
    assert point.output_tokens == pytest.approx(np.mean([p.output_tokens for p in corners]))
    # an unmeasured place is less certain than the measured ones around it
    assert point.accuracy_sd > np.mean([p.accuracy_sd for p in corners])
    assert point.origin == "optuna"
    assert point.extrapolated == (
        "temperature 0.8 between measured 0.6 and 1",
        "max_tokens 48 between measured 32 and 64",
    )  # fmt: skip
    # its noise is that of the setting which weighs most
    near = read(table, at(max_tokens=60, temperature=0.9))
    assert near.series == corners[3].series


def test_n_is_read_on_a_log_scale(table):
    low, high = read(table, at(n=4)), read(table, at(n=8))
    weight = math.log(6 / 4) / math.log(8 / 4)
    point = read(table, at(n=6))
    assert point.accuracy == pytest.approx(
        (1 - weight) * low.accuracy + weight * high.accuracy
    )
    assert point.draws < 6
    # voting makes every draw here, so its draws and tokens are read exactly
    voting, sums = {"strategy": "self_consistency"}, ("sums", 1)
    assert read(table, at(**voting, n=6), sums).draws == pytest.approx(6)
    assert read(table, at(**voting, n=6), sums).output_tokens == pytest.approx(
        1.5 * read(table, at(**voting, n=4), sums).output_tokens
    )
    # n = 1 of the family is the single draw
    single = read(table, at(strategy="single", n=1))
    assert single.accuracy < read(table, at(n=2)).accuracy
    assert read(table, at(n=1)).accuracy == single.accuracy


def test_settings_not_measured_jointly_are_options_that_say_so(laws, rng):
    kept = tuple(
        c for c in laws.cells
        if (c.model, c.temperature, c.max_tokens) != ("medium", 1.0, 64)
    )  # fmt: skip
    table = build_options(laws.model_copy(update={"cells": kept}), [GROUP], rng)
    point, others = read(table, at()), [read(table, at(max_tokens=32))]
    assert point.extrapolated == ("temperature 1 with max_tokens 64 not measured jointly",)
    assert point.origin == "optuna"
    assert point.accuracy_sd > others[0].accuracy_sd
    assert point.series == others[0].series  # of the same temperature: the same draws
    assert at() not in [p.option for p in table.points]


@pytest.mark.parametrize(
    "off", [{"max_tokens": 65}, {"temperature": 0.59}, {"n": 17}, {"model": "huge"}]
)
def test_nothing_is_read_outside_the_measured_range(table, off):
    with pytest.raises(NotMeasuredError):
        read(table, at(**off))


def test_added_points_join_every_column(table):
    point = read(table, at(n=6))
    more = table.with_points([point])
    assert len(more) == len(table) + 1
    assert more.forecast(len(table)).option == at(n=6)
    np.testing.assert_array_equal(more.cost[: len(table)], table.cost)
    assert len(table) in more.rows_of[table.groups.index(GROUP)]
    taken = more.take(np.array([len(table)]))
    assert taken.points == (point,)
