"""config.yaml and problems.jsonl: what is read, and how what is off is named."""

import json

import pytest

from planner.config import Workspace, read_problems, reference_targets
from planner.models.errors import InputError

PRICES = {"input_usd_per_mtok": 2.0, "output_usd_per_mtok": 8.0, "source": "list"}
MODEL = {"name": "m", "engine": "openai", "location": "http://localhost:8000/v1"}


def write(folder, **config):
    # YAML reads JSON
    (folder / "config.yaml").write_text(
        json.dumps({"models": [MODEL], "problems": "p", **config})
    )
    return Workspace(folder)


def test_defaults_and_lists(tmp_path):
    config = write(tmp_path, sampling={"temperatures": [0.0, 0.7], "n_samples": 4}).config()
    assert config.sampling.temperatures == (0.0, 0.7)
    assert config.budget == ""


@pytest.mark.parametrize(("config", "named"), [
    ({"models": []}, "models"),
    ({"models": [MODEL | {"engine": "magic"}]}, "models.0.engine"),
    ({"models": [MODEL | {"location": ""}]}, "models.0.location"),
    ({"models": [MODEL | {"key": "x"}]}, "models.0.key"),
    ({"models": [MODEL, MODEL]}, "'m' is listed twice"),
    ({"models": [MODEL | {"prices": PRICES | {"input_usd_per_mtok": -1}}]}, ".input_usd"),
    ({"models": [MODEL | {"prices": PRICES | {"source": ""}}]}, "models.0.prices.source"),
    ({"sampling": {"n_samples": 1}}, "sampling.n_samples"),
    ({"sampling": {"n_samples": "16"}}, "sampling.n_samples"),
    ({"sampling": {"top_p": 0}}, "sampling.top_p"),
    ({"sampling": {"temperatures": []}}, "sampling.temperatures"),
    ({"extra": 1}, "extra"),
])  # fmt: skip
def test_what_is_off_is_named(config, named, tmp_path):
    with pytest.raises(InputError, match=r"config\.yaml") as caught:
        write(tmp_path, **config).config()
    assert named in str(caught.value)


@pytest.mark.parametrize("content", [b"models: [", b"just text", b"", b"\xff\xfe"])
def test_what_is_not_a_config_is_refused(content, tmp_path):
    (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(InputError, match=r"config\.yaml"):
        Workspace(tmp_path).config()


def test_a_missing_config_names_the_command(tmp_path):
    with pytest.raises(InputError, match="planner init"):
        Workspace(tmp_path / "none").config()


def test_targets_resolve_folders_and_prices(tmp_path, tiny_model):
    folder = tiny_model()
    models = [
        MODEL | {"prices": PRICES},
        {"name": "e", "engine": "embedded", "location": str(folder)},
        {"name": "r", "engine": "recorded", "location": "draws.parquet"},
    ]
    served, embedded, recorded = write(tmp_path, models=models).targets()
    assert served.prices.usd_per_output_token == pytest.approx(8e-6)
    assert served.architecture is None
    assert embedded.architecture.hidden == 32
    assert embedded.architecture.weight_bytes == 4.0
    assert recorded.location == str(tmp_path / "draws.parquet")


def test_a_served_models_architecture_is_read_beside_the_config(tmp_path, tiny_model):
    (tmp_path / "arch.json").write_text((tiny_model() / "config.json").read_text())
    target = write(tmp_path, models=[MODEL | {"architecture": "arch.json"}]).targets()[0]
    assert target.architecture.layers == 2


def test_problems_get_ids_and_blank_lines_are_skipped(tmp_path):
    path = tmp_path / "p.jsonl"
    row = {"prompt": "p", "task": "t", "verifier": "exact", "reference": "r"}
    path.write_text(f"\n{json.dumps(row)}\n\n{json.dumps(row | {'problem_id': 'x'})}\n")
    assert [p.problem_id for p in read_problems(path)] == ["t-2", "x"]


@pytest.mark.parametrize(("line", "words"), [
    ("{", "not JSON"), ("[1]", "needs the fields"), ('{"prompt": "p"}', "needs the fields"),
    ('{"prompt": "p", "task": "t", "verifier": "v", "x": "a"}', "unknown field 'x'"),
    ('{"prompt": 1, "task": "t", "verifier": "v"}', "prompt must be text"),
])  # fmt: skip
def test_a_bad_line_is_named(line, words, tmp_path):
    path = tmp_path / "p.jsonl"
    good = '{"prompt": "p", "task": "t", "verifier": "v"}'
    path.write_text(f"{good}\n{line}\n")
    with pytest.raises(InputError, match=r"p\.jsonl:2: ") as caught:
        list(read_problems(path))
    assert words in str(caught.value)


def test_repeated_ids_empty_and_missing_files_are_refused(tmp_path):
    path = tmp_path / "p.jsonl"
    row = '{"prompt": "p", "task": "t", "verifier": "v", "problem_id": "a"}'
    path.write_text(f"{row}\n{row}\n")
    with pytest.raises(InputError, match="came before"):
        list(read_problems(path))
    path.write_text("\n")
    with pytest.raises(InputError, match="holds no problem"):
        list(read_problems(path))
    with pytest.raises(InputError, match="no such file"):
        list(read_problems(tmp_path / "none"))


def test_reference_targets_grow(tmp_path):
    sizes = [target.architecture.hidden for target in reference_targets()]
    assert sizes == sorted(sizes)
