"""Problems of the reference workload, ready to measure and grade.

Every problem comes from the share of keys that training never saw. Draw calibration
problems first, then fresh ones with `exclude` set to the prompts of the first.
"""

import hashlib
import random
from collections.abc import Collection, Mapping

from planner.calibration.reference.tasks import TASKS, Exercise, exercise, is_held_out
from planner.models.errors import InputError
from planner.models.records import Problem

# The task's share of each level: steps of a chain, numbers of a countdown. Flat enough that
# both the easy and the hopeless end are seen by every model.
DEFAULT_MIX: dict[str, dict[int, float]] = {
    "chain": dict.fromkeys(range(1, 11), 0.1),
    "countdown": {2: 0.10, 3: 0.25, 4: 0.30, 5: 0.20, 6: 0.15},
    "retry": {2: 0.10, 3: 0.25, 4: 0.30, 5: 0.20, 6: 0.15},
}
_VERIFIERS = {"chain": "chain", "countdown": "countdown", "retry": "countdown"}
_TRIES = 2000  # draws without a new problem before a level counts as used up


def reference_problems(
    seed: int,
    counts: Mapping[str, int | Mapping[int, int]],
    *,
    exclude: Collection[str] = (),
) -> tuple[Problem, ...]:
    """Distinct held-out problems of the reference tasks, the same for a seed.

    Args:
        seed: Fixes the problems.
        counts: Problems of each task: a total, spread over levels by DEFAULT_MIX, or a
            count for each level.
        exclude: Prompts not to use, in any order of their numbers.

    Raises:
        InputError: An unknown task, or a level with too few problems left.
    """
    taken = {_key(prompt) for prompt in exclude}
    listed = []
    for task, wanted in counts.items():
        if task not in TASKS:
            raise InputError(f"task {task!r} is not one of {', '.join(TASKS)}")
        levels = wanted if isinstance(wanted, Mapping) else level_counts(task, wanted)
        rng = random.Random(f"{task}/{seed}")
        for level, count in levels.items():
            listed += [_problem(item) for item in _fresh(rng, task, level, count, taken)]
    return tuple(listed)


def level_counts(task: str, total: int) -> dict[int, int]:
    """Spread problems over a task's levels by DEFAULT_MIX, by largest remainders."""
    exact = {level: share * total for level, share in DEFAULT_MIX[task].items()}
    counts = {level: int(amount) for level, amount in exact.items()}
    by_remainder = sorted(exact, key=lambda level: counts[level] - exact[level])
    for level in by_remainder[: total - sum(counts.values())]:
        counts[level] += 1
    return {level: count for level, count in counts.items() if count}


def _fresh(
    rng: random.Random, task: str, level: int, count: int, taken: set[str]
) -> list[Exercise]:
    found: list[Exercise] = []
    tries = 0
    while len(found) < count:
        item = exercise(rng, task, level)
        key = _key(item.prompt)
        if is_held_out(item.key) and key not in taken:
            taken.add(key)
            found.append(item)
            tries = 0
        elif (tries := tries + 1) > _TRIES:
            raise InputError(
                f"{task} at level {level} has {len(found)} problems left, not {count}; "
                "ask for fewer, or for other levels"
            )
    return found


def _key(prompt: str) -> str:
    """Equal for prompts of a task that are the same up to the order of their numbers."""
    if prompt[:1] not in ("C", "R") or ">" not in prompt:
        return prompt
    numbers, target = prompt[1:].split(">", 1)
    return f"{prompt[0]}{sorted(numbers.split(','))}>{target}"


def _problem(item: Exercise) -> Problem:
    digest = hashlib.sha256(item.prompt.encode()).hexdigest()[:10]
    return Problem(
        problem_id=f"{item.task}-{item.level}-{digest}",
        task=item.task,
        prompt=item.prompt,
        verifier=_VERIFIERS[item.task],
        reference=item.reference,
    )
