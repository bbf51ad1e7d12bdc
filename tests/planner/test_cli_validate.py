"""`planner validate` from the command line, and what its figures are made of."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from planner.cli import app
from planner.validation import MACRO, OURS, errors, halvings, held, without_success

FIELDS = {
    "benchmark", "model", "method", "n_train", "redraw", "k", "predicted", "low", "high",
    "truth",
}  # fmt: skip


@pytest.fixture
def counts(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Two benchmarks, two models, 12 problems, 100 draws each."""
    lines = ["benchmark,model,problem_id,n_samples,n_correct"]
    for benchmark in ("sums", "<b>words</b>"):
        for model in ("small", "large"):
            for i, p in enumerate(rng.beta(0.5, 3.0, 12)):
                lines.append(f"{benchmark},{model},p{i},100,{rng.binomial(100, p)}")
    path = tmp_path / "counts.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def run(*arguments: object):
    return CliRunner().invoke(app, ["validate", *map(str, arguments)])


def test_rows_table_and_page(counts, tmp_path):
    out = tmp_path / "out.json"
    done = run(counts, "--n-train", "8,16,100", "--redraws", 2, "--seed", 1, "--json", out)
    assert done.exit_code == 0, done.output
    rows = json.loads(out.read_text(), parse_constant=pytest.fail)["rows"]
    assert all(set(row) == FIELDS for row in rows)
    ours = [row for row in rows if row["method"] == OURS]
    # 4 sets x 2 redraws x (k = 10 and 100 from 8 draws, 100 from 16)
    assert len(ours) == 4 * 2 * 3
    assert {row["n_train"] for row in rows} == {8, 16}
    assert all((row["low"] is None) == (row["method"] != OURS) for row in rows)
    for words in ("mean of benchmarks", "held the truth", "more samples a problem"):
        assert words in done.stdout
    assert "note: n_train 100" in done.stderr
    page = (tmp_path / "out.html").read_text()
    assert "<b>words</b>" not in page  # names from the file are shown, not run
    assert "Content-Security-Policy" in page


def test_the_same_seed_writes_the_same_rows(counts, tmp_path):
    written = []
    for name in ("a.json", "b.json"):
        arguments = ("--n-train", "8", "--redraws", 1, "--json", tmp_path / name)
        assert run(counts, *arguments).exit_code == 0
        written.append((tmp_path / name).read_text())
    assert written[0] == written[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.replace("n_correct", "right"), "no column n_correct"),
        (lambda t: t + "sums,small,p0,100,1\n", "stands twice"),
        (lambda t: t + "sums,small,p99,100,101\n", "more than n_samples"),
    ],
)
def test_a_bad_file_is_one_line_and_exit_code_2(counts, change, message):
    counts.write_text(change(counts.read_text()))
    done = run(counts)
    assert done.exit_code == 2
    assert message in done.stderr
    assert "Traceback" not in done.output


@pytest.mark.parametrize("sizes", ["eight", "8,,16", "0", "-4", "100"])
def test_a_bad_n_train(counts, sizes):
    done = run(counts, "--n-train", sizes)
    assert done.exit_code == 2
    assert "n" in done.stderr


@pytest.mark.parametrize(
    ("option", "name", "message"),
    [
        ("--json", "counts.csv", "is the data"),
        ("--html", "counts.csv", "is the data"),
        ("--json", "out.html", "both the rows and the page"),
        ("--json", ".", "is a folder"),
    ],
)
def test_a_result_never_replaces_the_data_or_the_other(counts, option, name, message):
    before = counts.read_text()
    done = run(counts, "--n-train", "8", option, counts.parent / name)
    assert done.exit_code == 2
    assert message in done.stderr
    assert counts.read_text() == before
    assert list(counts.parent.iterdir()) == [counts]


def test_one_draw_a_problem_says_how_many_are_needed(tmp_path):
    path = tmp_path / "single.csv"
    path.write_text("model,problem_id,n_samples,n_correct\nm,1,1,0\nm,2,1,1\n")
    done = run(path)
    assert done.exit_code == 2
    assert "at least 2 draws of every problem" in done.stderr


