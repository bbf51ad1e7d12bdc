"""The joint law: any option of a model and task, measured or in between."""

import math
from dataclasses import replace

import numpy as np
import pytest

from planner.models.artifact import (
    Cell,
    CoverageFit,
    LatencyFit,
    Laws,
    ModelLaw,
    Provenance,
    StrategyCurve,
)
from planner.models.cost import UNITS, CostModel
from planner.models.errors import InputError, NotMeasuredError
from planner.models.joint import JointLaw, OptionPoints

NS = (1, 2, 4, 8, 16)
NOW = "2026-01-02T03:04:05+00:00"
CORNERS = [(t, c) for t in (0.6, 1.0) for c in (64, 128, 256)]


def logistic(x):
    return 1 / (1 + math.exp(-x))


def curve(strategy, ns, accuracy, sd, tokens, n_max=16, draws=None):
    """A curve that makes every draw unless told otherwise."""
    made = tuple(float(n) for n in ns) if draws is None else draws
    return StrategyCurve(
        strategy=strategy, n=ns, accuracy=accuracy, accuracy_sd=(sd,) * len(ns),
        draws=made, output_tokens=tuple(tokens * d for d in made),
        output_tokens_sd=tuple(0.4 * tokens * d for d in made), n_max=n_max,
    )  # fmt: skip


def cell(temperature, cap, *, difficulty=0, ns=NS, sd=0.01, offset=0.0, n_max=16):
    """Effects of temperature, cap, n and class that add on the logit scale."""
    level = 0.4 * cap**0.3 - temperature - 1.5 * difficulty - 1 + offset
    tokens = 0.4 * cap + 30 * temperature
    accuracy = tuple(logistic(level + 0.5 * math.log2(n)) for n in ns)
    return Cell(
        model="m", task="t", difficulty=difficulty, temperature=temperature,
        max_tokens=cap, n_problems=50, n_samples=16, prompt_tokens=20.0 + difficulty,
        coverage=CoverageFit(shapes=((0.0, 0.0, 0.0, 0.0),), k_max=16),
        curves=(
            curve("single", (1,), accuracy[:1], sd, tokens),
            curve("self_consistency", ns, accuracy, sd, tokens, n_max),
        ),
    )  # fmt: skip


def of_single(made, accuracy, sd):
    single = curve("single", (1,), (accuracy,), sd, 30.0)
    return made.model_copy(update={"curves": (single,)})


def laws_of(cells, latency=None):
    return Laws(
        schema_version=1, inferplan="0.1.0", created_at=NOW, seed=0,
        provenance=Provenance(
            rows_sha256="ab" * 32, engines=("e",), machines=("c0",), measured_from=NOW,
            measured_to=NOW, source="measured",
        ),
        reference_batch=64, intensity_flop_per_byte=10.0, stop_confidence=0.95, tasks=(),
        models=(
            ModelLaw(
                model="m", engine="e",
                architecture={
                    "layers": 2.0, "hidden": 64.0, "heads": 4.0, "kv_heads": 4.0,
                    "head_dim": 16.0, "intermediate": 256.0, "vocabulary": 32.0,
                    "tied_embeddings": 0.0, "weight_bytes": 4.0, "kv_bytes": 4.0,
                },
                usd_per_input_token=1e-6, usd_per_output_token=3e-6, price_source="made up",
                latency=latency,
            ),
        ),
        cells=tuple(cells), holdout=(),
    )  # fmt: skip


def law_of(cells, latency=None):
    return JointLaw.of(laws_of(cells, latency), "m", "t")


def full(**settings):
    return [cell(t, c, **settings) for t, c in CORNERS]


def vote(n=4, cap=128, temperature=0.6, difficulty=0, **more):
    return OptionPoints.of("self_consistency", n, cap, temperature, difficulty, **more)


