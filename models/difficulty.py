"""What a prompt's text says of its task and its difficulty; microseconds a prompt.

Little, as a rule: on public data routers that read the prompt barely beat a table of task
classes. So the difficulty score must explain held-out variance to split a task at all.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from planner.models.artifact import TaskLaw
from planner.models.errors import FitError, InputError
from planner.models.prediction import Array

FEATURES = (
    "log_length", "log_lines", "log_digits", "log_letters", "log_symbols", "log_spaces",
    "log_products", "log_numbers", "log_longest_number", "log_largest_number",
)  # fmt: skip
_NUMBER = re.compile(r"[0-9]+")
_DIGITS, _SPACES = "0123456789", " \t\n"
_PENALTIES = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
_SMOOTHING = 0.5  # occurrences added to each byte


def features(prompt: str) -> Array:
    """Counts of what a prompt holds, log(1 + count) each, in the order of FEATURES."""
    numbers = _NUMBER.findall(prompt)
    digits = sum(map(prompt.count, _DIGITS))
    spaces = sum(map(prompt.count, _SPACES))
    letters = sum(map(str.isalpha, prompt))
    longest = max(map(len, numbers), default=0)
    # of more than 15 digits the length says it all; int() of a huge text is slow
    largest = max((int(number[:15]) for number in numbers), default=0)
    counts = (
        len(prompt), prompt.count("\n"), digits, letters,
        len(prompt) - digits - spaces - letters, spaces, prompt.count("*"), len(numbers),
        longest, largest,
    )  # fmt: skip
    return np.asarray(np.log1p(np.array(counts, dtype=float)))


@dataclass(frozen=True, eq=False)
class DifficultyLaw:
    """A linear score of a prompt's features, and the edges of the classes along it."""

    mean: Array  # (n_features,)
    scale: Array  # (n_features,)
    weights: Array  # (n_features,), of the standardised features; in logits, up is harder
    edges: Array  # (n_classes - 1,), rising
    gain: float  # held-out share of the variance of difficulty that the score explains

    @classmethod
    def from_task(cls, task: TaskLaw) -> Self:
        """The law that `laws.json` holds.

        Raises:
            InputError: It was fitted to other features.
        """
        if task.feature_names != FEATURES:
            raise InputError(f"task {task.task!r}: other features; run `planner fit` again")
        return cls(
            np.array(task.feature_mean), np.array(task.feature_scale),
            np.array(task.weights), np.array(task.edges), task.gain,
        )  # fmt: skip

    def score(self, prompt: str) -> float:
        """Difficulty against the task's mean, in logits of the pass rate; up is harder."""
        return float((features(prompt) - self.mean) / self.scale @ self.weights)

    def classify(self, prompt: str) -> int:
        """Difficulty class of a prompt; 0 is the easiest."""
        if not len(self.edges):
            return 0
        return int(np.searchsorted(self.edges, self.score(prompt)))


@dataclass(frozen=True, eq=False)
class DifficultyFit:
    """A law, and the classes of the problems behind it."""

    law: DifficultyLaw
    classes: NDArray[np.int64]  # (n_problems,), by scores that left the problem out


