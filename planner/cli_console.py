"""What the commands write: results on stdout, progress and errors on stderr."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

Update = Callable[[int, int], None]  # done, of how many
_PLAIN_EVERY_S = 10.0


def out() -> Console:
    """Results. Not wrapped to 80 columns when piped, and never coloured there."""
    width = None if sys.stdout.isatty() else 160
    return Console(highlight=False, soft_wrap=False, width=width)


def err() -> Console:
    """Progress and errors."""
    return Console(stderr=True, highlight=False)


def say(text: str) -> None:
    """One line of plain text on stdout, whatever brackets it holds."""
    out().print(escape(text), soft_wrap=True)


def warn(text: str) -> None:
    """One line of plain text on stderr."""
    err().print(escape(text), soft_wrap=True)


def show_table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    numeric: Sequence[int] = (),
) -> None:
    """A table on stdout; cells are plain text."""
    table = Table(
        title=escape(title),
        title_justify="left",
        title_style="bold",
        box=None,
        padding=(0, 2, 0, 0),
    )
    for i, column in enumerate(columns):
        table.add_column(
            escape(column), justify="right" if i in numeric else "left", header_style="dim"
        )
    for row in rows:
        table.add_row(*map(escape, row))
    out().print(table)


@contextmanager
def progress(label: str) -> Iterator[Update]:
    """A bar with the time left; a plain line every ten seconds where there is no terminal.

    Yields:
        A function to be told how much is done, of how much.
    """
    if not sys.stderr.isatty():
        yield _plain(label)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    with Progress(*columns, console=err(), transient=False) as bar:
        task = bar.add_task(escape(label), total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _plain(label: str) -> Update:
    start_s = last_s = time.perf_counter()
    last_s -= _PLAIN_EVERY_S  # the first call is shown

    def update(done: int, total: int) -> None:
        nonlocal last_s
        now_s = time.perf_counter()
        if done < total and now_s - last_s < _PLAIN_EVERY_S:
            return
        last_s = now_s
        left = (now_s - start_s) * (total - done) / done if done else 0.0
        rest = f", about {left:.0f} s left" if done and done < total else ""
        warn(f"{label}: {done:,} of {total:,}{rest}")

    return update
