"""Published laws of inference: drafts, verification, resampling.

- Speculative decoding (Leviathan et al. 2023, arXiv:2211.17192); size of the draft
  (Bozorgkhoo and Molybog 2026, arXiv:2603.11053).
- Solve or verify (Singhi et al. 2025, arXiv:2504.01005).
- Resampling with an imperfect verifier (Stroebl et al. 2024, arXiv:2411.17501).
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from planner.models.errors import InputError
from planner.models.prediction import Array
from planner.models.published import (
    Parameter,
    PublishedLaw,
    PublishedValue,
    finite,
    positive,
    within,
)
from planner.models.verification import ImperfectTest

_DRAFT = "arXiv:2211.17192"
_DRAFT_DOMAIN = (
    "tokens accepted independently, and a target pass over all drafted tokens as slow as "
    "over one: true of small batches that memory bandwidth limits"
)
_DRAFT_SIZE = "arXiv:2603.11053"
_DRAFT_RATIO = 200.0
_DRAFT_SIZE_DOMAIN = (
    "targets of 1 to 70 B parameters, throughput; an order of magnitude: of a 70 B target "
    "the same paper gives 189 M, a 370th"
)
_LONGEST_DRAFT = 64
_VERIFY = "arXiv:2504.01005"
_VERIFY_DOMAIN = "8 to 70 B models on mathematics and science; the best (S, V) of a grid"
SOLUTIONS_EXPONENT, VERIFICATIONS_EXPONENT = 0.57, 0.39
_MATCHES, _GAINS = 8.0, 128.0  # times the compute of self-consistency


def tokens_per_pass(acceptance: ArrayLike, draft_length: ArrayLike) -> PublishedValue:
    """Tokens that one pass of the target yields: (1 - a^(g + 1)) / (1 - a).

    Args:
        acceptance: a, chance that a drafted token is kept, in [0, 1].
        draft_length: g, tokens drafted before each pass, whole, >= 0.

    Raises:
        InputError: An acceptance outside [0, 1], or a length that is not whole.
    """
    a, g = _drafted(acceptance, draft_length)
    return PublishedValue(_yield(a, g), "tokens", _DRAFT, _DRAFT_DOMAIN, _usual(a, g))


def draft_speedup(
    acceptance: ArrayLike, draft_length: ArrayLike, draft_cost: ArrayLike
) -> PublishedValue:
    """Speed against plain decoding: tokens a pass / (g c + 1); below 1 it slows down.

    Args:
        acceptance: As in `tokens_per_pass`.
        draft_length: As in `tokens_per_pass`.
        draft_cost: c, seconds of a draft pass over those of a target pass, >= 0.

    Raises:
        InputError: As `tokens_per_pass`, or a cost below zero.
    """
    a, g = _drafted(acceptance, draft_length)
    a, g, c = np.broadcast_arrays(a, g, _cost(draft_cost))
    known = _usual(a, g) & within((c, 0, 1))
    return PublishedValue(_yield(a, g) / (g * c + 1), "1", _DRAFT, _DRAFT_DOMAIN, known)


def draft_operations(
    acceptance: ArrayLike, draft_length: ArrayLike, draft_cost: ArrayLike = 0.0
) -> PublishedValue:
    """Arithmetic against plain decoding: (g c + g + 1) / tokens a pass.

    Here c is the draft's operations a token over the target's.

    Raises:
        InputError: As `draft_speedup`.
    """
    a, g = _drafted(acceptance, draft_length)
    a, g, c = np.broadcast_arrays(a, g, _cost(draft_cost))
    value = (g * c + g + 1) / _yield(a, g)
    return PublishedValue(value, "1", _DRAFT, _DRAFT_DOMAIN, _usual(a, g))


def best_draft_length(acceptance: ArrayLike, draft_cost: ArrayLike) -> PublishedValue:
    """The draft length of the highest speed-up, at most 64; 0 where none helps.

    Raises:
        InputError: As `draft_speedup`.
    """
    a, _ = _drafted(acceptance, 0)
    a, c = np.broadcast_arrays(a, _cost(draft_cost))
    lengths = np.arange(_LONGEST_DRAFT + 1, dtype=float)
    speed = _yield(a[..., None], lengths) / (lengths * c[..., None] + 1)
    best = lengths[speed.argmax(axis=-1)]
    return PublishedValue(
        np.asarray(best),
        "tokens",
        _DRAFT,
        _DRAFT_DOMAIN,
        _usual(a, best) & within((c, 0, 1)),
    )


def draft_params(target_params: ArrayLike) -> PublishedValue:
    """Size of the draft of highest throughput, about a 200th of the target.

    Raises:
        InputError: Not positive and finite.
    """
    (n,) = positive(target_params=target_params)
    return PublishedValue(
        n / _DRAFT_RATIO,
        "parameters",
        _DRAFT_SIZE,
        _DRAFT_SIZE_DOMAIN,
        within((n, 1e9, 70e9)),
    )


def _drafted(acceptance: ArrayLike, draft_length: ArrayLike) -> tuple[Array, Array]:
    a, g = finite(acceptance=acceptance, draft_length=draft_length)
    if not ((a >= 0) & (a <= 1)).all() or not ((g >= 0) & (g % 1 == 0)).all():
        raise InputError("need an acceptance in [0, 1] and a whole draft length >= 0")
    return a, g


def _cost(draft_cost: ArrayLike) -> Array:
    (c,) = finite(draft_cost=draft_cost)
    if (c < 0).any():
        raise InputError("the cost of a draft must be >= 0")
    return c


def _yield(a: Array, g: Array) -> Array:
    near = a > 1 - 1e-9  # the quotient cancels; its limit is g + 1
    return np.asarray(np.where(near, g + 1, (1 - a ** (g + 1)) / np.where(near, 1, 1 - a)))


def _usual(a: Array, g: Array) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    return within((a, 0, 0.9), (g, 0, 10))  # the authors' table


class Split(NamedTuple):
    """Solutions, and verifications of each."""

    solutions: PublishedValue
    verifications: PublishedValue


def verification_cost(
    solutions: ArrayLike, verifications: ArrayLike, token_ratio: ArrayLike
) -> PublishedValue:
    """Compute of S solutions verified V times each: S (1 + lambda V), in solutions.

    Args:
        solutions: S, at least one.
        verifications: V of each solution; 0 is self-consistency.
        token_ratio: lambda, tokens of a verification over those of a solution: 1 for a
            model asked to verify, 2 for the fine-tuned verifiers of the paper.

    Raises:
        InputError: S below 1, V below 0, or a ratio that is not positive.
    """
    s, v, ratio = finite(
        solutions=solutions, verifications=verifications, token_ratio=token_ratio
    )
    if (s < 1).any() or (v < 0).any() or (ratio <= 0).any():
        raise InputError("need solutions >= 1, verifications >= 0 and a ratio > 0")
    known = within((s, 1, 16_384), (ratio, 1, 2))
    return PublishedValue(s * (1 + ratio * v), "solutions", _VERIFY, _VERIFY_DOMAIN, known)


def verification_split(
    solutions: ArrayLike, verifications: ArrayLike, compute_ratio: ArrayLike
) -> Split:
    """The best (S, V) at another compute, from the best at one: S ~ C^0.57, V ~ C^0.39.

    The paper publishes the exponents; where the law starts must be measured.

    Args:
        solutions: Best S where it was measured.
        verifications: Best V there.
        compute_ratio: Compute asked about over compute measured at.

    Raises:
        InputError: S or V below 1, or a ratio that is not positive.
    """
    s, v, c = positive(
        solutions=solutions, verifications=verifications, compute_ratio=compute_ratio
    )
    if (s < 1).any() or (v < 1).any():
        raise InputError("a measured optimum has at least 1 solution and 1 verification")
    known = within((c, 1 / 64, 64))
    more = s * c**SOLUTIONS_EXPONENT, v * c**VERIFICATIONS_EXPONENT
    units = "solutions", "verifications"
    return Split(
        *(
            PublishedValue(np.asarray(x), unit, _VERIFY, _VERIFY_DOMAIN, known)
            for x, unit in zip(more, units, strict=True)
        )
    )


def verification_break_even(vote_solutions: ArrayLike) -> Split:
    """Compute at which verifying matches, and clearly beats, a vote of S solutions.

    Up to 8 and 128 times the vote's, in the paper's main setting; fine-tuned verifiers
    need up to 16 times less.

    Returns:
        Both in solutions: where it matches, where it clearly gains.

    Raises:
        InputError: Not positive and finite.
    """
    (s,) = positive(vote_solutions=vote_solutions)
    known = within((s, 1, 16_384))
    return Split(
        PublishedValue(_MATCHES * s, "solutions", _VERIFY, _VERIFY_DOMAIN, known),
        PublishedValue(_GAINS * s, "solutions", _VERIFY, _VERIFY_DOMAIN, known),
    )


@dataclass(frozen=True)
class ResamplingLaw:
    """Draw until a verifier accepts: what more draws are worth when it errs.

    Problems of type t have prior p_t and solve rate r_t; a verifier accepts a right answer
    with `completeness`, rejects a wrong one with `soundness`. A type survives a draw with
    b_t = (1 - completeness) r_t + soundness (1 - r_t).
    """

    rates: tuple[float, ...] = (0.87, 0.13)
    priors: tuple[float, ...] = (0.58, 0.42)
    completeness: float = 1.0
    soundness: float = 0.75
    source: str = "arXiv:2411.17501"
    domain: str = "unit tests of HumanEval as the verifier, easy and hard problems"

    def __post_init__(self) -> None:
        self._test()  # which checks them

    def _test(self) -> ImperfectTest:
        return ImperfectTest(
            completeness=self.completeness, soundness=self.soundness,
            success=self.rates, shares=self.priors,
        )  # fmt: skip

    def value(self, draws: ArrayLike, wrong_value: ArrayLike) -> PublishedValue:
        """Expected value of at most K draws; 1 for a right answer accepted.

        Args:
            draws: K, whole, >= 0.
            wrong_value: Of a wrong answer accepted, below 0.

        Raises:
            InputError: Draws that are not whole or below 0, or no finite value.
        """
        k, wrong = finite(draws=draws, wrong_value=wrong_value)
        test, flat = self._test(), k.ravel()
        right = test.value(flat, 0.0)
        fluke = test.value(flat, 1.0) - right  # the value is linear in that of a wrong one
        value = (right + wrong.ravel() * fluke).reshape(k.shape)
        known = within((wrong, -2, 0))
        return PublishedValue(np.asarray(value), "1", self.source, self.domain, known)

    def best_draws(self, wrong_value: ArrayLike, most: int = 100) -> PublishedValue:
        """The K of highest value, 0..most.

        Raises:
            InputError: No finite value, or `most` below 1.
        """
        (wrong,) = finite(wrong_value=wrong_value)
        if most < 1:
            raise InputError("most must be at least 1")
        values = self.value(np.arange(most + 1), wrong[..., None]).value
        best = np.asarray(values.argmax(axis=-1), dtype=float)
        return PublishedValue(
            best, "draws", self.source, self.domain, within((wrong, -2, 0))
        )


_FLAWS = ResamplingLaw()
CATALOGUE: tuple[PublishedLaw, ...] = (
    PublishedLaw(
        "Speculative decoding",
        "tokens a pass = (1 - a^(g + 1)) / (1 - a); speed-up = that / (g c + 1), for "
        "acceptance a, draft length g, cost c of a draft pass",
        (),
        _DRAFT_DOMAIN,
        _DRAFT,
        ("tokens_per_pass", "draft_speedup", "draft_operations", "best_draft_length"),
    ),
    PublishedLaw(
        "Size of the draft",
        "parameters of the draft = parameters of the target / 200",
        (Parameter("ratio", _DRAFT_RATIO, "1", "target over draft"),),
        _DRAFT_SIZE_DOMAIN,
        _DRAFT_SIZE,
        ("draft_params",),
    ),
    PublishedLaw(
        "Solve or verify",
        "compute = S (1 + lambda V) solutions; best S ~ C^0.57 and V ~ C^0.39; verifying "
        "matches a vote at 8 and beats it at 128 times its compute",
        (
            Parameter("solutions", SOLUTIONS_EXPONENT, "1", "exponent of S in compute"),
            Parameter("verifications", VERIFICATIONS_EXPONENT, "1", "exponent of V"),
            Parameter("matches", _MATCHES, "1", "times a vote's compute, at most"),
            Parameter("gains", _GAINS, "1", "times a vote's compute, at most"),
        ),
        _VERIFY_DOMAIN,
        _VERIFY,
        ("verification_cost", "verification_split", "verification_break_even"),
    ),
    PublishedLaw(
        "Resampling with an imperfect verifier",
        "value of K draws = sum over types and draws of p b^(k - 1) (right + wrong value)",
        (
            Parameter("rate, easy", _FLAWS.rates[0], "1", "solve rate"),
            Parameter("rate, hard", _FLAWS.rates[1], "1", "solve rate"),
            Parameter("share, easy", _FLAWS.priors[0], "1", "of problems"),
            Parameter("soundness", _FLAWS.soundness, "1", "wrong answers rejected"),
        ),
        _FLAWS.domain,
        _FLAWS.source,
        ("ResamplingLaw.value", "ResamplingLaw.best_draws"),
    ),
)
