"""Budget and Slo: what may be spent, and how fast it must be."""

import re
from dataclasses import dataclass
from typing import Self

from planner.models.cost import UNITS
from planner.models.errors import InputError

_ALIASES = {
    "token": "tokens", "tok": "tokens", "$": "usd", "dollar": "usd", "dollars": "usd",
    "sec": "s", "second": "s", "seconds": "s", "flops": "flop", "byte": "bytes",
}  # fmt: skip
_PREFIXES = {"k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "p": 1e15, "": 1.0}
_AMOUNT = re.compile(r"\s*([$]?)\s*([0-9][0-9_]*\.?[0-9]*(?:e[+-]?[0-9]+)?|\.[0-9]+)\s*(.*?)\s*$", re.I)


@dataclass(frozen=True)
class Budget:
    """The most that may be spent, in one unit.

    tokens: prompt and output; s: seconds of request time, added over draws; usd; flop; bytes
    moved; eflop: FLOP plus bytes times the machine's intensity (Kinetics, arXiv:2506.05333).
    """

    total: float
    unit: str

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise InputError(f"budget unit {self.unit!r} is not one of {', '.join(UNITS)}")
        if not 0 < self.total < float("inf"):
            raise InputError(f"a budget must be positive and finite, got {self.total}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "0.002 usd", "$5", "200k tokens", "90 s" or "3 Teflop".

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
        for prefix, factor in _PREFIXES.items():
            if not word.startswith(prefix):
                continue
            rest = word.removeprefix(prefix).strip()
            unit = _ALIASES.get(rest, rest)
            if unit in UNITS:
                # the bare unit wins over prefix + unit ("s" is not "kilo nothing")
                bare = _ALIASES.get(word, word)
                if bare in UNITS:
                    return cls(float(amount.replace("_", "")), bare)
                return cls(float(amount.replace("_", "")) * factor, unit)
        raise InputError(f"budget {text!r}: unit {word!r} is not one of {units}")

    def __str__(self) -> str:
        return f"{self.total:.6g} {self.unit}"


@dataclass(frozen=True, kw_only=True)
class Slo:
    """Latency targets of one request, in seconds at a percentile; None is no target."""

    ttft_s: float | None = None
    tpot_s: float | None = None
    latency_s: float | None = None
    percentile: float = 95.0
