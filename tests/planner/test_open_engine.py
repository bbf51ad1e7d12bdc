"""The factory: lazy, and clear about what is missing."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from planner.engines import open_engine
from planner.engines.base import Engine
from planner.models.errors import InputError
from planner.models.specs import ModelTarget


def test_it_opens_what_the_target_names(tiny_model: Callable[..., Path]) -> None:
    target = ModelTarget(name="tiny", engine="embedded", location=str(tiny_model()))
    engine = open_engine(target)
    assert isinstance(engine, Engine)
    assert engine.model == "tiny"
    engine.close()


def test_an_unknown_engine_is_answered_with_those_there_are() -> None:
    with pytest.raises(InputError, match=r"unknown engine 'tgi'; one of embedded, openai"):
        open_engine(ModelTarget(name="m", engine="tgi", location="x"))


@pytest.mark.parametrize(
    ("engine", "module"), [("transformers", "torch"), ("vllm", "vllm")]
)
def test_a_missing_extra_is_named(
    engine: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
    monkeypatch.delitem(sys.modules, f"planner.engines.{engine}", raising=False)
    with pytest.raises(InputError, match=rf"pip install 'inferplan\[{engine}\]'"):
        open_engine(ModelTarget(name="m", engine=engine, location="."))


@pytest.mark.parametrize("engine", ["embedded", "recorded"])
def test_a_location_that_is_not_there(engine: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such"):
        open_engine(ModelTarget(name="m", engine=engine, location=str(tmp_path / "none")))


def test_importing_the_factory_imports_no_engine() -> None:
    code = (
        "import sys, planner.engines\n"
        "heavy = {'openai', 'pandas', 'torch', 'transformers', 'vllm', 'scipy'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
