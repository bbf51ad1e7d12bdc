"""Measurements on disk: append-only Parquet parts, one folder a dataset, DuckDB views.

    measurements/samples/part-000001-0123456789abcdef.parquet

A part is written whole or not at all, and its name ends in the first 16 hex digits of its
SHA-256, so that damage is noticed when it is read. Writers take turns by a lock that the
system drops when a process dies.
"""

import hashlib
import os
import re
import sys
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import duckdb
import pandas as pd

from planner.models.errors import InputError, StoreError
from planner.models.files import write_atomic
from planner.models.records import Machine, Sample, Timing

Dataset = Literal["samples", "executed", "timings", "machines"]
ROW_TYPES: dict[Dataset, type[Sample | Timing | Machine]] = {
    "samples": Sample,
    "executed": Sample,
    "timings": Timing,
    "machines": Machine,
}
# What makes a calibration draw the draw it is; measuring one twice adds nothing.
DRAW_KEY = ("model", "problem_id", "temperature", "top_p", "max_tokens", "draw")
_PART = re.compile(r"part-(\d{6,})-([0-9a-f]{16})\.parquet")
_SQL = {str: "VARCHAR", int: "BIGINT", float: "DOUBLE", bool: "BOOLEAN"}
_DTYPE = {str: "object", int: "int64", float: "float64", bool: "bool"}


class Column(NamedTuple):
    """One column of a dataset."""

    kind: type  # str, int, float or bool
    optional: bool  # None is a value of it

    @property
    def nullable_int(self) -> bool:
        """Whether a frame needs pandas' integers that may be missing."""
        return self.kind is int and self.optional

    def takes(self, value: object) -> bool:
        """Whether a row may hold the value."""
        if value is None:
            return self.optional
        if self.kind is float:
            return type(value) in (int, float)
        return type(value) is self.kind and (
            not isinstance(value, int) or -(2**63) <= value < 2**63
        )


def _column(hint: Any) -> Column:
    # a Literal with None is a Union of typing, all else is one of the language
    optional = get_origin(hint) in (types.UnionType, Union) and type(None) in get_args(hint)
    if optional:
        hint = next(a for a in get_args(hint) if a is not type(None))
    return Column(str if get_origin(hint) is Literal else hint, optional)


def _schema(row_type: type) -> dict[str, Column]:
    hints = get_type_hints(row_type)
    return {field.name: _column(hints[field.name]) for field in fields(row_type)}


SCHEMAS: dict[Dataset, dict[str, Column]] = {
    name: _schema(row) for name, row in ROW_TYPES.items()
}


def _frame(
    schema: dict[str, Column], rows: Sequence[Sample | Timing | Machine] = ()
) -> pd.DataFrame:
    """Rows as columns of the schema's types; None becomes NaN, of an int NA."""
    return pd.DataFrame(
        {
            name: pd.Series(
                [getattr(row, name) for row in rows],
                dtype="Int64" if column.nullable_int else _DTYPE[column.kind],
            )
            for name, column in schema.items()
        }
    )


def _fetch(found: Any, schema: dict[str, Column]) -> pd.DataFrame:
    """The frame of a DuckDB relation; whole numbers stay whole where some are null."""
    names = [name for name, column in schema.items() if column.nullable_int]
    if not names:
        frame: pd.DataFrame = found.df()
        return frame
    filled = ", ".join(f"coalesce({name}, 0) AS {name}" for name in names)
    nulls = "".join(f", {name} IS NULL AS {name}_is_null" for name in names)
    frame = found.project(f"* REPLACE ({filled}){nulls}").df()
    for name in names:
        null = frame.pop(f"{name}_is_null").to_numpy(dtype=bool)
        frame[name] = pd.arrays.IntegerArray(frame[name].to_numpy(dtype="int64"), null)
    return frame


