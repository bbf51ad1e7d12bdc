"""Tables of draws -> cells: what each strategy gives and uses, shrunk where counts are few.

The accuracy of a strategy is split in two. Its level, the accuracy of one draw, comes from
the coverage law and is the same for every strategy of a cell, so that none wins by a lucky
level. What it gains over one draw is paired problem by problem, which is far less noisy,
and shrunk toward what the task's other cells gain at such a level.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from planner.calibration.draws import DrawTable, IntArray
from planner.models.artifact import Cell, StrategyCurve, StrategyName
from planner.models.counts import CountTable
from planner.models.curves import ProblemCurves, powers_of_two
from planner.models.fitting import ridge, shrink
from planner.models.forecast import PopulationLaw, fit_coverage
from planner.models.lengths import Recorded
from planner.models.pooling import SORTED
from planner.models.prediction import Array
from planner.models.selection import scored_curves, verified_curves
from planner.models.voting import vote_curves

BEYOND = 8  # best-of-N is forecast up to this many times the draws measured
_POOLED_PROBLEMS = 2.0  # that the variance pooled over cells counts for in one
_GAIN_VARIANCE = 0.05  # of gains between problems, before any is seen; counts for one
_LEAST_SE = 1e-4  # of a gain that no problem shows; keeps weights finite
_COMPARED: tuple[StrategyName, ...] = ("self_consistency", "best_of_n_scored")


@dataclass(frozen=True, eq=False, kw_only=True)
class Measured:
    """One table of draws under one cap, and what strategies gave on each problem."""

    table: DrawTable
    max_tokens: int
    cap_rank: int  # 0 for the largest
    recorded: Recorded  # under the cap
    verified: ProblemCurves | None  # best_of_n, where an exact verifier may be asked
    compared: dict[StrategyName, ProblemCurves]  # strategies that need not find the best


def measure(
    table: DrawTable,
    caps: Sequence[int],
    *,
    runtime_verifier: bool,
    stop_confidence: float,
    rng: np.random.Generator,
) -> list[Measured]:
    """Run every strategy that makes sense on the recorded draws, under each cap."""
    grid = powers_of_two(table.n_typical)
    measured = []
    for rank, cap in enumerate(sorted(caps, reverse=True)):
        recorded = table.recorded.capped(cap)
        compared: dict[StrategyName, ProblemCurves] = {}
        if table.temperature > 0:  # greedy draws agree with themselves
            compared["self_consistency"] = vote_curves(recorded, grid, stop_confidence, rng)
            if table.is_scored:
                compared["best_of_n_scored"] = scored_curves(recorded, grid)
        verified = None
        if runtime_verifier and table.temperature > 0:
            verified = verified_curves(recorded, grid)
        measured.append(
            Measured(
                table=table, max_tokens=cap, cap_rank=rank, recorded=recorded,
                verified=verified, compared=compared,
            )
        )  # fmt: skip
    return measured


def fit_cells(
    measured: Sequence[Measured], difficulty: IntArray, rng: np.random.Generator
) -> list[Cell]:
    """Fit the laws of every model x task x class x temperature x cap.

    Args:
        measured: Of all models and tasks together: they are each other's prior.
        difficulty: Class of each problem, by the index in DrawTable.problem; below 0 leaves
            the problem out.
        rng: For the draws that means are taken over.
    """
    drafts: list[_Draft] = []
    for m in measured:
        classes = difficulty[m.table.problem]
        for c in np.unique(classes[classes >= 0]):
            drafts.append(_Draft(m, int(c), np.flatnonzero(classes == c)))
    laws = _coverage_laws(drafts)
    levels = [_Level.of(draft, law, rng) for draft, law in zip(drafts, laws, strict=True)]
    curves: list[list[StrategyCurve]] = [
        [_single(draft, level)] for draft, level in zip(drafts, levels, strict=True)
    ]
    for i, (draft, level) in enumerate(zip(drafts, levels, strict=True)):
        if draft.measured.verified is not None:
            curves[i].append(_best_of_n(draft, draft.measured.verified, level))
    for strategy in _COMPARED:
        for i, curve in _compared(drafts, levels, strategy):
            curves[i].append(curve)
    return [
        Cell(
            model=d.measured.table.model, task=d.measured.table.task,
            difficulty=d.difficulty,
            temperature=d.measured.table.temperature, max_tokens=d.measured.max_tokens,
            n_problems=len(d.rows), n_samples=int(np.median(d.recorded.n_samples)),
            prompt_tokens=float(d.measured.table.prompt_tokens[d.rows].mean()),
            coverage=law.to_fit(), curves=tuple(listed),
        )
        for d, law, listed in zip(drafts, laws, curves, strict=True)
    ]  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Draft:
    measured: Measured
    difficulty: int
    rows: IntArray  # of the table, in the class

    @property
    def recorded(self) -> Recorded:
        return self.measured.recorded.rows(self.rows)


@dataclass(frozen=True, eq=False)
class _Level:
    """Coverage by the law, and with it the accuracy of one draw."""

    grid: tuple[int, ...]  # from 1
    coverage: Array  # (n_grid,)
    coverage_sd: Array
    draws: Array  # (n_grid,), expected when the first success ends them
    by_problem: Array  # share of correct draws, (P,)

    @classmethod
    def of(cls, draft: _Draft, law: PopulationLaw, rng: np.random.Generator) -> "_Level":
        own = draft.measured.verified
        n_max = own.n[-1] if own is not None else 1
        beyond = powers_of_two(BEYOND * n_max) if own is not None else (1,)
        grid = tuple(sorted({n_max, *beyond}))
        size = len(law.theta)  # every shape once
        coverage = law.predict(grid, rng, size=size)
        draws = law.expected_draws(grid, rng, size=size)
        recorded = draft.recorded
        by_problem = recorded.n_correct / recorded.n_samples
        return cls(grid, coverage.mean, coverage.draws.std(axis=0), draws.mean, by_problem)

    @property
    def mean(self) -> float:
        return float(self.coverage[0])

    @property
    def sd(self) -> float:
        return float(self.coverage_sd[0])


def _coverage_laws(drafts: Sequence[_Draft]) -> list[PopulationLaw]:
    """Laws of the drafts. Models and classes of a task lend each other strength; settings
    that share draws, as caps do, must not.
    """  # noqa: D205
    if not drafts:
        return []
    keys = [
        (d.measured.table.task, d.measured.table.temperature, d.measured.cap_rank)
        for d in drafts
    ]
    number = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    recorded = [d.recorded for d in drafts]
    table = CountTable.of(
        np.concatenate([r.n_correct for r in recorded]),
        np.concatenate([r.n_samples for r in recorded]),
        cell=np.repeat(np.arange(len(drafts)), [len(d.rows) for d in drafts]),
        problem=np.concatenate([d.measured.table.problem[d.rows] for d in drafts]),
        benchmark=[number[key] for key in keys],
    )
    return [f.population() for f in fit_coverage(table, level=SORTED, paired=False)]


def _single(draft: _Draft, level: _Level) -> StrategyCurve:
    mean, variance = draft.recorded.tokens_by_problem()
    sd = float(np.sqrt(mean.var() + variance.mean()))
    return StrategyCurve(
        strategy="single", n=(1,), accuracy=(level.mean,), accuracy_sd=(level.sd,),
        draws=(1.0,), output_tokens=(float(mean.mean()),), output_tokens_sd=(sd,), n_max=1,
    )  # fmt: skip


def _best_of_n(draft: _Draft, curves: ProblemCurves, level: _Level) -> StrategyCurve:
    """Accuracy and draws from the law; tokens a draw as measured.

    Beyond n_max a draw takes what the last measured ones took: those who go on drawing hold
    the hard problems, and fail at length.
    """
    own = curves.rows(draft.rows)
    n_max = own.n[-1]
    nearest = np.searchsorted(own.n, np.minimum(level.grid, n_max))
    made, used = own.draws.mean(axis=0), own.output_tokens.mean(axis=0)
    measured_draws = made[nearest]
    tokens = level.draws * used[nearest] / measured_draws
    last = level.grid.index(n_max)
    if len(made) > 1 and made[-1] > made[-2]:
        marginal = (used[-1] - used[-2]) / (made[-1] - made[-2])
        further = (level.draws - level.draws[last]) * marginal
        tokens = np.where(np.array(level.grid) > n_max, tokens[last] + further, tokens)
    return StrategyCurve(
        strategy="best_of_n",
        n=level.grid,
        accuracy=_floats(level.coverage),
        accuracy_sd=_floats(level.coverage_sd),
        draws=_floats(level.draws),
        output_tokens=_floats(tokens),
        output_tokens_sd=_floats(own.tokens_sd()[nearest] * level.draws / measured_draws),
        n_max=n_max,
    )


def _compared(
    drafts: Sequence[_Draft], levels: Sequence[_Level], strategy: StrategyName
) -> list[tuple[int, StrategyCurve]]:
    """Curves of one strategy in every draft that has it, gains shrunk within each task."""
    own = {
        i: d.measured.compared[strategy].rows(d.rows)
        for i, d in enumerate(drafts) if strategy in d.measured.compared
    }  # fmt: skip
    accuracy = {i: np.zeros(len(c.n)) for i, c in own.items()}
    sd = {i: np.zeros(len(c.n)) for i, c in own.items()}
    pools: dict[tuple[str, int], list[int]] = {}
    for i, c in own.items():
        for n in c.n:
            pools.setdefault((drafts[i].measured.table.task, n), []).append(i)
    for (_, n), members in pools.items():
        at = [own[i].n.index(n) for i in members]
        values = [own[i].accuracy[:, j] for i, j in zip(members, at, strict=True)]
        shrunk = _shrunk_accuracy([levels[i] for i in members], values)
        for i, j, mean, spread in zip(members, at, *shrunk, strict=True):
            accuracy[i][j], sd[i][j] = mean, spread
    return [
        (
            i,
            StrategyCurve(
                strategy=strategy, n=c.n, accuracy=_floats(accuracy[i]),
                accuracy_sd=_floats(sd[i]), draws=_floats(c.draws.mean(axis=0)),
                output_tokens=_floats(c.output_tokens.mean(axis=0)),
                output_tokens_sd=_floats(c.tokens_sd()), n_max=c.n[-1],
            ),
        )
        for i, c in own.items()
    ]  # fmt: skip


def _shrunk_accuracy(
    levels: Sequence[_Level], values: Sequence[Array]
) -> tuple[Array, Array]:
    """Level plus shrunk gain of each cell, and the standard deviation of that.

    The target of a gain is a smooth function of the level p that vanishes where nothing can
    be gained or lost, p (1 - p) (c0 + c1 (2 p - 1)), fitted over the cells.

    Args:
        levels: One a cell.
        values: Accuracy of the strategy on each problem of each cell.
    """
    gains = [v - level.by_problem for v, level in zip(values, levels, strict=True)]
    size = np.array([len(g) for g in gains], dtype=float)
    mean = np.array([g.mean() for g in gains])
    squares = np.array([((g - g.mean()) ** 2).sum() for g in gains])
    pooled = (squares.sum() + _GAIN_VARIANCE) / ((size - 1).sum() + 1)
    variance = (squares + _POOLED_PROBLEMS * pooled) / (size - 1 + _POOLED_PROBLEMS)
    se = np.sqrt(variance / size) + _LEAST_SE
    p = np.array([level.mean for level in levels])
    design = (p * (1 - p))[:, None] * np.stack([np.ones_like(p), 2 * p - 1], axis=1)
    target = design @ ridge(design, mean, 1 / (se**2 + np.var(mean)), penalty=1.0)
    shrunk = shrink(mean, se, target)
    kept = shrunk.weight
    between = np.array([
        (level.by_problem + w * g).var() / len(g)
        for level, w, g in zip(levels, kept, gains, strict=True)
    ])  # fmt: skip
    level_var = np.array([level.sd**2 for level in levels])
    total = np.maximum(between, level_var) + ((1 - kept) * shrunk.scatter_sd) ** 2
    return np.clip(p + shrunk.value, 0.0, 1.0), np.sqrt(total)


def _floats(values: Array) -> tuple[float, ...]:
    return tuple(np.asarray(values, dtype=float).tolist())
