"""Fixtures of the planner's tests."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def known_laws() -> Callable[..., Any]:
    """`known_laws(rng, **settings)` of known_laws.py: laws whose truth is known."""
    spec = importlib.util.spec_from_file_location(
        "known_laws", Path(__file__).with_name("known_laws.py")
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.known_laws
