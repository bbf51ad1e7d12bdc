"""Counts of correct draws, with names: from a file, or from a workspace's measurements.

A file has one row a problem of a model, in Parquet, CSV or JSONL: columns `model`,
`problem_id`, `n_samples`, `n_correct`, and `benchmark` and `temperature` where there are
several. A *set* is one model on one benchmark, at one temperature where it has several.
A row that cannot be right is an error that names it; no row is dropped.
"""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from planner.calibration.store import Store
from planner.models.counts import CountTable
from planner.models.errors import InputError, NotMeasuredError
from planner.models.prediction import Array

REQUIRED = ("model", "problem_id", "n_samples", "n_correct")
_NAMES = ("benchmark", "model", "problem_id")
_MOST = 10**7  # of one problem; pass@k takes a table of n rows, a GB or two of memory here
_NAMED_ROWS = 3  # of those that are wrong; the others are counted


class SetName(NamedTuple):
    """Which draws a set holds."""

    benchmark: str
    model: str  # with the temperature, where the model has several

    def __str__(self) -> str:
        return f"{self.benchmark}, {self.model}"


@dataclass(frozen=True, eq=False)
class NamedCounts:
    """Counts, and what each cell of them is called."""

    table: CountTable
    sets: tuple[SetName, ...]  # one a cell of the table


def read_counts(path: Path) -> NamedCounts:
    """Read a file of counts.

    Args:
        path: Ends in .parquet, .csv, .tsv, .jsonl or .ndjson.

    Raises:
        InputError: The file cannot be read, lacks a column or has no row, or a row is
            wrong: a field is missing, NaN or not a whole number, n_samples < 1, n_correct
            outside 0..n_samples, or a problem stands twice in a set. It names file, row,
            field and value.
    """
    frame = _load(path)
    lacking = [name for name in REQUIRED if name not in frame.columns]
    if lacking:
        raise InputError(
            f"{path}: no column {', '.join(lacking)}; counts need {', '.join(REQUIRED)}, "
            f"and it has {', '.join(frame.columns) or 'none'}"
        )
    if not len(frame):
        raise InputError(f"{path}: no rows; give one a problem of a model")
    if "benchmark" not in frame.columns:
        frame["benchmark"] = path.name.split(".")[0]
    columns: dict[str, Any] = {name: _names(path, frame, name) for name in _NAMES}
    n = _whole(path, frame, "n_samples", least=1)
    c = _whole(path, frame, "n_correct", least=0)
    _refuse(path, frame, "n_correct", c > n, "is more than n_samples")
    settings = ["temperature"] if "temperature" in frame.columns else []
    for name in settings:
        columns[name] = _number(path, frame, name)
        _refuse(path, frame, name, columns[name] < 0, "is below 0")
    clean = pd.DataFrame({**columns, "n_samples": n, "n_correct": c})
    key = ["benchmark", "model", "problem_id", *settings]
    twice = clean.duplicated(key, keep="first").to_numpy()
    _refuse(path, frame, "problem_id", twice, "stands twice in its set; add its counts up")
    return _named(clean, settings)


def counts_of_store(store: Store) -> NamedCounts:
    """Counts of a workspace's draws, a set a model, task and temperature.

    Greedy draws are all alike and cancelled ones have no end: neither is counted. Draws
    under several settings are several sets.

    Raises:
        NotMeasuredError: No draw to count.
        StoreError: A part is damaged.
    """
    frame = store.query(
        """
        SELECT task AS benchmark, model, problem_id, temperature, top_p, max_tokens,
               count(*) AS n_samples, count(*) FILTER (WHERE correct) AS n_correct
        FROM (SELECT model, problem_id, temperature, top_p, max_tokens, draw,
                     first(task) AS task, first(correct) AS correct
              FROM samples WHERE temperature > 0 AND finish_reason <> 'cancelled'
              GROUP BY ALL)
        GROUP BY ALL
        ORDER BY benchmark, model, temperature, top_p, max_tokens, problem_id
        """
    )
    if not len(frame):
        raise NotMeasuredError(
            f"{store.folder}: no draw at a temperature above 0; run `planner calibrate`"
        )
    return _named(frame, ["temperature", "top_p", "max_tokens"])


