"""Errors raised on purpose; anything else that escapes is a bug.

PlannerError
├── InputError (ValueError)         the caller's argument, file or config cannot be used
├── InfeasibleError                 every candidate breaks a limit
├── BudgetExhaustedError            the next draw could cross the budget
├── NotMeasuredError (LookupError)  no measurement covers the request
├── FitError                        the data cannot identify the law
├── StoreError                      a measurement file is damaged or cannot be written
└── ServingError                    a model server failed; .retryable says if to retry
"""


class PlannerError(Exception):
    """Base of every error this package raises on purpose."""


class InputError(PlannerError, ValueError):
    """The caller's argument, file or config cannot be used."""


class InfeasibleError(PlannerError):
    """Every candidate breaks a limit; `nearest` is the least any of them needs."""

    def __init__(self, limit: str, allowed: float, nearest: float) -> None:
        super().__init__(limit, allowed, nearest)  # in args, so that it pickles
        self.limit, self.allowed, self.nearest = limit, allowed, nearest

    def __str__(self) -> str:
        return f"no plan fits {self.limit} <= {self.allowed:g}: needs {self.nearest:g}"


class BudgetExhaustedError(PlannerError):
    """The next draw could cross the budget."""


class NotMeasuredError(PlannerError, LookupError):
    """No measurement covers the request; raised instead of guessing."""


class FitError(PlannerError):
    """The data cannot identify the law, or the solver stopped short."""


class StoreError(PlannerError):
    """A measurement file is damaged, or cannot be written."""


class ServingError(PlannerError):
    """A model server failed."""

    def __init__(self, message: str, retryable: bool = False) -> None:
        super().__init__(message, retryable)  # in args, so that it pickles
        self.message, self.retryable = message, retryable

    def __str__(self) -> str:
        return self.message
