"""The public face: advice in microseconds, joint allocation, a run within its budget."""

import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import planner
from planner.api import Planner
from planner.difficulty import PromptGroups
from planner.limits import Budget
from planner.models.errors import InfeasibleError, InputError, NotMeasuredError
from planner.models.records import Problem
from planner.models.specs import ModelTarget
from planner.options import known_groups
from planner.planning import make_plan

CODE = ("C21>21:", "C3,7>21:", "C3,7,12,5>24:")  # one of each class
SUMS = ("A3:", "A3+7+1:", "A3+7*2-4+1:")


@pytest.fixture(scope="module")
def laws(known_laws):
    return known_laws(
        np.random.default_rng(5), priced=("small", "medium"), true_problems=50
    ).laws


@pytest.fixture(scope="module")
def plan(laws):
    return make_plan(
        laws, budget=Budget(3e10, "eflop"), n_prompts=200, seed=1, search_trials=60
    )


@pytest.fixture(scope="module")
def advisor(laws, plan):
    return Planner(laws=laws, plan=plan)


@pytest.fixture
def served(laws, plan, tiny_model):
    """Random weights behind the laws: they answer at random, but cost real tokens."""
    targets = tuple(
        ModelTarget(name=name, engine="embedded", location=str(tiny_model()))
        for name in ("small", "medium", "large")
    )
    return Planner(laws=laws, plan=plan, targets=targets)


def test_prompts_go_to_their_task_and_class(advisor):
    assert [advisor.group(p) for p in CODE] == [("code", d) for d in range(3)]
    assert [advisor.group(p) for p in SUMS] == [("sums", d) for d in range(3)]
    assert advisor.group(SUMS[0], "code") == ("code", 0)
    with pytest.raises(InputError, match="unknown task 'prose'; the laws know: code, sums"):
        advisor.group("anything", "prose")


def test_a_class_without_measurements_goes_to_the_nearest(laws):
    measured = [g for g in known_groups(laws) if g != ("code", 1)]
    groups = PromptGroups(laws.tasks, measured)
    assert groups.of(CODE[1]) == ("code", 2)  # of two as near, the harder
    with pytest.raises(InputError, match="'code' was never measured"):
        PromptGroups(laws.tasks, [("sums", 0)]).of(CODE[0])


@pytest.mark.parametrize("unit", ["eflop", "usd", "tokens"])
def test_advice_is_the_most_accurate_option_that_fits(advisor, unit):
    catalogue = advisor.catalogue(unit)
    for prompt in (*CODE, *SUMS):
        key = advisor.group(prompt)
        front = [f for f, g in zip(catalogue.forecasts, catalogue.group_of, strict=True)
                 if catalogue.groups[g] == key]  # fmt: skip
        costs = np.array([f.cost_p95[unit] for f in front])
        for limit in np.geomspace(costs.min() * 1.01, costs.max() * 2, 7).tolist():
            advice = advisor.recommend(prompt, Budget(limit, unit))
            fits = [
                f.accuracy.mean for f, c in zip(front, costs, strict=True) if c <= limit
            ]
            assert advice.accuracy.mean == max(fits)
            assert advice.cost_p95[unit] <= limit
            assert (advice.task, advice.difficulty) == key


def test_advice_explains_itself(advisor):
    catalogue = advisor.catalogue("eflop")
    shelf = catalogue.shelves["sums", 1]
    some = advisor.recommend(SUMS[1], Budget(shelf.costs[0], "eflop"))
    assert some.runner_up == shelf.entries[1].option
    assert str(some.runner_up) in some.why
    best = advisor.recommend(SUMS[1], "1e30 eflop")
    assert best.runner_up is None
    assert "buy no more accuracy" in best.why


def test_advice_without_a_budget_is_the_plans(advisor, plan, laws):
    group = next(g for g in plan.groups if (g.task, g.difficulty) == ("sums", 1))
    most = max(group.choices, key=lambda c: c.share)
    assert advisor.recommend(SUMS[1]).option == most.forecast.option
    with pytest.raises(InputError, match="no plan"):
        Planner(laws=laws).recommend(SUMS[1])


def test_a_budget_too_small_says_what_is_needed(advisor):
    with pytest.raises(InfeasibleError) as caught:
        advisor.recommend(SUMS[1], "1 eflop")
    need = caught.value.nearest
    assert advisor.recommend(SUMS[1], Budget(need, "eflop")).cost_p95["eflop"] == need


def test_units_that_nobody_measured_are_an_error(advisor):
    with pytest.raises(NotMeasuredError, match="timings"):
        advisor.recommend(SUMS[1], "3 s")
    # priced models alone compete for dollars
    assert advisor.recommend(SUMS[1], "1 usd").option.model in ("small", "medium")


def test_advice_takes_microseconds(advisor):
    advisor.recommend(SUMS[1], "1e9 eflop")
    repeats = 300
    best = float("inf")
    for _ in range(5):
        start_s = time.perf_counter()
        for _ in range(repeats):
            advisor.recommend(SUMS[1], "1e9 eflop", task="sums")
        best = min(best, (time.perf_counter() - start_s) / repeats)
    assert best < 200e-6  # under 30 on an idle core, most of it reading the prompt