def test_no_success_at_all_still_reports(tmp_path):
    path = tmp_path / "zeros.csv"
    rows = "".join(f"m,{i},40,0\n" for i in range(5))
    path.write_text("model,problem_id,n_samples,n_correct\n" + rows)
    done = run(path, "--redraws", 1, "--html", tmp_path / "zeros.html")
    assert done.exit_code == 0, done.output
    assert "3 redraws of sets without a correct draw" in done.stdout  # of 8, 16 and 32
    assert (tmp_path / "zeros.html").exists()


def frame(*rows: tuple) -> pd.DataFrame:
    names = ["benchmark", "model", "method", "n_train", "redraw", "k", "predicted", "low",
             "high", "truth"]  # fmt: skip
    return pd.DataFrame(rows, columns=names)


def test_errors_weigh_redraws_sets_and_benchmarks_in_turn():
    rows = frame(
        *(
            (b, m, method, 8, r, k, truth + off, 0.0, 1.0, truth)
            for b, m, offs in [
                ("x", "a", [0.1, 0.3]), ("x", "b", [0.0]), ("y", "a", [0.4]),
            ]
            for r, off in enumerate(offs)
            for method in (OURS, "beta_binomial")
            for k, truth in [(10, 0.0), (100, 0.5)]
        )
    )  # fmt: skip
    rows.loc[rows["k"] == 10, "predicted"] = 0.9  # not judged: only k = n is
    table = errors(rows)
    assert table.of["x", OURS] == pytest.approx([(0.2 + 0.0) / 2])
    assert table.of[MACRO, OURS] == pytest.approx([(0.1 + 0.4) / 2])
    assert table.best_published("x", 8) == ("beta_binomial", pytest.approx(0.1))
    assert not table.partial


def test_redraws_without_success_are_told_apart():
    rows = frame(
        ("x", "a", OURS, 8, 0, 100, 0.3, 0.0, 1.0, 0.5),
        ("x", "a", "no_extrapolation", 8, 0, 100, 0.0, None, None, 0.5),
        ("x", "a", OURS, 8, 1, 100, 0.4, 0.0, 1.0, 0.5),
        ("x", "a", "no_extrapolation", 8, 1, 100, 0.1, None, None, 0.5),
        ("x", "a", "beta_binomial", 8, 1, 100, 0.45, None, None, 0.5),
    )
    assert without_success(rows) == (1, pytest.approx(0.2))
    assert errors(rows).of["x", OURS] == pytest.approx([0.1])


def test_a_law_that_fits_only_some_redraws_is_marked():
    rows = frame(
        *(("x", "a", m, 8, r, 100, 0.4, 0.0, 1.0, 0.5)
          for m, redraws in [(OURS, 2), ("beta_binomial", 2), ("ls_power_law", 1)]
          for r in range(redraws))
    )  # fmt: skip
    assert errors(rows).partial == {("x", "ls_power_law")}


def test_held_counts_by_extrapolation():
    rows = frame(
        ("x", "a", OURS, 10, 0, 20, 0.5, 0.4, 0.6, 0.5),
        ("x", "a", OURS, 10, 0, 100, 0.5, 0.4, 0.6, 0.7),
        ("x", "b", OURS, 10, 0, 100, 0.5, 0.4, 0.6, 0.6),
        ("x", "a", OURS, 10, 0, 10_000, 0.5, 0.4, 0.6, 0.3),
    )
    assert [(h.factor, h.n_forecasts, h.share) for h in held(rows)] == [
        ("up to 3x", 1, 1.0), ("about 10x", 2, 0.5), ("about 1000x and more", 1, 0.0),
    ]  # fmt: skip


def widths(*sizes: int, law: float) -> pd.DataFrame:
    names = ["benchmark", "model", "n_train", "n", "width"]
    return pd.DataFrame([("x", "a", n, 1000, n**-law) for n in sizes], columns=names)


def test_halving_is_read_off_the_widths_where_they_reach():
    seen, beyond = halvings(widths(8, 16, 32, 64, law=0.5), [8, 64])
    assert (seen.more, seen.measured) == (24, True)  # 8 -> 32 halves n^-0.5
    assert (beyond.more, beyond.measured) == (192, False)  # 64 -> 256, by the law
    assert math.isclose(seen.width, 8**-0.5)


def test_flat_widths_promise_nothing():
    (flat,) = halvings(widths(8, 16, 32, law=0.01), [32])
    assert flat.more is None


def test_one_size_promises_nothing():
    (alone,) = halvings(widths(8, law=0.5), [8])
    assert alone.more is None
