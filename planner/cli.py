"""The `planner` command: reads arguments, calls the library, prints.

Results go to stdout, progress and errors to stderr. Errors we raise are one line, exit code 2
for what the caller gave and 1 for the rest; a traceback only with --debug.
"""

import errno
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from planner import __version__
from planner.cli_console import out, say, show_table, warn
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
Folder = Annotated[Path, typer.Argument(metavar="WORKSPACE", help="Folder that `planner init` made.")]
BudgetText = Annotated[
    str, typer.Option(metavar="AMOUNT", help="Most to spend: '5 usd', '200k tokens', '90 s', '3 Teflop', '2e9 eflop'.")
]


def _version(asked: bool) -> None:
    if asked:
        say(f"inferplan {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Measure what models can do per unit of compute, plan a budget with it, carry the plan out.

    \b
    See it work in two minutes:   planner demo
    With your own server:         planner init work     then edit work/config.yaml
                                  planner calibrate work
                                  planner fit work
                                  planner plan work --budget "5 usd" --prompts 1000
                                  planner run work --problems new.jsonl --budget "5 usd"
                                  planner report work
    """


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="Folder to make.")],
    reference: Annotated[
        bool, typer.Option("--reference", help="For the tiny models that came with inferplan.")
    ] = False,
) -> None:
    """Write a commented config.yaml and example problems; overwrite nothing.

    \b
    planner init work
    planner init work --reference     models and problems to try everything with
    """
    from planner.cli_init import write_workspace

    workspace = write_workspace(folder, reference=reference)
    say(f"wrote {workspace.config_file} and {folder / 'problems.jsonl'}")
    say(
        f"next: planner calibrate {folder}" if reference
        else f"next: edit {workspace.config_file}, then planner calibrate {folder}"
    )  # fmt: skip


@app.command()
def calibrate(
    folder: Folder,
    n_samples: Annotated[
        int | None, typer.Option(min=2, help="Draws a problem, model and temperature; default: the config's.")
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="Only this model; may be given again.")
    ] = None,
    skip_timings: Annotated[bool, typer.Option("--skip-timings", help="Draw samples only.")] = False,
) -> None:
    """Measure: draw from every model, grade, time its steps. Continues where it stopped.

    \b
    planner calibrate work
    planner calibrate work --n-samples 64     adds what is missing to 64
    planner calibrate work --model large
    """
    from planner.cli_measure import run_calibrate

    run_calibrate(folder, n_samples=n_samples, only=model or [], timings=not skip_timings)


@app.command()
def fit(
    folder: Folder,
    seed: Annotated[int, typer.Option(min=0, help="Of what is held out.")] = 0,
) -> None:
    """Fit the laws to what was measured, and say how far off they are on held-out samples.

    \b
    planner fit work
    """
    from planner.cli_measure import run_fit

    run_fit(folder, seed=seed)


@app.command()
def plan(
    folder: Folder,
    budget: Annotated[
        str | None, typer.Option(metavar="AMOUNT", help="Most to spend; default: the config's. E.g. '5 usd', '2e9 eflop'.")
    ] = None,
    prompts: Annotated[
        int | None, typer.Option(min=1, help="How many prompts to plan for; default: those of the config.")
    ] = None,
    problems: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Plan for these prompts (JSONL): their tasks and difficulty.")
    ] = None,
    slo_latency: Annotated[
        str | None, typer.Option(metavar="TIME", help="Longest answer time, at the 95th percentile of prompts: '2s'.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Choose, for every task and difficulty, the model, strategy and number of draws.

    \b
    planner plan work --budget "5 usd" --prompts 1000
    planner plan work --budget "2e9 eflop" --problems new.jsonl
    planner plan work --budget "200k tokens" --slo-latency 2s
    """
    from planner.cli_plan import run_plan

    run_plan(folder, budget=budget, prompts=prompts, problems=problems, slo_latency=slo_latency, seed=seed)


@app.command()
def recommend(
    prompt: Annotated[str, typer.Argument(help="The prompt; '-' reads it from stdin.")],
    budget: BudgetText,
    workspace: Annotated[
        Path | None, typer.Option(help="Whose plan to use; default: the one for the reference models.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say how to answer one prompt within a budget, and why.

    \b
    planner recommend "A037+8*4-21:" --budget "2e7 eflop"
    planner recommend "What is 17 * 23?" --budget "0.002 usd" --workspace work --json
    """
    from planner.cli_plan import run_recommend

    run_recommend(sys.stdin.read() if prompt == "-" else prompt, budget=budget, folder=workspace, as_json=as_json)


@app.command()
def run(
    folder: Folder,
    budget: BudgetText,
    problems: Annotated[Path, typer.Option(metavar="FILE", help="Prompts to answer (JSONL).")],
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where to; default: results.jsonl in the workspace.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of every draw.")] = 0,
) -> None:
    """Answer prompts by the plan, never above the budget; say what was promised and what came true.

    \b
    planner run work --problems new.jsonl --budget "5 usd"
    """
    from planner.cli_run import run_run

    run_run(folder, budget=budget, problems=problems, output=output, seed=seed)


@app.command()
def report(folder: Folder) -> None:
    """Write report.html: frontier, allocation, promised against achieved, laws, sources.

    \b
    planner report work
    """
    from planner.cli_measure import run_report

    say(f"wrote {run_report(folder)}")


@app.command()
def demo(
    folder: Annotated[
        Path, typer.Argument(metavar="[WORKSPACE]", help="Where to keep the files.")
    ] = Path("planner-demo"),
    quick: Annotated[bool, typer.Option("--quick", help="90 seconds in place of five minutes.")] = False,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    budget: Annotated[
        str | None, typer.Option(metavar="AMOUNT", help="Most to spend on the fresh prompts.")
    ] = None,
) -> None:
    """The whole loop on tiny real models: measure, fit, plan, run on fresh prompts, report.

    \b
    planner demo
    planner demo work --quick
    """
    from planner.cli_demo import run_demo

    run_demo(folder, quick=quick, seed=seed, budget=budget, console=out())


@app.command()
def doctor(
    workspace: Annotated[Path | None, typer.Argument(help="A workspace to look at too.")] = None,
) -> None:
    """Say what is installed, which engines work, and what to do about the rest.

    \b
    planner doctor
    planner doctor work
    """
    from planner.doctor import diagnose

    checks = diagnose(workspace)
    show_table("planner doctor", ("what", "status", "found", "what to do"),
               [(c.name, c.status, c.found, c.advice) for c in checks])  # fmt: skip
    if any(check.essential and check.status != "works" for check in checks):
        raise typer.Exit(1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point; --debug may stand anywhere before a lone `--`."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    end = given.index("--") if "--" in given else len(given)
    options, rest = given[:end], given[end:]
    if "--debug" in options:
        options = ["--debug", *(a for a in options if a != "--debug")]
    app([*options, *rest], prog_name="planner")


if __name__ == "__main__":
    main()
