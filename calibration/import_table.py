"""Draws from a plain table: JSONL, CSV or Parquet.

Columns: model, problem, correct; where known also answer, score, tokens (of the response)
and temperature. One row is one draw.
"""

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from planner.calibration.import_rows import (
    Found,
    Graded,
    ImportOptions,
    Log,
    Wrong,
    checked,
    content_identity,
    name,
    number,
    text,
    truth,
    unreadable,
    whole,
)
from planner.calibration.import_text import csv_header, csv_rows, json_lines
from planner.models.errors import InputError

COLUMNS = ("model", "problem", "correct", "answer", "score", "tokens", "temperature")
SUFFIXES = (".jsonl", ".ndjson", ".csv", ".parquet")
_REQUIRED = COLUMNS[:3]
_BATCH_ROWS = 10_000  # of a Parquet file, in memory at once


def kind_of(path: Path) -> str:
    """The suffix that says how a table is written, ".gz" aside; "" if it is no table."""
    bare = path.with_suffix("") if path.suffix == ".gz" else path
    suffix = bare.suffix.lower()
    if suffix not in SUFFIXES or (path.suffix == ".gz" and suffix == ".parquet"):
        return ""
    return suffix


def table_log(path: Path, options: ImportOptions) -> Log:
    """One table.

    Raises:
        InputError: It cannot be read, or lacks a column.
    """
    kind = kind_of(path)
    columns = _columns(path, kind)
    if {"n_samples", "n_correct"} <= set(columns):
        raise InputError(
            f"{path}: holds counts, not draws; `planner validate {path.name}` takes them"
        )
    for column in _REQUIRED:
        if column not in columns and not (column == "model" and options.model):
            extra = "; or say --model NAME" if column == "model" else ""
            raise InputError(
                f"{path}: no column {column!r}; it has {', '.join(columns)[:200]}{extra}"
            )
    unused = [column for column in columns if column not in COLUMNS]
    notes = (f"{path.name}: not used: {', '.join(unused)}",) if unused else ()
    task = name("task", options.task or path.name.split(".")[0])
    return Log(
        path=path, identity=content_identity(path), tool="a table",
        rows=partial(_found, path, kind, columns, task, options), notes=notes,
    )  # fmt: skip


def _columns(path: Path, kind: str) -> tuple[str, ...]:
    if kind == ".csv":
        return csv_header(path)
    if kind == ".parquet":
        return _parquet_columns(path)
    # keys of the first line; later lines may leave some out
    for where, row in json_lines(path):
        if isinstance(row, Wrong):
            raise InputError(
                f"{path}, {where}: {row.field} is {row.value}, not {row.wanted}"
            )
        return tuple(map(str, row))
    raise InputError(f"{path}: empty; nothing to import")


def _found(
    path: Path, kind: str, columns: tuple[str, ...], task: str, options: ImportOptions
) -> Iterator[Found]:
    if kind == ".parquet":
        rows: Iterable[tuple[str, dict[str, Any] | Wrong]] = _parquet_rows(path, columns)
    else:
        rows = csv_rows(path) if kind == ".csv" else json_lines(path)
    for where, row in rows:
        if isinstance(row, Wrong):
            yield row
        else:
            yield from checked(path, where, partial(_graded, row, task, options))


def _graded(row: dict[str, Any], task: str, options: ImportOptions) -> Iterator[Graded]:
    yield Graded(
        model=options.model or name("model", row.get("model")),
        task=task,
        problem_id=name("problem", row.get("problem")),
        correct=truth("correct", row.get("correct")),
        answer=text("answer", row.get("answer")),
        score=number("score", row.get("score")),
        output_tokens=whole("tokens", row.get("tokens")),
        temperature=number("temperature", row.get("temperature"), least=0),
    )


def _parquet_columns(path: Path) -> tuple[str, ...]:
    import duckdb

    try:
        with duckdb.connect(":memory:") as connection:
            return tuple(connection.read_parquet(str(path)).columns)
    except duckdb.Error as error:
        raise unreadable(path, f"not Parquet: {error}") from None


def _parquet_rows(
    path: Path, columns: tuple[str, ...]
) -> Iterator[tuple[str, dict[str, Any] | Wrong]]:
    import duckdb

    used = [column for column in COLUMNS if column in columns]
    try:
        with duckdb.connect(":memory:") as connection:
            connection.execute("SET threads = 1")  # keeps one row group in memory, not many
            found = connection.execute(
                f"SELECT {', '.join(used)} FROM read_parquet(?)", [str(path)]
            )
            row = 0
            while batch := found.fetchmany(_BATCH_ROWS):
                for values in batch:
                    row += 1
                    yield f"row {row}", dict(zip(used, values, strict=True))
    except duckdb.Error as error:
        raise unreadable(path, f"damaged Parquet: {error}") from None
