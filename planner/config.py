"""A workspace: one folder that holds config, measurements, laws, plan and report."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, ValidationError

from planner.data import REFERENCE
from planner.models.artifact import Frozen
from planner.models.errors import InputError
from planner.models.flops import parameters
from planner.models.records import Problem
from planner.models.specs import Architecture, ModelTarget, Prices

# Bytes of a weight and of a cached element as each engine holds them; vLLM's and a server's
# are what its dtype says, 2 for the usual 16 bits.
_ELEMENT_BYTES = {"embedded": 4.0, "transformers": 4.0}


class PriceConfig(Frozen):
    """USD for a million tokens, as price lists write it."""

    input_usd_per_mtok: float = Field(ge=0)
    output_usd_per_mtok: float = Field(ge=0)
    source: str = Field(min_length=1)


class ModelConfig(Frozen):
    """One candidate model."""

    name: str = Field(min_length=1)
    engine: Literal["embedded", "transformers", "openai", "vllm", "recorded"]
    location: str = Field(min_length=1)  # folder, base URL, or Parquet file
    served_name: str = ""
    api_key_env: str = ""
    chat: bool = False
    architecture: str = ""  # a Hugging Face config.json, where location is a URL
    prices: PriceConfig | None = None


class SamplingConfig(Frozen):
    """How much to measure."""

    n_samples: int = Field(default=16, ge=2)  # draws a problem, model and temperature
    temperatures: tuple[float, ...] = Field(default=(0.6, 1.0), min_length=1)
    max_tokens: int = Field(default=512, ge=1)
    top_p: float = Field(default=1.0, gt=0, le=1)
    seed: int = Field(default=0, ge=0)


class Config(Frozen):
    """The whole of `config.yaml`."""

    models: tuple[ModelConfig, ...] = Field(min_length=1)
    problems: str = Field(min_length=1)  # JSONL, relative to the config
    budget: str = ""  # e.g. "5 usd"; `planner plan --budget` overrides it
    scorer: str = ""  # folder of a scalar-head verifier; empty: none
    sampling: SamplingConfig = SamplingConfig()


@dataclass(frozen=True)
class Workspace:
    """Paths of a workspace; nothing is read until it is asked for."""

    folder: Path

    @property
    def config_file(self) -> Path:
        """Models, problems, prices, budget."""
        return self.folder / "config.yaml"

    @property
    def measurements(self) -> Path:
        """Folder of the Parquet files."""
        return self.folder / "measurements"

    @property
    def laws_file(self) -> Path:
        """The fitted laws."""
        return self.folder / "laws.json"

    @property
    def plan_file(self) -> Path:
        """The plan."""
        return self.folder / "plan.json"

    @property
    def report_file(self) -> Path:
        """The report."""
        return self.folder / "report.html"

    @property
    def summary_file(self) -> Path:
        """What was promised and what came true."""
        return self.folder / "summary.json"

    def config(self) -> Config:
        """Read `config.yaml`.

        Raises:
            InputError: It is missing, is not YAML, or a field is off; it names the field.
        """
        path = self.config_file
        try:
            content = yaml.safe_load(path.read_text())
        except FileNotFoundError:
            raise InputError(
                f"{path}: no such file; `planner init {self.folder}` writes one to fill in"
            ) from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: not YAML: {error}") from None
        if not isinstance(content, dict):
            raise InputError(
                f"{path}: must hold `models:` and `problems:`; see `planner init`"
            )
        try:
            # through JSON, so that strict mode takes YAML's lists for tuples
            config = Config.model_validate_json(json.dumps(content, default=str))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise InputError(f"{path}: {where}: {first['msg']}") from None
        names = [model.name for model in config.models]
        for name in names:
            if names.count(name) > 1:
                raise InputError(f"{path}: models: {name!r} is listed twice")
        return config

    def targets(self) -> tuple[ModelTarget, ...]:
        """The candidate models of the config."""
        return tuple(self._target(model) for model in self.config().models)

    def _target(self, model: ModelConfig) -> ModelTarget:
        location, architecture = model.location, None
        if model.engine in ("embedded", "transformers", "vllm"):
            folder = (self.folder / Path(location).expanduser()).resolve()
            location = str(folder)
            source: Path | None = folder
        else:
            source = self.folder / model.architecture if model.architecture else None
            if model.engine == "recorded":
                location = str((self.folder / Path(location).expanduser()).resolve())
        if source is not None:
            size = _ELEMENT_BYTES.get(model.engine, 2.0)
            architecture = Architecture.from_config(
                source, weight_bytes=size, kv_bytes=size
            )
        prices = None
        if model.prices is not None:
            prices = Prices(
                usd_per_input_token=model.prices.input_usd_per_mtok / 1e6,
                usd_per_output_token=model.prices.output_usd_per_mtok / 1e6,
                source=model.prices.source,
            )
        return ModelTarget(
            name=model.name, engine=model.engine, location=location,
            served_name=model.served_name, api_key_env=model.api_key_env, chat=model.chat,
            architecture=architecture, prices=prices,
        )  # fmt: skip

    def scorer_folder(self) -> Path | None:
        """Folder of the scored verifier, if the config names one."""
        scorer = self.config().scorer
        return (self.folder / Path(scorer).expanduser()).resolve() if scorer else None

    def problems(self) -> tuple[Problem, ...]:
        """The problems of the config.

        Raises:
            InputError: The file is missing, empty, or a line is off; it names the line.
        """
        path = self.folder / Path(self.config().problems).expanduser()
        return tuple(read_problems(path))


def read_problems(path: Path) -> Iterator[Problem]:
    """Problems of a JSONL file: prompt, task, verifier, reference; problem_id optional.

    Raises:
        InputError: The file is missing or empty, or a line is off; it names the line.
    """
    fields = set(Problem.__dataclass_fields__)
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; one JSON problem a line") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error.reason})") from None
    seen: set[str] = set()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{path}:{number}: not JSON ({error.msg})") from None
        if not isinstance(row, dict) or not {"prompt", "task", "verifier"} <= set(row):
            raise InputError(f"{path}:{number}: needs the fields prompt, task and verifier")
        if unknown := set(row) - fields:
            raise InputError(f"{path}:{number}: unknown field {sorted(unknown)[0]!r}")
        row.setdefault("problem_id", f"{row['task']}-{number}")
        if wrong := [k for k, v in row.items() if not isinstance(v, str)]:
            raise InputError(f"{path}:{number}: {wrong[0]} must be text")
        if row["problem_id"] in seen:
            raise InputError(
                f"{path}:{number}: problem_id {row['problem_id']!r} came before"
            )
        seen.add(row["problem_id"])
        yield Problem(**row)
    if not seen:
        raise InputError(f"{path}: holds no problem; one JSON problem a line")


def reference_targets() -> tuple[ModelTarget, ...]:
    """The reference models, from the installed package.

    Nobody sells them: their prices are assumed, in proportion to parameters.
    """
    listed = []
    for folder in sorted(
        REFERENCE.glob("tiny-*m"), key=lambda f: (f / "model.safetensors").stat().st_size
    ):
        architecture = Architecture.from_config(folder, weight_bytes=4.0, kv_bytes=4.0)
        size = parameters(architecture) / 1e6
        prices = Prices(
            usd_per_input_token=round(0.005 * size, 4) / 1e6,
            usd_per_output_token=round(0.02 * size, 4) / 1e6,
            source="assumed: 0.005 in, 0.02 out for a million tokens and parameters",
        )
        listed.append(
            ModelTarget(
                name=folder.name, engine="embedded", location=str(folder),
                architecture=architecture, prices=prices,
            )
        )  # fmt: skip
    return tuple(listed)
