"""What a draw costs, in every unit a budget may have.

eFLOP adds memory access to compute in one currency: FLOP + bytes moved x the machine's
intensity (Kinetics, arXiv:2506.05333). Weight reads are shared by the rows of a decode
batch; how many is an assumption that the laws record.
"""

from dataclasses import astuple, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from planner.models.artifact import Laws
from planner.models.errors import InputError, NotMeasuredError
from planner.models.flops import draw_steps
from planner.models.latency import LatencyLaw
from planner.models.prediction import Array
from planner.models.specs import Architecture, Prices

UNITS = ("tokens", "s", "usd", "flop", "bytes", "eflop")


@dataclass(frozen=True, kw_only=True)
class Cost:
    """One cost in every unit; NaN where the unit is not known for the model."""

    tokens: float = 0.0  # prompt and output
    s: float = 0.0  # request time, added over draws
    usd: float = 0.0
    flop: float = 0.0
    bytes: float = 0.0  # moved: weights and KV
    eflop: float = 0.0

    def __add__(self, other: Self) -> "Cost":
        return Cost(**{unit: getattr(self, unit) + getattr(other, unit) for unit in UNITS})

    def scaled(self, factor: float) -> "Cost":
        """Every unit times `factor`."""
        return Cost(**{u: v * factor for u, v in zip(UNITS, astuple(self), strict=True)})

    def in_unit(self, unit: str) -> float:
        """The amount in one unit.

        Raises:
            NotMeasuredError: The unit is not known for the model.
        """
        amount = float(getattr(self, unit))
        if np.isnan(amount):
            needs = "prices" if unit == "usd" else "its architecture and timings"
            raise NotMeasuredError(f"cost in {unit} is not known: the model lacks {needs}")
        return amount


@dataclass(frozen=True, kw_only=True)
class CostModel:
    """Cost of draws of one model on one machine."""

    architecture: Architecture | None
    prices: Prices | None
    latency: LatencyLaw | None
    intensity_flop_per_byte: float | None  # None: no machine was measured
    reference_batch: int

    @classmethod
    def of(cls, laws: Laws, model: str) -> Self:
        """What the laws know of a model's cost.

        Raises:
            NotMeasuredError: The laws do not have the model.
            InputError: Its architecture lacks a dimension.
        """
        law = next((m for m in laws.models if m.model == model), None)
        if law is None:
            known = ", ".join(m.model for m in laws.models)
            raise NotMeasuredError(f"model {model!r} is not in the laws; known are {known}")
        architecture, latency, prices = None, None, None
        if law.architecture is not None:
            # numbers come as floats; the dimensions are ints
            given: dict[str, Any] = {
                name: value if name in ("weight_bytes", "kv_bytes") else int(value)
                for name, value in law.architecture.items()
            }
            given["tied_embeddings"] = bool(given.get("tied_embeddings"))
            try:
                architecture = Architecture(**given)
            except TypeError as error:
                raise InputError(
                    f"laws: models: {model}: architecture: {error}; run `planner fit` again"
                ) from None
            if law.latency is not None:
                latency = LatencyLaw.from_fit(law.latency, architecture)
        if law.usd_per_input_token is not None and law.usd_per_output_token is not None:
            prices = Prices(
                usd_per_input_token=law.usd_per_input_token,
                usd_per_output_token=law.usd_per_output_token,
                source=law.price_source,
            )
        return cls(
            architecture=architecture, prices=prices, latency=latency,
            intensity_flop_per_byte=laws.intensity_flop_per_byte,
            reference_batch=laws.reference_batch,
        )  # fmt: skip

    def of_draws(self, prompt_tokens: ArrayLike, output_tokens: ArrayLike) -> Array:
        """Cost of draws that each prefill their prompt.

        Args:
            prompt_tokens: Shape (n,), or a scalar.
            output_tokens: Shape (n,), or a scalar.

        Returns:
            (n, 6), columns in the order of UNITS; NaN where a unit is not known.
        """
        prompt, output = np.broadcast_arrays(
            np.atleast_1d(np.asarray(prompt_tokens, float)),
            np.atleast_1d(np.asarray(output_tokens, float)),
        )
        table = np.full((len(prompt), len(UNITS)), np.nan)
        table[:, 0] = prompt + output
        if self.latency is not None:
            table[:, 1] = self.latency.draw_s(prompt, output, batch=self.reference_batch)
        if self.prices is not None:
            table[:, 2] = (
                prompt * self.prices.usd_per_input_token
                + output * self.prices.usd_per_output_token
            )
        if self.architecture is not None:
            flop, moved = draw_steps(
                self.architecture, prompt, output, batch=self.reference_batch
            )
            table[:, 3], table[:, 4] = flop, moved
            if self.intensity_flop_per_byte is not None:
                table[:, 5] = flop + self.intensity_flop_per_byte * moved
        return table

    def of_draw(self, prompt_tokens: int, output_tokens: int) -> Cost:
        """Cost of one draw."""
        row = self.of_draws(prompt_tokens, output_tokens)[0]
        return Cost(**dict(zip(UNITS, map(float, row), strict=True)))
