"""Commands on the way to the laws: init, calibrate, import, fit, validate."""

from pathlib import Path
from typing import Annotated

import typer

from planner.cli_app import Folder, app
from planner.cli_console import say
from planner.models.errors import InputError


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
