"""The pace keeps a run of many prompts at once to its budget, though laws are off."""

import math

import numpy as np
import pytest

from planner.api import Planner
from planner.ledger import Ledger
from planner.limits import Budget
from planner.models.cost import Cost
from planner.models.records import Problem
from planner.pace import Pace, draws_to_come

PROMPTS = ("C21>21:", "C3,7>21:", "C3,7,12,5>24:", "A3:", "A3+7+1:", "A3+7*2-4+1:")
RUNNING = 20  # prompts at once


@pytest.fixture(scope="module")
def advisor(known_laws):
    return Planner(laws=known_laws(np.random.default_rng(5), true_problems=50).laws)


def test_a_prompt_that_goes_on_failing_has_more_before_it():
    # Beta(1, 1): the chance that j draws fail is 1 / (j + 1)
    assert draws_to_come(1, 1, 8, 0) == pytest.approx(sum(1 / (j + 1) for j in range(8)))
    # after 4 failures, the chance that the next j fail is 5 / (5 + j)
    assert draws_to_come(1, 1, 8, 4) == pytest.approx(sum(5 / (5 + j) for j in range(4)))
    assert draws_to_come(1, 1, 8, 8) == 0
    made = [k + draws_to_come(0.3, 1.0, 16, k) for k in range(17)]
    assert made == sorted(made)


def test_what_is_to_come_is_what_simulated_prompts_still_drew(rng):
    a, b, n, failed = 0.4, 0.9, 12, 3
    p = rng.beta(a, b, 200_000)
    first = np.minimum(rng.geometric(np.maximum(p, 1e-12)), n)  # draws made in all
    more = first[(first > failed)] - failed
    error = more.std() / math.sqrt(len(more))
    assert draws_to_come(a, b, n, failed) == pytest.approx(more.mean(), abs=4 * error)


def simulated_run(advisor, rng, *, dearer, n=240, slack=4.0):
    """Prompts of all groups, RUNNING at once; draws cost `dearer` times what laws say.

    A prompt that draws until it is right has a success rate from its cell's law; one draw
    costs an exponential amount, so that the running ones are the long ones. What the ledger
    would refuse counts as unpaid.
    """
    problems = [
        Problem(problem_id=f"p{i}", task="code" if p[0] == "C" else "sums", prompt=p, verifier="x")
        for i, p in enumerate(rng.permutation(np.resize(PROMPTS, n)).tolist())
    ]  # fmt: skip
    groups = [advisor.group(p.prompt, p.task) for p in problems]
    catalogue = advisor.catalogue("eflop")
    counts = np.bincount([catalogue.index[g] for g in groups], minlength=6).astype(float)
    budget = Budget(slack * catalogue.ladder.cheapest(counts), "eflop")
    ledger = Ledger(budget)
    pace = Pace(catalogue, advisor.laws, problems, groups, ledger, 0.03)
    unpaid, started = 0, 0
    running = {}  # name -> [option, rate, cost of a draw, tries, cost, end of the draw]
    now = 0.0
    while started < n or running:
        while started < n and len(running) < RUNNING:
            problem = problems[started]
            seen = {k: (r[3], Cost(eflop=r[4])) for k, r in running.items()}
            option = pace.choose(problem, n - started, seen)
            state = pace._started[problem.problem_id]
            shape = state.shape
            early = option.strategy == "best_of_n"
            whole = draws_to_come(shape.a, shape.b, option.n, 0) if early else option.n
            rate = rng.beta(shape.a, shape.b) if early else 0.0
            mean = dearer * state.expected / whole
            running[problem.problem_id] = [
                option,
                rate,
                mean,
                0,
                0.0,
                now + rng.exponential(),
            ]
            started += 1
        name = min(running, key=lambda k: running[k][5])
        run = running[name]
        length, now = run[5] - now, run[5]
        amount = run[2] * rng.exponential()
        held = ledger.reserve(amount)
        if held is None:
            unpaid += 1
            del running[name]
            continue
        ledger.settle(held, Cost(eflop=amount))
        run[3], run[4] = run[3] + 1, run[4] + amount
        if run[3] >= run[0].n or (run[0].strategy == "best_of_n" and rng.random() < run[1]):
            del running[name]
        else:
            run[5] = now + rng.exponential()
        assert length >= 0
    return unpaid / n, ledger.spent.eflop / budget.total


@pytest.mark.parametrize("dearer", [0.8, 1.0, 1.3])
def test_everyone_is_served_and_the_budget_is_used(advisor, dearer):
    runs = [
        simulated_run(advisor, np.random.default_rng(seed), dearer=dearer)
        for seed in range(6)
    ]
    unpaid, used = np.mean(runs, axis=0)
    assert unpaid < 0.01
    assert 0.9 < used <= 1.0
