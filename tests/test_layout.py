"""The layout's promises: package list, import rule, public names, a light import."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import planner

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {
    "planner": ROOT / "planner",
    "planner.models": ROOT / "models",
    "planner.calibration": ROOT / "calibration",
    "planner.data": ROOT / "data",
}
HEAVY = {
    "torch", "transformers", "vllm", "optuna", "pandas", "scipy.stats", "statsmodels",
    "plotly", "openai", "pyarrow", "duckdb",
}  # fmt: skip

# who may import what of ours; the longest prefix of the importing module counts
MAY_IMPORT = {
    "planner.models": ("planner.models",),
    "planner.data": (),
    "planner.engines": ("planner.models", "planner.engines"),
    "planner.strategies": ("planner.models", "planner.strategies"),
    "planner.calibration": (
        "planner.models", "planner.engines", "planner.verifiers", "planner.calibration",
    ),
}  # fmt: skip


def module_name(path: Path) -> str:
    for package, folder in sorted(PACKAGES.items(), key=lambda p: -len(p[0])):
        if path.is_relative_to(folder):
            parts = path.relative_to(folder).with_suffix("").parts
            return ".".join((package, *[p for p in parts if p != "__init__"]))
    raise AssertionError(path)


def sources() -> list[Path]:
    return sorted(p for folder in PACKAGES.values() for p in folder.rglob("*.py"))


def imported(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names.add(node.module or "")
    return {name for name in names if name.split(".")[0] == "planner"}


@pytest.mark.parametrize("path", sources(), ids=module_name)
def test_import_rule(path):
    module, names = module_name(path), imported(ast.parse(path.read_text()))
    rules = [prefix for prefix in MAY_IMPORT if f"{module}.".startswith(f"{prefix}.")]
    if rules:
        allowed = MAY_IMPORT[max(rules, key=len)]
        # `planner` itself holds only the version and lazy names
        broken = {
            n for n in names if not n.startswith(allowed or ("?",)) and n != "planner"
        }
        assert not broken, f"{module} must not import {broken}"
    elif not module.startswith("planner.cli"):
        broken = {n for n in names if n.startswith("planner.calibration")}
        assert not broken, f"{module} must not import {broken}"


def test_cli_imports_calibration_inside_its_subcommands():
    for path in sorted((ROOT / "planner").glob("cli*.py")):
        top = ast.Module(
            [n for n in ast.parse(path.read_text()).body
             if isinstance(n, ast.Import | ast.ImportFrom)], []
        )  # fmt: skip
        assert not {n for n in imported(top) if n.startswith("planner.calibration")}


def test_package_list_is_complete():
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    on_disk = {module_name(p) for p in sources() if p.name == "__init__.py"}
    assert on_disk == set(config["packages"])


@pytest.mark.parametrize("path", sources(), ids=module_name)
def test_a_file_has_one_job(path):
    assert len(path.read_text().splitlines()) <= 450


def test_public_names_exist():
    assert sorted(planner.__all__) == planner.__all__
    for name in planner.__all__:
        assert getattr(planner, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = planner.nonsense


def test_import_is_light():
    code = "import planner, sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert not HEAVY & set(done.stdout.split())


@pytest.mark.parametrize("folder", ["models", "calibration", "data"])
def test_mapped_folders_refuse_their_bare_name(folder):
    done = subprocess.run(
        [sys.executable, "-c", f"import {folder}"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode != 0
    assert f"import planner.{folder}" in done.stderr
