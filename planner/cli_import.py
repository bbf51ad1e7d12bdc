"""`planner import`."""

from pathlib import Path
from typing import TYPE_CHECKING, get_args

from planner.cli_console import progress, say, warn
from planner.config import Workspace
from planner.models.errors import InputError

if TYPE_CHECKING:
    from planner.calibration.importers import Imported

_LISTED = 8  # names in a line


def run_import(
    folder: Path,
    path: Path,
    *,
    format: str | None,
    model: str | None,
    task: str | None,
    temperature: float | None,
    tokens: int | None,
    metric: str | None,
    filter: str | None,
) -> None:
    """Import results measured elsewhere, and say what they can be used for.

    Raises:
        InputError: The workspace or a file cannot be used; rows that are wrong are named.
        StoreError: The disk is full, or a part of the store is damaged.
    """
    workspace = Workspace(folder)
    listed = {target.name for target in workspace.config().models}
    from planner.calibration.import_files import Format
    from planner.calibration.import_rows import ImportOptions, WrongRowsError
    from planner.calibration.importers import import_results
    from planner.calibration.store import Store

    known = {str(name): name for name in get_args(Format)}
    if format is not None and format not in known:
        raise InputError(f"--format {format!r} is not one of {', '.join(known)}")
    try:
        with progress(f"import {path.name}") as update:
            done = import_results(
                Store(workspace.measurements),
                path,
                format=None if format is None else known[format],
                options=ImportOptions(
                    model=model, task=task, temperature=temperature, tokens=tokens,
                    metric=metric, filter=filter,
                ),
                progress=update,
            )  # fmt: skip
    except WrongRowsError as error:
        for wrong in error.first:
            warn(str(wrong))
        more = "" if error.total <= len(error.first) else f" ({len(error.first)} shown)"
        rows = "row is" if error.total == 1 else "rows are"
        raise InputError(
            f"{path}: {error.total:,} {rows} wrong{more}; nothing was imported"
        ) from None
    _tell(workspace, done, listed)


def _tell(workspace: Workspace, done: "Imported", listed: set[str]) -> None:
    for note in done.notes:
        warn(f"note: {note}")
    total = done.added + done.known
    if done.no_temperature:
        warn(
            f"note: {done.no_temperature:,} of {total:,} draws have no temperature; "
            "they count as drawn at 1, an assumption. --temperature T would have said it"
        )
    if done.no_tokens:
        warn(
            f"note: no token count for {done.no_tokens:,} of {total:,} draws: "
            "`planner validate` can use them, `planner fit` cannot tell what a draw costs. "
            "A column tokens tells it; --tokens N stands in, as an assumption"
        )
    if done.assumed_tokens:
        warn(
            f"note: {done.assumed_tokens:,} draws have the token count given, an assumption"
        )
    missing = [model for model in done.models if model not in listed]
    if missing:
        warn(
            f"note: {workspace.config_file} does not list {_names(missing)}: `planner fit` "
            "leaves their draws out. Under `models:` add, with the engine that is to run "
            f"it{' each' if len(missing) > 1 else ''}:"
        )
        say(
            "\n".join(
                f"  - {{name: {_quoted(model)}, engine: recorded, location: "
                "measurements/samples}"
                for model in missing
            )
        )
    without = sorted(listed - set(done.models))
    if without and missing:
        warn(f"note: what was imported has no draws of {_names(without)}, which it lists")
    temperatures = ", ".join(f"{t:g}" for t in done.temperatures) or "not known"
    say(
        f"{done.added:,} draws imported"
        + (f", {done.known:,} were there before" if done.known else "")
        + f": {len(done.models)} models, {done.n_problems:,} problems, temperature "
        f"{temperatures}"
    )


def _names(names: list[str]) -> str:
    more = f" and {len(names) - _LISTED:,} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def _quoted(model: str) -> str:
    return "'" + model.replace("'", "''") + "'"  # YAML's plain scalars have traps
