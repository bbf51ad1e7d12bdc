"""Pass@k of models never sampled, or sampled four times a problem, from their siblings.

    python benchmarks/family_forecast.py --counts counts.parquet --n-train 4 --redraws 3
    python benchmarks/family_forecast.py --store WORKSPACE/measurements

Each model in turn is held out of each benchmark: its draws are hidden (or all but n-train a
problem), the law is fitted to the others, and the forecast is compared with the unbiased
pass@k of all its draws. Sizes and families are read off the models' names ("coder-6.7b",
"tiny-0.8m"); a name without a size is a sibling of unknown size and is not judged. Prints
the mean absolute error of each method, and how often 90 % intervals hold the truth.
"""

import argparse
import re
import time
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
from scipy.special import expit, logit

from planner.calibration.store import Store
from planner.models.counts import CountTable
from planner.models.coverage import pass_at_k
from planner.models.families import FamilyLaw
from planner.models.forecast import fit_coverage
from planner.models.prediction import Array

_SIZE = re.compile(r"(?:(\d+)x)?(\d+(?:\.\d+)?)([mb])(?![a-z])", re.IGNORECASE)
_UNITS = {"m": 1e6, "b": 1e9}


def named_size(name: str) -> float:
    """Parameters by a model's name, NaN where it has none."""
    found = _SIZE.search(name)
    if not found:
        return np.nan
    return float(found[1] or 1) * float(found[2]) * _UNITS[found[3].lower()]


def named_family(name: str) -> str:
    """The name with its size cut out."""
    return _SIZE.sub("", name)


def read(counts: list[Path], stores: list[Path]) -> pd.DataFrame:
    """Rows of (benchmark, model, problem_id, n_samples, n_correct)."""
    frames = []
    for file in counts:
        columns = duckdb.sql(f"describe select * from '{file}'").df()["column_name"]
        kind = ", ".join(
            f"coalesce({c}::varchar, '')"
            for c in ("task", "temperature")
            if c in set(columns)
        )
        name = f"concat_ws(' ', '{file.stem.split('_')[0]}', {kind})"
        frames.append(duckdb.sql(
            f"select {name} as benchmark, model, problem_id, "
            "n_samples::bigint as n_samples, n_correct::bigint as n_correct "
            f"from '{file}'"
        ).df())  # fmt: skip
    for folder in stores:
        drawn = Store(folder).samples()
        drawn["benchmark"] = [
            f"{folder.name} {task} {t:g}"
            for task, t in zip(drawn["task"], drawn["temperature"], strict=True)
        ]
        keys = ["benchmark", "model", "problem_id"]
        grouped = drawn.groupby(keys)["correct"].agg(n_samples="size", n_correct="sum")
        frames.append(grouped.reset_index())
    return pd.concat(frames, ignore_index=True)


def numbered(rows: pd.DataFrame) -> tuple[CountTable, pd.DataFrame]:
    """The table of the rows, and its cells (benchmark, model)."""
    keys = [rows["benchmark"], rows["model"]]
    cells = rows[["benchmark", "model"]].drop_duplicates().reset_index(drop=True)
    where = pd.MultiIndex.from_frame(cells)
    benchmark = pd.Index(cells["benchmark"].unique())
    table = CountTable.of(
        rows["n_correct"], rows["n_samples"],
        cell=where.get_indexer(pd.MultiIndex.from_arrays(keys)), problem=rows["problem"],
        benchmark=benchmark.get_indexer(cells["benchmark"]),
    )  # fmt: skip
    return table, cells


def fit(rows: pd.DataFrame) -> tuple[FamilyLaw, list[str]]:
    """The law of the rows, and its benchmarks."""
    table, cells = numbered(rows)
    law = FamilyLaw.fit(
        table,
        [named_size(m) for m in cells["model"]],
        family=[named_family(m) for m in cells["model"]],
        model=list(cells["model"]),
    )
    return law, list(cells["benchmark"].unique())


def regression(size: Array, y: Array, at: float, curve: str) -> float:
    """A line in log size through transformed coverage of the siblings."""
    keep = ~np.isnan(size)
    y = np.clip(y[keep], 1e-3, 1 - 1e-3)
    z = logit(y) if curve == "logit" else np.log(-np.log(y))
    slope, level = np.polyfit(np.log(size[keep]), z, 1)
    guess = level + slope * np.log(at)
    return float(expit(guess) if curve == "logit" else np.exp(-np.exp(guess)))


def siblings(
    others: pd.DataFrame, size: float, points: list[int]
) -> dict[str, list[float]]:
    """What a spreadsheet would say of a model never sampled."""
    names = list(others["model"].unique())
    at = np.array([named_size(name) for name in names])
    each = np.full((len(names), len(points)), np.nan)
    for i, name in enumerate(names):
        mine = others[others["model"] == name]
        n = mine["n_samples"].to_numpy()
        usable = [j for j, k in enumerate(points) if k <= n.min()]
        each[i, usable] = pass_at_k(
            mine["n_correct"], n, [points[j] for j in usable]
        ).mean(axis=0)  # fmt: skip
    distance = np.abs(np.log(at / size))
    nearest = np.where(np.isnan(distance), np.inf, distance).argmin()
    known = [each[~np.isnan(each[:, j])][:, j] for j in range(len(points))]
    out = {
        "mean of siblings": [float(y.mean()) for y in known],
        "nearest size": [float(y) for y in each[nearest]],
    }
    for name, curve in (("line, logit", "logit"), ("line, log -log", "passuntil")):
        out[name] = [
            regression(at[~np.isnan(each[:, j])], known[j], size, curve)
            for j in range(len(points))
        ]
    return out


