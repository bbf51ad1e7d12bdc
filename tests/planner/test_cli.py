"""The command line: exit codes, one-line errors, clean stdout, and the loop end to end."""

import contextlib
import json
import re
import subprocess
import sys
from dataclasses import asdict

import pytest
from typer.testing import CliRunner

from planner import __version__, cli_run
from planner.calibration.store import Store
from planner.calibration.suites import reference_problems
from planner.cli import app, main
from planner.cli_app import explain
from planner.cli_init import TEMPLATE
from planner.config import Workspace
from planner.models.errors import InputError, ServingError, StoreError
from planner.outcome import Outcome

COMMANDS = [
    "init", "calibrate", "import", "fit", "validate", "plan", "recommend", "run", "report",
    "demo", "doctor",
]  # fmt: skip


def planner(*arguments, stdin=None):
    return CliRunner().invoke(app, [str(a) for a in arguments], input=stdin)


def one_line(result):
    """The error of a failed command, which is a single line on stderr and nothing else."""
    assert result.stdout == ""
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    return lines[0]


def test_version_goes_to_stdout():
    result = planner("--version")
    assert (result.exit_code, result.stdout) == (0, f"inferplan {__version__}\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches_with_an_example(command):
    result = planner(command, "--help")
    assert result.exit_code == 0
    assert f"  planner {command}" in result.stdout
    assert all(len(line) <= 100 for line in result.stdout.splitlines())


def test_help_lists_every_command_with_a_whole_sentence():
    listing = planner("--help").stdout.split("Commands:")[1]
    assert [line.split()[0] for line in listing.strip().splitlines()] == COMMANDS
    assert "..." not in listing


@pytest.mark.parametrize("arguments", [
    ["fly"], ["plan"], ["plan", "w", "--prompts", "many"], ["plan", "w", "--prompts", "0"],
    ["run", "w"], ["recommend", "p"], ["calibrate", "w", "--n-samples", "1"],
])  # fmt: skip
def test_wrong_usage_is_exit_code_2(arguments):
    result = planner(*arguments)
    assert result.exit_code == 2
    assert "Error: " in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("command", [
    ["calibrate"], ["fit"], ["report"], ["plan", "--budget", "5 usd"],
    ["run", "--budget", "5 usd", "--problems", "none.jsonl"],
])  # fmt: skip
def test_a_missing_workspace_names_the_file_and_the_next_step(command, tmp_path):
    result = planner(command[0], tmp_path / "nowhere", *command[1:])
    assert result.exit_code == 2
    error = one_line(result)
    assert "nowhere" in error
    assert "planner " in error


def test_init_refuses_to_overwrite(tmp_path):
    assert planner("init", tmp_path / "work").exit_code == 0
    config = tmp_path / "work" / "config.yaml"
    config.write_text("mine")
    result = planner("init", tmp_path / "work")
    assert result.exit_code == 2
    assert "exists" in one_line(result)
    assert config.read_text() == "mine"


def test_a_fresh_workspace_is_valid(tmp_path):
    planner("init", tmp_path / "work")
    workspace = Workspace(tmp_path / "work")
    config = workspace.config()
    assert [model.engine for model in config.models] == ["openai", "openai"]
    assert len(workspace.problems()) == 3
    assert workspace.targets()[0].prices.usd_per_input_token == pytest.approx(1e-7)
    # what is shown commented out is valid too
    shown = r"^( *)# ((?:- name|api_key_env|chat|architecture|scorer|  engine|  location):)"
    text, count = re.subn(shown, r"\1\2", TEMPLATE, flags=re.MULTILINE)
    assert count == 7
    (tmp_path / "work" / "config.yaml").write_text(text)
    full = workspace.config()
    assert full.models[0].api_key_env
    assert full.models[2].engine == "transformers"
    assert full.scorer


@pytest.mark.parametrize("budget", ["5", "usd", "-3 usd", "5 parsecs"])
def test_a_budget_without_a_unit_is_refused(budget, tmp_path):
    planner("init", tmp_path / "work")
    result = planner("plan", tmp_path / "work", f"--budget={budget}")
    assert result.exit_code == 2
    assert "budget" in one_line(result)


def test_a_latency_that_is_no_time_is_refused(tmp_path):
    planner("init", tmp_path / "work")
    result = planner("plan", tmp_path / "work", "--slo-latency", "2 usd")
    assert result.exit_code == 2
    assert "not a time" in one_line(result)


def test_an_unreachable_server_is_one_error(tmp_path):
    planner("init", tmp_path)
    config = tmp_path / "config.yaml"
    config.write_text(config.read_text().replace("localhost:8000", "127.0.0.1:9"))
    result = planner("calibrate", tmp_path, "--skip-timings", "--model", "small")
    assert result.exit_code == 1
    errors = [x for x in result.stderr.splitlines() if x.startswith("error")]
    assert len(errors) == 1
    assert "127.0.0.1:9" in errors[0]
    assert "Traceback" not in result.stderr


def test_an_unknown_model_is_named(tmp_path):
    planner("init", tmp_path)
    result = planner("calibrate", tmp_path, "--model", "huge")
    assert result.exit_code == 2
    assert "'huge'" in one_line(result)


def test_a_damaged_measurement_is_one_error(tmp_path):
    planner("init", tmp_path)
    part = tmp_path / "measurements" / "samples" / "part-000001-0123456789abcdef.parquet"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"not parquet")
    result = planner("fit", tmp_path)
    assert result.exit_code == 1
    assert part.name in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(("error", "code", "words"), [
    (InputError("a\nb"), 2, "error: a b"),
    (StoreError("full"), 1, "error: full"),
    (ServingError("down"), 1, "error: down"),
    (KeyboardInterrupt(), 130, "interrupted; run the same command again to continue"),
    (OSError(28, "No space left on device", "x/y"), 1, "error: x/y: no space left"),
    (MemoryError(), 1, "error: out of memory"),
])  # fmt: skip
def test_every_error_is_one_line_and_a_code(error, code, words):
    message, found = explain(error)
    assert found == code
    assert message.startswith(words)
    assert "\n" not in message


