"""A plan on disk, `plan.json`: what to do with a budget, and why."""

from pathlib import Path
from typing import Literal, Self

from planner.models.artifact import (
    Frozen,
    Provenance,
    SourceName,
    StrategyName,
    load_frozen,
)
from planner.models.files import write_atomic


class Interval(Frozen):
    """A mean and a 90 % interval."""

    mean: float
    low: float
    high: float


class Option(Frozen):
    """One way to answer a prompt."""

    model: str
    strategy: StrategyName
    n: int
    max_tokens: int
    temperature: float

    def __str__(self) -> str:
        n = "" if self.strategy == "single" else f" n={self.n}"
        settings = f"max_tokens={self.max_tokens} T={self.temperature:g}"
        return f"{self.model} {self.strategy}{n} {settings}"


class Forecast(Frozen):
    """What the laws say of an option on one group of prompts."""

    option: Option
    accuracy: Interval  # of the group's mean
    cost: dict[str, float]  # expected a prompt, in every unit that is known
    cost_p95: dict[str, float]  # 95th percentile between prompts
    extrapolated: tuple[str, ...]  # what lies beyond the measurements; empty: nothing
    origin: Literal["grid", "optuna"]


class Share(Frozen):
    """A forecast and the share of the group's prompts it serves."""

    forecast: Forecast
    share: float


class Group(Frozen):
    """The prompts of one task and difficulty class, and what they get."""

    task: str
    difficulty: int
    prompt_share: float  # of all prompts planned for
    choices: tuple[Share, ...]  # one, or two where the budget falls between options
    runner_up: Forecast | None
    why: str  # one sentence
    front: tuple[Forecast, ...]  # cost-rising, undominated: what recommend() picks from


class FrontierPoint(Frozen):
    """Best accuracy the options allow at a spend; for the report."""

    cost_per_prompt: float  # in the budget's unit
    accuracy: Interval
    label: str  # "planner", or the option every prompt gets


class Baseline(Frozen):
    """One fixed way for every prompt; the plan must beat it at the same budget."""

    options: dict[str, Option]  # by task: a strategy may need what a task lacks
    accuracy: Interval  # over all prompts; one that is not answered is wrong
    cost_per_prompt: float  # expected, in the budget's unit
    answered: float = 1.0  # share of the prompts the budget answers this way


class Plan(Frozen):
    """The whole of `plan.json`."""

    schema_version: Literal[1]
    inferplan: str
    created_at: str
    budget_unit: str
    budget_total: float
    n_prompts: int
    promised_accuracy: Interval  # on `n_prompts` fresh prompts: a predictive interval
    promised_spend: Interval  # in budget_unit; never above budget_total
    reserve: float = 0.0  # share of the budget kept back, so that no prompt goes unanswered
    search_gain: float = 0.0  # expected accuracy that off-grid settings added
    shadow_price: float  # accuracy a prompt gained by one more unit of budget a prompt
    binds: str  # "budget", or what else stops accuracy from rising
    extrapolated: tuple[str, ...]
    options_considered: int
    groups: tuple[Group, ...]
    frontier: tuple[FrontierPoint, ...]  # the planner's, then every uniform option
    baselines: dict[str, Baseline]  # "single_best_model", "uniform_best_of_n"
    laws: Provenance
    source: SourceName

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file.

        Raises:
            InputError: No such file, another schema, or a field that is off.
        """
        return load_frozen(cls, path, "run `planner plan --budget ...` first")

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        write_atomic(path, self.model_dump_json(indent=1) + "\n")
