"""`planner import`, and the way from imported draws to a plan."""

import json

import pytest
from typer.testing import CliRunner

from planner.calibration.store import Store
from planner.cli import app
from planner.config import Workspace
from planner.plan import Plan


def planner(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture
def work(tmp_path):
    planner("init", tmp_path / "work")
    return tmp_path / "work"


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def draws(rng, model, skill, tokens, n_problems=30, n=8):
    rate = rng.beta(skill, 1.0, size=n_problems)
    return [
        {"model": model, "problem": f"p{i}", "correct": bool(rng.random() < p),
         "answer": str(rng.integers(4)), "tokens": int(tokens + rng.integers(40)),
         "temperature": 0.7}
        for i, p in enumerate(rate) for _ in range(n)
    ]  # fmt: skip


def test_from_a_table_to_a_plan_in_tokens(work, tmp_path, rng):
    rows = draws(rng, "small 1", 0.5, 60) + draws(rng, "large: 2", 2.0, 600)
    result = planner("import", work, jsonl(tmp_path / "maths.jsonl", rows))
    assert result.exit_code == 0, result.output
    assert "480 draws imported: 2 models, 30 problems, temperature 0.7" in result.stdout
    assert "does not list large: 2, small 1" in result.stderr
    again = planner("import", work, tmp_path / "maths.jsonl")
    assert "0 draws imported, 480 were there before" in again.stdout
    # what it says to put into the config is valid there
    listed = [line for line in result.stdout.splitlines() if line.startswith("  - {")]
    Workspace(work).config_file.write_text(
        "models:\n" + "\n".join(listed) + "\nproblems: problems.jsonl\n"
    )
    assert {m.name for m in Workspace(work).config().models} == {"small 1", "large: 2"}
    result = planner("fit", work)
    assert result.exit_code == 0, result.output
    assert "prompt tokens of small 1, large: 2 were not imported" in " ".join(
        result.stderr.split()
    ).replace("large: 2, small 1", "small 1, large: 2")
    result = planner("plan", work, "--budget", "200k tokens", "--prompts", "1000")
    assert result.exit_code == 0, result.output
    plan = Plan.load(Workspace(work).plan_file)
    assert plan.budget_unit == "tokens"
    assert plan.source == "transferred"
    assert {group.task for group in plan.groups} == {"maths"}
    result = planner("plan", work, "--budget", "5 s", "--prompts", "10")
    assert result.exit_code == 1
    assert "a budget in s needs" in result.stderr
    assert planner("report", work).exit_code == 0


def test_wrong_rows_stand_on_lines_of_their_own(work, tmp_path):
    good = {"model": "m", "problem": "p", "correct": 1}
    path = jsonl(tmp_path / "t.jsonl", [good, *[{**good, "correct": 0.5}] * 12])
    result = planner("import", work, path)
    assert result.exit_code == 2
    assert result.stdout == ""
    *named, last = result.stderr.strip().splitlines()
    assert len(named) == 10
    assert named[0].startswith("t.jsonl, line 2: correct is 0.5, not 0 or 1")
    assert last.startswith("error: ")
    assert "12 rows are wrong (10 shown); nothing was imported" in last
    assert not Workspace(work).measurements.exists()


def test_what_is_assumed_is_said(work, tmp_path):
    rows = [{"model": "small", "problem": "p", "correct": 1}] * 3
    result = planner("import", work, jsonl(tmp_path / "t.jsonl", rows))
    assert "3 of 3 draws have no temperature" in result.stderr
    assert "no token count for 3 of 3 draws" in result.stderr
    assert "does not list" not in result.stderr  # the template has a model of this name
    result = planner(
        "import", work, jsonl(tmp_path / "u.jsonl", rows[:2]), "--model", "large",
        "--temperature", "0.6", "--tokens", "300", "--task", "maths",
    )  # fmt: skip
    assert "2 draws have the token count given, an assumption" in result.stderr
    last = Store(Workspace(work).measurements).samples().iloc[-1]
    assert (last["model"], last["task"], last["output_tokens"]) == ("large", "maths", 300)


@pytest.mark.parametrize(("arguments", "message"), [
    (["nowhere.jsonl"], "no such file or folder"),
    (["t.jsonl", "--format", "excel"], "not one of lm-eval, inspect, table"),
    (["t.jsonl", "--temperature", "-1"], "--temperature is -1"),
    (["t.jsonl", "--temperature", "nan"], "--temperature is nan"),
    (["t.jsonl", "--tokens", "0"], "--tokens is 0"),
    (["t.jsonl", "--model", " "], "--model is"),
])  # fmt: skip
def test_wrong_use_is_one_line_and_exit_code_2(
    work, tmp_path, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    jsonl(tmp_path / "t.jsonl", [{"model": "m", "problem": "p", "correct": 1}])
    result = planner("import", work, *arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_name_from_a_file_is_text_and_no_markup(work, tmp_path):
    path = jsonl(tmp_path / "t.jsonl", [
        {"model": "[bold]m'[/bold]", "problem": "p", "correct": 1},
    ])  # fmt: skip
    result = planner("import", work, path)
    assert "{name: '[bold]m''[/bold]', engine" in result.stdout
