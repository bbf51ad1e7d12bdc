"""Counts from files and stores: what is read, what is refused, and how it is named."""

import json
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest

from planner.calibration.counts_file import SetName, counts_of_store, read_counts
from planner.calibration.store import Store
from planner.models.errors import InputError, NotMeasuredError

HEADER = "benchmark,model,problem_id,n_samples,n_correct\n"


def write(folder: Path, text: str, name: str = "counts.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "benchmark": ["x", "x", "x", "y"],
            "model": ["a", "a", "b", "a"],
            "problem_id": ["1", "2", "1", "1"],
            "n_samples": [8, 16, 8, 8],
            "n_correct": [0, 16, 3, 1],
            "note": ["n"] * 4,  # ignored
        }
    )


@pytest.mark.parametrize("suffix", ["parquet", "csv", "tsv", "jsonl"])
def test_every_format_reads_alike(tmp_path, suffix):
    path, rows = tmp_path / f"counts.{suffix}", frame()
    if suffix == "parquet":
        duckdb.from_df(rows).to_parquet(str(path))
    elif suffix == "jsonl":
        path.write_text("".join(json.dumps(r) + "\n" for r in rows.to_dict("records")))
    else:
        rows.to_csv(path, sep="," if suffix == "csv" else "\t", index=False)
    counts = read_counts(path)
    assert counts.sets == (SetName("x", "a"), SetName("x", "b"), SetName("y", "a"))
    assert counts.table.n_samples.tolist() == [8, 16, 8, 8]
    assert counts.table.n_correct.tolist() == [0, 16, 3, 1]
    assert counts.table.cell.tolist() == [0, 0, 1, 2]
    assert counts.table.benchmark.tolist() == [0, 0, 1]
    # models of a benchmark share its problems, benchmarks share none
    first, second, again, other = counts.table.problem.tolist()
    assert first == again
    assert len({first, second, other}) == 3


def test_without_a_benchmark_the_file_names_it(tmp_path):
    path = write(
        tmp_path, "model,problem_id,n_samples,n_correct\na,1,8,3\n", "maths.v2.csv"
    )
    assert read_counts(path).sets == (SetName("maths", "a"),)


def test_several_temperatures_are_several_sets(tmp_path):
    text = "model,problem_id,n_samples,n_correct,temperature\n"
    text += "a,1,8,3,0.2\na,1,8,5,0.8\nb,1,8,5,0.8\n"
    names = [s.model for s in read_counts(write(tmp_path, text)).sets]
    assert names == ["a temperature=0.2", "a temperature=0.8", "b"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("x,a,2,8,9", r"row 2: n_correct '9' is more than n_samples"),
        ("x,a,2,8,-1", r"row 2: n_correct '-1' is below 0"),
        ("x,a,2,8,nan", r"row 2: n_correct 'nan' is not a number"),
        ("x,a,2,8,", r"row 2: n_correct \(missing or NaN\) is not a number"),
        ("x,a,2,8,many", r"row 2: n_correct 'many' is not a number"),
        ("x,a,2,8,1.5", r"row 2: n_correct '1.5' is not a whole number"),
        ("x,a,2,0,0", r"row 2: n_samples '0' is below 1"),
        ("x,a,2,inf,0", r"row 2: n_samples 'inf' is not a number"),
        ("x,a,2,1e8,0", r"row 2: n_samples '1e8' is above"),
        ("x,a,1,8,3", r"row 2: problem_id '1' stands twice"),
        ("x,\x1b[31ma,2,8,3", r"row 2: model '.x1b\[31ma' holds characters"),
        ("x,,2,8,3", r"row 2: model \(missing or NaN\) is not a name"),
        ("x,a,2,8", r"cannot be read as csv.*Line: 3"),
        ("x,a,2,8,3,4", r"cannot be read as csv.*Line: 3"),
        ('x,a,"2,8,3', r"cannot be read as csv"),
    ],
)
def test_a_wrong_row_is_named(tmp_path, row, message):
    path = write(tmp_path, f"{HEADER}x,a,1,8,3\n{row}\n")
    with pytest.raises(InputError, match=message) as error:
        read_counts(path)
    assert str(path) in str(error.value)


def test_many_wrong_rows_are_counted(tmp_path):
    rows = "".join(f"x,a,{i},8,9\n" for i in range(10))
    with pytest.raises(InputError, match=r"row 1: .*row 3: .*and 7 more such rows"):
        read_counts(write(tmp_path, HEADER + rows))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("true", "n_correct 'true' is not a number"),
        ('"3"', "n_correct '\"3\"' is not a number"),
        ("null", "n_correct .missing or NaN. is not a number"),
        ("[3]", r"n_correct .\[3\]. is not a number"),
    ],
)
def test_json_values_keep_their_type(tmp_path, value, message):
    good = '{"model": "a", "problem_id": 1, "n_samples": 8, "n_correct": 3}\n'
    bad = f'{{"model": "a", "problem_id": 2, "n_samples": 8, "n_correct": {value}}}\n'
    with pytest.raises(InputError, match=f"row 2: {message}"):
        read_counts(write(tmp_path, good + bad, "counts.jsonl"))