def by_hand(cells, n, cap, temperature):
    """Accuracy and draws of a vote between full cells, one option at a time."""
    found = {(c.temperature, c.max_tokens): c.curves[1] for c in cells}
    ts, cs = sorted({t for t, _ in found}), sorted({c for _, c in found})

    def weights(grid, x):
        if x in grid:
            return [(x, 1.0)]
        low, high = max(g for g in grid if g < x), min(g for g in grid if g > x)
        return [(low, (high - x) / (high - low)), (high, (x - low) / (high - low))]

    accuracy = draws = 0.0
    for t, u in weights(ts, temperature):
        for c, v in weights(cs, cap):
            at = found[t, c]
            a = np.interp(math.log(n), np.log(at.n), at.accuracy)
            d = math.exp(np.interp(math.log(n), np.log(at.n), np.log(at.draws)))
            accuracy, draws = accuracy + u * v * a, draws + u * v * d
    return accuracy, draws


def test_what_was_measured_reads_back_as_it_is():
    cells = full() + full(difficulty=1)
    law = law_of(cells)
    for c in cells:
        for of in c.curves:
            p = law.predict(
                OptionPoints.of(
                    of.strategy, of.n, c.max_tokens, c.temperature, c.difficulty
                )
            )
            np.testing.assert_array_equal(p.accuracy, of.accuracy)
            np.testing.assert_array_equal(p.accuracy_sd, of.accuracy_sd)
            np.testing.assert_array_equal(p.draws, of.draws)
            np.testing.assert_array_equal(p.output_tokens, of.output_tokens)
            np.testing.assert_array_equal(p.output_tokens_sd, of.output_tokens_sd)
            assert p.on_grid.all()
            assert not p.extrapolated.any()
            assert [p.reasons(i) for i in range(len(of.n))] == [()] * len(of.n)


def test_many_points_are_what_each_is_alone(rng):
    cells = full()
    law, size = law_of(cells), 6000  # more than one chunk
    n = rng.integers(1, 17, size)
    cap, temperature = rng.integers(64, 257, size), rng.uniform(0.6, 1.0, size)
    many = law.predict(vote(n, cap, temperature))
    for i in range(0, size, 97):
        a, d = by_hand(cells, int(n[i]), int(cap[i]), float(temperature[i]))
        assert many.accuracy[i] == pytest.approx(a, abs=1e-12)
        assert many.draws[i] == pytest.approx(d, rel=1e-12)
        alone = law.predict(vote(n[i], cap[i], temperature[i]))
        assert alone.accuracy_sd[0] == many.accuracy_sd[i]
        assert alone.reasons(0) == many.reasons(i)


def test_in_between_is_less_certain_and_says_so():
    law = law_of(full())
    p = law.predict(vote(6, [96, 128, 64], [0.8, 0.8, 0.6]))
    assert p.reasons(0) == (
        "temperature 0.8 between measured 0.6 and 1",
        "max_tokens 96 between measured 64 and 128",
    )
    assert p.reasons(1) == ("temperature 0.8 between measured 0.6 and 1",)
    assert p.reasons(2) == ()
    assert p.extrapolated.tolist() == [True, True, False]
    assert p.accuracy_sd[0] > p.accuracy_sd[1] > p.accuracy_sd[2] > 0.01


def test_n_beyond_the_measured_is_flagged_and_beyond_the_curve_refused():
    law = law_of(full(n_max=4))
    p = law.predict(vote([4, 6]))
    assert p.reasons(0) == ()
    assert p.reasons(1) == ("n=6 beyond measured 4",)
    with pytest.raises(
        NotMeasuredError, match=r"n 17 is outside .* nearest measured is 16"
    ):
        law.predict(vote(17))


