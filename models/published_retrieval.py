"""Retrieval by documents, shots and rounds (Yue et al. 2024, arXiv:2410.04343)."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from planner.models.errors import FitError, InputError
from planner.models.prediction import Array, Prediction
from planner.models.published import PublishedLaw

_PREDICTION_DRAWS = 1000


@dataclass(frozen=True, eq=False)
class RetrievalLaw:
    """Accuracy of retrieval: logit P = (a + b i)^T log(k, m, n) + c.

    k documents, m shots, n rounds; i = (gain of one document, gain of one shot, 0) tells
    tasks apart. The paper publishes the form and how well it fits (R2 0.903), not a, b and
    c: fit them to runs of your own, by least squares on the logit as it does.
    """

    coefficients: Array  # (6,): a_k, a_m, a_n, b_k, b_m, c
    covariance: Array  # (6, 6)
    most: Array  # (3,), of k, m, n behind the fit

    @classmethod
    def fit(cls, configurations: ArrayLike, gains: ArrayLike, accuracy: ArrayLike) -> Self:
        """Least squares on the logit.

        Args:
            configurations: (k, m, n) of each row, at least 1 each; shape (rows, 3).
            gains: (i_doc, i_shot) of each row's task; shape (rows, 2).
            accuracy: Of each row, strictly between 0 and 1; shape (rows,).

        Raises:
            InputError: Shapes that do not fit, counts below 1, accuracy not inside (0, 1).
            FitError: The rows do not determine the six coefficients.
        """
        design, counts = _design(configurations, gains)
        p = np.asarray(accuracy, dtype=float)
        if p.shape != (len(design),) or not ((p > 0) & (p < 1)).all():
            raise InputError("need one accuracy a row, strictly between 0 and 1")
        rows, width = design.shape
        if rows <= width or np.linalg.matrix_rank(design) < width:
            raise FitError(
                f"{rows} rows do not determine {width} coefficients; vary documents, "
                "shots and rounds, on tasks of different gains"
            )
        logit = np.log(p / (1 - p))
        inverse = np.linalg.inv(design.T @ design)
        best = inverse @ design.T @ logit
        spread = float(((logit - design @ best) ** 2).sum() / (rows - width))
        return cls(np.asarray(best), np.asarray(spread * inverse), counts.max(axis=0))

    def predict(
        self,
        configurations: ArrayLike,
        gains: ArrayLike,
        rng: np.random.Generator,
        *,
        size: int = _PREDICTION_DRAWS,
    ) -> Prediction:
        """Mean accuracy of configurations; the spread is the fit's.

        Raises:
            InputError: As `fit`.
        """
        design, counts = _design(configurations, gains)
        drawn = rng.multivariate_normal(
            self.coefficients, self.covariance, size, method="eigh"
        )
        logit = np.clip(drawn @ design.T, -500, 500)
        beyond = np.asarray((counts > self.most).any(axis=1))
        return Prediction(1 / (1 + np.exp(-logit)), "1", beyond)


def _design(configurations: ArrayLike, gains: ArrayLike) -> tuple[Array, Array]:
    counts = np.atleast_2d(np.asarray(configurations, dtype=float))
    i = np.atleast_2d(np.asarray(gains, dtype=float))
    if counts.ndim != 2 or counts.shape[1] != 3 or i.shape != (len(counts), 2):
        raise InputError("need configurations (rows, 3) and gains (rows, 2)")
    if not (np.isfinite(counts) & (counts >= 1)).all() or not np.isfinite(i).all():
        raise InputError("need at least 1 document, shot and round, and finite gains")
    logs = np.log(counts)
    return np.column_stack([logs, i * logs[:, :2], np.ones(len(logs))]), counts


CATALOGUE: tuple[PublishedLaw, ...] = (
    PublishedLaw(
        "Retrieval",
        "logit of accuracy = (a + b i)^T log(documents, shots, rounds) + c",
        (),
        "up to 1 M input tokens; no coefficients are published, so that it must be fitted",
        "arXiv:2410.04343",
        ("RetrievalLaw.fit", "RetrievalLaw.predict"),
    ),
)
