"""What the importers share: a draw as its file tells it, and checks of single values."""

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

from planner.models.errors import InputError
from planner.models.records import FinishReason

_NAME_CHARS = 1000  # of a model's or a problem's name
_TEXT_CHARS = 4_000_000  # of a prompt, response or answer
_MOST_TOKENS = 10**9  # of one draw
_SHOWN_CHARS = 60  # of a wrong value, in a message
JSON_BYTES = 256 * 2**20  # of a JSON document that is read whole


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """What the caller states about the files; None leaves it to them."""

    model: str | None = None  # in place of the file's own name; required where it has none
    task: str | None = None  # of a table; else its file name
    temperature: float | None = None  # of draws whose file does not tell
    tokens: int | None = None  # output tokens of draws whose file has no count; a guess
    metric: str | None = None  # of lm-eval, or inspect's scorer
    filter: str | None = None  # of lm-eval


@dataclass(frozen=True, kw_only=True)
class Graded:
    """One graded draw as its file tells it; None is what the file does not tell."""

    model: str
    task: str
    problem_id: str
    correct: bool
    prompt: str = ""
    text: str = ""
    answer: str = ""
    score: float | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    finish_reason: FinishReason | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    latency_s: float | None = None
    measured_at: str | None = None


class Wrong(NamedTuple):
    """A value that cannot be imported, and where it stands."""

    file: str
    row: str  # "line 7", "sample 'a', epoch 2"
    field: str
    value: str
    wanted: str

    def __str__(self) -> str:
        return f"{self.file}, {self.row}: {self.field} is {self.value}, not {self.wanted}"


class LeftOut(NamedTuple):
    """Something that the log itself says is not a graded draw; told, not imported."""

    why: str
    row: str


Found = Graded | Wrong | LeftOut


@dataclass(frozen=True, kw_only=True)
class Log:
    """One file of results."""

    path: Path
    identity: str  # equal for files that hold the same draws; starts with "import "
    tool: str  # what wrote it
    rows: Callable[[], Iterator[Found]]  # each call reads the file again
    notes: tuple[str, ...] = ()


class WrongRowsError(InputError):
    """Rows that cannot be imported; nothing was."""

    def __init__(self, total: int, first: tuple[Wrong, ...]) -> None:
        super().__init__(total, first)  # in args, so that it pickles
        self.total, self.first = total, first

    def __str__(self) -> str:
        count = "1 wrong row" if self.total == 1 else f"{self.total:,} wrong rows"
        return f"{count}, nothing imported; {'; '.join(map(str, self.first))}"


class BadValueError(ValueError):
    """A value of a row is off; the reader that knows the row turns it into a Wrong."""

    def __init__(self, field: str, value: object, wanted: str) -> None:
        super().__init__(field, value, wanted)
        self.field, self.value, self.wanted = field, value, wanted

    def at(self, file: Path, row: str) -> Wrong:
        """The same, with its place."""
        return Wrong(file.name, row, self.field, shown(self.value), self.wanted)


def shown(value: object) -> str:
    """A value in a message: short, and on one line."""
    if value is None:
        return "missing"
    head = value[: 2 * _SHOWN_CHARS] if isinstance(value, str | bytes | list) else value
    try:
        text = ascii(head) if not isinstance(head, str) else repr(head)
    except (RecursionError, ValueError):  # too deep, or an int of too many digits
        text = f"<{type(value).__name__}>"
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}..."


def name(field: str, value: object) -> str:
    """A name: text of one line, or a whole number.

    Raises:
        BadValueError: It is neither, or too long.
    """
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**18:
        return str(value)
    wanted = f"a name of 1 to {_NAME_CHARS:,} printable characters"
    if (
        not isinstance(value, str)
        or not value.strip()
        or len(value) > _NAME_CHARS
        or not value.isprintable()  # no control characters: names are shown on terminals
    ):
        raise BadValueError(field, value, wanted)
    return value


