"""Which files hold results measured elsewhere, and of which format each is."""

from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

from planner.calibration.import_inspect import created, inspect_log, log_head
from planner.calibration.import_lm_eval import is_lm_eval, lm_eval_log
from planner.calibration.import_rows import ImportOptions, Log
from planner.calibration.import_table import SUFFIXES, kind_of, table_log
from planner.calibration.import_text import json_lines
from planner.models.errors import InputError

Format = Literal["lm-eval", "inspect", "table"]
FORMATS: tuple[Format, ...] = get_args(Format)


def find_logs(path: Path, format: Format | None, options: ImportOptions) -> list[Log]:
    """The files to import, opened and looked at, in order of their names.

    Raises:
        InputError: Nothing there can be imported, or a file is off.
    """
    if format is not None and format not in FORMATS:
        raise InputError(f"--format {format!r} is not one of {', '.join(FORMATS)}")
    if path.is_dir():
        found = _in_folder(path, format)
    elif path.is_file():
        found = [(path, format or _format_of(path))]
    else:
        raise InputError(f"{path}: no such file or folder; check the path")
    opened = {"lm-eval": lm_eval_log, "inspect": inspect_log, "table": table_log}
    return _latest([opened[kind](file, options) for file, kind in found])


def _in_folder(folder: Path, format: Format | None) -> list[tuple[Path, Format]]:
    files = sorted(
        file for file in folder.rglob("*") if file.is_file() and file.name[:1] != "."
    )
    candidates: dict[Format, list[Path]] = {
        "lm-eval": [
            f for f in files
            if f.name.startswith("samples_") and f.name.endswith((".jsonl", ".jsonl.gz"))
        ],
        "inspect": [
            f for f in files
            if f.suffix == ".eval" or (f.suffix == ".json" and log_head(f))
        ],
        "table": [f for f in files if kind_of(f)],
    }  # fmt: skip
    kinds = FORMATS if format is None else (format,)
    for kind in kinds:
        if candidates[kind]:
            return [(file, kind) for file in candidates[kind]]
    raise InputError(
        f"{folder}: nothing to import; expected samples_*.jsonl of lm-eval, .eval or .json "
        f"logs of inspect, or tables ({', '.join(SUFFIXES)})"
    )


def _format_of(file: Path) -> Format:
    if file.suffix in (".eval", ".json"):
        if file.name.startswith("results"):
            raise InputError(
                f"{file}: results of lm-eval without the draws; run it with --log_samples "
                "and give the samples_*.jsonl, or their folder"
            )
        return "inspect"
    kind = kind_of(file)
    if not kind:
        raise InputError(
            f"{file}: unknown format; expected {', '.join(SUFFIXES)} (text also .gz), "
            ".eval or .json; --format says which"
        )
    if kind in (".jsonl", ".ndjson"):
        first = next((row for _, row in json_lines(file)), None)
        if isinstance(first, dict) and is_lm_eval(first):
            return "lm-eval"
    return "table"


def _latest(logs: list[Log]) -> list[Log]:
    """One log of each file or run: of the attempts at a task of inspect, the last.

    A retry of inspect holds the samples of the attempt before as well.
    """
    kept: dict[str, Log] = {}
    for log in logs:
        key = task_of(log.identity) or log.identity
        before = kept.get(key)
        if before is None:
            kept[key] = log
            continue
        if log.identity == before.identity:
            first, other = before, log
            why = "holds the same draws as"
        else:
            first, other = sorted((before, log), key=created, reverse=True)
            why = "was tried again as"
        note = f"{other.path.name}: left out, {why} {first.path.name}"
        kept[key] = replace(first, notes=(*first.notes, note))
    return list(kept.values())


def task_of(identity: str) -> str:
    """The task id of a run of inspect, which its retries share; "" for other files."""
    words = identity.split(" ")
    return words[2] if words[1] == "inspect" else ""
