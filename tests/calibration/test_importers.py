"""Tables from elsewhere become draws: all rows or none, each once, nothing made up."""

import gzip
import json
import math

import duckdb
import pytest

from planner.calibration import importers
from planner.calibration.fit import fit_laws
from planner.calibration.import_rows import ImportOptions, WrongRowsError
from planner.calibration.importers import import_results, with_imported
from planner.calibration.store import Store
from planner.models.errors import InputError, NotMeasuredError
from planner.models.records import Problem
from planner.models.specs import ModelTarget

_LINE = b'{"model": "m", "problem": "p", "correct": 1}\n'
ROW = {"model": "m", "problem": "p", "correct": True}


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "measurements")


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def rows_of(n_problems=3, n=4, model="m", **more):
    return [
        {"model": model, "problem": f"p{i}", "correct": (i + j) % 2 == 0, **more}
        for i in range(n_problems)
        for j in range(n)
    ]


def full(i):
    return {
        "model": "org/m 7b", "problem": "é/1", "correct": i % 2, "answer": f"{i} ≤ π",
        "score": i - 0.5, "tokens": 100 + i, "temperature": 0.7,
    }  # fmt: skip


def write(path, rows):
    """The rows as the file type that the name says."""
    if path.suffix == ".parquet":
        plain = jsonl(path.with_suffix(".tmp"), rows)
        duckdb.sql(f"COPY (FROM read_json('{plain}', format='nd')) TO '{path}'")
    elif path.suffix == ".csv":
        cells = [list(rows[0]), *([str(v) for v in row.values()] for row in rows)]
        path.write_text("\n".join(",".join(line) for line in cells) + "\n")
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress(jsonl(path.with_suffix(""), rows).read_bytes()))
    else:
        jsonl(path, rows)
    return path


@pytest.mark.parametrize("file", ["t.jsonl", "t.csv", "t.parquet", "t.jsonl.gz"])
def test_what_the_file_tells_is_kept_and_the_rest_is_not_made_up(store, tmp_path, file):
    (tmp_path / "in").mkdir()
    done = import_results(store, write(tmp_path / "in" / file, [full(i) for i in range(5)]))
    assert (done.added, done.known, done.temperatures) == (5, 0, (0.7,))
    assert (done.no_temperature, done.no_tokens) == (0, 0)
    frame = store.samples()
    assert frame["draw"].tolist() == [0, 1, 2, 3, 4]
    assert frame["correct"].tolist() == [False, True, False, True, False]
    assert frame["answer"].tolist() == [f"{i} ≤ π" for i in range(5)]
    assert frame["score"].tolist() == [i - 0.5 for i in range(5)]
    assert frame["output_tokens"].tolist() == [100 + i for i in range(5)]
    assert set(frame["model"]) == {"org/m 7b"}
    assert set(frame["problem_id"]) == {"é/1"}
    assert (set(frame["task"]), set(frame["source"])) == ({"t"}, {"transferred"})
    assert frame["engine"].str.contains(file, regex=False).all()
    for unknown in ("top_p", "max_tokens", "seed", "prompt_tokens", "ttft_s", "latency_s",
                    "finish_reason", "logprob"):  # fmt: skip
        assert frame[unknown].isna().all(), unknown


def test_the_three_columns_alone_are_enough_and_assumptions_are_marked(store, tmp_path):
    done = import_results(store, jsonl(tmp_path / "t.jsonl", rows_of()))
    assert (done.added, done.no_temperature, done.no_tokens) == (12, 12, 12)
    frame = store.samples()
    assert set(frame["source"]) == {"assumed"}
    assert set(frame["temperature"]) == {1.0}
    assert frame["output_tokens"].isna().all()


