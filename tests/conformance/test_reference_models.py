"""vLLM and transformers on a reference model are as often right as the embedded engine."""

from collections.abc import Iterator

import numpy as np
import pytest
from scipy.stats import chi2_contingency

from planner.calibration.reference.tasks import problems
from planner.data import REFERENCE
from planner.engines import open_engine
from planner.engines.base import Engine, Request, draw_all
from planner.models.specs import ModelTarget

FOLDER = REFERENCE / "tiny-0.8m"
ALPHA = 1e-4
N_DRAWS = 64

pytestmark = pytest.mark.skipif(
    not FOLDER.is_dir(), reason="reference models not trained yet"
)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("transformers", marks=pytest.mark.transformers),
        pytest.param("vllm", marks=(pytest.mark.vllm, pytest.mark.slow)),
    ],
)
def other(request: pytest.FixtureRequest) -> Iterator[Engine]:
    pytest.importorskip(request.param)
    engine = open_engine(
        ModelTarget(name="tiny-0.8m", engine=request.param, location=str(FOLDER))
    )
    yield engine
    engine.close()


@pytest.mark.filterwarnings("default")
def test_reference_model_is_as_often_right(other: Engine) -> None:
    embedded = open_engine(
        ModelTarget(name="tiny-0.8m", engine="embedded", location=str(FOLDER))
    )
    exercises = list(problems("chain", {2: 4, 5: 4, 8: 4}, seed=1))
    requests = [
        Request(prompt=exercise.prompt, n=N_DRAWS, max_tokens=128, seed=i)
        for i, exercise in enumerate(exercises)
    ]
    right, tokens = [], []
    for engine in (embedded, other):
        draws = draw_all(engine, requests)
        right.append([
            sum(draw.text.endswith("=" + exercise.reference) for draw in listed)
            for exercise, listed in zip(exercises, draws, strict=True)
        ])  # fmt: skip
        tokens.append([draw.output_tokens for listed in draws for draw in listed])
    embedded.close()
    assert 0 < sum(right[0]) < N_DRAWS * len(exercises)
    for first, second in zip(*right, strict=True):
        table = np.array([[first, N_DRAWS - first], [second, N_DRAWS - second]])
        if table.sum(axis=0).min() > 0:
            assert chi2_contingency(table).pvalue > ALPHA / len(exercises)
    means = [np.mean(counts) for counts in tokens]
    error = np.hypot(*[np.std(counts) / np.sqrt(len(counts)) for counts in tokens])
    assert abs(means[0] - means[1]) < 4 * error + 1e-9
