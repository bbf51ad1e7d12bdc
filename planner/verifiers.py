"""How an answer is read from a text and graded; by name, `get_verifier`.

A verifier that needs no reference may be asked in production, where it makes best-of-N
stop at the first right draw. One that needs the reference only grades what was measured.
Texts are whatever a model wrote: they are matched with bounded patterns and never run.
"""

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol, runtime_checkable

from planner.models.errors import InputError
from planner.models.records import Problem


@dataclass(frozen=True)
class Grade:
    """What a verifier says of one text."""

    answer: str  # "" when the text holds none
    correct: bool


@runtime_checkable
class Verifier(Protocol):
    """Reads answers and grades them; deterministic."""

    @property
    def name(self) -> str:
        """The name problems refer to."""
        ...

    @property
    def needs_reference(self) -> bool:
        """Whether grading needs the right answer: then it cannot be asked in production."""
        ...

    def grade(self, problem: Problem, text: str) -> Grade:
        """Grade a text; any text gets a grade.

        Raises:
            InputError: The problem, not the text, cannot be graded: its reference is
                missing, or its prompt is not of the verifier's task.
        """
        ...

    def answer(self, prompt: str, text: str) -> str:
        """What is voted on, read without the reference; "" when the text holds none."""
        ...


class Exact:
    """The text itself, trimmed, equals the reference."""

    name = "exact"
    needs_reference = True

    def grade(self, problem: Problem, text: str) -> Grade:
        """Compare with the reference, spaces around either aside."""
        answer = self.answer(problem.prompt, text)
        return Grade(answer, answer == _reference(problem).strip())

    def answer(self, prompt: str, text: str) -> str:
        """The trimmed text."""
        return text.strip()


# A number of at most 40 digits: 1,234.5  .5  -3  6e23. Longer runs of digits match nothing.
# A minus counts as a sign only where no operand stands before it.
_DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3}){1,12}(?![0-9])|[0-9]{1,40}(?![0-9]))"
_DECIMALS = r"\.[0-9]{1,40}(?![0-9])"
_EXPONENT = r"(?:[eE][-+]?[0-9]{1,2}(?![0-9]))?"
_UNSIGNED = rf"(?:{_DIGITS}(?:{_DECIMALS}|(?!\.[0-9]))|{_DECIMALS}){_EXPONENT}"
_SIGN = r"(?:(?<![0-9A-Za-z)\]}])-\s?)?"
_NUMBER = re.compile(
    rf"(?<![0-9.])(?:(?P<minus>{_SIGN})\$?"
    rf"(?:\\[dt]?frac\{{(?P<top>{_UNSIGNED})\}}\{{(?P<bottom>{_UNSIGNED})\}}"
    rf"|(?P<value>{_UNSIGNED})(?:\s?/\s?(?P<over>{_UNSIGNED}))?)"
    rf"(?P<percent>\s?\\?%)?)"
)
_BOXED = re.compile(r"\\boxed\{((?:[^{}]|\{[^{}]{0,100}\}){0,200})\}")
_TAIL_CHARACTERS = 4000  # of a text that are looked at: an answer stands near the end


class Numeric:
    r"""The number in \boxed{}, after "####", or the last one in the text.

    Numbers are compared as exact fractions: 1,000 = 1000.0, 1/2 = 0.5 = 50%. Where only one
    of answer and reference is written in percent, 50% also equals 50.
    """

    name = "numeric"
    needs_reference = True

    def grade(self, problem: Problem, text: str) -> Grade:
        """Compare with the reference by value."""
        wanted = _last_number(_reference(problem))
        if wanted is None:
            raise InputError(
                f"problem {problem.problem_id!r}: reference {problem.reference[:40]!r}"
                " holds no number; use the verifier 'exact', or correct it"
            )
        found = _found_number(text)
        if found is None:
            return Grade("", False)
        value, percent = found
        correct = value == wanted[0]
        if percent != wanted[1]:
            correct = correct or (
                100 * value == wanted[0] if percent else value == 100 * wanted[0]
            )
        return Grade(_written(value), correct)

    def answer(self, prompt: str, text: str) -> str:
        """The number in one way of writing, so that equal numbers get one vote together."""
        found = _found_number(text)
        return "" if found is None else _written(found[0])