def test_what_the_caller_states_fills_what_the_file_lacks_only(store, tmp_path):
    rows = [{**ROW, "tokens": 7}, {**ROW, "temperature": 0.2}]
    options = ImportOptions(temperature=0.6, tokens=50, task="maths")
    done = import_results(store, jsonl(tmp_path / "t.jsonl", rows), options=options)
    assert (done.assumed_tokens, done.no_tokens) == (1, 0)
    assert done.temperatures == (0.2, 0.6)
    frame = store.samples()
    assert frame["output_tokens"].tolist() == [7, 50]
    assert frame["temperature"].tolist() == [0.6, 0.2]
    assert frame["source"].tolist() == ["transferred", "assumed"]  # a guessed length
    assert set(frame["task"]) == {"maths"}


@pytest.mark.parametrize("grade", [True, 1, 1.0, "true", "TRUE", "1", "1.0"])
def test_grades_that_are_taken(store, tmp_path, grade):
    words = {"true": "false", "TRUE": "false", "1": "0", "1.0": "0.0"}
    other = words[grade] if isinstance(grade, str) else type(grade)(0)
    rows = [{**ROW, "correct": grade}, {**ROW, "correct": other}]
    import_results(store, jsonl(tmp_path / "t.jsonl", rows))
    assert store.samples()["correct"].tolist() == [True, False]


@pytest.mark.parametrize(("change", "field", "wanted"), [
    ({"correct": 0.5}, "correct", "one row is one draw"),
    ({"correct": "C"}, "correct", "true, false, 0 or 1"),
    ({"correct": None}, "correct is missing", "0 or 1"),
    ({"correct": 2}, "correct", "0 or 1"),
    ({"correct": float("nan")}, "correct", "0 or 1"),
    ({"correct": [1, 0]}, "correct", "0 or 1"),
    ({"score": float("nan")}, "score", "finite"),
    ({"score": float("inf")}, "score", "finite"),
    ({"score": "high"}, "score", "finite"),
    ({"tokens": -3}, "tokens", "whole number"),
    ({"tokens": 1.5}, "tokens", "whole number"),
    ({"tokens": 10**400}, "tokens", "whole number"),
    ({"temperature": -0.1}, "temperature", "at least 0"),
    ({"model": ""}, "model", "a name"),
    ({"model": "a\x1b[2Jb"}, "model", "printable"),
    ({"model": "x" * 5000}, "model", "1,000"),
    ({"problem": None}, "problem is missing", "a name"),
    ({"problem": 1.5}, "problem", "a name"),
    ({"problem": True}, "problem", "a name"),
    ({"answer": "\ud800"}, "answer", "UTF-8"),
    ({"answer": "x" * 5_000_000}, "answer", "4,000,000"),
    ({"answer": {"a": 1}}, "answer", "text"),
])  # fmt: skip
def test_a_wrong_value_is_named_and_nothing_is_kept(store, tmp_path, change, field, wanted):
    path = jsonl(tmp_path / "t.jsonl", [ROW, {**ROW, **change}, ROW])
    with pytest.raises(WrongRowsError) as caught:
        import_results(store, path)
    assert caught.value.total == 1
    message = str(caught.value.first[0])
    assert "t.jsonl, line 2" in message
    assert field in message
    assert wanted in message
    assert len(message) < 300
    message.encode()
    assert store.samples().empty


@pytest.mark.parametrize("line", [
    "not json", "[1, 2]", '"text"', "[" * 200_000, '{"model": ' + "9" * 6000 + "}", "\xff",
])  # fmt: skip
def test_a_line_that_is_no_object_is_named(store, tmp_path, line):
    path = jsonl(tmp_path / "t.jsonl", [ROW])
    with path.open("ab") as file:
        file.write(line.encode("latin-1") + b"\n\n")
    with pytest.raises(WrongRowsError, match=r"1 wrong row, nothing imported; .*line 2"):
        import_results(store, path)