def text(field: str, value: object) -> str:
    """Any text, "" for None; a number is written out.

    Raises:
        BadValueError: It is not text, too long, or not to be encoded as UTF-8.
    """
    if value is None:
        return ""
    if isinstance(value, int | float | Decimal):
        value = str(value)
    if not isinstance(value, str):
        raise BadValueError(field, value, "text")
    if len(value) > _TEXT_CHARS:
        raise BadValueError(field, value, f"text of at most {_TEXT_CHARS:,} characters")
    if not is_utf8(value):
        raise BadValueError(field, value, "UTF-8 text")
    return value


def is_utf8(value: str) -> bool:
    """Whether the text has no half of a surrogate pair."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def truth(field: str, value: object) -> bool:
    """A grade: true or false, 0 or 1, also as text.

    Raises:
        BadValueError: Anything else; a share of correct answers is none.
    """
    known = value
    if isinstance(known, str):
        known = known.strip().lower()
        if known in ("true", "false"):
            return known == "true"
        known = _parsed(known)
    if isinstance(known, bool):
        return known
    if isinstance(known, int | float | Decimal) and known in (0, 1):
        return bool(known)
    if isinstance(known, int | float | Decimal) and 0 < known < 1:
        wanted = "0 or 1: one row is one draw, a share of correct draws is not a grade"
        raise BadValueError(field, value, wanted)
    raise BadValueError(field, value, "true, false, 0 or 1")


def number(field: str, value: object, *, least: float = -math.inf) -> float | None:
    """A finite number; None where there is none.

    Raises:
        BadValueError: It is not one, or below `least`.
    """
    if value is None or value == "":
        return None
    known = _parsed(value.strip()) if isinstance(value, str) else value
    wanted = "a finite number" + ("" if least == -math.inf else f" of at least {least:g}")
    if isinstance(known, bool) or not isinstance(known, int | float | Decimal):
        raise BadValueError(field, value, wanted)
    try:
        found = float(known)
    except OverflowError:
        raise BadValueError(field, value, wanted) from None
    if not math.isfinite(found) or found < least:
        raise BadValueError(field, value, wanted)
    return found


def whole(field: str, value: object, *, least: int = 0) -> int | None:
    """A whole number, of tokens say; None where there is none.

    Raises:
        BadValueError: It is not one, below `least`, or beyond reason.
    """
    try:
        found = number(field, value, least=least)
    except BadValueError:
        found = math.nan
    if found is None:
        return None
    if found != found or found % 1 or found > _MOST_TOKENS:
        raise BadValueError(field, value, f"a whole number of {least} to {_MOST_TOKENS:,}")
    return int(found)


def _parsed(written: str) -> float | None:
    try:
        return float(written) if "_" not in written else None
    except ValueError:
        return None


def checked(file: Path, row: str, make: Callable[[], Iterable[Found]]) -> Iterator[Found]:
    """The draws of one row, or what is wrong with it."""
    try:
        yield from tuple(make())
    except BadValueError as error:
        yield error.at(file, row)


def content_identity(path: Path) -> str:
    """Names a file by its content: the same draws under another name are the same.

    Raises:
        InputError: The file cannot be read.
    """
    return f"import {prefix_sha256(path, None)[:16]} {path.stat().st_size}"


def prefix_sha256(path: Path, size: int | None) -> str:
    """Digest of a file's first `size` bytes, or of all of them.

    Raises:
        InputError: The file cannot be read.
    """
    digest, left = hashlib.sha256(), size
    try:
        with path.open("rb") as file:
            while left is None or left > 0:
                block = file.read(2**20 if left is None else min(2**20, left))
                if not block:
                    break
                digest.update(block)
                left = None if left is None else left - len(block)
    except OSError as error:
        raise unreadable(path, error.strerror or str(error)) from None
    return digest.hexdigest()


def unreadable(path: Path, why: str) -> InputError:
    """The error for a file that is damaged or cannot be opened."""
    return InputError(f"{path}: cannot be read ({why}); nothing was imported")