@pytest.mark.parametrize("gone", CORNERS)
def test_a_missing_corner_is_combined_from_effects_measured_elsewhere(gone):
    cells = full(sd=0.003)
    kept = [c for c in cells if (c.temperature, c.max_tokens) != gone]
    truth = cells[CORNERS.index(gone)]
    p = law_of(kept).predict(vote(NS, gone[1], gone[0]))
    # effects that add on the logit scale come out as they are, but for the shift of a
    # mean under noise; tokens' effects here add rather than multiply, so they come close
    expected = truth.curves[1]
    np.testing.assert_allclose(p.accuracy, expected.accuracy, atol=0.005)
    np.testing.assert_allclose(p.output_tokens, expected.output_tokens, rtol=0.1)
    assert (p.low <= expected.accuracy).all()
    assert (expected.accuracy <= p.high).all()
    assert (p.accuracy_sd > 1.5 * 0.003).all()
    assert not p.on_grid.any()
    heat, cap = gone
    assert p.reasons(0) == (
        f"temperature {heat:g} with max_tokens {cap} not measured jointly",
    )


def test_effects_of_different_rows_meet_through_what_lies_between():
    # temperature at one cap only, the cap at another temperature only
    cells = [cell(0.6, 256), cell(1.0, 256), cell(0.8, 64), cell(0.8, 128)]
    law = law_of(cells)
    p = law.predict(vote(4, [64, 128, 256, 256], [0.6, 1.0, 0.8, 0.6]))
    truth = [cell(0.6, 64), cell(1.0, 128), cell(0.8, 256), cell(0.6, 256)]
    expected = [c.curves[1].accuracy[2] for c in truth]
    np.testing.assert_allclose(p.accuracy, expected, atol=0.02)
    assert p.separate.tolist() == [True, True, True, False]
    assert (p.low <= expected).all()
    assert (expected <= p.high).all()
    assert p.nearest[3].tolist() == [0.6, 256]


def test_intervals_of_combined_corners_hold(rng):
    # the truth: the smaller effect vanishes, doubles, or anything in between
    hits, trials, size = 0, 400, 50
    for _ in range(trials):
        base, heat, cap = rng.normal(0, 1), rng.normal(0, 0.5), rng.normal(0, 1)
        small, large = sorted([abs(heat), abs(cap)])
        extra = rng.uniform(-1, 1) * max(small, large / 4)
        logits = {
            (0.6, 64): base, (1.0, 64): base + heat, (0.6, 128): base + cap,
            (1.0, 128): base + heat + cap + extra,
        }  # fmt: skip
        shared = rng.standard_normal()
        cells = []
        for (t, c), logit in logits.items():
            p = logistic(logit)
            sd = 0.8 * math.sqrt(p * (1 - p) / size)
            noise = sd * (math.sqrt(0.5) * shared + math.sqrt(0.5) * rng.standard_normal())
            cells.append(of_single(cell(t, c), min(max(p + noise, 0.0), 1.0), sd))
        p = law_of(cells[:3]).predict(OptionPoints.of("single", 1, 128, 1.0))
        hits += int(p.low[0] <= logistic(logits[1.0, 128]) <= p.high[0])
    error = 3 * math.sqrt(0.9 * 0.1 / trials)
    assert 0.9 - error < hits / trials < 0.98


def test_never_solved_cells_combine_to_something_finite_and_unsure():
    seen = {(0.6, 64): 0.0, (1.0, 64): 0.0, (0.6, 128): 1.0}
    cells = [of_single(cell(*corner), a, 0.01) for corner, a in seen.items()]
    p = law_of(cells).predict(OptionPoints.of("single", 1, 128, 1.0))
    assert p.high[0] - p.low[0] > 0.02
    assert np.isfinite(p.accuracy).all()


def test_combined_costs_stay_possible():
    # the cap's effect on tokens is strong at 0.6: the product would pass the cap at 1
    cells = [cell(0.6, 64), cell(1.0, 64), cell(0.6, 128)]
    short = (
        cells[0]
        .curves[1]
        .model_copy(
            update={"output_tokens": tuple(1.0 * n for n in NS), "draws": (1.0,) * 5}
        )
    )
    cells[0] = cells[0].model_copy(update={"curves": (cells[0].curves[0], short)})
    p = law_of(cells).predict(vote(NS, 128, 1.0))
    assert (p.output_tokens <= np.array(NS) * 128).all()
    assert (p.draws <= NS).all()
    assert (p.draws >= 1).all()


