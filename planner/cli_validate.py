"""`planner validate`: a backtest of the laws on the user's own data."""

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from planner.cli_console import progress, say, show_table, warn
from planner.config import Workspace
from planner.models.artifact import HoldoutRow, Laws
from planner.models.diagnostics import abs_error, by_quantity, interval_coverage
from planner.models.errors import InputError
from planner.models.files import write_atomic

if TYPE_CHECKING:
    import pandas as pd

    from planner.calibration.counts_file import NamedCounts
    from planner.validation import Halving

_MANY_FITS = 200  # of a set: some seconds; fewer are done before a second process is up
_MOST_WORKERS = 4


def run_validate(
    path: Path,
    *,
    n_train: str | None,
    redraws: int,
    seed: int,
    json_path: Path | None,
    html_path: Path | None,
) -> None:
    """Backtest the laws, print how far off they were, write the rows and a page.

    Args:
        path: A file of counts, or a workspace.
        n_train: Draws a problem to fit to, "8,16,32"; None: those of 8, 16 and 32 that the
            data hold, or else half of their draws.
        redraws: How often the training draws are drawn anew.
        seed: Of every redraw.
        json_path: Where the rows go; None: nowhere for a file, validation.json for a
            workspace.
        html_path: Where the page goes; None: beside the JSON.

    Raises:
        InputError: The counts or an option cannot be used.
        NotMeasuredError: The workspace has no draws.
        StoreError: A result cannot be written, or a part is damaged.
    """
    import pandas as pd

    from planner.calibration.backtest import backtest
    from planner.report_validate import write_validation

    if json_path is None and path.is_dir():
        json_path = path / "validation.json"
    html = html_path or _page_beside(json_path, path)
    _refuse_overwriting(path, json_path, html)
    counts, holdout = _read(path)
    sizes = _default_sizes(counts) if n_train is None else _sizes(n_train)
    fits = len(sizes) * redraws * len(counts.sets)
    with progress("validate: fits") as update:
        done = backtest(
            counts,
            n_train=sizes,
            redraws=redraws,
            seed=seed,
            workers=min(os.cpu_count() or 1, _MOST_WORKERS) if fits >= _MANY_FITS else 1,
            progress=update,
        )
    for note in done.notes:
        warn(f"note: {note}")
    rows, widths = pd.DataFrame(done.rows), pd.DataFrame(done.widths)
    _show(rows, widths)
    _show_holdout(holdout)
    if json_path is not None:
        content = {"rows": [row._asdict() for row in done.rows]}
        write_atomic(json_path, json.dumps(content, allow_nan=False) + "\n")
        say(f"wrote {json_path}")
    write_validation(
        html,
        title=path.name if path.name else str(path.resolve()),
        rows=rows,
        widths=widths,
        notes=done.notes,
        holdout=holdout,
        settings=f"{redraws} redraws, seed {seed}",
    )
    say(f"wrote {html}")


def _read(path: Path) -> "tuple[NamedCounts, Sequence[HoldoutRow]]":
    """Counts of a file or a workspace; and what the workspace's other laws were off by."""
    from planner.calibration.counts_file import counts_of_store, read_counts
    from planner.calibration.store import Store

    workspace = Workspace(path)
    if not workspace.measurements.is_dir():
        return read_counts(path), ()
    laws = Laws.load(workspace.laws_file) if workspace.laws_file.exists() else None
    return counts_of_store(Store(workspace.measurements)), laws.holdout if laws else ()


def _page_beside(json_path: Path | None, path: Path) -> Path:
    if json_path is not None:
        return json_path.with_suffix(".html")
    # not beside the data, which may lie where nobody writes
    return Path(f"{path.name.split('.')[0]}-validation.html")


def _refuse_overwriting(path: Path, json_path: Path | None, html: Path) -> None:
    """Say before any work is done that a result would replace the data or the other one.

    Raises:
        InputError: It would, or a folder has its name.
    """
    data = path.resolve()
    for option, result in (("--json", json_path), ("--html", html)):
        if result is None:
            continue
        if result.is_dir():
            raise InputError(f"{option} {result}: is a folder; give a file")
        if result.resolve() == data:
            raise InputError(f"{option} {result}: is the data; give another file")
    if json_path is not None and json_path.resolve() == html.resolve():
        raise InputError(
            f"{html}: would hold both the rows and the page; give --html another file"
        )


