"""A plan keeps its budget, explains itself, and beats one fixed setting."""

import numpy as np
import pytest

from planner.limits import Budget, Slo
from planner.models.cost import UNITS
from planner.models.errors import InfeasibleError, InputError, NotMeasuredError
from planner.models.flops import decode_step, prefill_step
from planner.models.latency import LatencyLaw
from planner.models.specs import Architecture
from planner.options import cost_models, known_groups
from planner.plan import Plan
from planner.planning import make_plan

N = 200
BUDGET = Budget(3e10, "eflop")
TRIALS = 60  # of the search: enough to run it, few enough to be quick


@pytest.fixture
def laws(known_laws, rng):
    return known_laws(rng, true_problems=50).laws


def plan_of(laws, budget=BUDGET, **settings):
    return make_plan(
        laws, budget=budget, n_prompts=N, seed=1, search_trials=TRIALS, **settings
    )


@pytest.fixture
def plan(laws):
    return plan_of(laws)


def parts(plan):
    return [(g.prompt_share * c.share, c.forecast) for g in plan.groups for c in g.choices]


def test_choices_add_up_to_what_is_promised_within_the_budget(plan):
    assert sum(w for w, _ in parts(plan)) == pytest.approx(1)
    spend = N * sum(w * f.cost["eflop"] for w, f in parts(plan))
    assert spend == pytest.approx(plan.promised_spend.mean)
    assert spend <= plan.budget_total * (1 - plan.reserve) * (1 + 1e-9)
    assert spend > 0.95 * plan.budget_total
    assert 0.01 <= plan.reserve <= 0.04
    assert plan.promised_spend.high <= plan.budget_total
    accuracy = sum(w * f.accuracy.mean for w, f in parts(plan))
    # the promise is what the estimates say, less what they owe to being picked
    assert accuracy - 0.04 < plan.promised_accuracy.mean <= accuracy + 0.005
    assert (
        plan.promised_accuracy.low
        < plan.promised_accuracy.mean
        < plan.promised_accuracy.high
    )
    assert sum(len(g.choices) > 1 for g in plan.groups) <= 1


def test_cost_in_the_plan_is_the_cost_models(plan, laws):
    models = cost_models(laws)
    for _, forecast in parts(plan):
        if forecast.origin != "grid":
            continue
        o = forecast.option
        cell = next(
            c for c in laws.cells
            if c.model == o.model
            and (c.max_tokens, c.temperature) == (o.max_tokens, o.temperature)
            and any(
                o.n in k.n and k.strategy == o.strategy
                and np.isclose(k.accuracy[k.n.index(o.n)], forecast.accuracy.mean)
                for k in c.curves
            )
        )  # fmt: skip
        curve = next(k for k in cell.curves if k.strategy == o.strategy)
        i = curve.n.index(o.n)
        each = models[o.model].of_draws(
            cell.prompt_tokens, curve.output_tokens[i] / curve.draws[i]
        )[0]
        for unit, amount in zip(UNITS, each.tolist(), strict=True):
            if unit in forecast.cost:
                assert forecast.cost[unit] == pytest.approx(curve.draws[i] * amount)


def test_fronts_rise_and_hold_nothing_dominated(plan):
    for group in plan.groups:
        costs = [f.cost["eflop"] for f in group.front]
        accuracies = [f.accuracy.mean for f in group.front]
        assert costs == sorted(costs)
        assert (np.diff(accuracies) > 0).all()
        chosen = {c.forecast.option for c in group.choices}
        assert chosen <= {f.option for f in group.front}


def test_every_group_says_why(plan):
    for group in plan.groups:
        assert group.why.endswith(".")
        assert group.runner_up is not None
        assert group.runner_up.option not in {c.forecast.option for c in group.choices}
    split = [g for g in plan.groups if len(g.choices) > 1]
    assert all("budget ends between" in g.why for g in split)
    assert plan.binds == "budget"


