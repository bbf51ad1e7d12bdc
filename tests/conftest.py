"""Shared fixtures."""

import importlib.util
import itertools
import os
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy: threads slow small fits

import numpy as np
import pytest


@pytest.fixture
def rng() -> np.random.Generator:
    """Seeded once; no test may depend on the seed."""
    return np.random.default_rng(20260101)


@pytest.fixture
def tiny_model(tmp_path: Path, rng: np.random.Generator) -> Callable[..., Path]:
    """`tiny_model(**settings)` writes a Llama of random weights; the folder it is in.

    The settings are those of `write_tiny_model` in tests/tiny_model.py; each call makes
    another model.
    """
    spec = importlib.util.spec_from_file_location(
        "tiny_model", Path(__file__).with_name("tiny_model.py")
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folders = (tmp_path / f"tiny-model-{i}" for i in itertools.count())
    return lambda **settings: module.write_tiny_model(next(folders), rng, **settings)
