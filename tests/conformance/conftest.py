"""Every engine that can run here, opened on one model of random weights."""

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType

# before torch: on few cores the threads of torch and vLLM spin against each other
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file

from planner.calibration.reference.tasks import VOCABULARY
from planner.engines import open_engine
from planner.engines.base import Engine, Request, draw_all
from planner.engines.recorded import RecordedEngine
from planner.models.specs import ModelTarget

PROMPT, OTHER = "C3,7,12>24:", "A037+8*4-21:"
MAX_TOKENS = 24

_TARGET = ModelTarget(name="random", engine="embedded", location="")


def _installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


_NEEDS_TRANSFORMERS = (
    pytest.mark.transformers,
    pytest.mark.skipif(not _installed("transformers"), reason="transformers not installed"),
    pytest.mark.filterwarnings("default"),  # theirs are not ours to fix
)
_NEEDS_VLLM = (
    pytest.mark.vllm,
    pytest.mark.slow,
    pytest.mark.skipif(not _installed("vllm"), reason="vLLM not installed"),
    pytest.mark.filterwarnings("default"),
)
ENGINES = [
    "embedded",
    "recorded",
    "openai",
    pytest.param("transformers", marks=_NEEDS_TRANSFORMERS),
    pytest.param("vllm", marks=_NEEDS_VLLM),
    pytest.param("vllm-server", marks=_NEEDS_VLLM),
]


def load(name: str) -> ModuleType:
    """A helper module of the tests folder."""
    path = Path(__file__).parents[1] / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama with the reference tokenizer, all of whose tokens are text."""
    folder = tmp_path_factory.mktemp("models") / "random"
    # heads of 32: vLLM's CPU attention takes no smaller ones
    load("tiny_model").write_tiny_model(
        folder, np.random.default_rng(5), hidden=128, heads=4, kv_heads=2, sharpness=1.5
    )
    size = len(
        VOCABULARY
    )  # rows beyond have no text, and engines differ in what they make of it
    weights = load_file(folder / "model.safetensors")
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        weights[name] = np.ascontiguousarray(weights[name][:size])
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": size}))
    return folder


@pytest.fixture(scope="session")
def embedded(model_folder: Path) -> Iterator[Engine]:
    """The engine that the others are compared with."""
    engine = open_engine(replace(_TARGET, location=str(model_folder)))
    yield engine
    engine.close()


@pytest.fixture(scope="module", params=ENGINES)
def engine_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def engine(engine_kind: str, model_folder: Path, embedded: Engine) -> Iterator[Engine]:
    """One of the engines, on the model of `embedded`."""
    if engine_kind == "embedded":
        yield embedded
        return
    if engine_kind == "recorded":
        yield RecordedEngine("random", recording(embedded))
        return
    if engine_kind in ("transformers", "vllm"):
        opened = open_engine(
            replace(_TARGET, engine=engine_kind, location=str(model_folder))
        )
        yield opened
        opened.close()
        return
    serve = (
        vllm_server(model_folder)
        if engine_kind == "vllm-server"
        else in_repo_server(embedded)
    )
    with serve as url:
        opened = open_engine(replace(_TARGET, engine="openai", location=url))
        yield opened
        opened.close()


@contextmanager
def in_repo_server(engine: Engine) -> Iterator[str]:
    with load("openai_server").OpenAIServer(engine, vllm=True, pace_s=0.002) as server:
        yield server.url


@contextmanager
def vllm_server(folder: Path) -> Iterator[str]:
    """vLLM's own server on loopback; its base URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    # as a module: the `vllm` command looks for a distribution named vllm, not vllm-cpu
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server",
        "--model", str(folder), "--served-model-name", "random",
        "--host", "127.0.0.1", "--port", str(port),
        "--dtype", "float32", "--enforce-eager", "--block-size", "32",
        "--max-num-seqs", "256",
        "--no-enable-chunked-prefill",  # with seeds it kills the CPU build
    ]  # fmt: skip
    log = folder.parent / "vllm-server.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        _await_health(process, f"http://127.0.0.1:{port}/health", log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await_health(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    deadline_s = time.perf_counter() + 600
    while time.perf_counter() < deadline_s:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.5)
    pytest.fail(f"vLLM's server did not come up:\n{log.read_text()[-3000:]}")


def recording(engine: Engine) -> pd.DataFrame:
    """Samples of the settings that the conformance tests use."""
    rows = []
    for prompt, temperature, n in ((PROMPT, 1.0, 600), (OTHER, 1.0, 40), (PROMPT, 0.0, 8)):
        request = Request(
            prompt=prompt, n=n, temperature=temperature, max_tokens=MAX_TOKENS, seed=99
        )
        for i, draw in enumerate(draw_all(engine, [request])[0]):
            rows.append(
                {
                    "model": engine.model,
                    "prompt": prompt,
                    "temperature": temperature,
                    "top_p": 1.0,
                    "max_tokens": MAX_TOKENS,
                    "draw": i,
                    "engine": engine.version,
                    "text": draw.text,
                    "finish_reason": draw.finish_reason,
                    "prompt_tokens": draw.prompt_tokens,
                    "output_tokens": draw.output_tokens,
                    "ttft_s": draw.ttft_s,
                    "latency_s": draw.latency_s,
                }
            )
    return pd.DataFrame(rows)