def _named(frame: pd.DataFrame, settings: Sequence[str]) -> NamedCounts:
    """Number sets and problems; name a setting where a model has several values of it."""
    frame = frame.reset_index(drop=True)
    model = frame["model"].astype(str)
    for name in settings:
        several = (
            frame.groupby(["benchmark", "model"])[name].transform("nunique").to_numpy() > 1
        )
        label = model + f" {name}=" + frame[name].map("{:g}".format)
        model = model.where(~several, label)
    frame["model"] = model
    cell, first = _numbered(frame[["benchmark", "model"]])
    sets = tuple(
        SetName(str(frame["benchmark"].iloc[i]), str(frame["model"].iloc[i])) for i in first
    )
    benchmarks = {
        name: i for i, name in enumerate(dict.fromkeys(s.benchmark for s in sets))
    }
    problem, _ = _numbered(frame[["benchmark", "problem_id"]])
    table = CountTable.of(
        frame["n_correct"].to_numpy(),
        frame["n_samples"].to_numpy(),
        cell=cell,
        problem=problem,
        benchmark=[benchmarks[s.benchmark] for s in sets],
    )
    return NamedCounts(table, sets)


def _numbered(keys: pd.DataFrame) -> tuple[NDArray[np.int64], list[int]]:
    """Number of each row's key, in the order keys first occur; and where that is."""
    number = keys.groupby(list(keys.columns), sort=False, dropna=False).ngroup()
    return number.to_numpy().astype(np.int64), np.flatnonzero(~number.duplicated()).tolist()


def _load(path: Path) -> pd.DataFrame:
    """The rows as the file has them: text in CSV, JSON values in JSONL."""
    kind = path.suffix.lower()
    if path.is_dir():
        raise InputError(
            f"{path}: a folder without measurements; run `planner calibrate`, or give a "
            "file of counts"
        )
    try:
        size = path.stat().st_size
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"{path}: {reason}; give a file of counts") from None
    if size == 0:
        raise InputError(f"{path}: empty file; write one row a problem of a model")
    where = "'" + str(path).replace("'", "''") + "'"
    if kind == ".parquet":
        source = f"read_parquet({where})"
    elif kind in (".csv", ".tsv"):
        names, comma = _header(path)
        # every column as text: the types are checked here, where the row can be named;
        # numbered, as the database takes neither empty names nor "Model" beside "model"
        types = ", ".join(f"'column{i}': 'VARCHAR'" for i in range(len(names)))
        source = (
            f"read_csv({where}, auto_detect=false, header=true, delim='{comma}',"
            f" quote='\"', escape='\"', columns={{{types}}})"
        )
    elif kind in (".jsonl", ".ndjson"):
        # depth 1: every field as JSON text, so that a wrong one can be shown as it is
        source = (
            f"read_json({where}, format='newline_delimited', maximum_depth=1,"
            " sample_size=-1)"
        )
    else:
        raise InputError(f"{path}: give counts as .parquet, .csv, .tsv, .jsonl or .ndjson")
    with duckdb.connect(":memory:") as connection:
        try:
            frame: pd.DataFrame = connection.execute(f"SELECT * FROM {source}").df()
        except duckdb.Error as error:
            raise InputError(
                f"{path}: cannot be read as {kind[1:]}, damaged or cut short? "
                f"({_reason(error)})"
            ) from None
    if kind in (".csv", ".tsv"):
        frame.columns = pd.Index(names)
    if kind not in (".jsonl", ".ndjson"):
        return frame
    if list(frame.columns) == ["json"]:
        raise InputError(f"{path}: its lines are not JSON objects; write one object a line")
    return _unquoted(frame)


