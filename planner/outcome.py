"""What carrying a plan out achieved, `outcome.json`: the other half of a promise."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field

from planner.models.artifact import Frozen, load_frozen
from planner.models.files import write_atomic


class GroupResult(Frozen):
    """One task and difficulty class: what was predicted and what came true."""

    task: str
    difficulty: int
    n: int = Field(ge=1)  # prompts answered or tried
    correct: int = Field(ge=0)
    predicted: float | None  # mean accuracy the laws gave; None when nothing was promised
    low: float | None  # of a 90 % predictive interval at n prompts
    high: float | None
    spent: float = Field(ge=0)  # in the budget's unit


class ArmResult(Frozen):
    """One way of answering the same prompts: the planner, or a baseline."""

    accuracy: float | None = Field(ge=0, le=1)  # None: the problems carry no reference
    n_prompts: int = Field(ge=1)
    spent: dict[str, float]  # by unit, where the unit is known
    by_group: tuple[GroupResult, ...]
    cancelled_draws: int = Field(default=0, ge=0)  # their tokens were paid for
    unanswered: int = Field(
        default=0, ge=0
    )  # no budget or no answer left; counted as wrong
    gain_se: float | None = (
        None  # standard error of planner - this arm, paired over prompts
    )
    wall_s: float | None = None


class Outcome(Frozen):
    """The whole of `outcome.json`."""

    schema_version: Literal[1]
    inferplan: str
    created_at: str
    budget_unit: str
    budget_total: float = Field(gt=0)
    arms: dict[str, ArmResult]  # "planner", then baselines as the plan names them

    @property
    def planner(self) -> ArmResult | None:
        """The planner's own arm."""
        return self.arms.get("planner")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file.

        Raises:
            InputError: No such file, another schema, or a field that is off.
        """
        return load_frozen(cls, path, "run `planner run` or `planner demo` first")

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        write_atomic(path, self.model_dump_json(indent=1) + "\n")