def _found_number(text: str) -> tuple[Fraction, bool] | None:
    text = text[-_TAIL_CHARACTERS:]
    boxed = _BOXED.findall(text)
    if boxed:
        return _last_number(boxed[-1])
    if "####" in text:
        after = _NUMBER.search(text.rpartition("####")[2].replace("\u2212", "-"))
        return None if after is None else _value(after)
    return _last_number(text)


def _last_number(text: str) -> tuple[Fraction, bool] | None:
    """Value of the last number, and whether it is in percent; None when there is none."""
    for match in reversed(
        list(_NUMBER.finditer(text[-_TAIL_CHARACTERS:].replace("\u2212", "-")))
    ):
        number = _value(match)
        if number is not None:
            return number
    return None


def _value(match: re.Match[str]) -> tuple[Fraction, bool] | None:
    top, bottom = match["top"] or match["value"], match["bottom"] or match["over"] or "1"
    numerator, denominator = (Fraction(part.replace(",", "")) for part in (top, bottom))
    if denominator == 0:
        return None
    value = numerator / denominator * (-1 if match["minus"] else 1)
    percent = match["percent"] is not None
    return value / 100 if percent else value, percent


def _written(value: Fraction) -> str:
    """A fraction as "3", "0.25" or "1/3"."""
    rest, tens = value.denominator, 0
    for factor in (2, 5):
        count = 0
        while rest % factor == 0:
            rest, count = rest // factor, count + 1
        tens = max(tens, count)
    if rest != 1:
        return f"{value.numerator}/{value.denominator}"
    if tens == 0:
        return str(value.numerator)
    digits = str(abs(value.numerator) * 10**tens // value.denominator).rjust(tens + 1, "0")
    return f"{'-' if value < 0 else ''}{digits[:-tens]}.{digits[-tens:]}"


_CHAIN_PROMPT = re.compile(r"A([0-9]{3})((?:[-+*][0-9]{1,3}){1,64}):")
_CHAIN_OPERATION = re.compile(r"([-+*])([0-9]{1,3})")
_CHAIN_STEP = re.compile(r"([0-9]{3})([-+*])([0-9]{1,3})=([0-9]{3})")
_CHAIN_MODULUS = 1000


class Chain:
    """Chain arithmetic with a scratchpad, of the reference workload: `A037+8*4:`.

    The trace is graded with the answer, so that a lucky guess is not skill: each step of
    `037+8=045;045*4=180` must take the last result and the prompt's next operation, and be
    right modulo 1000. Checking that is solving it, hence a reference.
    """

    name = "chain"
    needs_reference = True

    def grade(self, problem: Problem, text: str) -> Grade:
        """Whether the answer is the reference, and every step follows."""
        reference = _reference(problem)
        prompt = _CHAIN_PROMPT.fullmatch(problem.prompt)
        if prompt is None:
            raise _not_of_task(problem, "chain", "A037+8*4:")
        answer = self.answer(problem.prompt, text)
        return Grade(answer, answer == reference and _follows(prompt, text.strip()))

    def answer(self, prompt: str, text: str) -> str:
        """The three digits after the last "=", where the text ends with them."""
        last = text.strip().rpartition("=")
        found = re.fullmatch(r"[0-9]{3}", last[2]) if last[1] else None
        return found[0] if found else ""


def _follows(prompt: re.Match[str], trace: str) -> bool:
    operations = _CHAIN_OPERATION.findall(prompt[2])
    steps = trace.split(";", len(operations))
    value = int(prompt[1])
    if len(steps) != len(operations):
        return False
    for step, (operator, operand) in zip(steps, operations, strict=True):
        match = _CHAIN_STEP.fullmatch(step)
        if match is None:
            return False
        left, written, right, result = match.groups()
        if (int(left), written, int(right)) != (value, operator, int(operand)):
            return False
        value = _apply(value, operator, int(operand)) % _CHAIN_MODULUS
        if int(result) != value:
            return False
    return True


_COUNTDOWN_PROMPT = re.compile(r"([CR])([0-9]{1,4}(?:,[0-9]{1,4}){0,31})>([0-9]{1,6}):")
_COUNTDOWN_STEP = re.compile(r"([0-9]{1,9})([-+*])([0-9]{1,9})=([0-9]{1,9})")


class Countdown:
    """Countdown of the reference workload: reach the target with every number used once.

    `C3,7,12>24:` takes one attempt, `12-3=9,...`. `R3,7,12>24:` takes attempts split by
    `|`; the last counts, and must end in the claim `!`. The prompt says all that a check
    needs.
    """

    name = "countdown"
    needs_reference = False

    def grade(self, problem: Problem, text: str) -> Grade:
        """Whether the attempt that counts is a solution."""
        prompt = _COUNTDOWN_PROMPT.fullmatch(problem.prompt)
        if prompt is None:
            raise _not_of_task(problem, "countdown", "C3,7,12>24:' or 'R3,7,12>24:")
        answer = self.answer(problem.prompt, text)
        claimed = prompt[1] == "C" or text.strip().endswith("!")
        numbers = [int(number) for number in prompt[2].split(",")]
        return Grade(answer, claimed and _reaches(numbers, int(prompt[3]), answer))

    def answer(self, prompt: str, text: str) -> str:
        """The attempt that counts, without its claim."""
        text = text.strip()
        if prompt.startswith("R"):
            return text.rpartition("|")[2].removesuffix("!")
        return text


def _reaches(numbers: list[int], target: int, attempt: str) -> bool:
    pool = list(numbers)
    steps = attempt.split(",", len(numbers))
    if len(steps) != len(numbers) - 1:
        return False
    for step in steps:
        match = _COUNTDOWN_STEP.fullmatch(step)
        if match is None:
            return False
        left, operator, right, result = match.groups()
        for operand in (int(left), int(right)):
            if operand not in pool:
                return False
            pool.remove(operand)
        if _apply(int(left), operator, int(right)) != int(result):
            return False
        pool.append(int(result))
    return pool == [target]


def _apply(left: int, operator: str, right: int) -> int:
    if operator == "+":
        return left + right
    return left - right if operator == "-" else left * right


def _reference(problem: Problem) -> str:
    if not problem.reference.strip():
        raise InputError(
            f"problem {problem.problem_id!r}: verifier {problem.verifier!r} needs a"
            " reference; add the right answer, or use a verifier that needs none"
        )
    return problem.reference


def _not_of_task(problem: Problem, name: str, example: str) -> InputError:
    return InputError(
        f"problem {problem.problem_id!r}: verifier {name!r} cannot read the prompt"
        f" {problem.prompt[:40]!r}; it grades prompts like '{example}'"
    )


_REGISTRY: dict[str, Verifier] = {}


def register(verifier: Verifier) -> None:
    """Make a verifier known by its name.

    Raises:
        InputError: The name is empty, or another verifier has it.
    """
    if not verifier.name:
        raise InputError("a verifier needs a name; problems refer to it by that")
    known = _REGISTRY.setdefault(verifier.name, verifier)
    if known is not verifier:
        raise InputError(
            f"a verifier named {verifier.name!r} is registered; choose another name"
        )


def get_verifier(name: str) -> Verifier:
    """The verifier of that name.

    Raises:
        InputError: There is none; it lists the names.
    """
    if name not in _REGISTRY:
        raise InputError(
            f"verifier {name!r} is not known; use one of {', '.join(verifier_names())}"
        )
    return _REGISTRY[name]


def verifier_names() -> tuple[str, ...]:
    """Names that `get_verifier` knows."""
    return tuple(_REGISTRY)


for _verifier in (Exact(), Numeric(), Chain(), Countdown()):
    register(_verifier)
