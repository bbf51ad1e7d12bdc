"""Right answers pass, wrong ones do not, and no text breaks a verifier."""

import random
import time
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.calibration.reference.tasks import exercise
from planner.models.errors import InputError
from planner.models.records import Problem
from planner.verifiers import Grade, Verifier, get_verifier, register, verifier_names

PROMPTS = {
    "exact": "2+2=", "numeric": "2+2=", "chain": "A037+8*4-21:", "countdown": "R3,7,12>24:"
}  # fmt: skip
REFERENCES = {"exact": "4", "numeric": "4", "chain": "159", "countdown": ""}


def problem(verifier, prompt=None, reference=None):
    return Problem(
        problem_id="p1", task="t", verifier=verifier,
        prompt=PROMPTS[verifier] if prompt is None else prompt,
        reference=REFERENCES[verifier] if reference is None else reference,
    )  # fmt: skip


def correct(verifier, text, prompt=None, reference=None):
    return get_verifier(verifier).grade(problem(verifier, prompt, reference), text).correct


@pytest.mark.parametrize("name", sorted(PROMPTS))
@settings(deadline=None)
@given(
    text=st.text(max_size=300)
    | st.text("0123456789+-*=;,|!.%/$\\{}#eboxdfrac ", max_size=300)
)
def test_any_text_gets_the_same_grade_twice(name, text):
    verifier = get_verifier(name)
    grade = verifier.grade(problem(name), text)
    assert grade == verifier.grade(problem(name), text)
    assert isinstance(grade, Grade)
    assert grade.answer == verifier.answer(PROMPTS[name], text)


@pytest.mark.parametrize("name", sorted(PROMPTS))
@pytest.mark.parametrize(
    "text",
    [
        "9" * 1_000_000, "1,111" * 200_000, "1/" * 500_000, "\\boxed{" * 100_000,
        "-" * 1_000_000, "1+1=2," * 200_000, "=" * 1_000_000, "|" * 1_000_000 + "!",
        "{1}" * 300_000, "\u0663" * 1000, "1." * 300_000, "1e9" * 300_000,
        "__import__('os').system('true')", "\x00", "9**9**9",
    ],
    ids=range(15),
)  # fmt: skip
def test_hostile_texts_are_quickly_wrong(name, text):
    start = time.perf_counter()
    assert not correct(name, text) or name == "numeric"
    get_verifier(name).answer(PROMPTS[name], text)
    assert (
        time.perf_counter() - start < 1.0
    )  # milliseconds; a quadratic match takes minutes


@pytest.mark.parametrize("name", ["exact", "numeric", "chain"])
def test_a_missing_reference_is_the_problems_fault(name):
    with pytest.raises(InputError, match=r"'p1'.*needs a reference"):
        get_verifier(name).grade(problem(name, reference=" "), "4")


def test_exact():
    assert correct("exact", " 4\n")
    assert not correct("exact", "4.0")


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("The answer is 42.", "42"), ("so 40 + 2 = 42", "42.0"),
        ("1,234,567.50", "1234567.5"),
        ("#### 1,000\nignore 7", "1000"), (r"7 so \boxed{42} of 9", "42"),
        (r"\boxed{1} no, \boxed{\frac{1}{2}}", "0.5"), (r"\dfrac{3}{4}", "3/4"),
        ("50%", "1/2"),
        ("50%", "50"), ("50", "50%"), ("12 / 16", "0.75"), ("x = -3", "-3"), ("5-3", "3"),
        ("\u22127", "-7"), ("$1,200", "1200"), ("costs -$5", "-5"), (".5", "1/2"),
        ("6.02e23", "602000000000000000000000"), ("0.1", "1/10"), ("at 3", "#### 3"),
        (r"25\%", "0.25"), ("1, 2, 3", "3"), ("(5)-3", "3"),
    ],
)  # fmt: skip
def test_equal_numbers(text, reference):
    assert correct("numeric", text, reference=reference)


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("41", "42"), ("", "42"), ("none", "0"), ("1/0", "0"), ("0.33", "1/3"), ("3", "-3"),
        ("50%", "5"), ("42 or 43", "42"), ("#### ", "4"), ("1" * 41, "1"),
        ("1e999", "1e99"),
        ("3." + "1" * 50, "3"), ("0.1000000000000000000001", "0.1"), (r"\boxed{}4", "4"),
    ],
)  # fmt: skip
def test_unequal_numbers(text, reference):
    assert not correct("numeric", text, reference=reference)


@settings(deadline=None)
@given(st.fractions(max_denominator=10**6), st.integers(0, 3))
def test_a_number_gets_one_vote_however_it_is_written(value, zeros):
    verifier = get_verifier("numeric")
    written = verifier.answer("", f"{value.numerator}/{value.denominator}")
    assert Fraction(written) == value
    assert verifier.answer("", written) == written
    if "." in written:
        assert verifier.answer("", written + "0" * zeros) == written