@pytest.mark.parametrize(
    ("off", "says"),
    [
        ({"cap": 300}, "max_tokens 300 is outside measured 64 to 256; .* is 256"),
        ({"temperature": 0.1}, "temperature 0.1 is outside .* nearest measured is 0.6"),
        ({"difficulty": 3}, "class 3 is not measured; measured are 0"),
    ],
)
def test_nothing_is_read_outside_the_measured_range(off, says):
    with pytest.raises(NotMeasuredError, match=says):
        law_of(full()).predict(vote(**off))


def test_an_unknown_strategy_or_model_names_what_there_is():
    law = law_of(full())
    with pytest.raises(
        NotMeasuredError, match=r"best_of_n .* are self_consistency, single"
    ):
        law.predict(OptionPoints.of(["single", "best_of_n"], 1, 64, 0.6))
    with pytest.raises(NotMeasuredError, match="'other'"):
        JointLaw.of(laws_of(full()), "m", "other")
    with pytest.raises(NotMeasuredError, match="known are m"):
        CostModel.of(laws_of(full()), "other")


def test_effects_that_no_cell_shows_are_refused():
    # the cap's effect is unknown at every temperature but one of the two classes'
    cells = [cell(0.6, 64), cell(1.0, 128), cell(0.6, 64, difficulty=1)]
    with pytest.raises(NotMeasuredError, match="nearest measured is max_tokens=128 T=1"):
        law_of(cells).predict(vote(4, 128, 0.9))
    with pytest.raises(NotMeasuredError, match="class 1"):
        law_of([*full(), cell(0.6, 64, difficulty=1)]).predict(vote(4, 128, 0.6, 1))


def test_curves_of_unequal_n_are_read_as_far_as_each_goes():
    cells = [cell(0.6, 64), cell(1.0, 64, ns=(1, 3, 8))]
    law = law_of(cells)
    p = law.predict(vote([3, 8], 64, 1.0))
    np.testing.assert_allclose(p.accuracy, cells[1].curves[1].accuracy[1:])
    assert law.predict(vote(16, 64, 0.6)).on_grid.all()
    with pytest.raises(NotMeasuredError, match=r"n=16 .* nearest measured"):
        law.predict(vote(16, 64, 1.0))


def test_fixed_lengths_gain_spread_with_n():
    one = cell(0.6, 64, ns=(1, 4, 8))
    spreads = ((0.0,), (0.0, 5.0, 8.0))
    curves = tuple(
        c.model_copy(update={"output_tokens_sd": sd})
        for c, sd in zip(one.curves, spreads, strict=True)
    )
    p = law_of([one.model_copy(update={"curves": curves})]).predict(vote([1, 2, 4], 64))
    np.testing.assert_allclose(p.output_tokens_sd, [0.0, 2.5, 5.0])


def test_a_mix_of_classes_is_their_mean_with_independent_errors():
    law = law_of(full() + full(difficulty=1, sd=0.03))
    one, two = (law.predict(vote(4, 100, 0.8, d)) for d in (0, 1))
    p = law.predict(vote([4, 4], 100, 0.8, shares=[[0.25, 0.75], [1.0, 0.0]]))
    assert p.accuracy[0] == pytest.approx(0.25 * one.accuracy[0] + 0.75 * two.accuracy[0])
    assert p.accuracy_sd[0] == pytest.approx(
        math.hypot(0.25 * one.accuracy_sd[0], 0.75 * two.accuracy_sd[0])
    )
    assert p.prompt_tokens[0] == pytest.approx(20.75)
    for name in ("accuracy", "accuracy_sd", "output_tokens", "output_tokens_sd"):
        assert getattr(p, name)[1] == pytest.approx(getattr(one, name)[0])
    # a class without a share need not be measured
    only = law_of(full()).predict(vote(4, 100, 0.8, shares=[1.0, 0.0, 0.0]))
    assert only.accuracy[0] == pytest.approx(one.accuracy[0])


