"""Plan inference compute for language models: calibrate, model, plan, execute.

import planner

planner.recommend("A037+8*4:", "2e7 eflop")   # the plan shipped for the reference models
planner.load("my-workspace").recommend(prompt, "0.002 usd")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from planner.api import Planner, Recommendation, load, recommend, run
    from planner.limits import Budget, Slo
    from planner.models.errors import (
        BudgetExhaustedError,
        FitError,
        InfeasibleError,
        InputError,
        NotMeasuredError,
        PlannerError,
        ServingError,
        StoreError,
    )
    from planner.plan import Plan

_HOMES = {
    "planner.api": ("Planner", "Recommendation", "load", "recommend", "run"),
    "planner.limits": ("Budget", "Slo"),
    "planner.plan": ("Plan",),
    "planner.models.errors": (
        "BudgetExhaustedError", "FitError", "InfeasibleError", "InputError",
        "NotMeasuredError", "PlannerError", "ServingError", "StoreError",
    ),
}  # fmt: skip
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Budget",
    "BudgetExhaustedError",
    "FitError",
    "InfeasibleError",
    "InputError",
    "NotMeasuredError",
    "Plan",
    "Planner",
    "PlannerError",
    "Recommendation",
    "ServingError",
    "Slo",
    "StoreError",
    "__version__",
    "load",
    "recommend",
    "run",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