def test_it_beats_one_fixed_setting_at_the_same_budget(plan):
    assert set(plan.baselines) == {"single_best_model", "uniform_best_of_n"}
    spendable = plan.budget_total / N * (1 - plan.reserve)
    for baseline in plan.baselines.values():
        assert baseline.cost_per_prompt <= spendable * (1 + 1e-9)
        assert baseline.answered == 1.0
        assert plan.promised_accuracy.mean > baseline.accuracy.mean + 0.03
        assert set(baseline.options) == {"code", "sums"}
        assert len({o.model for o in baseline.options.values()}) == 1
    single = plan.baselines["single_best_model"].options
    assert {o.strategy for o in single.values()} == {"single"}


def test_a_rich_uniform_baseline_fills_its_budget(laws):
    found = []
    for total in (1e11, 2e11, 4e11):
        rich = plan_of(laws, Budget(total, "eflop"))
        baseline = rich.baselines["uniform_best_of_n"]
        spendable = rich.budget_total / N * (1 - rich.reserve)
        assert 0.75 * spendable < baseline.cost_per_prompt <= spendable
        found.append(baseline.options["code"].n)
    # measured n are powers of two; the baseline may use any
    assert not {1, 2, 4, 8, 16}.issuperset(found)
    assert baseline.options["code"].strategy == "best_of_n"  # an exact check runs there
    assert baseline.options["sums"].strategy == "self_consistency"


def test_a_larger_budget_never_promises_less_and_ends_at_the_best(laws):
    promised, prices = [], []
    for total in (1e10, 2e10, 5e10, 2e11, 1e14):
        plan = plan_of(laws, Budget(total, "eflop"))
        promised.append(sum(w * f.accuracy.mean for w, f in parts(plan)))
        prices.append(plan.shadow_price)
    # the search may find a little more at one budget than at the next
    assert (np.diff(promised) > -2e-3).all()
    assert (np.diff(prices) <= 0).all()
    assert prices[-1] == 0
    assert plan.binds == "the options measured"
    assert all("at any cost" in g.why for g in plan.groups)


def test_the_frontier_is_the_planners_then_the_uniform_ones(plan, laws):
    own = [p for p in plan.frontier if p.label == "planner"]
    others = [p for p in plan.frontier if p.label != "planner"]
    assert len(own) == 12
    assert (np.diff([p.cost_per_prompt for p in own]) > 0).all()
    # a setting: model, cap, temperature, n
    assert len(others) == 3 * 2 * 2 * 5
    assert "small n=1 max_tokens=32 T=0.6" in {p.label for p in others}


def test_it_survives_the_disk(plan, tmp_path):
    path = tmp_path / "plan.json"
    plan.save(path)
    assert Plan.load(path) == plan


def test_a_seed_gives_the_same_plan(laws):
    first, second = (plan_of(laws).model_dump(exclude={"created_at"}) for _ in range(2))
    assert first == second


def test_shares_are_those_given(laws):
    plan = plan_of(laws, group_shares={("code", 0): 3.0, ("sums", 2): 1.0})
    shares = {(g.task, g.difficulty): g.prompt_share for g in plan.groups}
    assert shares[("code", 0)] == pytest.approx(0.75)
    assert shares[("sums", 2)] == pytest.approx(0.25)
    # the others get options too, at the same price, so that recommend() knows them
    assert set(shares) == set(known_groups(laws))
    assert all(g.choices for g in plan.groups)


@pytest.mark.parametrize(
    ("shares", "error"),
    [
        ({("code", 9): 1.0}, NotMeasuredError), ({("code", 0): -1.0}, InputError),
        ({("code", 0): 0.0}, InputError), ({("code", 0): float("nan")}, InputError),
    ],
)  # fmt: skip
def test_shares_that_cannot_be_used(laws, shares, error):
    with pytest.raises(error):
        plan_of(laws, group_shares=shares)


def test_too_small_a_budget_says_what_is_needed(laws):
    with pytest.raises(InfeasibleError, match="budget in eflop") as caught:
        plan_of(laws, Budget(1e9, "eflop"))
    needed = caught.value.nearest
    plan = plan_of(laws, Budget(needed * 1.0001, "eflop"))
    assert plan.promised_spend.mean == pytest.approx(needed, rel=1e-3)
    with pytest.raises(InputError, match="n_prompts"):
        make_plan(laws, budget=BUDGET, n_prompts=0)