def judge(
    rows: pd.DataFrame, benchmark: str, model: str, law: FamilyLaw, number: int,
    n_train: int, redraws: int, rng: np.random.Generator,
) -> list[dict[str, object]]:  # fmt: skip
    """Errors of every method on one model held out of one benchmark."""
    here = rows[rows["benchmark"] == benchmark]
    mine, others = here[here["model"] == model], here[here["model"] != model]
    mine = mine.sort_values("problem")
    c, n = mine["n_correct"].to_numpy(), mine["n_samples"].to_numpy()
    full = int(n.min())
    points = [k for k in (1, 4, 16, 64, 256, 1000) if k < full] + [full]
    truth = pass_at_k(c, n, points).mean(axis=0)
    size, family = named_size(model), named_family(model)
    out: list[dict[str, object]] = []

    def note(
        method: str, draws: int, mean: Array, ends: tuple[Array, Array] | None
    ) -> None:
        for j, k in enumerate(points):
            held = np.nan if ends is None else float(ends[0][j] <= truth[j] <= ends[1][j])
            width = np.nan if ends is None else float(ends[1][j] - ends[0][j])
            out.append({
                "benchmark": benchmark, "model": model, "n_train": draws, "method": method,
                "k": k, "truth": truth[j], "predicted": mean[j],
                "error": abs(mean[j] - truth[j]), "held": held, "width": width,
            })  # fmt: skip

    for method, values in siblings(others, size, points).items():
        note(method, 0, np.array(values), None)
    for_model = model if model in law.models else None
    new = law.forecast(size, family=family, model=for_model, benchmark=number)
    guess = new.predict_measured(points, full, rng)
    note("family law", 0, guess.mean, guess.interval())
    for _ in range(redraws):
        few = rng.hypergeometric(c, n - c, n_train)
        known = new.update(few, n_train, mine["problem"].to_numpy())
        guess = known.predict_measured(points, full, rng)
        note("family law", n_train, guess.mean, guess.interval())
        (alone,) = fit_coverage(CountTable.of(few, n_train))
        guess = alone.predict_measured(points, full, rng)
        note("own draws alone", n_train, guess.mean, guess.interval())
        some = mine.assign(n_correct=few, n_samples=n_train)
        table, cells = numbered(pd.concat([others, some]))
        cell = int(np.flatnonzero(cells["model"] == model)[0])
        guess = fit_coverage(table)[cell].predict_measured(points, full, rng)
        note("pooled coverage", n_train, guess.mean, guess.interval())
    return out


def main() -> None:
    """Hold out every model of every benchmark, print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--counts", type=Path, nargs="*", default=[])
    parser.add_argument("--store", type=Path, nargs="*", default=[])
    parser.add_argument("--benchmark", default="", help="only those whose name has this")
    parser.add_argument("--n-train", type=int, default=4)
    parser.add_argument("--redraws", type=int, default=3)
    parser.add_argument("--joint", action="store_true", help="benchmarks share skills")
    parser.add_argument(
        "--elsewhere", action="store_true", help="held out of one benchmark at a time"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--csv", type=Path)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    rows = read(args.counts, args.store)
    rows = rows[rows["benchmark"].str.contains(args.benchmark, regex=False)]
    rows["problem"] = rows.groupby("benchmark")["problem_id"].transform(
        lambda ids: pd.factorize(ids)[0]
    )
    results: list[dict[str, object]] = []
    started = time.perf_counter()
    for model in rows["model"].unique():
        if np.isnan(named_size(model)):
            continue
        for benchmark in rows.loc[rows["model"] == model, "benchmark"].unique():
            scope = (
                rows
                if args.joint or args.elsewhere
                else rows[rows["benchmark"] == benchmark]
            )
            hidden = scope["model"] == model
            if args.elsewhere:
                hidden &= scope["benchmark"] == benchmark
            law, names = fit(scope[~hidden])
            results += judge(
                rows, benchmark, model, law, names.index(benchmark), args.n_train,
                args.redraws, rng,
            )  # fmt: skip
    frame = pd.DataFrame(results)
    frame = frame.sort_values(["n_train", "k"], kind="stable")
    if args.csv:
        frame.to_csv(args.csv, index=False)
    table = frame.groupby(["n_train", "k", "method"], sort=False).agg(
        error=("error", "mean"), held=("held", "mean"), width=("width", "mean"),
        models=("model", "nunique"), forecasts=("error", "size"),
    )  # fmt: skip
    print(table.round(3).to_string())
    print(f"{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
