"""The fitted laws on disk, `laws.json`: frozen, versioned, with uncertainty and domain.

A *cell* is one model on one task and difficulty class at one temperature and token cap: the
smallest thing a law speaks of. A draw that would have gone on past the cap counts as wrong.
"""

import json
from pathlib import Path
from typing import Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from planner.models.errors import InputError
from planner.models.files import write_atomic

StrategyName = Literal["single", "best_of_n", "best_of_n_scored", "self_consistency"]
T = TypeVar("T", bound=BaseModel)

SourceName = Literal["measured", "transferred", "assumed"]


class Frozen(BaseModel):
    """Base of everything read from or written to a file."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Provenance(Frozen):
    """Where the rows behind a fit came from."""

    rows_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    engines: tuple[str, ...]
    machines: tuple[str, ...]
    measured_from: str  # ISO 8601
    measured_to: str
    source: SourceName


class CoverageFit(Frozen):
    """A PopulationLaw: equally likely shapes of the success rates over the problems."""

    # log a, logit m, log g, logit h of each; see planner.models.shapes
    shapes: tuple[tuple[float, float, float, float], ...]
    k_max: int = Field(ge=1)  # largest k measured; beyond it is extrapolation


class StrategyCurve(Frozen):
    """What a strategy gives and uses at each n; every tuple has one entry an n."""

    strategy: StrategyName
    n: tuple[int, ...]  # rising; n[0] = 1
    accuracy: tuple[float, ...]  # mean over problems, shrunk
    accuracy_sd: tuple[float, ...]  # of that mean, as an estimate of the class's
    draws: tuple[float, ...]  # expected draws made: early stops count
    output_tokens: tuple[float, ...]  # expected total over the draws made, a prompt
    output_tokens_sd: tuple[float, ...]  # between prompts
    n_max: int  # largest n measured; beyond it is extrapolation


class Cell(Frozen):
    """Laws of one model x task x class x temperature x max_tokens."""

    model: str
    task: str
    difficulty: int  # class, 0 is the easiest
    temperature: float
    max_tokens: int
    n_problems: int
    n_samples: int  # a problem, the median
    prompt_tokens: float  # mean
    coverage: CoverageFit
    curves: tuple[StrategyCurve, ...]


class TaskLaw(Frozen):
    """What is known of a task before any draw: its classes and who may check answers."""

    task: str
    n_problems: int
    runtime_verifier: bool  # an exact check that needs no reference: usable in production
    verifier: str
    feature_names: tuple[str, ...]
    feature_mean: tuple[float, ...]
    feature_scale: tuple[float, ...]
    weights: tuple[float, ...]  # of the standardised features; score = difficulty
    edges: tuple[float, ...]  # class = number of edges below the score; empty: one class
    class_shares: tuple[float, ...]  # of the calibration problems
    gain: float  # held-out share of variance the score explains; classes only if > 0
    byte_log_probs: tuple[float, ...]  # 256, of a prompt's bytes: recognises the task


class LatencyFit(Frozen):
    """Parameters of a LatencyLaw; see planner.models.latency."""

    machine: str
    flop_per_s: float
    bytes_per_s: float
    log_parameters: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]
    residual_sd: float  # of log seconds
    batch_max: int
    context_max: int
    n_points: int
    source: SourceName


class ModelLaw(Frozen):
    """Cost side of one model."""

    model: str
    engine: str
    architecture: dict[str, float] | None  # fields of specs.Architecture; None: unknown
    usd_per_input_token: float | None
    usd_per_output_token: float | None
    price_source: str
    latency: LatencyFit | None


class HoldoutRow(Frozen):
    """Error of a law on samples or problems its fit never saw."""

    model: str
    task: str
    quantity: str  # "coverage", "self_consistency", "best_of_n_scored", "latency"
    n: int
    predicted: float
    low: float
    high: float
    observed: float
    n_problems: int


class Laws(Frozen):
    """The whole of `laws.json`."""

    schema_version: Literal[1]  # no default, so a file without one is refused
    inferplan: str
    created_at: str
    seed: int
    provenance: Provenance
    reference_batch: int  # decode batch that weight reads are shared over; an assumption
    # of the machine: eFLOP = FLOP + intensity x bytes; None: all draws were imported
    intensity_flop_per_byte: float | None
    stop_confidence: float  # of self_consistency's early stop, as the curves assume it
    tasks: tuple[TaskLaw, ...]
    models: tuple[ModelLaw, ...]
    cells: tuple[Cell, ...]
    holdout: tuple[HoldoutRow, ...]

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file.

        Raises:
            InputError: No such file, not JSON, another schema, or a field that is off.
        """
        return load_frozen(cls, path, "run `planner fit` first")

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        write_atomic(path, self.model_dump_json() + "\n")


def load_frozen(kind: type[T], path: Path, when_missing: str) -> T:
    """Read and check one of our JSON files.

    Raises:
        InputError: No such file, not JSON, or a field that is off; it names the field.
    """
    try:
        return kind.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; {when_missing}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "file"
        raise InputError(f"{path}: {where}: {first['msg']}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not JSON ({error})") from None
