"""Laws that others measured, to plan with before measuring: the catalogue.

Every value of these laws is a `PublishedValue`: it says where it comes from and whether the
question lies where the authors measured. None of it was measured here, and their constants
depend on the data and the models behind them; what calibration measures replaces it.

`published_laws()` lists them for a report; the laws are in `published_training` (loss
against size, tokens, streams and bits), `published_inference` (drafts, verification) and
`published_retrieval`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from planner.models.errors import InputError
from planner.models.prediction import Array

NOTE = "published, not measured here"


@dataclass(frozen=True, eq=False)
class PublishedValue:
    """What a published law says, with where it says so."""

    value: Array  # shape of the inputs broadcast together; () for scalars
    unit: str  # "1" for a ratio or a probability
    source: str  # "arXiv:..."
    domain: str  # in words
    in_domain: NDArray[np.bool_]  # shape of `value`: asked within what was measured
    note: str = NOTE


@dataclass(frozen=True)
class Parameter:
    """A fitted constant."""

    name: str
    value: float
    unit: str
    meaning: str


@dataclass(frozen=True)
class PublishedLaw:
    """What the catalogue says of a law."""

    name: str
    formula: str
    parameters: tuple[Parameter, ...]
    domain: str
    source: str
    functions: tuple[str, ...]  # where it is in this package
    note: str = NOTE


def published_laws() -> tuple[PublishedLaw, ...]:
    """Every law of the catalogue."""
    # here, because those modules need the records above
    from planner.models import published_inference, published_retrieval, published_training

    return (
        *published_training.CATALOGUE,
        *published_inference.CATALOGUE,
        *published_retrieval.CATALOGUE,
    )


def positive(**named: ArrayLike) -> list[Array]:
    """The arguments as arrays of one shape.

    Raises:
        InputError: One is not finite and above 0, or shapes do not fit together.
    """
    arrays = finite(**named)
    for name, array in zip(named, arrays, strict=True):
        if (array <= 0).any():
            raise InputError(f"{name} must be above 0")
    return arrays


def finite(**named: ArrayLike) -> list[Array]:
    """The arguments as arrays of one shape.

    Raises:
        InputError: One is not finite, or shapes do not fit together.
    """
    arrays = [np.asarray(value, dtype=float) for value in named.values()]
    for name, array in zip(named, arrays, strict=True):
        if not np.isfinite(array).all():
            raise InputError(f"{name} must be finite")
    try:
        return [np.asarray(array) for array in np.broadcast_arrays(*arrays)]
    except ValueError as error:
        raise InputError(f"the shapes of {', '.join(named)} do not fit") from error


def within(*ranges: tuple[Array, float, float]) -> NDArray[np.bool_]:
    """Whether every (values, lowest, highest) holds, element by element."""
    inside = [(x >= low) & (x <= high) for x, low, high in ranges]
    return np.asarray(np.logical_and.reduce(inside), dtype=np.bool_)