def test_only_the_first_ten_wrong_rows_are_listed_and_all_counted(store, tmp_path):
    rows = [ROW, *[{**ROW, "correct": 7}] * 1234]
    with pytest.raises(WrongRowsError) as caught:
        import_results(store, jsonl(tmp_path / "t.jsonl", rows))
    assert caught.value.total == 1234
    assert [w.row for w in caught.value.first] == [f"line {i}" for i in range(2, 12)]


def test_one_wrong_row_in_a_folder_keeps_every_file_out(store, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    jsonl(folder / "a.jsonl", rows_of())
    jsonl(folder / "b.jsonl", [{**ROW, "correct": 3}])
    with pytest.raises(WrongRowsError, match=r"b\.jsonl, line 1"):
        import_results(store, folder)
    assert store.samples().empty


def test_importing_again_adds_nothing_under_any_name(store, tmp_path):
    path = jsonl(tmp_path / "t.jsonl", rows_of())
    import_results(store, path)
    before = store.rows_sha256()
    path.rename(tmp_path / "renamed.jsonl")
    done = import_results(store, tmp_path / "renamed.jsonl")
    assert (done.added, done.known) == (0, 12)
    assert store.rows_sha256() == before


def test_draws_of_two_files_are_all_kept(store, tmp_path):
    import_results(store, jsonl(tmp_path / "a.jsonl", rows_of(n=4)))
    import_results(store, jsonl(tmp_path / "b.jsonl", rows_of(n=2, tokens=5)))
    frame = store.samples()
    assert len(frame) == 3 * 6
    for _, own in frame.groupby("problem_id"):
        assert sorted(own["draw"]) == list(range(6))
    counts = store.sample_counts()
    assert counts["n_samples"].sum() == 18


def test_two_copies_of_a_file_in_a_folder_count_once(store, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    jsonl(folder / "a.jsonl", rows_of())
    jsonl(folder / "copy.jsonl", rows_of())
    done = import_results(store, folder)
    assert done.added == 12
    assert any("copy.jsonl: left out" in note for note in done.notes)


def test_a_file_that_grew_is_refused_rather_than_counted_twice(store, tmp_path):
    path = jsonl(tmp_path / "t.jsonl", rows_of())
    import_results(store, path)
    jsonl(path, [*rows_of(), ROW])
    with pytest.raises(InputError, match="begins with a file that was imported before"):
        import_results(store, path)
    assert len(store.samples()) == 12


def test_an_import_cut_short_goes_on_where_it_stopped(store, tmp_path, monkeypatch):
    path = jsonl(tmp_path / "t.jsonl", rows_of(n_problems=5, n=7))
    whole = Store(tmp_path / "whole")
    import_results(whole, path)
    monkeypatch.setattr(importers, "_PART_ROWS", 10)

    def stop(done, _total):
        if done == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_results(store, path, progress=stop)
    assert len(store.samples()) == 20
    done = import_results(store, path)
    assert (done.added, done.known) == (15, 20)
    same = ["model", "problem_id", "draw", "correct"]
    assert store.samples()[same].equals(whole.samples()[same])


@pytest.mark.parametrize(("name", "content", "message"), [
    ("t.jsonl", b"", "empty"),
    ("t.csv", b"", "empty"),
    ("t.csv", b"model,problem,correct\n", "no graded draw"),
    ("t.csv", b"model,problem\nm,p\n", "no column 'correct'"),
    ("t.csv", b"problem,correct\np,1\n", "--model NAME"),
    ("t.csv", b"model,problem_id,n_samples,n_correct\nm,p,4,2\n", "planner validate"),
    ("t.parquet", b"PAR1 nothing", "not Parquet"),
    ("t.jsonl.gz", gzip.compress(_LINE * 99)[:-20], "truncated"),
    ("t.csv.gz", b"not gzip at all", "gzip"),
    ("t.xlsx", b"PK", "unknown format"),
    ("results_2025-01-01T00-00-00.000000.json", b"{}", "--log_samples"),
])  # fmt: skip
def test_files_that_cannot_be_imported_say_why(store, tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        import_results(store, tmp_path / name)
    assert store.samples().empty


@pytest.mark.parametrize("filling", [b" " * 2**20 + b"\n", b"\n" * 2**18])
def test_a_gzip_bomb_is_refused(store, tmp_path, filling):
    with gzip.open(tmp_path / "t.jsonl.gz", "wb") as file:
        file.write(_LINE)
        for _ in range(80):
            file.write(filling)
    with pytest.raises(InputError, match="holds next to nothing"):
        import_results(store, tmp_path / "t.jsonl.gz")


def test_a_line_without_end_is_refused_in_bounded_memory(store, tmp_path):
    with gzip.open(tmp_path / "t.jsonl.gz", "wb") as file:
        for _ in range(80):
            file.write(b"x" * 2**20)
    with pytest.raises(InputError, match="line 1 is longer than 64 MiB"):
        import_results(store, tmp_path / "t.jsonl.gz")


def test_csv_cells_may_hold_lines_and_commas_and_lengths_are_checked(store, tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('\ufeffmodel,problem,correct,answer\nm,p,1,"a\n\nb, c"\n\nm,p,0,\n')
    import_results(store, path)
    assert store.samples()["answer"].tolist() == ["a\n\nb, c", ""]
    path.write_text("model,problem,correct\nm,p,1\nm,p,1,extra\n")
    with pytest.raises(WrongRowsError, match="line 3: the number of cells is 4"):
        import_results(store, path)
    path.write_bytes(b"model,problem,correct,answer\nm,p,1,\xff\xfe\n")
    with pytest.raises(WrongRowsError, match=r"answer is .* not UTF-8"):
        import_results(store, path)


def test_columns_that_are_not_used_are_told(store, tmp_path):
    done = import_results(store, jsonl(tmp_path / "t.jsonl", [{**ROW, "Score": 1}]))
    assert any("not used: Score" in note for note in done.notes)


def test_laws_of_imported_draws_alone(store, tmp_path, rng):
    rate = rng.beta(1, 1, size=40)
    rows = [
        {"model": "m", "problem": f"q{i}", "correct": bool(rng.random() < p),
         "answer": str(rng.integers(3)), "tokens": int(rng.integers(20, 90)),
         "temperature": 0.8}
        for i, p in enumerate(rate) for _ in range(8)
    ]  # fmt: skip
    import_results(store, jsonl(tmp_path / "maths.jsonl", rows))
    mine = Problem(problem_id="x", task="other", prompt="?", verifier="exact")
    listed = with_imported([mine], store)  # a task of which nothing was drawn is left out
    assert {problem.task for problem in listed} == {"maths"}
    told: list[str] = []
    target = ModelTarget(name="m", engine="recorded", location="x")
    laws = fit_laws(store, targets=[target], problems=listed, seed=0, progress=told.append)
    assert laws.intensity_flop_per_byte is None  # no machine was measured
    assert laws.provenance.source == "transferred"
    cell = laws.cells[0]
    assert cell.prompt_tokens == 0
    assert any("prompt tokens of m" in line for line in told)
    assert cell.max_tokens <= 89
    assert math.isclose(
        sum(c.curves[0].accuracy[0] * c.n_problems for c in laws.cells
            if c.max_tokens == max(d.max_tokens for d in laws.cells)) / 40,
        float(store.samples()["correct"].mean()), abs_tol=0.1,
    )  # fmt: skip


def test_draws_without_a_length_are_refused_by_the_fit_in_words(store, tmp_path):
    import_results(store, jsonl(tmp_path / "t.jsonl", rows_of(8)))
    target = ModelTarget(name="m", engine="recorded", location="x")
    with pytest.raises(NotMeasuredError, match=r"32 imported draws of model 'm'.*--tokens"):
        fit_laws(store, targets=[target], problems=with_imported([], store), seed=0)