def _reason(error: duckdb.Error) -> str:
    """What the database says of the file, without its advice and our own query."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = [x for x in lines if x and not x.startswith(("LINE ", "^", "Possible "))][:3]
    return "; ".join(told).removeprefix("Invalid Input Error: ").split("; Try ")[0]


def _header(path: Path) -> tuple[list[str], str]:
    """Column names of a CSV file, and what separates them."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            line = file.readline().rstrip("\r\n")
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text; save it as CSV in UTF-8") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be opened ({error.strerror})") from None
    if not line.strip():
        raise InputError(f"{path}: its first line is blank; it must name the columns")
    comma = max(",;\t", key=line.count)
    names = [name.strip() for name in next(csv.reader([line], delimiter=comma))]
    if twice := {name for name in names if name and names.count(name) > 1}:
        raise InputError(
            f"{path}: column {', '.join(sorted(twice))} stands twice in its header"
        )
    # a row's number, as tables are often saved with, has no name
    return [name or f"(unnamed {i + 1})" for i, name in enumerate(names)], comma


def _unquoted(frame: pd.DataFrame) -> pd.DataFrame:
    """JSON text -> its value where that is a string; other values stay as text."""
    for name in frame.columns.intersection([*_NAMES]):
        frame[name] = [
            json.loads(v) if isinstance(v, str) and v[:1] in ('"', "[", "{") else v
            for v in frame[name]
        ]
    return frame


def _refuse(
    path: Path, frame: pd.DataFrame, field: str, bad: NDArray[np.bool_], why: str
) -> None:
    """Name the rows that are wrong, the first few in full.

    Raises:
        InputError: Some row is.
    """
    rows = np.flatnonzero(bad)
    if not len(rows):
        return
    column = frame[field].astype(object)
    shown = "; ".join(
        f"row {i + 1}: {field} {_shown(column.iloc[i])} {why}" for i in rows[:_NAMED_ROWS]
    )
    more = len(rows) - _NAMED_ROWS
    also = f"; and {more:,} more such rows" if more > 0 else ""
    header = " (rows count from 1 after the header)" if path.suffix[1:] in "csv tsv" else ""
    raise InputError(f"{path}: {shown}{also}{header}")


def _shown(value: object) -> str:
    # neither a comparison nor isna() alone: pd.NA has no truth value, a list has many
    missing = bool(pd.Series([value], dtype=object).isna().iloc[0])
    return "(missing or NaN)" if missing else repr(value)


def _missing(column: "pd.Series[str]") -> NDArray[np.bool_]:
    return np.asarray(column.isna() | (column.astype(str).str.strip() == ""), dtype=bool)


def _names(path: Path, frame: pd.DataFrame, field: str) -> "pd.Series[str]":
    column = frame[field]
    nested = [isinstance(value, list | dict | np.ndarray) for value in column]
    _refuse(path, frame, field, np.asarray(nested), "is not a name")
    _refuse(path, frame, field, _missing(column), "is not a name")
    names = column.astype(str)
    if field != "problem_id":  # the others are shown on terminals
        hidden = [name for name in names.unique() if not name.isprintable()]
        bad = names.isin(hidden).to_numpy(dtype=bool)
        _refuse(path, frame, field, bad, "holds characters that cannot be shown")
    return names


def _number(path: Path, frame: pd.DataFrame, field: str) -> Array:
    column = frame[field]
    if column.dtype.kind in "bmM":  # truth values and times become numbers otherwise
        _refuse(path, frame, field, np.ones(len(column), dtype=bool), "is not a number")
    value = np.asarray(pd.to_numeric(column, errors="coerce"), dtype=float)
    _refuse(path, frame, field, ~np.isfinite(value), "is not a number")
    return value


def _whole(path: Path, frame: pd.DataFrame, field: str, *, least: int) -> NDArray[np.int64]:
    value = _number(path, frame, field)
    _refuse(path, frame, field, value % 1 != 0, "is not a whole number")
    _refuse(path, frame, field, value < least, f"is below {least}")
    _refuse(path, frame, field, value > _MOST, f"is above {_MOST:,}")
    return value.astype(np.int64)