def test_a_numeric_reference_must_hold_a_number():
    with pytest.raises(InputError, match="holds no number"):
        correct("numeric", "4", reference="four")


@pytest.mark.parametrize("task", ["chain", "countdown", "retry"])
def test_solutions_of_the_reference_workload_are_right_and_spoilt_ones_are_not(task):
    random_ = random.Random(f"{task}/verifiers")
    name = "chain" if task == "chain" else "countdown"
    for _ in range(200):
        item = exercise(random_, task)
        assert correct(name, item.solution, item.prompt, item.reference)
        at = random_.randrange(len(item.solution))
        other = random_.choice([c for c in "0123456789" if c != item.solution[at]])
        spoilt = item.solution[:at] + other + item.solution[at + 1 :]
        if not item.solution[at].isdigit() or other == "":
            continue
        assert not correct(name, spoilt, item.prompt, item.reference)
        assert not correct(name, item.solution[:-1], item.prompt, item.reference)


@pytest.mark.parametrize(
    "text",
    [
        "037+8=045;045*4=180;180-20=159",  # an operand that is not the prompt's
        "037+8=044;044*4=180;180-21=159",  # a wrong step, and a right answer
        "045*4=180;180-21=159",  # a step left out
        "037+8=045;045*4=180;180-21=159;159+0=159",  # a step too many
        "037+8=045;045*4=180;180-21=0159",
        "159", "=159", "",
    ],
)  # fmt: skip
def test_a_lucky_guess_is_not_skill(text):
    assert correct("chain", "037+8=045;045*4=180;180-21=159")
    assert not correct("chain", text)


def test_chain_votes_on_the_digits_after_the_last_equals_sign():
    answer = get_verifier("chain").answer
    assert answer("", "037+8=045;045*4=180") == "180"
    assert [answer("", text) for text in ("", "180", "1=18", "1=180;18", "1=1800")] == [
        ""
    ] * 5


def test_chain_is_modulo_1000():
    assert correct("chain", "990+20=010;010-11=999", "A990+20-11:", "999")


@pytest.mark.parametrize(
    ("prompt", "text", "right"),
    [
        ("C3,7,12>16:", "12-3=9,9+7=16", True),
        ("C3,7,12>16:", "12-3=9,9+7=16!", False),
        ("C3,7,12>16:", "12+3=15,7+15=22|12-3=9,9+7=16", False),  # one attempt
        ("C3,7,12>9:", "12-3=9", False),  # 7 is not used
        ("C3,7,12>19:", "12+7=19,19+3=22", False),
        ("C3,7,12>16:", "12-3=9,9+8=17", False),  # 8 is not there
        ("C3,3,12>15:", "3+12=15,15+3=18", False),
        ("C3,7,12>16:", "12-3=9,9+7=16,16+0=16", False),
        ("C3,7,12>16:", "7+9=16,12-3=9", False),  # 9 before it was made
        ("C3,3,12>18:", "3+12=15,15+3=18", True),  # twice in the prompt
        ("C5,7,12>10:", "5-7=-2,12+-2=10", False),  # as no problem is written
        ("R3,7,12>16:", "12+3=15,7+15=22|12-3=9,9+7=16!", True),
        ("R3,7,12>16:", "12-3=9,9+7=16!", True),
        ("R3,7,12>16:", "12-3=9,9+7=16", False),  # no claim
        ("R3,7,12>16:", "12-3=9,9+7=16|12+3=15,7+15=22!", False),  # the last counts
        ("R3,7,12>16:", "12-3=9,9+7=16!|", False),
    ],
)
def test_countdown(prompt, text, right):
    assert correct("countdown", text, prompt) is right


def test_countdown_answers_with_the_attempt_that_counts():
    answer = get_verifier("countdown").answer
    assert answer("R3,7,12>16:", "1+1=2|12-3=9,9+7=16!") == "12-3=9,9+7=16"
    assert answer("C3,7,12>16:", "12-3=9,9+7=16") == "12-3=9,9+7=16"


@pytest.mark.parametrize(("name", "prompt"), [("chain", "2+2="), ("countdown", "A037+8:")])
def test_a_prompt_of_another_task_is_the_problems_fault(name, prompt):
    with pytest.raises(InputError, match="cannot read the prompt"):
        get_verifier(name).grade(problem(name, prompt, "004"), "4")


def test_names():
    assert verifier_names()[:4] == ("exact", "numeric", "chain", "countdown")
    for name in verifier_names():
        assert isinstance(get_verifier(name), Verifier)
        assert get_verifier(name).name == name
    with pytest.raises(InputError, match="exact, numeric, chain, countdown"):
        get_verifier("judge")


def test_a_name_is_taken_once():
    register(get_verifier("exact"))  # again, the same: nothing happens

    class Other:
        name = "exact"
        needs_reference = False

        def grade(self, problem, text):
            return Grade(text, True)

        def answer(self, prompt, text):
            return text

    with pytest.raises(InputError, match="another name"):
        register(Other())
