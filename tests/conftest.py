"""Shared fixtures."""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy: threads slow small fits

import numpy as np
import pytest


@pytest.fixture
def rng() -> np.random.Generator:
    """Seeded once; no test may depend on the seed."""
    return np.random.default_rng(20260101)
