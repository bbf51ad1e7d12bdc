"""The `planner` command: reads arguments, calls the library, prints.

Results go to stdout, progress and errors to stderr. Errors we raise are one line, exit
code 2 for what the caller gave and 1 for the rest; a traceback only with --debug.
"""

import errno
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from planner import __version__
from planner.blas import prefer_wide_kernels
from planner.cli_console import say, show_table, warn
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


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="Folder to make.")],
    reference: Annotated[
        bool,
        typer.Option("--reference", help="For the tiny models that came with inferplan."),
    ] = False,
) -> None:
    """Write a commented config and example problems.

    Nothing that exists is overwritten.

    \b
    planner init work
    planner init work --reference     models and problems to try everything with
    """  # noqa: D301 - \b keeps the examples as they are
    from planner.cli_init import write_workspace

    workspace = write_workspace(folder, reference=reference)
    say(f"wrote {workspace.config_file} and {folder / 'problems.jsonl'}")
    say(
        f"next: planner calibrate {folder}"
        if reference
        else f"next: edit {workspace.config_file}, then planner calibrate {folder}"
    )


@app.command()
def calibrate(
    folder: Folder,
    n_samples: Annotated[
        int | None,
        typer.Option(
            min=2, help="Draws a problem, model and temperature; default: the config's."
        ),
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="Only this model; may be given again.")
    ] = None,
    skip_timings: Annotated[
        bool, typer.Option("--skip-timings", help="Draw samples only.")
    ] = False,
    until_width: Annotated[
        float | None,
        typer.Option(
            metavar="WIDTH",
            help="Stop once the 90 % interval of mean coverage is this wide: '0.05'. "
            "--n-samples is then the most draws of a problem.",
        ),
    ] = None,
    at: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="With --until-width: coverage at so many draws; default: the most a "
            "plan may use, 8 times --n-samples.",
        ),
    ] = None,
) -> None:
    """Draw from every model, grade, time its steps.

    Stopped at any point and run again, it continues and repeats nothing.

    \b
    planner calibrate work
    planner calibrate work --n-samples 64     adds what is missing to 64
    planner calibrate work --model large
    planner calibrate work --until-width 0.05 --n-samples 128     draws where it helps most
    """  # noqa: D301 - \b keeps the examples as they are
    from planner.cli_measure import run_calibrate

    if at is not None and until_width is None:
        raise InputError("--at says what --until-width is of; give that too")
    run_calibrate(
        folder,
        n_samples=n_samples,
        only=model or [],
        timings=not skip_timings,
        until_width=until_width,
        at=at,
    )
    say(f"next: planner fit {folder}")


@app.command("import")
def import_(
    folder: Folder,
    path: Annotated[
        Path, typer.Argument(metavar="FILE", help="A file, or a folder of them.")
    ],
    format: Annotated[
        str | None,
        typer.Option(help="lm-eval, inspect or table; default: by name and content."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Name of the model, in place of the file's own.")
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="Task of a table's rows; default: its file name.")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="Of draws whose file does not tell.")
    ] = None,
    tokens: Annotated[
        int | None,
        typer.Option(help="Tokens of a response where the file has none; a rough figure."),
    ] = None,
    metric: Annotated[
        str | None, typer.Option(help="lm-eval: the metric that counts; inspect: scorer.")
    ] = None,
    filter: Annotated[
        str | None, typer.Option(help="lm-eval: the filter whose grades count.")
    ] = None,
) -> None:
    """Import results measured elsewhere.

    Sample logs of lm-evaluation-harness, logs of inspect-ai, or a table (.jsonl, .csv,
    .parquet) with the columns model, problem, correct; answer, score, tokens and
    temperature where known. All rows or none; wrong ones are named.

    \b
    planner import work results.jsonl
    planner import work logs/ --format inspect
    planner import work lm-eval-output/ --tokens 300
    """  # noqa: D301 - \b keeps the examples as they are
    from planner.cli_import import run_import

    run_import(
        folder,
        path,
        format=format,
        model=model,
        task=task,
        temperature=temperature,
        tokens=tokens,
        metric=metric,
        filter=filter,
    )


@app.command()
def fit(
    folder: Folder,
    seed: Annotated[int, typer.Option(min=0, help="Of what is held out.")] = 0,
) -> None:
    """Fit the laws to what was measured.

    Says how far off they are on samples that the fit did not see.

    \b
    planner fit work
    """  # noqa: D301 - \b keeps the examples as they are
    from planner.cli_measure import run_fit

    run_fit(folder, seed=seed)
    say(f'next: planner plan {folder} --budget "5 usd"')


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
def validate(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="PATH",
            help="A workspace, or counts (.parquet, .csv, .jsonl) with the columns model, "
            "problem_id, n_samples, n_correct; benchmark and temperature if there are "
            "several.",
        ),
    ],
    n_train: Annotated[
        str | None,
        typer.Option(
            metavar="N,N,...",
            help="Draws a problem to fit to; default: 8,16,32 as far as the data reach.",
        ),
    ] = None,
    redraws: Annotated[
        int, typer.Option(min=1, help="How often those draws are drawn anew.")
    ] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Of every redraw.")] = 0,
    json_path: Annotated[
        Path | None,
        typer.Option(
            "--json", metavar="FILE", help="Where the rows go; default: the workspace."
        ),
    ] = None,
    html_path: Annotated[
        Path | None,
        typer.Option(
            "--html", metavar="FILE", help="Where the page goes; default: beside the JSON."
        ),
    ] = None,
) -> None:
    """Backtest the laws on your own data.

    Fits to a few of the draws, forecasts pass@k up to all of them; error and interval
    coverage beside the published laws, and how many more draws would halve the interval.

    \b
    planner validate work
    planner validate counts.parquet --n-train 8,16,32 --redraws 20 --json out.json
    """  # noqa: D301 - \b keeps the examples as they are
    from planner.cli_validate import run_validate

    run_validate(
        path,
        n_train=n_train,
        redraws=redraws,
        seed=seed,
        json_path=json_path,
        html_path=html_path,
    )


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
