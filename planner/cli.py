"""The `planner` command: reads arguments, calls the library, prints.

Results go to stdout, progress and errors to stderr. Errors we raise are one line, exit
code 2 for what the caller gave and 1 for the rest; a traceback only with --debug.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from planner import cli_laws  # noqa: F401 - its commands join the app, first in --help
from planner.blas import prefer_wide_kernels
from planner.cli_app import BudgetText, Folder, app
from planner.cli_console import say, show_table


@app.command()
def plan(
    folder: Folder,
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="AMOUNT",
            help="Most to spend; default: the config's. E.g. '5 usd', '2e9 eflop'.",
        ),
    ] = None,
    prompts: Annotated[
        int | None,
        typer.Option(
            min=1, help="How many prompts to plan for; default: those of the config."
        ),
    ] = None,
    problems: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Plan for these prompts (JSONL): their tasks and difficulty.",
        ),
    ] = None,
    slo_latency: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Longest answer time, at the 95th percentile of prompts: '2s'.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Plan a budget.

    Chooses, for every task and difficulty, the model, strategy and number of draws.

    \b
    planner plan work --budget "5 usd" --prompts 1000
    planner plan work --budget "2e9 eflop" --problems new.jsonl
    planner plan work --budget "200k tokens" --slo-latency 2s
    """  # noqa: D301 - \b keeps the examples as they are
    from planner.cli_plan import run_plan

    run_plan(
        folder,
        budget=budget,
        prompts=prompts,
        problems=problems,
        slo_latency=slo_latency,
        seed=seed,
    )


@app.command()
def recommend(
    prompt: Annotated[str, typer.Argument(help="The prompt; '-' reads it from stdin.")],
    budget: BudgetText,
    workspace: Annotated[
        Path | None,
        typer.Option(help="Whose plan to use; default: the one for the reference models."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say how to answer one prompt, and why.

    \b
    planner recommend "A037+8*4-21:" --budget "2e7 eflop"
    planner recommend "What is 17 * 23?" --budget "0.002 usd" --workspace work --json
    """  # noqa: D301 - \b keeps the examples as they are
    from planner.cli_plan import run_recommend

    run_recommend(
        sys.stdin.read() if prompt == "-" else prompt,
        budget=budget,
        folder=workspace,
        as_json=as_json,
    )


@app.command()
def run(
    folder: Folder,
    budget: BudgetText,
    problems: Annotated[
        Path, typer.Option(metavar="FILE", help="Prompts to answer (JSONL).")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Where to; default: results.jsonl in the workspace."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of every draw.")] = 0,
) -> None:
    """Answer prompts by the plan.

    The budget is never passed. Says what was promised and what came true; the answers go
    to results.jsonl, the draws to the workspace.

    \b
    planner run work --problems new.jsonl --budget "5 usd"
    """  # noqa: D301 - \b keeps the examples as they are
    from planner.cli_run import run_run

    run_run(folder, budget=budget, problems=problems, output=output, seed=seed)


@app.command()
def report(folder: Folder) -> None:
    """Write report.html.

    Frontier, allocation, promised against achieved, laws, sources; opens offline.

    \b
    planner report work
    """  # noqa: D301 - \b keeps the examples as they are
    from planner.cli_measure import run_report

    say(f"wrote {run_report(folder)}")


@app.command()
def demo(
    folder: Annotated[
        Path, typer.Argument(metavar="[WORKSPACE]", help="Where to keep the files.")
    ] = Path("planner-demo"),
    quick: Annotated[
        bool, typer.Option("--quick", help="90 seconds in place of five minutes.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    budget: Annotated[
        str | None,
        typer.Option(metavar="AMOUNT", help="Most to spend on the fresh prompts."),
    ] = None,
) -> None:
    """Try the whole loop on tiny real models.

    Measures, fits, plans, runs on fresh prompts against two baselines, and reports.

    \b
    planner demo
    planner demo work --quick
    """  # noqa: D301 - \b keeps the examples as they are
    from planner.cli_demo import run_demo

    run_demo(folder, quick=quick, seed=seed, budget=budget)


@app.command()
def doctor(
    workspace: Annotated[
        Path | None, typer.Argument(help="A workspace to look at too.")
    ] = None,
) -> None:
    """Say what works, and what to do about the rest.

    Exit code 1 if the embedded engine, or the workspace named, does not work.

    \b
    planner doctor
    planner doctor work
    """  # noqa: D301 - \b keeps the examples as they are
    from planner.doctor import diagnose

    checks = diagnose(workspace)
    show_table(
        "planner doctor",
        ("what", "status", "found", "what to do"),
        [(c.name, c.status, c.found, c.advice) for c in checks],
    )
    if any(check.essential and check.status != "works" for check in checks):
        raise typer.Exit(1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point; --debug may stand anywhere before a lone `--`."""
    prefer_wide_kernels()
    given = list(sys.argv[1:] if arguments is None else arguments)
    end = given.index("--") if "--" in given else len(given)
    options, rest = given[:end], given[end:]
    if "--debug" in options:
        options = ["--debug", *(a for a in options if a != "--debug")]
    app([*options, *rest], prog_name="planner")


if __name__ == "__main__":
    main()
