"""Lines of a text file, plain or gzipped, in bounded memory."""

import csv
import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from planner.calibration.import_rows import (
    JSON_BYTES,
    BadValueError,
    Wrong,
    unreadable,
)
from planner.models.errors import InputError

_LINE_BYTES = 64 * 2**20
# Expanding further than any log does, a gzip file is a bomb; so is one of blank lines.
_RATIO, _SMALL_BYTES = 500, 64 * 2**20
_BLANK_LINES = 100_000  # in a row


class Line(NamedTuple):
    """One line of a file, with its number from 1."""

    number: int
    content: bytes


def lines(path: Path) -> Iterator[Line]:
    """The lines of a file, blank ones too; a byte-order mark is dropped.

    Raises:
        InputError: The file cannot be read, is damaged, or a line is too long.
    """
    try:
        with _opened(path) as file:
            most = max(_RATIO * path.stat().st_size, _SMALL_BYTES)
            number = blank = 0
            while content := file.readline(_LINE_BYTES + 1):
                number += 1
                if len(content) > _LINE_BYTES:
                    raise InputError(
                        f"{path}: line {number} is longer than {_LINE_BYTES >> 20} MiB; "
                        "is it the file you meant?"
                    )
                most -= len(content)
                blank = 0 if content.strip() else blank + 1
                if most < 0 or blank > _BLANK_LINES:
                    raise InputError(
                        f"{path}: holds next to nothing, at great length; look inside first"
                    )
                if number == 1:
                    content = content.removeprefix(b"\xef\xbb\xbf")
                yield Line(number, content)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise unreadable(path, f"truncated or damaged gzip: {error}") from None
    except OSError as error:
        raise unreadable(path, error.strerror or str(error)) from None


def _opened(path: Path) -> BinaryIO | gzip.GzipFile:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any] | Wrong]]:
    """Objects of a JSONL file: ("line 7", the object or what is wrong with the line).

    Raises:
        InputError: As `lines` does.
    """
    for line in lines(path):
        if not line.content.strip():
            continue
        where = f"line {line.number}"
        try:
            yield where, json_object(line.content)
        except BadValueError as error:
            yield where, error.at(path, where)


def json_object(content: bytes) -> dict[str, Any]:
    """One JSON object.

    Raises:
        BadValueError: It is no JSON, no object, not UTF-8, or nested too deep.
    """
    try:
        found = json.loads(content.decode())
    except UnicodeDecodeError:
        raise BadValueError("the text", content[:60], "UTF-8") from None
    except RecursionError:
        raise BadValueError("the text", content[:60], "JSON of reasonable depth") from None
    except ValueError:  # also an int of too many digits
        raise BadValueError("the text", content[:60], "JSON") from None
    if not isinstance(found, dict):
        raise BadValueError("the text", content[:60], "a JSON object")
    return found


def json_file(path: Path) -> dict[str, Any]:
    """The object of a JSON file.

    Raises:
        InputError: It cannot be read, is too large, or no JSON object.
    """
    try:
        if path.stat().st_size > JSON_BYTES:
            raise InputError(
                f"{path}: over {JSON_BYTES >> 20} MiB of JSON; convert it first, e.g. "
                "`inspect log convert --to eval`"
            )
        return json_object(path.read_bytes())
    except OSError as error:
        raise unreadable(path, error.strerror or str(error)) from None
    except BadValueError as error:
        raise unreadable(path, f"it is not {error.wanted}") from None


def csv_header(path: Path) -> tuple[str, ...]:
    """Column names of a CSV file.

    Raises:
        InputError: It is empty, or as `lines` does.
    """
    for cells in filter(None, csv.reader(_csv_text(path))):
        return tuple(cell.strip() for cell in cells)
    raise InputError(f"{path}: empty; nothing to import")


def csv_rows(path: Path) -> Iterator[tuple[str, dict[str, Any] | Wrong]]:
    """Rows of a CSV file as `json_lines` gives them; an empty cell is None.

    Raises:
        InputError: As `lines` does.
    """
    header = csv_header(path)
    reader = csv.reader(_csv_text(path))
    rows = filter(None, reader)  # a blank line is no row
    next(rows)
    try:
        for cells in rows:
            where = f"line {reader.line_num}"
            if len(cells) != len(header):
                wanted = f"the {len(header)} of the first line"
                wrong = BadValueError("the number of cells", len(cells), wanted)
                yield where, wrong.at(path, where)
            else:
                yield where, dict(zip(header, (c or None for c in cells), strict=True))
    except csv.Error as error:  # the rest of the file cannot be told apart
        where = f"line {reader.line_num}"
        yield where, BadValueError("the line", str(error), "CSV").at(path, where)


def _csv_text(path: Path) -> Iterator[str]:
    for line in lines(path):
        # what is not UTF-8 becomes half a surrogate pair, which the check of the cell names
        yield line.content.decode(errors="surrogateescape")
