"""Stored samples, laid out for the laws: a table of draws a model, task and temperature."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from planner.models.errors import NotMeasuredError
from planner.models.lengths import NO_ANSWER, Recorded
from planner.models.prediction import Array
from planner.models.records import Problem

IntArray = NDArray[np.int64]
Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True, eq=False, kw_only=True)
class DrawTable:
    """Draws of one model on the problems of one task at one temperature."""

    model: str
    task: str
    temperature: float
    max_tokens: int  # the cap the draws were made under
    problem: IntArray  # (P,), index into the problems
    prompt_tokens: Array  # (P,)
    recorded: Recorded

    @property
    def n_typical(self) -> int:
        """Draws a problem, the median."""
        return int(np.median(self.recorded.n_samples))

    @property
    def is_scored(self) -> bool:
        """Whether any draw has a score."""
        return bool((self.recorded.present & ~np.isnan(self.recorded.score)).any())


def tabulate(
    samples: pd.DataFrame, models: Sequence[str], problems: Sequence[Problem]
) -> list[DrawTable]:
    """Sort the samples of known models and problems into tables.

    Cancelled draws are left out: how they would have ended is not known. Where a setting
    was sampled under several caps, the draws under the largest count; imported draws whose
    cap is not known count where there are no others, under a cap that all of them meet.
    Prompt tokens that an import did not tell count as none. Greedy draws are all alike, so
    that at temperature 0 only the first of a problem is kept.

    Args:
        samples: Columns as in records.Sample.
        models: Names, in the order the tables come in.
        problems: What the samples are of.

    Raises:
        NotMeasuredError: No sample of one of the models, or imported ones without token
            counts, which nothing can be planned with.
    """
    tasks = {task: i for i, task in enumerate(dict.fromkeys(p.task for p in problems))}
    task_of = np.array([tasks[p.task] for p in problems], dtype=np.int64)
    model = pd.Index(models).get_indexer(pd.Index(samples["model"]))
    problem = pd.Index([p.problem_id for p in problems]).get_indexer(
        pd.Index(samples["problem_id"])
    )
    temperature = samples["temperature"].to_numpy(dtype=float)
    draw = samples["draw"].to_numpy(dtype=np.int64)
    ended = (samples["finish_reason"] != "cancelled").to_numpy(dtype=bool)
    keep = np.flatnonzero(
        (model >= 0) & (problem >= 0) & ended & ((temperature > 0) | (draw == 0))
    )
    present = set(model[keep].tolist())
    for i, name in enumerate(models):
        if i not in present:
            raise NotMeasuredError(
                f"no samples of model {name!r} on these problems; run `planner calibrate` "
                "or take it out of the config"
            )
    rank = np.unique(temperature, return_inverse=True)[1]
    table = (model * len(tasks) + task_of[problem]) * (int(rank.max(initial=0)) + 1) + rank
    cap = samples["max_tokens"].to_numpy(dtype=np.int64, na_value=0)  # 0: not known
    largest = np.zeros(int(table[keep].max()) + 1, dtype=np.int64)
    np.maximum.at(largest, table[keep], cap[keep])
    keep = keep[cap[keep] == largest[table[keep]]]
    keep = keep[np.lexsort((draw[keep], problem[keep], table[keep]))]
    again = np.zeros(len(keep), dtype=bool)  # the same draw stored twice
    again[1:] = (
        (np.diff(draw[keep]) == 0)
        & (np.diff(problem[keep]) == 0)
        & (np.diff(table[keep]) == 0)
    )
    keep = keep[~again]
    output_tokens = samples["output_tokens"].to_numpy(dtype=np.int64, na_value=-1)[keep]
    _check_known(output_tokens, model[keep], models)
    code, texts = pd.factorize(samples["answer"].to_numpy()[keep])
    code = np.where(np.asarray(texts == "")[code], NO_ANSWER, code).astype(np.int64)
    columns = _Columns(
        problem=problem[keep].astype(np.int64),
        correct=samples["correct"].to_numpy(dtype=bool)[keep],
        answer=code,
        tokens=output_tokens,
        score=samples["score"].to_numpy(dtype=float, na_value=np.nan)[keep],
        prompt_tokens=samples["prompt_tokens"].to_numpy(dtype=float, na_value=0.0)[keep],
    )
    starts = np.flatnonzero(np.diff(table[keep], prepend=-1))
    names = list(tasks)
    tables = []
    for start, stop in zip(starts, [*starts[1:], len(keep)], strict=True):
        row = keep[start]
        tables.append(
            columns.table(
                slice(start, stop), model=models[model[row]],
                task=names[task_of[problem[row]]], temperature=float(temperature[row]),
                max_tokens=int(cap[row]) or max(int(columns.tokens[start:stop].max()), 1),
            )
        )  # fmt: skip
    return tables


def _check_known(output_tokens: IntArray, model: IntArray, models: Sequence[str]) -> None:
    """Refuse draws whose length is not known: nothing says what one costs."""
    unknown = output_tokens < 0
    if unknown.any():
        index = int(model[unknown][0])
        count = int((unknown & (model == index)).sum())
        raise NotMeasuredError(
            f"{count:,} imported draws of model {models[index]!r} have no token count, so "
            "that nothing says what a draw costs; import them into a fresh workspace with "
            "a column tokens, or with --tokens N for a rough figure"
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class _Columns:
    """Kept samples, sorted by table, problem and draw."""

    problem: IntArray
    correct: NDArray[np.bool_]
    answer: IntArray
    tokens: IntArray
    score: Array
    prompt_tokens: Array

    def table(
        self, rows: slice, *, model: str, task: str, temperature: float, max_tokens: int
    ) -> DrawTable:
        """The samples of one table, padded to (problems, draws)."""
        problem, first, row, count = np.unique(
            self.problem[rows], return_index=True, return_inverse=True, return_counts=True
        )
        at = (row, np.arange(len(row)) - first[row])
        shape = (len(problem), int(count.max()))
        # codes dense within a problem: the vote counts them in columns
        answer, width = self.answer[rows], int(self.answer.max(initial=0)) + 2
        distinct, dense = np.unique(row * width + answer + 1, return_inverse=True)
        dense = dense - np.searchsorted(distinct, row * width + 1)
        codes = np.where(answer == NO_ANSWER, NO_ANSWER, dense)
        recorded = Recorded(
            count.astype(np.int64),
            correct=_padded(shape, at, self.correct[rows], False),
            answer=_padded(shape, at, codes.astype(np.int64), NO_ANSWER),
            output_tokens=_padded(shape, at, self.tokens[rows], 0),
            score=_padded(shape, at, self.score[rows], np.nan),
        )
        return DrawTable(
            model=model, task=task, temperature=temperature, max_tokens=max_tokens,
            problem=problem, prompt_tokens=self.prompt_tokens[rows][first],
            recorded=recorded,
        )  # fmt: skip


def _padded(
    shape: tuple[int, int],
    at: tuple[IntArray, IntArray],
    values: NDArray[Scalar],
    blank: float,
) -> NDArray[Scalar]:
    out = np.full(shape, blank, dtype=values.dtype)
    out[at] = values
    return out
