"""Measurements on disk: append-only Parquet parts, one folder a dataset, DuckDB views.

    measurements/samples/part-000001-0123456789abcdef.parquet

A part is written whole or not at all, and its name ends in the first 16 hex digits of its
SHA-256, so that damage is noticed when it is read. Writers take turns by a lock that the
system drops when a process dies.
"""

import hashlib
import io
import re
import sys
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

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
_ARROW = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}


def _field(name: str, hint: Any) -> pa.Field:
    optional = get_origin(hint) is types.UnionType and type(None) in get_args(hint)
    if optional:
        hint = next(a for a in get_args(hint) if a is not type(None))
    if get_origin(hint) is Literal:
        hint = str
    return pa.field(name, _ARROW[hint], nullable=optional)


def _schema(row_type: type) -> pa.Schema:
    hints = get_type_hints(row_type)
    return pa.schema([_field(field.name, hints[field.name]) for field in fields(row_type)])


SCHEMAS: dict[Dataset, pa.Schema] = {name: _schema(row) for name, row in ROW_TYPES.items()}


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
                    connection.register(dataset, schema.empty_table())
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
        try:
            table = pa.Table.from_pylist([asdict(row) for row in rows], schema=schema)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
            raise InputError(f"{dataset}: a row does not fit the schema: {error}") from None
        for field in schema:
            if not field.nullable and table[field.name].null_count:
                raise InputError(f"{dataset}: {field.name} of a row is missing")
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        content = buffer.getvalue()
        digest = hashlib.sha256(content).hexdigest()[:16]
        folder = self.folder / dataset
        with _only_writer(folder):
            for leftover in folder.glob(".part-*.tmp"):  # of a run that was killed
                leftover.unlink(missing_ok=True)
            sequence = max((n for n, _ in self._numbered(dataset)), default=0) + 1
            write_atomic(folder / f"part-{sequence:06d}-{digest}.parquet", content)

    def _read(self, dataset: Dataset) -> pd.DataFrame:
        schema = SCHEMAS[dataset]
        tables = [schema.empty_table()]
        for part in self._parts(dataset):
            content = self._bytes(part)
            try:
                table = pq.read_table(io.BytesIO(content))
            except (pa.ArrowException, OSError) as error:
                raise _damaged(part, f"is not Parquet ({error})") from None
            if not table.schema.equals(schema):
                raise _damaged(part, f"does not hold the columns of {dataset}")
            tables.append(table)
        frame: pd.DataFrame = pa.concat_tables(tables).to_pandas()
        return frame

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