def test_a_conversation_reads_its_history_again():
    law = law_of(full())
    p = law.predict(vote(4, 64, 0.6, turns=[1, 3], prompt_tokens=20))
    each = p.output_tokens[0] / p.draws[0]
    costs = law.cost_model
    expected = p.draws[0] * sum(
        costs.of_draws((turn + 1) * 20 + turn * each, each)[0] for turn in range(3)
    )
    np.testing.assert_allclose(p.cost()[1], expected)
    assert p.cost()[1, UNITS.index("tokens")] > 3 * p.cost()[0, UNITS.index("tokens")]
    assert p.accuracy[1] == p.accuracy[0]
    assert p.extrapolated.tolist() == [False, True]
    assert p.reasons(1) == ("turns=3 not measured: accuracy is that of one turn",)


def test_batches_and_contexts_beyond_the_timed_are_flagged():
    latency = LatencyFit(
        machine="c0", flop_per_s=1e11, bytes_per_s=1e10,
        log_parameters=(-7.0, -7.0, -0.7, -0.7),
        covariance=tuple(tuple(0.01 * (i == j) for j in range(4)) for i in range(4)),
        residual_sd=0.1, batch_max=128, context_max=160, n_points=20, source="measured",
    )  # fmt: skip
    law = law_of(full(), latency)
    p = law.predict(
        vote(
            1,
            64,
            0.6,
            batch=[64, 256, 8, 8],
            prompt_tokens=[20, 20, 20, 900],
            turns=[1, 1, 4, 1],
        )
    )
    assert p.reasons(0) == ()
    assert p.reasons(1) == ("batch=256 beyond timed 128",)
    assert p.reasons(2)[1:] == ("context of 254 tokens beyond timed 160",)
    assert p.reasons(3)[0] == "prompts of 900 tokens: accuracy was measured on others"
    assert p.extrapolated.tolist() == [False, False, True, True]
    seconds = p.cost()[:, UNITS.index("s")]
    alone = replace(law.cost_model, reference_batch=256).of_draws(20, p.output_tokens[1])
    assert seconds[1] == pytest.approx(alone[0, UNITS.index("s")])
    assert law.predict(vote(1, 64, 0.6)).batch.tolist() == [64]


def test_draws_have_the_interval_of_the_columns(rng):
    p = law_of(full()).predict(vote([1, 6], 100, 0.7))
    drawn = p.sample(rng, 4000)
    assert drawn.draws.shape == (4000, 2)
    assert drawn.extrapolated.all()
    low, high = drawn.interval()
    # standard error of a 5 % quantile of 4000 normal draws: 2.1 / sqrt(4000) of a sd
    error = 4 * 2.1 / math.sqrt(4000) * p.accuracy_sd
    assert (abs(low - p.low) < error).all()
    assert (abs(high - p.high) < error).all()


@pytest.mark.parametrize(
    "bad",
    [
        {"n": 0}, {"n": 1.5}, {"cap": 0}, {"temperature": -0.1}, {"temperature": math.nan},
        {"difficulty": -1}, {"turns": 0}, {"prompt_tokens": -1.0}, {"batch": -1},
        {"prompt_tokens": math.inf}, {"n": [1, 2], "cap": [64, 64, 64]},
        {"shares": [0.5, 0.4]}, {"shares": [1.5, -0.5]}, {"n": [[1, 2]]},
    ],
)  # fmt: skip
def test_options_that_cannot_be_are_refused(bad):
    with pytest.raises(InputError):
        vote(**bad)


def test_no_options_are_no_forecasts():
    p = law_of(full()).predict(vote([], [], []))
    assert len(p.points) == len(p.accuracy) == len(p.cost()) == 0