class Store:
    """The measurements of one workspace; nothing is created before the first append."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # parts whose checksum held, by (size, mtime): content is hashed once a Store
        self._checked: dict[Path, tuple[int, int]] = {}

    def append_samples(
        self, rows: Sequence[Sample], dataset: Literal["samples", "executed"] = "samples"
    ) -> None:
        """Append draws as one part: all of them, or none.

        Raises:
            InputError: A row that the schema does not take.
            StoreError: The disk is full, or the folder cannot be written.
        """
        self._append(dataset, rows)

    def append_timings(self, rows: Sequence[Timing]) -> None:
        """Append timed steps as one part; raises as `append_samples` does."""
        self._append("timings", rows)

    def append_machine(self, machine: Machine) -> None:
        """Append a machine, unless its id is known; raises as `append_samples` does."""
        if machine.machine not in set(self.machines()["machine"]):
            self._append("machines", [machine])

    def samples(self, dataset: Literal["samples", "executed"] = "samples") -> pd.DataFrame:
        """All draws, one row each, in the order they were appended.

        A calibration draw that two runs measured at once counts as the first of them.

        Raises:
            StoreError: A part is damaged; it names the file.
        """
        frame = self._read(dataset)
        if dataset == "samples":
            frame = frame.drop_duplicates(list(DRAW_KEY), ignore_index=True)
        return frame

    def timings(self) -> pd.DataFrame:
        """All timed steps; raises as `samples` does."""
        return self._read("timings")

    def machines(self) -> pd.DataFrame:
        """All machines, the first row of each id; raises as `samples` does."""
        return self._read("machines").drop_duplicates("machine", ignore_index=True)

    def sample_counts(self) -> pd.DataFrame:
        """Draws and correct draws of each model, problem and setting; reads no texts.

        Columns: model, task, problem_id, temperature, top_p, max_tokens, n_samples,
        n_correct.

        Raises:
            StoreError: A part is damaged; it names the file.
        """
        key = ", ".join(DRAW_KEY)
        return self.query(
            f"""
            SELECT model, any_value(task) AS task, problem_id, temperature, top_p,
                   max_tokens, count(*) AS n_samples,
                   count(*) FILTER (WHERE correct) AS n_correct
            FROM (SELECT {key}, first(task) AS task, first(correct) AS correct
                  FROM samples GROUP BY {key})
            GROUP BY model, problem_id, temperature, top_p, max_tokens
            ORDER BY model, problem_id, temperature, top_p, max_tokens
            """
        )

    def query(self, sql: str) -> pd.DataFrame:
        """Rows of a query over the views samples, executed, timings and machines.

        Raises:
            InputError: DuckDB refuses the query.
            StoreError: A part is damaged; it names the file.
        """
        with duckdb.connect(":memory:") as connection:
            for dataset, schema in SCHEMAS.items():
                parts = self._parts(dataset)
                for part in parts:
                    self._verified(part)
                if parts:
                    names = ", ".join("'" + str(p).replace("'", "''") + "'" for p in parts)
                    connection.execute(
                        f"CREATE VIEW {dataset} AS SELECT * FROM read_parquet([{names}])"
                    )
                else:
                    connection.register(dataset, _frame(schema))
            try:
                result: pd.DataFrame = connection.execute(sql).df()
            except duckdb.Error as error:
                raise InputError(f"query refused: {error}") from None
            return result

    def rows_sha256(self) -> str:
        """Digest of the rows that laws are fitted to: samples, timings and machines.

        Raises:
            StoreError: A part is damaged; it names the file.
        """
        digest = hashlib.sha256()
        datasets: tuple[Dataset, ...] = ("samples", "timings", "machines")
        for dataset in datasets:
            for part in self._parts(dataset):
                digest.update(hashlib.sha256(self._bytes(part)).digest())
        return digest.hexdigest()

    def _append(self, dataset: Dataset, rows: Sequence[Sample | Timing | Machine]) -> None:
        if not rows:
            return
        schema = SCHEMAS[dataset]
        for row in rows:
            for name, column in schema.items():
                if not column.takes(value := getattr(row, name)):
                    raise InputError(
                        f"{dataset}: {name} of a row must be {column.kind.__name__},"
                        f" got {value!r}"
                    )
        folder, frame = self.folder / dataset, _frame(schema, rows)
        with _only_writer(folder):
            for leftover in folder.glob(".part-*.tmp"):  # of a run that was killed
                leftover.unlink(missing_ok=True)
            content = self._parquet(dataset, frame)
            digest = hashlib.sha256(content).hexdigest()[:16]
            sequence = max((n for n, _ in self._numbered(dataset)), default=0) + 1
            write_atomic(folder / f"part-{sequence:06d}-{digest}.parquet", content)

    def _parquet(self, dataset: Dataset, frame: pd.DataFrame) -> bytes:
        """The frame as the content of a Parquet file; NaN is written as null."""
        columns = ", ".join(
            f"CAST({value} AS {_SQL[column.kind]}) AS {name}"
            for name, column in SCHEMAS[dataset].items()
            for value in [
                f"CASE WHEN isnan({name}) THEN NULL ELSE {name} END"
                if column.kind is float
                else name
            ]
        )
        staged = self.folder / dataset / f".part-{os.getpid()}-{id(frame)}.tmp"
        try:
            staged.parent.mkdir(parents=True, exist_ok=True)
            with duckdb.connect(":memory:") as connection:
                connection.register("rows", frame)
                path = str(staged).replace("'", "''")
                connection.execute(
                    f"COPY (SELECT {columns} FROM rows) TO '{path}'"
                    " (FORMAT parquet, COMPRESSION zstd)"
                )
            return staged.read_bytes()
        except (OSError, duckdb.Error) as error:
            raise StoreError(
                f"{staged.parent}: cannot be written ({error});"
                " free space or choose another folder"
            ) from error
        finally:
            staged.unlink(missing_ok=True)

    def _read(self, dataset: Dataset) -> pd.DataFrame:
        schema, parts = SCHEMAS[dataset], self._parts(dataset)
        expected = [(name, _SQL[column.kind]) for name, column in schema.items()]
        if not parts:
            return _frame(schema)
        with duckdb.connect(":memory:") as connection:
            for part in parts:
                self._bytes(part)
                try:
                    found = connection.read_parquet(str(part))
                except duckdb.Error as error:
                    raise _damaged(part, f"is not Parquet ({error})") from None
                if list(zip(found.columns, map(str, found.types), strict=True)) != expected:
                    raise _damaged(part, f"does not hold the columns of {dataset}")
            return _fetch(connection.read_parquet([str(p) for p in parts]), schema)

    def _parts(self, dataset: Dataset) -> list[Path]:
        return [part for _, part in self._numbered(dataset)]

    def _numbered(self, dataset: Dataset) -> list[tuple[int, Path]]:
        """Parts in order of their sequence number; hidden files are not looked at."""
        folder = self.folder / dataset
        numbered = []
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.name.startswith("."):
                continue
            match = _PART.fullmatch(path.name)
            if match is None:
                raise StoreError(
                    f"{path}: not a part of these measurements; move it out of the folder"
                )
            numbered.append((int(match[1]), path))
        return sorted(numbered)

    def _bytes(self, part: Path) -> bytes:
        """Content of a part whose checksum holds.

        Raises:
            StoreError: It does not, or the file cannot be read.
        """
        try:
            status, content = part.stat(), part.read_bytes()
        except OSError as error:
            raise _damaged(part, f"cannot be read ({error.strerror})") from None
        if hashlib.sha256(content).hexdigest()[:16] != part.stem[-16:]:
            raise _damaged(part, "is damaged: its content does not match its checksum")
        self._checked[part] = (status.st_size, status.st_mtime_ns)
        return content

    def _verified(self, part: Path) -> None:
        try:
            status = part.stat()
        except OSError as error:
            raise _damaged(part, f"cannot be read ({error.strerror})") from None
        if self._checked.get(part) != (status.st_size, status.st_mtime_ns):
            self._bytes(part)


def _damaged(part: Path, what: str) -> StoreError:
    return StoreError(f"{part} {what}; delete that part and run `planner calibrate` again")


@contextmanager
def _only_writer(folder: Path) -> Iterator[None]:
    """Hold the folder's writer lock; the system frees it when the process ends.

    Raises:
        StoreError: The folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("ab")
    except OSError as error:
        raise StoreError(
            f"{folder}: cannot be written ({error.strerror}); choose another folder"
        ) from None
    with lock:
        if sys.platform == "win32":
            import msvcrt

            lock.seek(0)
            msvcrt.locking(lock.fileno(), msvcrt.LK_LOCK, 1)
        else:
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
