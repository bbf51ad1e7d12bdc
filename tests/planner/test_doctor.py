"""doctor: says what works, and fails when the default engine does not."""

import sys

import pytest
from typer.testing import CliRunner

from planner import doctor
from planner.cli import app
from planner.models.specs import ModelTarget


def _targets(*folders):
    return lambda: tuple(
        ModelTarget(name=f.name, engine="embedded", location=str(f)) for f in folders
    )


def by_name(checks):
    return {check.name.strip(): check for check in checks}


def test_models_that_decode_make_the_engine_work(tiny_model, monkeypatch):
    folder = tiny_model()
    monkeypatch.setattr(doctor, "reference_targets", _targets(folder))
    checks = by_name(doctor.diagnose())
    assert checks["engine embedded"].status == "works"
    assert (
        "8 tokens decoded" in checks[folder.name].found
        or "token" in checks[folder.name].found
    )
    assert CliRunner().invoke(app, ["doctor"]).exit_code == 0


@pytest.mark.parametrize("damage", ["weights", "config", "none"])
def test_a_damaged_or_missing_model_fails_with_advice(damage, tiny_model, monkeypatch):
    folder = tiny_model()
    if damage == "weights":
        (folder / "model.safetensors").write_bytes(b"short")
    elif damage == "config":
        (folder / "config.json").unlink()
    targets = _targets() if damage == "none" else _targets(folder)
    monkeypatch.setattr(doctor, "reference_targets", targets)
    check = by_name(doctor.diagnose())["engine embedded"]
    assert check.status == "fails"
    assert "install inferplan again" in check.advice
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 1
    assert "engine embedded" in result.stdout


def test_an_engine_that_is_not_installed_names_the_command(monkeypatch):
    find = doctor.util.find_spec
    monkeypatch.setattr(
        doctor.util,
        "find_spec",
        lambda name: None if name in ("torch", "vllm") else find(name),
    )
    checks = by_name(doctor.diagnose())
    assert checks["engine vllm"].status == "missing"
    assert checks["engine vllm"].advice == "pip install 'inferplan[vllm]'"
    assert "torch" in checks["engine transformers"].found
    assert "torch" not in sys.modules


def test_a_workspace_is_looked_at(tmp_path):
    CliRunner().invoke(app, ["init", str(tmp_path / "work")])
    found = by_name(doctor.diagnose(tmp_path / "work"))["workspace"]
    assert (found.status, found.found) == (
        "works",
        "can be written; 2 models in its config",
    )
    missing = by_name(doctor.diagnose(tmp_path / "nowhere"))["workspace"]
    assert missing.status == "fails"
    assert "planner init" in missing.advice
    (tmp_path / "work" / "config.yaml").write_text("models: []\nproblems: x")
    broken = by_name(doctor.diagnose(tmp_path / "work"))["workspace"]
    assert "models" in broken.found
    assert list((tmp_path / "work").glob(".doctor-*")) == []
