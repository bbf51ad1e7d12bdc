"""The `planner` app: what every command shares, and how an error becomes one line."""

import errno
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from planner import __version__
from planner.cli_console import say, warn
from planner.models.errors import InputError, PlannerError


class _Commands(TyperGroup):
    """Turns errors into one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (PlannerError, OSError, MemoryError, KeyboardInterrupt) as error:
            if isinstance(error, BrokenPipeError) or ctx.params.get("debug"):
                raise
            message, code = explain(error)
            if code == 130 and ctx.invoked_subcommand == "run":
                message = "interrupted"  # what it kept, it has said itself
            warn(message)
            raise typer.Exit(code) from None


def explain(error: BaseException) -> tuple[str, int]:
    """One line for an error, and the exit code."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; run the same command again to continue", 130
    if isinstance(error, PlannerError):
        line = " ".join(str(error).split())
        return f"error: {line}", 2 if isinstance(error, InputError) else 1
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        hint = {
            errno.ENOSPC: "; free some space and run the same command again",
            errno.EACCES: "; choose a folder you may write to",
            errno.EISDIR: "; give a file, not a folder",
            errno.ENOENT: "; check the path",
        }.get(error.errno or 0, "")
        return f"error: {where}{(error.strerror or str(error)).lower()}{hint}", 1
    return "error: out of memory; lower n_samples or free some memory", 1


app = typer.Typer(
    cls=_Commands,
    name="planner",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
Folder = Annotated[
    Path, typer.Argument(metavar="WORKSPACE", help="Folder that `planner init` made.")
]
BudgetText = Annotated[
    str,
    typer.Option(
        metavar="AMOUNT",
        help="Most to spend: '5 usd', '200k tokens', '90 s', '3 Teflop', '2e9 eflop'.",
    ),
]


def _version(asked: bool) -> None:
    if asked:
        say(f"inferplan {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print the version."
        ),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Measure what models do per unit of compute, plan a budget with it, carry it out.

    \b
    See it work in two minutes:   planner demo
    With your own server:         planner init work     then edit work/config.yaml
                                  planner calibrate work
                                  planner fit work
                                  planner plan work --budget "5 usd" --prompts 1000
                                  planner run work --problems new.jsonl --budget "5 usd"
                                  planner report work
    """  # noqa: D301 - \b keeps the examples as they are
