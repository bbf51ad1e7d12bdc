"""The three verifiable tasks of the reference workload, and the text the models learn from.

chain      `A037+8*4-21:` -> `037+8=045;045*4=180;180-21=159`
           Left to right, modulo 1000, with a scratchpad. One right answer: voting works.
countdown  `C3,7,12>24:` -> `12-3=9,9+7=16`
           Reach the target with every number once, in one attempt. Many right solutions:
           coverage works, voting does not.
retry      `R3,7,12>24:` -> `12-3=9,9+7=16|12+3=15,7+15=22|...!`
           The same with attempts split by `|`; `!` claims success. Longer thinking helps.

Problems whose key hashes into the held-out share are never trained on, and every
problem that is measured comes from that share.
"""

import random
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

CHARACTERS = "0123456789+-*=;,:>|!ACR"
SPECIAL = ("<pad>", "<bos>", "<eos>")
VOCABULARY = {token: i for i, token in enumerate((*SPECIAL, *CHARACTERS))}
PAD, BOS, EOS = 0, 1, 2
MAX_TOKENS = 192  # longest sequence that was trained on, prompt included

TASKS = ("chain", "countdown", "retry")
MODULUS = 1000
_HELD_OUT_SHARE = 8  # one problem key in eight is kept for measurement
_MAX_VALUE = 999
_TARGETS = range(10, 100)

Step = tuple[int, str, int, int]  # left, operator, right, result


@dataclass(frozen=True)
class Exercise:
    """One problem of the reference workload and a solution of it."""

    task: str
    prompt: str
    reference: str  # the right answer of a chain; empty where many are right
    solution: str
    level: int  # steps of a chain, numbers of a countdown
    key: str  # equal for problems that are the same up to the order of numbers


def encode(text: str) -> list[int]:
    """Token ids of `text`, one a character, without special tokens."""
    return [VOCABULARY[character] for character in text]


def is_held_out(key: str) -> bool:
    """Whether a problem is kept out of training, for measurement."""
    return zlib.crc32(key.encode()) % _HELD_OUT_SHARE == 0


def apply(left: int, operator: str, right: int) -> int:
    """Result of one operation, over the integers."""
    if operator == "+":
        return left + right
    return left - right if operator == "-" else left * right


def chain(rng: random.Random, level: int | None = None) -> Exercise:
    """A chain of `level` steps; one step in 25 multiplies by a two-digit number."""
    steps = level or min(10, 1 + int(rng.expovariate(1 / 3.2)))
    value = rng.randrange(MODULUS)
    prompt, trace = f"A{value:03d}", []
    for _ in range(steps):
        if rng.random() < 0.04:
            operator, operand = "*", rng.randrange(12, 100)
        else:
            operator = rng.choice("++--*")
            small = operator == "*" or rng.random() < 0.4
            operand = rng.randrange(2, 10) if small else rng.randrange(10, MODULUS)
        result = apply(value, operator, operand) % MODULUS
        prompt += f"{operator}{operand}"
        trace.append(f"{value:03d}{operator}{operand}={result:03d}")
        value = result
    prompt += ":"
    return Exercise("chain", prompt, f"{value:03d}", ";".join(trace), steps, prompt)


def attempt(rng: random.Random, numbers: list[int]) -> tuple[list[Step], int]:
    """Combine all numbers in a random way; the steps and where they end."""
    pool, steps = list(numbers), []
    while len(pool) > 1:
        i, j = rng.sample(range(len(pool)), 2)
        left, right = pool[i], pool[j]
        operator = rng.choice("+-*+-")
        if operator == "-" and left < right:
            left, right = right, left
        if operator == "*" and left * right > _MAX_VALUE:
            operator = "+"
        value = apply(left, operator, right)
        pool = [n for k, n in enumerate(pool) if k not in (i, j)] + [value]
        steps.append((left, operator, right, value))
    return steps, pool[0]


def _written(steps: list[Step]) -> str:
    return ",".join(f"{a}{operator}{b}={value}" for a, operator, b, value in steps)


def countdown(
    rng: random.Random, level: int | None = None, *, retry: bool = False
) -> Exercise:
    """A Countdown of `level` numbers from 1 to 20, solvable, with a two-digit target."""
    count = level or rng.choices([2, 3, 4, 5, 6], [0.08, 0.28, 0.36, 0.2, 0.08])[0]
    while True:
        numbers = [rng.randrange(1, 21) for _ in range(count)]
        steps, target = attempt(rng, numbers)
        if target in _TARGETS:
            break
    listed = ",".join(map(str, numbers))
    task, letter = ("retry", "R") if retry else ("countdown", "C")
    key = f"{sorted(numbers)}>{target}"
    solution = _written(steps) + ("!" if retry else "")
    return Exercise(task, f"{letter}{listed}>{target}:", "", solution, count, key)


def exercise(rng: random.Random, task: str, level: int | None = None) -> Exercise:
    """One random problem of a task."""
    if task == "chain":
        return chain(rng, level)
    return countdown(rng, level, retry=task == "retry")


def training_sequence(rng: random.Random) -> tuple[list[int], list[bool]]:
    """Token ids of one training example, and which of them the model must predict.

    In `retry` the choices of wrong attempts carry no loss, but their arithmetic and the
    decision to go on do: the model learns to try its best, check, and stop when right.
    """
    while True:
        task = rng.choices(TASKS, [0.45, 0.2, 0.35])[0]
        item = exercise(rng, task)
        if is_held_out(item.key):
            continue
        ids = [BOS, *encode(item.prompt)]
        target = [False] * len(ids)
        if task == "retry":
            _wrong_attempts(rng, item, ids, target)
        answer = [*encode(item.solution), EOS]
        if len(ids) + len(answer) <= MAX_TOKENS:
            return ids + answer, target + [True] * len(answer)


def _wrong_attempts(
    rng: random.Random, item: Exercise, ids: list[int], target: list[bool]
) -> None:
    listed, goal = item.prompt[1:-1].split(">")
    numbers = [int(n) for n in listed.split(",")]
    count = 0 if rng.random() < 0.4 else min(9, 1 + int(rng.expovariate(1 / 2.5)))
    for _ in range(count):
        steps, value = attempt(rng, numbers)
        text = _written(steps) + "|"
        if value == int(goal):
            continue
        if len(ids) + len(text) + len(item.solution) + 2 > MAX_TOKENS:
            return
        in_result = False
        for character in text:
            ids.append(VOCABULARY[character])
            if character in ",|":
                target.append(True)
                in_result = False
            elif character == "=":
                target.append(False)
                in_result = True
            else:
                target.append(in_result)


def problems(
    task: str, levels: Mapping[int, int], seed: int, *, held_out: bool = True
) -> Iterator[Exercise]:
    """Distinct problems, `levels[level]` of each level, the same for a seed.

    Args:
        task: One of TASKS.
        levels: How many problems of each level.
        seed: Of the problems.
        held_out: From the share never trained on; False gives only problems outside it.
    """
    rng = random.Random(f"{task}/{seed}")
    for level, count in levels.items():
        seen: set[str] = set()
        while len(seen) < count:
            item = exercise(rng, task, level)
            if is_held_out(item.key) == held_out and item.key not in seen:
                seen.add(item.key)
                yield item
