"""The pace keeps a run of many prompts at once to its budget, though laws are off."""

import math
from dataclasses import dataclass

import numpy as np
import pytest

from planner.api import Planner
from planner.ledger import Ledger
from planner.limits import Budget
from planner.models.cost import Cost
from planner.models.records import Problem
from planner.models.shapes import P, Shapes
from planner.pace import Pace, draws_to_come

PROMPTS = ("C21>21:", "C3,7>21:", "C3,7,12,5>24:", "A3:", "A3+7+1:", "A3+7*2-4+1:")
TASK = {"C": "code", "A": "sums"}
RUNNING = 20  # prompts at once


@pytest.fixture(scope="module")
def advisor(known_laws):
    return Planner(laws=known_laws(np.random.default_rng(5), true_problems=50).laws)


def failing(a, b, n):
    """Chance that the first j draws fail, j = 0 .. n, when rates are Beta(a, b)."""
    j = np.arange(n)
    return np.concatenate([[1.0], np.cumprod((b + j) / (a + b + j))])


def test_a_prompt_that_goes_on_failing_has_more_before_it():
    uniform = failing(1, 1, 8)  # the chance that j draws fail is 1 / (j + 1)
    assert draws_to_come(uniform, 8, 0) == pytest.approx(sum(1 / (j + 1) for j in range(8)))
    # after 4 failures, the chance that the next j fail is 5 / (5 + j)
    assert draws_to_come(uniform, 8, 4) == pytest.approx(sum(5 / (5 + j) for j in range(4)))
    assert draws_to_come(uniform, 8, 8) == 0
    made = [k + draws_to_come(failing(0.3, 1.0, 16), 16, k) for k in range(17)]
    assert made == sorted(made)


def test_what_is_to_come_is_what_simulated_prompts_still_drew(rng):
    a, b, n, failed = 0.4, 0.9, 12, 3
    p = rng.beta(a, b, 200_000)
    first = np.minimum(rng.geometric(np.maximum(p, 1e-12)), n)  # draws made in all
    more = first[first > failed] - failed
    error = more.std() / math.sqrt(len(more))
    expected = draws_to_come(failing(a, b, n), n, failed)
    assert expected == pytest.approx(more.mean(), abs=4 * error)


@dataclass
class Simulated:
    """A prompt that runs."""

    most: int  # draws
    rate: float  # at which a draw ends it
    mean: float  # cost of a draw
    length: float = 0.0  # of the draw it is at, in means
    ends: float = 0.0  # when that draw ends
    tries: int = 0
    cost: float = 0.0

    def draw(self, rng, now):
        self.length = rng.gamma(1 / 0.16, 0.16)  # spread as the laws have it
        self.ends = now + self.length


def drawn_rate(cell, rng):
    """Success rate of a problem, drawn from a cell's law."""
    theta = np.array(cell.coverage.shapes)
    shape = Shapes.of(theta[[rng.integers(len(theta))]])
    share = np.concatenate([shape.hopeless, shape.weight[0]])
    return rng.choice(np.concatenate([[0.0], P]), p=share / share.sum())


def simulated_run(advisor, rng, *, dearer, n=240, slack=4.0):
    """Prompts of all groups, RUNNING at once; draws cost `dearer` times what laws say.

    A prompt that draws until it is right has a success rate from its cell's law; a draw
    takes as long as it is dear, so that the running ones are the dear ones. What the ledger
    refuses counts as unpaid.
    """
    problems = [
        Problem(problem_id=f"p{i}", task=TASK[p[0]], prompt=p, verifier="x")
        for i, p in enumerate(rng.permutation(np.resize(PROMPTS, n)).tolist())
    ]
    groups = [advisor.group(p.prompt, p.task) for p in problems]
    catalogue = advisor.catalogue("eflop")
    counts = np.bincount([catalogue.index[g] for g in groups], minlength=6).astype(float)
    budget = Budget(slack * catalogue.ladder.cheapest(counts), "eflop")
    ledger = Ledger(budget)
    pace = Pace(catalogue, advisor.laws, problems, groups, ledger, 0.03)
    unpaid, started, now = 0, 0, 0.0
    running: dict[str, Simulated] = {}
    while started < n or running:
        while started < n and len(running) < RUNNING:
            problem = problems[started]
            seen = {k: (r.tries, Cost(eflop=r.cost)) for k, r in running.items()}
            option = pace.choose(problem, n - started, seen)
            prompt = pace._started[problem.problem_id]
            early = option.strategy == "best_of_n"
            whole = draws_to_come(prompt.shape.failing, option.n, 0) if early else option.n
            rate = drawn_rate(prompt.shape.cell, rng) if early else 0.0
            run = Simulated(option.n, rate, dearer * prompt.expected / whole)
            run.draw(rng, now)
            running[problem.problem_id] = run
            started += 1
        name, run = min(running.items(), key=lambda item: item[1].ends)
        now, amount = run.ends, run.mean * run.length
        held = ledger.reserve(amount)
        if held is None:
            unpaid += 1
            del running[name]
            continue
        ledger.settle(held, Cost(eflop=amount))
        run.tries, run.cost = run.tries + 1, run.cost + amount
        if run.tries >= run.most or rng.random() < run.rate:
            del running[name]
        else:
            run.draw(rng, now)
    return unpaid / n, ledger.spent.eflop / budget.total


def test_a_draw_met_in_passing_is_a_long_one(advisor):
    problem = Problem(problem_id="p", task="sums", prompt=PROMPTS[3], verifier="x")
    group = advisor.group(problem.prompt, "sums")
    catalogue = advisor.catalogue("eflop")
    pace = Pace(
        catalogue, advisor.laws, [problem], [group], Ledger(Budget(1e8, "eflop")), 0.0
    )
    pace.choose(problem, 1, {})
    prompt = pace._started["p"]
    assert prompt.option.strategy == "single"
    fresh = pace._to_come(prompt, 0, ended=0, running=8)
    assert fresh == pytest.approx(prompt.expected)
    # output tokens have a standard deviation of 0.4 of their mean in these laws
    old = pace._to_come(prompt, 0, ended=20, running=8)
    assert old == pytest.approx(prompt.expected * 1.16)


@pytest.mark.parametrize("dearer", [0.8, 1.0, 1.3, 2.0])
def test_everyone_is_served_and_the_budget_is_used(advisor, dearer):
    runs = [
        simulated_run(advisor, np.random.default_rng(seed), dearer=dearer)
        for seed in range(6)
    ]
    unpaid, used = np.mean(runs, axis=0)
    assert unpaid < 0.01
    assert 0.9 < used <= 1.0