def test_nan_in_parquet_is_named(tmp_path):
    path, rows = tmp_path / "counts.parquet", frame()
    rows["n_correct"] = [0.0, np.nan, 3.0, 1.0]
    duckdb.from_df(rows).to_parquet(str(path))
    with pytest.raises(InputError, match=r"row 2: n_correct .missing or NaN."):
        read_counts(path)


def test_missing_columns_are_named(tmp_path):
    path = write(tmp_path, "model,problem,n_samples,c\na,1,8,3\n")
    with pytest.raises(
        InputError, match=r"no column problem_id, n_correct;.*it has model, p"
    ):
        read_counts(path)


@pytest.mark.parametrize("value", ["NULL", "'[3]'::JSON", "true", "[1, 2]"])
@pytest.mark.parametrize("other", ["3", "NULL"])
def test_a_field_of_parquet_that_is_no_number(tmp_path, value, other):
    path = tmp_path / "counts.parquet"
    query = "SELECT 'a' AS model, i AS problem_id, 8 AS n_samples, "
    query += f"CASE WHEN i = 1 THEN {value} ELSE {other if other == 'NULL' else value} END"
    duckdb.sql(f"{query} AS n_correct FROM range(2) t(i)").to_parquet(str(path))
    with pytest.raises(InputError, match=r"row 2: n_correct .* is not a number"):
        read_counts(path)


def test_null_among_whole_numbers_of_parquet_is_named(tmp_path):
    path = tmp_path / "counts.parquet"
    query = (
        "SELECT 'a' AS model, i AS problem_id, 8 AS n_samples, nullif(i, 1) AS n_correct"
    )
    duckdb.sql(f"{query} FROM range(3) t(i)").to_parquet(str(path))
    with pytest.raises(InputError, match=r"row 2: n_correct .missing or NaN. is not"):
        read_counts(path)


@pytest.mark.parametrize(
    ("header", "row"),
    [
        (",model,problem_id,n_samples,n_correct", "0,a,1,8,3"),  # as pandas saves an index
        ("model,problem_id,n_samples,n_correct,", "a,1,8,3,"),
        ('"a,b",model,problem_id,n_samples,n_correct', "0,a,1,8,3"),
        ("Model,model,problem_id,n_samples,n_correct", "b,a,1,8,3"),
    ],
)
def test_other_columns_of_a_csv_may_have_any_name(tmp_path, header, row):
    counts = read_counts(write(tmp_path, f"{header}\n{row}\n"))
    assert counts.sets == (SetName("counts", "a"),)
    assert counts.table.n_correct.tolist() == [3]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"\n\n", "first line is blank"),
        ("a.csv", b"model,model,problem_id\n", "column model stands twice"),
        ("a.csv", HEADER.encode("utf-16"), "not UTF-8 text; save it"),
        ("a.jsonl", b"[1]\n", "not JSON objects"),
        (
            "a.jsonl",
            b'{"model": ["m"], "problem_id": 1, "n_samples": 8, "n_correct": 3}\n',
            r"row 1: model \['m'\] is not a name",
        ),
    ],
)
def test_what_is_off_is_said_in_our_words(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_counts(path)


def test_a_temperature_below_0_is_named(tmp_path):
    text = "model,problem_id,n_samples,n_correct,temperature\na,1,8,3,-1\n"
    with pytest.raises(InputError, match="row 1: temperature '-1' is below 0"):
        read_counts(write(tmp_path, text))


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_empty_files(tmp_path, suffix):
    with pytest.raises(InputError, match="empty file"):
        read_counts(write(tmp_path, "", f"counts.{suffix}"))


def test_a_header_alone(tmp_path):
    with pytest.raises(InputError, match="no rows"):
        read_counts(write(tmp_path, HEADER))


def test_a_file_cut_short(tmp_path):
    path = tmp_path / "counts.parquet"
    duckdb.from_df(frame()).to_parquet(str(path))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match="damaged or cut short"):
        read_counts(path)
    lines = write(tmp_path, '{"model": "a", "pro', "counts.jsonl")
    with pytest.raises(InputError, match="damaged or cut short"):
        read_counts(lines)


@pytest.mark.parametrize("name", ["counts.xlsx", "nothing.csv", "."])
def test_what_is_no_file_of_counts(tmp_path, name):
    write(tmp_path, "x", "counts.xlsx")
    with pytest.raises(InputError):
        read_counts(tmp_path / name)


def test_an_empty_store(tmp_path):
    with pytest.raises(NotMeasuredError, match="planner calibrate"):
        counts_of_store(Store(tmp_path / "measurements"))
