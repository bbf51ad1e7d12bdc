"""Laws and a budget in, a plan out."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np

from planner import __version__
from planner.allocate import Allocation, Ladder, undominated
from planner.candidates import candidates
from planner.limits import Budget, Slo
from planner.models.artifact import Laws
from planner.models.cost import UNITS
from planner.models.errors import InfeasibleError, InputError, NotMeasuredError
from planner.models.prediction import Array
from planner.options import (
    GroupKey,
    Ints,
    OptionTable,
    build_options,
    expected_cost,
    known_groups,
)
from planner.plan import Baseline, FrontierPoint, Group, Plan, Share
from planner.promise import (
    Mix,
    accuracy_interval,
    cost_sd,
    mean_cost_sd,
    spend_interval,
)
from planner.search import SEARCH_TRIALS, search_options
from planner.uniform import Uniform, best_uniform, fill_budget, uniform_settings

# Kept back: two standard deviations of the spend of the prompts that run at the end, when
# nothing is left to correct it with; and what the last draw must have free beyond what it
# is expected to cost, since the ledger holds its worst case.
_LAST_PROMPTS = 16
_RESERVE = (0.01, 0.04)  # least and most, as shares of the budget
_FRONTIER_BUDGETS = 12


def make_plan(
    laws: Laws,
    *,
    budget: Budget,
    n_prompts: int,
    group_shares: Mapping[GroupKey, float] | None = None,
    seed: int = 0,
    slo: Slo | None = None,
    search_trials: int = SEARCH_TRIALS,
) -> Plan:
    """The best use of a budget over prompts of known groups.

    Args:
        laws: What was measured.
        budget: For all prompts together.
        n_prompts: How many.
        group_shares: Share of the prompts in each (task, difficulty); None: as among the
            calibration problems.
        seed: Of the draws and the search.
        slo: Latency targets every option must meet.
        search_trials: Of off-grid settings, over all groups; 0: measured options only.

    Raises:
        InputError: No prompts, or shares that cannot be used.
        NotMeasuredError: A group was not measured, or no model has the budget's unit.
        InfeasibleError: The cheapest options cost more than the budget, or none is as fast
            as the slo asks.
    """
    if n_prompts < 1:
        raise InputError(f"n_prompts must be at least 1, got {n_prompts}")
    rng = np.random.default_rng(seed)
    groups = known_groups(laws)
    shares = _shares(laws, groups, group_shares)
    measured, notes = candidates(build_options(laws, groups, rng), budget.unit, slo)
    ladder = _ladder(measured, budget.unit)
    per_prompt = budget.total / n_prompts
    reserve, spendable = _reserve(measured, ladder, shares, budget, n_prompts)
    on_grid = ladder.allocate(shares, spendable)
    table = measured
    if search_trials:
        table = search_options(
            measured, budget.unit, on_grid.shadow_price, rng, trials=search_trials, slo=slo
        )
    ladder = _ladder(table, budget.unit)
    best = ladder.allocate(shares, spendable)
    mix = Mix.of(best, shares)
    verified = {task.task: task.runtime_verifier for task in laws.tasks}
    settings = uniform_settings(measured, shares, verified, budget.unit)
    filled = fill_budget(
        measured, shares, verified, settings, unit=budget.unit, budget=spendable
    )
    filled, _ = candidates(filled, budget.unit, slo)
    bound = best.shadow_price > 0
    used = set(mix.rows.tolist())
    return Plan(
        schema_version=1,
        inferplan=__version__,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        budget_unit=budget.unit,
        budget_total=budget.total,
        n_prompts=n_prompts,
        promised_accuracy=accuracy_interval(
            table,
            mix,
            n_prompts=n_prompts,
            cost_effect=best.shadow_price * mean_cost_sd(table, mix, budget.unit),
            rng=rng,
        ),
        promised_spend=spend_interval(
            table, mix, budget.unit, n_prompts=n_prompts, cap=budget.total
        ),
        reserve=max(1 - spendable / per_prompt, 0.0) if bound else reserve,
        search_gain=max(best.accuracy - on_grid.accuracy, 0.0),
        shadow_price=best.shadow_price,
        binds="; ".join(["budget" if bound else "the options measured", *notes]),
        extrapolated=_reasons(table, used),
        options_considered=len(table),
        groups=tuple(
            _Explainer(table, ladder, best, budget.unit, float(shares[g])).group(g)
            for g in range(len(groups))
        ),
        frontier=_frontier(table, ladder, shares, budget.unit, settings, measured),
        baselines=_baselines(
            filled,
            uniform_settings(filled, shares, verified, budget.unit),
            spendable,
            shares,
            n_prompts,
            rng,
        ),
        laws=laws.provenance,
        source=laws.provenance.source,
    )


def _shares(
    laws: Laws, groups: tuple[GroupKey, ...], given: Mapping[GroupKey, float] | None
) -> Array:
    if given is None:
        total = sum(task.n_problems for task in laws.tasks)
        given = {
            (task.task, i): share * task.n_problems / total
            for task in laws.tasks
            for i, share in enumerate(task.class_shares)
            if share > 0
        }
    index = {key: g for g, key in enumerate(groups)}
    shares = np.zeros(len(groups))
    for key, share in given.items():
        if not 0 <= share < np.inf:
            raise InputError(f"share of task {key[0]!r} class {key[1]} is {share}")
        if share > 0 and key not in index:
            known = ", ".join(f"{t} {d}" for t, d in groups)
            raise NotMeasuredError(
                f"task {key[0]!r} class {key[1]} was not measured; measured are: {known}"
            )
        if share > 0:
            shares[index[key]] = share
    if not shares.sum() > 0:
        raise InputError("group_shares: at least one group needs a positive share")
    return np.asarray(shares / shares.sum())


def _ladder(table: OptionTable, unit: str) -> Ladder:
    return Ladder.of_options(
        table.group, table.column(unit), table.accuracy, len(table.groups)
    )


def _reserve(
    table: OptionTable, ladder: Ladder, shares: Array, budget: Budget, n_prompts: int
) -> tuple[float, float]:
    """Share of the budget kept back, and what a prompt may cost on average then."""
    per_prompt = budget.total / n_prompts
    least = ladder.cheapest(shares)
    if least > per_prompt:
        raise InfeasibleError(f"budget in {budget.unit}", budget.total, least * n_prompts)
    draft = Mix.of(ladder.allocate(shares, per_prompt), shares)
    sd = float(np.sqrt(draft.weights @ cost_sd(table, draft.rows, budget.unit) ** 2))
    last = min(n_prompts, _LAST_PROMPTS)
    low, high = _RESERVE
    wanted = 2 * sd * last**0.5 + _worst_excess(table, draft.rows, budget.unit)
    reserve = min(max(wanted / budget.total, low), high)
    return reserve, max(per_prompt * (1 - reserve), least)


def _worst_excess(table: OptionTable, rows: Ints, unit: str) -> float:
    """Most that one draw, at its cap, costs beyond its expectation."""
    one_draw = [
        replace(p, draws=1.0, output_tokens=tokens)
        for p in (table.points[row] for row in rows.tolist())
        for tokens in (p.output_tokens / p.draws, float(p.option.max_tokens))
    ]
    cost = expected_cost(one_draw, table.cost_models)[:, UNITS.index(unit)]
    return max(float(np.max(cost[1::2] - cost[::2])), 0.0)


def _reasons(table: OptionTable, rows: set[int]) -> tuple[str, ...]:
    listed = [
        f"{table.points[row].option}: {reason}"
        for row in sorted(rows)
        for reason in table.points[row].extrapolated
    ]
    return tuple(dict.fromkeys(listed))


@dataclass(frozen=True, eq=False)
class _Explainer:
    """Says what a group gets, and why not more."""

    table: OptionTable
    ladder: Ladder
    allocation: Allocation
    unit: str
    share: float

    def group(self, g: int) -> Group:
        table, rows = self.table, self.ladder.rows[g].tolist()
        task, difficulty = table.groups[g]
        choices = self.allocation.choices[g]
        own = table.rows_of[g]
        front = own[undominated(table.column(self.unit)[own], table.accuracy[own])]
        top = rows.index(choices[-1][0])
        runner = self._runner_up(rows, top, len(choices) > 1)
        return Group(
            task=task,
            difficulty=difficulty,
            prompt_share=self.share,
            choices=tuple(
                Share(forecast=table.forecast(row), share=part) for row, part in choices
            ),
            runner_up=None if runner is None else table.forecast(runner),
            why=self._why(rows, top, len(choices) > 1),
            front=tuple(table.forecast(row) for row in front.tolist()),
        )

    def _runner_up(self, rows: list[int], top: int, split: bool) -> int | None:
        if top + 1 < len(rows):
            return rows[top + 1]
        below = top - (2 if split else 1)  # of a split, both sides are chosen
        return rows[below] if below >= 0 else None

    def _why(self, rows: list[int], top: int, split: bool) -> str:
        table, price = self.table, self.allocation.shadow_price
        cost, accuracy = table.column(self.unit), table.accuracy
        if split:
            return (
                f"The budget ends between these two: a prompt that gets the second gains"
                f" {accuracy[rows[top]] - accuracy[rows[top - 1]]:.3f} for"
                f" {cost[rows[top]] - cost[rows[top - 1]]:.3g} {self.unit} more."
            )
        if top + 1 == len(rows):
            return "Nothing that was measured does better on this group, at any cost."
        gain = float(accuracy[rows[top + 1]] - accuracy[rows[top]])
        more = float(cost[rows[top + 1]] - cost[rows[top]])
        return (
            f"The budget binds: {table.points[rows[top + 1]].option} would add {gain:.3f}"
            f" for {more:.3g} {self.unit} more a prompt; elsewhere that buys"
            f" {more * price:.3f}."
        )


def _frontier(
    table: OptionTable,
    ladder: Ladder,
    shares: Array,
    unit: str,
    settings: list[Uniform],
    measured: OptionTable,
) -> tuple[FrontierPoint, ...]:
    low, high = ladder.cheapest(shares), ladder.dearest(shares)
    budgets = np.geomspace(low, high, _FRONTIER_BUDGETS) if high > low else np.array([low])
    points: list[FrontierPoint] = []
    for spend in np.clip(budgets, low, high).tolist():
        allocation = ladder.allocate(shares, spend)
        interval = accuracy_interval(table, Mix.of(allocation, shares))
        points.append(
            FrontierPoint(
                cost_per_prompt=allocation.spend, accuracy=interval, label="planner"
            )
        )
    for u in sorted(settings, key=lambda u: u.cost):
        interval = accuracy_interval(measured, _uniform_mix(u, shares))
        points.append(
            FrontierPoint(cost_per_prompt=u.cost, accuracy=interval, label=u.label)
        )
    return tuple(points)


def _uniform_mix(uniform: Uniform, shares: Array) -> Mix:
    used = shares > 0
    return Mix(rows=uniform.rows[used], weights=shares[used])


def _baselines(
    table: OptionTable,
    settings: list[Uniform],
    budget: float,
    shares: Array,
    n_prompts: int,
    rng: np.random.Generator,
) -> dict[str, Baseline]:
    kinds = {
        "single_best_model": [u for u in settings if u.setting[3] == 1],
        "uniform_best_of_n": settings,
    }
    baselines: dict[str, Baseline] = {}
    for name, kind in kinds.items():
        found = best_uniform(kind, budget)
        if found is None:
            continue
        uniform, answered = found
        interval = accuracy_interval(
            table, _uniform_mix(uniform, shares), n_prompts=n_prompts, rng=rng
        )
        baselines[name] = Baseline(
            options={
                task: table.points[int(uniform.rows[g])].option
                for g, (task, _) in enumerate(table.groups)
                if shares[g] > 0
            },
            accuracy=interval.model_copy(
                update={k: v * answered for k, v in interval.model_dump().items()}
            ),
            cost_per_prompt=uniform.cost * answered,
            answered=answered,
        )
    return baselines