def test_where_no_fixed_model_fits_the_baseline_answers_a_share(laws):
    # cheapest differs between groups only in model: price the small one out of one group
    cells = tuple(
        c
        for c in laws.cells
        if not (c.model == "small" and (c.task, c.difficulty) == ("sums", 2))
    )
    laws = laws.model_copy(update={"cells": cells})
    with pytest.raises(InfeasibleError) as caught:
        plan_of(laws, Budget(1.0, "eflop"))
    plan = plan_of(laws, Budget(caught.value.nearest * 1.02, "eflop"))
    baseline = plan.baselines["single_best_model"]
    assert 0 < baseline.answered < 1
    assert baseline.cost_per_prompt <= plan.budget_total / N


def test_a_unit_some_models_lack_narrows_the_choice(known_laws, rng):
    laws = known_laws(rng, priced=("small", "medium"), true_problems=50).laws
    plan = plan_of(laws, Budget(0.5, "usd"))
    assert {f.option.model for _, f in parts(plan)} <= {"small", "medium"}
    assert "prices are left out: large" in plan.binds
    assert all("usd" in f.cost for g in plan.groups for f in g.front)
    none = known_laws(rng, priced=(), true_problems=50).laws
    with pytest.raises(NotMeasuredError, match=r"usd.*prices.*large, medium, small"):
        plan_of(none, Budget(0.5, "usd"))
    with pytest.raises(NotMeasuredError, match="timings"):
        plan_of(none, Budget(0.5, "s"))


@pytest.fixture
def timed(laws):
    """The laws with timings of every model, made up."""
    models = []
    for law in laws.models:
        shape = {k: int(v) for k, v in law.architecture.items()}
        arch = Architecture(**(shape | {"tied_embeddings": False}))
        shapes = [
            (phase, b, c)
            for phase in ("prefill", "decode")
            for b in (1, 8, 64)
            for c in (32, 128)
        ]
        seconds = [
            1e-3 + (step(arch, batch=b, **{name: c}).flop / 5e10)
            for phase, b, c in shapes
            for step, name in [
                (prefill_step, "prompt_tokens") if phase == "prefill"
                else (decode_step, "context_tokens")
            ]
        ]  # fmt: skip
        fit = LatencyLaw.fit(
            *zip(*shapes, strict=True), seconds, architecture=arch, machine="m",
            flop_per_s=1e11, bytes_per_s=1e10, source="measured",
        ).to_fit()  # fmt: skip
        models.append(law.model_copy(update={"latency": fit}))
    return laws.model_copy(update={"models": tuple(models)})


def test_a_latency_target_rules_options_out(timed):
    free = plan_of(timed, Budget(1e12, "eflop"))
    slowest = max(f.cost_p95["s"] for _, f in parts(free))
    bound = plan_of(timed, Budget(1e12, "eflop"), slo=Slo(latency_s=slowest / 3))
    assert all(f.cost_p95["s"] <= slowest / 3 for g in bound.groups for f in g.front)
    assert "latency target rules out" in bound.binds
    assert bound.promised_accuracy.mean < free.promised_accuracy.mean
    with pytest.raises(InfeasibleError, match="latency_s") as caught:
        plan_of(timed, slo=Slo(latency_s=1e-6))
    assert caught.value.nearest > 1e-3
    with pytest.raises(InfeasibleError, match="ttft_s"):
        plan_of(timed, slo=Slo(ttft_s=1e-6))
    with pytest.raises(InfeasibleError, match="tpot_s"):
        plan_of(timed, slo=Slo(tpot_s=1e-6))
    assert plan_of(timed, slo=Slo(ttft_s=1.0, tpot_s=1.0)).binds == "budget"


def test_a_latency_target_needs_timings(laws):
    with pytest.raises(NotMeasuredError, match="timings"):
        plan_of(laws, slo=Slo(latency_s=1.0))


def test_what_is_extrapolated_shows(laws):
    cells = tuple(
        c.model_copy(
            update={"curves": tuple(k.model_copy(update={"n_max": 1}) for k in c.curves)}
        )
        for c in laws.cells
    )
    plan = plan_of(laws.model_copy(update={"cells": cells}), Budget(1e12, "eflop"))
    assert any("beyond measured 1" in reason for reason in plan.extrapolated)