def _sizes(text: str) -> list[int]:
    """Numbers of an option "8,16,32".

    Raises:
        InputError: Not whole numbers of at least 1.
    """
    try:
        sizes = [int(part) for part in text.split(",")]
    except ValueError:
        sizes = []
    if not sizes or min(sizes) < 1:
        raise InputError(f"--n-train: need whole numbers such as 8,16,32, got {text!r}")
    return sizes


def _default_sizes(counts: "NamedCounts") -> list[int]:
    from planner.calibration.backtest import DEFAULT_SIZES

    most = int(counts.table.n_samples.max())
    return [n for n in DEFAULT_SIZES if n < most] or [max(most // 2, 1)]


def _show(rows: "pd.DataFrame", widths: "pd.DataFrame") -> None:
    """Error by method, how often intervals held, and what halves them."""
    from planner.validation import errors, halvings, held, without_success

    table = errors(rows)
    sizes = sorted(int(n) for n in rows["n_train"].unique())
    shown = []
    for benchmark in table.benchmarks:
        methods = table.methods(benchmark)
        least = np.nanmin([table.of[benchmark, m] for m in methods], axis=0)
        for i, method in enumerate(methods):
            mark = "~" if (benchmark, method) in table.partial else ""
            values = table.of[benchmark, method]
            shown.append(
                (
                    benchmark if i == 0 else "",
                    method + mark,
                    *(_error(v, v == m) for v, m in zip(values, least, strict=True)),
                )
            )
    if shown:
        show_table(
            "mean |error| of pass@n, points",
            ("benchmark", "method", *(f"from {n} draws" for n in table.sizes)),
            shown,
            numeric=range(2, 2 + len(table.sizes)),
        )
        say("*: least of its benchmark")
    if table.partial:
        say("~: could not be fitted to some redraws; its mean is over the others")
    count, error = without_success(rows)
    if count:
        say(
            f"not counted: {count} redraws of sets without a correct draw; no published "
            f"law can be fitted to them, inferplan was off by {100 * error:.1f} points"
        )
    show_table(
        "inferplan's 90 % intervals",
        ("k / draws fitted to", "forecasts", "sets", "held the truth"),
        [
            (h.factor, f"{h.n_forecasts:,}", f"{h.n_sets}", f"{100 * h.share:.0f} %")
            for h in held(rows)
        ],
        numeric=(1, 2, 3),
    )
    show_table(
        "what halves inferplan's 90 % interval of coverage at n draws",
        ("benchmark", "draws now", "width now", "to halve it", "known from"),
        [
            (h.benchmark, f"{h.n_train}", f"{100 * h.width:.1f} points", more(h), how(h))
            for h in halvings(widths, sizes)
        ],
        numeric=(1, 2),
    )


def _error(value: float, best: bool) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.1f}{'*' if best else ' '}"


def more(halving: "Halving") -> str:
    """How many draws halve the interval, in words."""
    if halving.more is None:
        return "not known: the width hardly falls with more draws"
    return f"{halving.more:,} more samples a problem would halve the interval"


def how(halving: "Halving") -> str:
    """What that rests on, in words."""
    if halving.more is None:
        return "widths at the sizes tried"
    return "widths measured on these data" if halving.measured else "a law fitted to widths"


def _show_holdout(holdout: Sequence[HoldoutRow]) -> None:
    """Held-out error of the workspace's other laws, as its last fit found it."""
    if not holdout:
        return
    shown = []
    for quantity, rows in by_quantity(holdout).items():
        if quantity == "latency":
            off = np.mean([abs(math.log(r.predicted / r.observed)) for r in rows])
            inside = float(np.mean([r.low <= r.observed <= r.high for r in rows]))
            shown.append(
                (quantity, f"{len(rows)}", f"factor {math.exp(off):.2f}", f"{inside:.0%}")
            )
        else:
            points, inside = 100 * abs_error(rows), interval_coverage(rows)
            shown.append(
                (quantity, f"{len(rows)}", f"{points:.1f} points", f"{inside:.0%}")
            )
    show_table(
        "the laws of laws.json on what their fits did not see",
        ("quantity", "forecasts", "typical error", "inside the 90 % interval"),
        [(q.replace("_", " "), *rest) for q, *rest in shown],
        numeric=(1, 2, 3),
    )