@given(
    picks=st.lists(st.integers(0, 5), min_size=1, max_size=30), slack=st.floats(1.0, 30.0)
)
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_joint_allocation_fits_its_budget(advisor, picks, slack):
    prompts = [(*CODE, *SUMS)[i] for i in picks]
    catalogue = advisor.catalogue("eflop")
    counts = np.bincount(
        [catalogue.index[advisor.group(p)] for p in prompts],
        minlength=len(catalogue.groups),
    ).astype(float)
    least = catalogue.ladder.cheapest(counts)
    smaller = advisor.allocate(prompts, Budget(least * slack * 1.0001, "eflop"))
    larger = advisor.allocate(prompts, Budget(least * slack * 3, "eflop"))
    assert [(r.task, r.difficulty) for r in smaller] == [advisor.group(p) for p in prompts]
    assert sum(r.cost["eflop"] for r in smaller) <= least * slack * 1.0002
    gain = sum(r.accuracy.mean for r in larger) - sum(r.accuracy.mean for r in smaller)
    # whole prompts: a share is rounded down to the cheaper option, one prompt at most
    assert gain > -1


def test_an_allocation_that_cannot_be(advisor):
    with pytest.raises(InfeasibleError):
        advisor.allocate(CODE, "1 eflop")
    with pytest.raises(InputError, match="no prompts"):
        advisor.allocate([], "1 eflop")


def test_a_run_never_passes_its_budget_and_answers_what_it_can(served):
    prompts = [*SUMS] * 12
    # random weights go on to the cap: a draw costs 1.6 times what the laws expect, which
    # the pace has to learn on the way
    budget = Budget(4e9, "eflop")
    done = []
    run = served.run(
        prompts, budget, seed=3, max_in_flight=4,
        progress=lambda n, of: done.append((n, of)),
    )  # fmt: skip
    assert len(run.results) == len(prompts)
    assert 0 < run.spent.eflop <= budget.total
    assert run.spent.eflop == pytest.approx(sum(r.cost.eflop for r in run.results))
    assert done[-1] == (36, 36)
    assert list(run.groups) == [served.group(p) for p in prompts]
    assert run.accuracy is None  # no references
    assert sum(r.stopped == "budget" for r in run.results) <= 1
    assert run.unanswered >= sum(not r.answer for r in run.results)
    assert run.spent.eflop > 0.85 * budget.total
    again = served.run(prompts, budget, seed=3, max_in_flight=4)
    assert [r.option for r in again.results[:5]] == [r.option for r in run.results[:5]]


def test_a_run_stays_within_a_budget_its_laws_misjudge(served):
    # random weights never solve a countdown: every draw that the laws hope to save is made
    problems = [
        Problem(problem_id=f"p{i}", task="code", prompt=CODE[i % 3], verifier="countdown")
        for i in range(30)
    ]
    budget = Budget(3e9, "eflop")
    run = served.run(problems, budget, seed=1)
    assert run.spent.eflop <= budget.total
    assert run.accuracy is not None
    assert run.accuracy < 0.5


def test_a_fixed_option_serves_a_whole_task(served, plan):
    fixed = plan.baselines["single_best_model"].options
    run = served.run([*SUMS, *CODE], "1e10 eflop", fixed=fixed)
    assert [r.option for r in run.results] == [fixed["sums"]] * 3 + [fixed["code"]] * 3
    with pytest.raises(InputError, match="no option for task 'code'"):
        served.run(CODE, "1e10 eflop", fixed={"sums": fixed["sums"]})


def test_results_come_one_by_one(served):
    seen = []
    run = served.run(SUMS, "1e9 eflop", each=seen.append)
    assert {r.problem_id for r in seen} == {r.problem_id for r in run.results}
    assert len(seen) == 3


def test_a_run_that_cannot_start(advisor, served):
    with pytest.raises(InputError, match="no prompts"):
        served.run([])
    with pytest.raises(InputError, match="configured are: none"):
        advisor.run(SUMS, "1e9 eflop")
    twin = Problem(problem_id="a", task="sums", prompt=SUMS[0], verifier="numeric")
    with pytest.raises(InputError, match="share a problem_id"):
        served.run([twin, twin], "1e9 eflop")


def test_a_workspace_loads(laws, plan, tmp_path):
    with pytest.raises(InputError, match=r"laws\.json"):
        planner.load(tmp_path)
    laws.save(tmp_path / "laws.json")
    assert planner.load(str(tmp_path)).plan is None
    plan.save(tmp_path / "plan.json")
    loaded = planner.load(tmp_path)
    assert loaded.plan == plan
    assert (
        loaded.recommend(SUMS[0]).option
        == Planner(laws=laws, plan=plan).recommend(SUMS[0]).option
    )
    shares = loaded.group_shares(
        Problem(problem_id=p, task="sums", prompt=p, verifier="numeric") for p in SUMS
    )
    assert shares == {("sums", d): 1 / 3 for d in range(3)}