def fit_difficulty(
    prompts: Sequence[str],
    difficulty: Array,
    *,
    max_classes: int = 4,
    min_problems: int = 16,
) -> DifficultyFit:
    """Ridge regression of difficulty on the prompt's features, classes at its quantiles.

    The problems are classed by scores that left each of them out: their own pass rates
    must not choose their class, or the classes would look further apart than they are.

    Args:
        prompts: One a problem.
        difficulty: Minus the logit of the pass rate, say; shape (n_problems,).
        max_classes: Most classes.
        min_problems: Fewest problems a class, on average.

    Raises:
        FitError: No problem.
    """
    y, m = np.asarray(difficulty, dtype=float), len(prompts)
    if not m:
        raise FitError("difficulty needs at least one measured problem")
    x = np.array([features(prompt) for prompt in prompts])
    mean, scale = x.mean(axis=0), x.std(axis=0)
    scale = np.where(scale < 1e-9, 1.0, scale)
    nothing = DifficultyLaw(mean, scale, np.zeros(len(FEATURES)), np.zeros(0), 0.0)
    one_class = DifficultyFit(nothing, np.zeros(m, dtype=np.int64))
    wanted = min(max_classes, m // min_problems)
    if wanted < 2 or not y.std():
        return one_class
    weights, left_out = _ridge_left_out((x - mean) / scale, y - y.mean())
    alone = (y - y.mean()) * m / (m - 1)  # error of the mean of the others
    won = alone**2 - (y - y.mean() - left_out) ** 2
    gain = float(won.sum() / (alone**2).sum())
    law = DifficultyLaw(mean, scale, weights, np.zeros(0), gain)
    if won.mean() <= 2 * won.std() / np.sqrt(m):  # within chance of nothing
        return DifficultyFit(law, one_class.classes)
    edges = _edges(left_out, wanted, min_problems // 2)
    classes = np.searchsorted(edges, left_out).astype(np.int64)
    return DifficultyFit(DifficultyLaw(mean, scale, weights, edges, gain), classes)


def _ridge_left_out(x: Array, y: Array) -> tuple[Array, Array]:
    """Weights at the best penalty, and predictions that left each row out (closed form)."""
    fits: list[tuple[Array, Array]] = []
    for penalty in _PENALTIES:
        gram = x.T @ x + penalty * np.eye(x.shape[1])
        weights = np.linalg.solve(gram, x.T @ y)
        leverage = np.einsum("ij,ji->i", x, np.linalg.solve(gram, x.T)) + 1 / len(y)
        left_out = y - (y - x @ weights) / (1 - leverage)
        fits.append((np.asarray(weights), np.asarray(left_out)))
    return min(fits, key=lambda fit: float(((y - fit[1]) ** 2).sum()))


def _edges(score: Array, classes: int, fewest: int) -> Array:
    """Quantiles of the score, without those that leave a class of fewer than `fewest`."""
    edges: list[float] = []
    for level in np.arange(1, classes) / classes:
        edge = float(np.quantile(score, level))
        below = (score > edges[-1]) if edges else np.ones(len(score), dtype=bool)
        if (below & (score <= edge)).sum() >= fewest and (score > edge).sum() >= fewest:
            edges.append(edge)
    return np.array(edges)


def byte_log_probs(prompts: Sequence[str]) -> tuple[float, ...]:
    """Smoothed log frequency of each byte in a task's prompts; 256 values."""
    text = "".join(prompts).encode()
    counts = np.bincount(np.frombuffer(text, np.uint8), minlength=256) + _SMOOTHING
    return tuple(np.log(counts / counts.sum()).tolist())


@dataclass(frozen=True, eq=False)
class TaskRecogniser:
    """Naive Bayes over the bytes of a prompt; every task as likely before it is read."""

    tasks: tuple[str, ...]
    log_probs: Array  # (256, n_tasks)

    @classmethod
    def of(cls, task_laws: Sequence[TaskLaw]) -> Self:
        """Learn from the tasks of `laws.json`.

        Raises:
            InputError: No task.
        """
        if not task_laws:
            raise InputError("no task to recognise a prompt by")
        table = np.array([task.byte_log_probs for task in task_laws]).T
        return cls(tuple(task.task for task in task_laws), table)

    def recognise(self, prompt: str) -> str:
        """The likeliest task; of equals, the first."""
        counts = np.bincount(np.frombuffer(prompt.encode(), np.uint8), minlength=256)
        return self.tasks[int(np.argmax(counts @ self.log_probs))]


def recognise(prompt: str, task_laws: Sequence[TaskLaw]) -> str:
    """The task a prompt most likely belongs to; keep a TaskRecogniser to ask often.

    Raises:
        InputError: No task.
    """
    return TaskRecogniser.of(task_laws).recognise(prompt)