def test_markup_in_an_error_is_shown_as_it_is(tmp_path):
    result = planner("fit", tmp_path / "[bold]x[/nope]")
    assert "[bold]x[/nope]" in one_line(result)


@pytest.mark.parametrize(
    "arguments", [["--debug", "fit", "nowhere"], ["fit", "nowhere", "--debug"]]
)
def test_debug_shows_the_traceback(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError):
        main(arguments)


def test_debug_after_a_lone_dash_dash_is_a_prompt(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["recommend", "--budget", "5", "--", "--debug"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_the_installed_command_keeps_stdout_clean(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "planner.cli", "fit", str(tmp_path)], capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")


@pytest.fixture
def measured(tmp_path, tiny_model):
    """A workspace of two random models, calibrated and fitted."""
    models = "".join(
        f"  - {{name: {name}, engine: embedded, location: {tiny_model(hidden=size)}}}\n"
        for name, size in (("small", 16), ("large", 32))
    )
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "config.yaml").write_text(
        f"models:\n{models}problems: problems.jsonl\n"
        "sampling: {n_samples: 4, temperatures: [1.0], max_tokens: 12}\n"
    )
    known = reference_problems(0, {"chain": 12, "countdown": 12})
    fresh = reference_problems(
        1, {"chain": 4, "countdown": 4}, exclude={p.prompt for p in known}
    )
    for name, problems in (("problems.jsonl", known), ("new.jsonl", fresh)):
        (folder / name).write_text("".join(json.dumps(asdict(p)) + "\n" for p in problems))
    return folder


def _interrupted_after(count):
    """Ctrl-C once that many prompts are finished."""

    def update(done, total):
        if done >= count:
            raise KeyboardInterrupt

    return lambda label: contextlib.nullcontext(update)


def test_the_loop_from_calibration_to_report(measured, monkeypatch):
    first = planner("calibrate", measured)
    assert first.exit_code == 0, first.stderr
    assert "192 draws made" in first.stdout
    again = planner("calibrate", measured)
    assert "0 draws made, 192 in" in again.stdout

    fitted = planner("fit", measured)
    assert fitted.exit_code == 0, fitted.stderr
    assert "held-out error" in fitted.stdout

    new = measured / "new.jsonl"
    planned = planner("plan", measured, "--budget", "40k tokens", "--problems", new)
    assert planned.exit_code == 0, planned.stderr
    for words in ("promise: accuracy", "binds:", "extrapolated:"):
        assert words in planned.stdout

    options = ("--budget", "200 tokens", "--workspace", measured)
    advice = planner("recommend", "A037+8*4:", *options, "--json")
    assert json.loads(advice.stdout)["option"]["model"] in ("small", "large")
    assert planner("recommend", "-", *options, stdin="A037+8*4:\n").exit_code == 0

    poor = planner("plan", measured, "--budget", "3 tokens", "--problems", new)
    assert poor.exit_code == 1
    assert "needs" in one_line(poor)

    with monkeypatch.context() as patch:
        patch.setattr(cli_run, "progress", _interrupted_after(3))
        stopped = planner("run", measured, "--budget", "40k tokens", "--problems", new)
    assert stopped.exit_code == 130
    assert stopped.stderr.splitlines()[-1] == "interrupted"
    kept = (measured / "results.jsonl").read_text().splitlines()
    assert 3 <= len(kept) <= 8
    assert not (measured / "outcome.json").exists()
    assert len(Store(measured / "measurements").samples("executed")) >= len(kept)

    ran = planner("run", measured, "--budget", "40k tokens", "--problems", new)
    assert ran.exit_code == 0, ran.stderr
    rows = [json.loads(x) for x in (measured / "results.jsonl").read_text().splitlines()]
    assert [r["problem_id"] for r in rows] == [
        json.loads(x)["problem_id"] for x in new.read_text().splitlines()
    ]
    outcome = Outcome.load(measured / "outcome.json")
    own = outcome.arms["planner"]
    assert own.spent["tokens"] == sum(r["cost"]["tokens"] for r in rows) <= 40_000
    assert sum(g.n for g in own.by_group) == len(rows) == own.n_prompts
    executed = Store(measured / "measurements").samples("executed")
    assert set(executed["problem_id"]) <= {r["problem_id"] for r in rows}
    assert len(executed) > 0

    assert planner("report", measured).exit_code == 0
    assert "In short" in (measured / "report.html").read_text()
