"""Budget and Slo: what may be spent, and how fast it must be."""

import math
import re
from dataclasses import dataclass
from typing import Self

from planner.models.cost import UNITS
from planner.models.errors import InputError

# word -> (factor, unit); what is not here may be a prefix and a unit ("k tokens")
_WORDS = {
    "token": (1.0, "tokens"), "tok": (1.0, "tokens"), "$": (1.0, "usd"),
    "dollar": (1.0, "usd"), "dollars": (1.0, "usd"), "sec": (1.0, "s"),
    "second": (1.0, "s"), "seconds": (1.0, "s"), "ms": (1e-3, "s"), "min": (60.0, "s"),
    "minute": (60.0, "s"), "minutes": (60.0, "s"), "h": (3600.0, "s"),
    "hour": (3600.0, "s"), "hours": (3600.0, "s"), "flops": (1.0, "flop"),
    "byte": (1.0, "bytes"), "b": (1.0, "bytes"),
} | {unit: (1.0, unit) for unit in UNITS}  # fmt: skip
_PREFIXES = {"k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "p": 1e15}
_PREFIXED = frozenset(UNITS) - {"s", "usd"}  # "m usd" could be a thousandth or a million
_AMOUNT = re.compile(
    r"\s*([$]?)\s*([0-9][0-9_]*\.?[0-9]*(?:e[+-]?[0-9]+)?|\.[0-9]+)\s*(.*?)\s*$", re.I
)


@dataclass(frozen=True)
class Budget:
    """The most that may be spent, in one unit.

    tokens: prompt and output; s: seconds of request time, added over draws; usd; flop;
    bytes moved; eflop: FLOP plus bytes times the machine's intensity (Kinetics,
    arXiv:2506.05333).

    Raises:
        InputError: The unit is unknown, or the amount is not positive and finite.
    """

    total: float
    unit: str

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise InputError(f"budget unit {self.unit!r} is not one of {', '.join(UNITS)}")
        if not 0 < self.total < math.inf:
            raise InputError(f"a budget must be positive and finite, got {self.total}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "0.002 usd", "$5", "200k tokens", "90 s", "5 min" or "3 Teflop".

        Raises:
            InputError: No amount or no unit; it lists the units.
        """
        match = _AMOUNT.match(text)
        units = ", ".join(UNITS)
        if match is None:
            raise InputError(f"budget {text!r} has no amount; write e.g. '0.002 usd'")
        dollar, amount, word = match.groups()
        word = word.lower() or ("usd" if dollar else "")
        if not word:
            raise InputError(f"budget {text!r} has no unit; add one of {units}")
        factor, unit = _WORDS.get(word, (1.0, ""))  # the whole word wins over prefix + unit
        if not unit and word[0] in _PREFIXES:
            inner, unit = _WORDS.get(word[1:].strip(), (1.0, ""))
            factor = _PREFIXES[word[0]] * inner
            unit = unit if unit in _PREFIXED else ""
        if not unit or (dollar and unit != "usd"):
            raise InputError(f"budget {text!r}: unit {word!r} is not one of {units}")
        return cls(float(amount.replace("_", "")) * factor, unit)

    def __str__(self) -> str:
        return f"{self.total:.6g} {self.unit}"


@dataclass(frozen=True, kw_only=True)
class Slo:
    """Latency targets of one request, in seconds at a percentile; None is no target.

    Raises:
        InputError: A target is not positive, or the percentile is not in (0, 100).
    """

    ttft_s: float | None = None
    tpot_s: float | None = None
    latency_s: float | None = None
    percentile: float = 95.0

    def __post_init__(self) -> None:
        for name in ("ttft_s", "tpot_s", "latency_s"):
            target = getattr(self, name)
            if target is not None and not 0 < target < math.inf:
                raise InputError(f"slo {name} must be positive and finite, got {target}")
        if not 0 < self.percentile < 100:
            raise InputError(f"slo percentile must be in (0, 100), got {self.percentile}")
