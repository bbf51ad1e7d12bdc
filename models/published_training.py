"""Published laws of the training loss: size, tokens, parallel streams, bits, lifetime.

- Chinchilla (Hoffmann et al. 2022, arXiv:2203.15556) and its replication (Besiroglu et al.
  2024, arXiv:2404.10102): loss = E + A / N^alpha + B / D^beta.
- Lifetime (Sardana et al. 2024, arXiv:2401.00448): the N and D that reach a loss and serve
  D_inf tokens with the least 6 N D + 2 N D_inf.
- ParScale (Chen et al. 2025, arXiv:2505.10475): P parallel streams count as
  N (k ln P + 1) parameters.
- Precision (Kumar et al. 2024, arXiv:2411.04330): P bits leave N_eff of N parameters.
"""

from dataclasses import dataclass

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

_BISECTIONS = 200  # halvings of an interval in log N; 60 reach the last bit


@dataclass(frozen=True)
class LossLaw:
    """Loss in nats a token: floor + A / N^alpha + B / D^beta."""

    floor: float
    params_scale: float  # A
    params_exponent: float  # alpha
    tokens_scale: float  # B
    tokens_exponent: float  # beta
    source: str
    domain: str = "70 M to 16 B parameters, 5 to 500 B training tokens, one web-text corpus"

    def loss(self, params: ArrayLike, tokens: ArrayLike) -> PublishedValue:
        """Final training loss of N parameters after D tokens.

        Raises:
            InputError: Not positive and finite.
        """
        n, d = positive(params=params, tokens=tokens)
        value = (
            self.floor + self._params_term(n) + self.tokens_scale / d**self.tokens_exponent
        )
        return self._value(value, "nats/token", n, d)

    def tokens_for(self, loss: ArrayLike, params: ArrayLike) -> PublishedValue:
        """Training tokens that bring N parameters to a loss.

        Raises:
            InputError: Not positive, or a loss that no number of tokens reaches.
        """
        target, n = positive(loss=loss, params=params)
        gap = target - self.floor - self._params_term(n)
        if (gap <= 0).any():
            worst = float(n[gap <= 0].flat[0])
            raise InputError(f"{worst:g} parameters do not reach this loss with any data")
        d = (self.tokens_scale / gap) ** (1 / self.tokens_exponent)
        return self._value(d, "tokens", n, d)

    def training_optimum(self, loss: ArrayLike) -> "LifetimePlan":
        """The N and D that reach a loss with the least training compute 6 N D.

        Raises:
            InputError: A loss at or below the floor.
        """
        return self.lifetime_optimum(loss, 0.0)

    def lifetime_optimum(
        self, loss: ArrayLike, inference_tokens: ArrayLike
    ) -> "LifetimePlan":
        """The N and D that reach a loss with the least 6 N D + 2 N D_inf.

        Where a served FLOP costs c times a trained one, c D_inf takes the place of D_inf.

        Args:
            loss: Target, nats a token.
            inference_tokens: D_inf, prompt and output tokens over the model's life.

        Raises:
            InputError: A loss at or below the floor, or a demand below zero.
        """
        target, demand = finite(loss=loss, inference_tokens=inference_tokens)
        if (target <= self.floor).any() or (demand < 0).any():
            raise InputError(
                f"need a loss above the floor {self.floor:g} and a demand >= 0"
            )
        alpha, beta = self.params_exponent, self.tokens_exponent
        gap = target - self.floor
        # parameters alone reach the loss at `low`; without demand the optimum is `high`
        low = np.log(self.params_scale / gap) / alpha
        high = np.log(self.params_scale * (alpha + beta) / (beta * gap)) / alpha
        n = np.exp(high)
        if (demand > 0).any():
            n = np.exp(self._balance(low, high, gap, demand))
        left = gap - self._params_term(n)
        d = (self.tokens_scale / left) ** (1 / beta)
        train, serve = 6 * n * d, 2 * n * demand
        return LifetimePlan(
            self._value(n, "parameters", n, d),
            self._value(d, "tokens", n, d),
            self._value(train, "flop", n, d),
            self._value(serve, "flop", n, d),
        )

    def _balance(self, low: Array, high: Array, gap: Array, demand: Array) -> Array:
        """Log N where D (1 - alpha A N^-alpha / (beta u)) + D_inf / 3 = 0; rises in N."""
        alpha, beta = self.params_exponent, self.tokens_exponent
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            term = self._params_term(np.exp(middle))
            left = np.maximum(gap - term, np.finfo(float).tiny)
            # in logs: near `low` the tokens overflow
            log_d = (np.log(self.tokens_scale) - np.log(left)) / beta
            excess = np.maximum(alpha * term / (beta * left) - 1, np.finfo(float).tiny)
            small = log_d + np.log(excess) > np.log(np.maximum(demand, 1e-300) / 3)
            low, high = np.where(small, middle, low), np.where(small, high, middle)
        return np.asarray((low + high) / 2)

    def _params_term(self, n: Array) -> Array:
        return np.asarray(self.params_scale / n**self.params_exponent)

    def _value(self, value: Array, unit: str, n: Array, d: Array) -> PublishedValue:
        known = within((n, 70e6, 16e9), (d, 5e9, 500e9))
        return PublishedValue(np.asarray(value), unit, self.source, self.domain, known)


@dataclass(frozen=True, eq=False)
class LifetimePlan:
    """A model to train and then serve."""

    params: PublishedValue
    tokens: PublishedValue
    training: PublishedValue  # flop
    serving: PublishedValue  # flop

    @property
    def total_flop(self) -> Array:
        """Training and serving together."""
        return np.asarray(self.training.value + self.serving.value)


CHINCHILLA = LossLaw(
    1.69, 406.4, 0.336, 410.7, 0.283, "arXiv:2203.15556 as in arXiv:2401.00448"
)
CHINCHILLA_REPLICATED = LossLaw(1.8172, 482.01, 0.3478, 2085.43, 0.3658, "arXiv:2404.10102")


@dataclass(frozen=True)
class ParScaleLaw:
    """Loss of P parallel streams: floor + (A / (N (k ln P + 1)))^alpha."""

    corpus: str
    floor: float
    scale: float  # A, parameters
    exponent: float  # alpha
    stream_gain: float  # k
    source: str = "arXiv:2505.10475"
    domain: str = "0.54 to 4.4 B non-embedding parameters, 1 to 8 streams, trained so"

    def loss(self, params: ArrayLike, streams: ArrayLike) -> PublishedValue:
        """Loss, nats a token.

        Raises:
            InputError: Parameters not positive, or streams below 1.
        """
        same = self.equivalent_params(params, streams)
        value = self.floor + (self.scale / same.value) ** self.exponent
        return PublishedValue(
            np.asarray(value), "nats/token", self.source, self.domain, same.in_domain
        )

    def equivalent_params(self, params: ArrayLike, streams: ArrayLike) -> PublishedValue:
        """Parameters that one stream would need for the same loss.

        Raises:
            InputError: Parameters not positive, or streams below 1.
        """
        n, p = positive(params=params, streams=streams)
        if (p < 1).any():
            raise InputError("a model runs at least 1 stream")
        value = n * (self.stream_gain * np.log(p) + 1)
        known = within((n, 5.3e8, 4.42e9), (p, 1, 8))
        return PublishedValue(
            np.asarray(value), "parameters", self.source, self.domain, known
        )


PARSCALE_STACK = ParScaleLaw("Stack-V2 Python", 0.6913, 1.131e7, 0.18940, 0.3934)
PARSCALE_PILE = ParScaleLaw("Pile", 1.2889, 1.973e8, 0.19636, 0.3344)


@dataclass(frozen=True)
class PrecisionLaw:
    """What few bits cost, in training and after it.

    The paper prints its factors as 1 - exp(-P / g) and fits 1 - exp(n - P / g) (appendix
    K). The offsets n matter: with them the best training precision is 7.0 bits, the paper's
    own finding of 7 to 8; without them it would be 3.5.
    """

    weights: tuple[float, float] = (2.6745, 0.3037)  # (g in bits, n)
    activations: tuple[float, float] = (2.2102, 1.4072)
    kv_cache: tuple[float, float] = (0.9578, 2.4185)
    after: tuple[float, float] = (0.5907, 1.1277)  # of rounding the trained weights
    after_scale: float = 0.0598
    after_tokens_exponent: float = 0.5068
    after_params_exponent: float = 0.3439
    source: str = "arXiv:2411.04330"
    domain: str = (
        "30 to 220 M parameters, 1.5 to 26 B tokens, integers of 3 to 12 bits or BF16 "
        "(activations and KV cache from 4); the authors call the trend the finding, not "
        "the constants"
    )

    def effective_params(
        self,
        params: ArrayLike,
        *,
        weight_bits: ArrayLike = 16.0,
        activation_bits: ArrayLike = 16.0,
        kv_bits: ArrayLike = 16.0,
    ) -> PublishedValue:
        """Parameters left of a model trained (not merely served) in these bits.

        Raises:
            InputError: Not positive, or bits so few that training diverges.
        """
        n, w, a, kv = positive(
            params=params, weight_bits=weight_bits, activation_bits=activation_bits,
            kv_bits=kv_bits,
        )  # fmt: skip
        pairs = ((w, self.weights), (a, self.activations), (kv, self.kv_cache))
        factors = [-np.expm1(offset - bits / scale) for bits, (scale, offset) in pairs]
        if any((factor <= 0).any() for factor in factors):
            raise InputError("in so few bits the law has no parameters left; use more")
        known = within((n, 30e6, 220e6), (w, 3, 16), (a, 4, 16), (kv, 4, 16))
        value = n * factors[0] * factors[1] * factors[2]
        return PublishedValue(
            np.asarray(value), "parameters", self.source, self.domain, known
        )

    def rounding_loss(
        self, params: ArrayLike, tokens: ArrayLike, bits: ArrayLike
    ) -> PublishedValue:
        """Loss added by rounding the weights of a BF16-trained model, nats a token.

        C_T D^g_D / N^g_N exp(n - bits / g): it grows with the training tokens D.

        Raises:
            InputError: Not positive and finite.
        """
        n, d, p = positive(params=params, tokens=tokens, bits=bits)
        scale, offset = self.after
        overtraining = d**self.after_tokens_exponent / n**self.after_params_exponent
        value = self.after_scale * overtraining * np.exp(offset - p / scale)
        known = within((n, 30e6, 220e6), (d, 1.5e9, 26e9), (p, 3, 12))
        return PublishedValue(
            np.asarray(value), "nats/token", self.source, self.domain, known
        )


PRECISION = PrecisionLaw()


def _loss_parameters(law: LossLaw) -> tuple[Parameter, ...]:
    return (
        Parameter("E", law.floor, "nats/token", "loss that no model gets below"),
        Parameter("A", law.params_scale, "nats/token", "of the term of the parameters"),
        Parameter("alpha", law.params_exponent, "1", "exponent of the parameters"),
        Parameter("B", law.tokens_scale, "nats/token", "of the term of the tokens"),
        Parameter("beta", law.tokens_exponent, "1", "exponent of the tokens"),
    )


def _parscale(law: ParScaleLaw) -> PublishedLaw:
    return PublishedLaw(
        f"ParScale, {law.corpus}",
        "loss = E + (A / (N (k ln P + 1)))^alpha, for N parameters and P streams",
        (
            Parameter("E", law.floor, "nats/token", "loss that no model gets below"),
            Parameter("A", law.scale, "parameters", "scale"),
            Parameter("alpha", law.exponent, "1", "exponent of the parameters"),
            Parameter("k", law.stream_gain, "1", "gain of e times the streams"),
        ),
        law.domain,
        law.source,
        ("ParScaleLaw.loss", "ParScaleLaw.equivalent_params"),
    )


CATALOGUE: tuple[PublishedLaw, ...] = (
    PublishedLaw(
        "Chinchilla, replicated",
        "loss = E + A / N^alpha + B / D^beta, for N parameters and D training tokens",
        _loss_parameters(CHINCHILLA_REPLICATED),
        CHINCHILLA_REPLICATED.domain,
        CHINCHILLA_REPLICATED.source,
        ("LossLaw.loss", "LossLaw.tokens_for", "LossLaw.training_optimum"),
    ),
    PublishedLaw(
        "Lifetime compute",
        "least 6 N D + 2 N D_inf at a loss, D_inf tokens served; Chinchilla's law",
        _loss_parameters(CHINCHILLA),
        f"{CHINCHILLA.domain}; overstates what tokens bring at many a parameter",
        "arXiv:2401.00448",
        ("LossLaw.lifetime_optimum",),
    ),
    _parscale(PARSCALE_STACK),
    _parscale(PARSCALE_PILE),
    PublishedLaw(
        "Precision",
        "N_eff = N times (1 - exp(n - P / g)) of weights, activations and KV cache; "
        "rounding after training adds C_T D^g_D / N^g_N exp(n - P / g)",
        (
            Parameter("g_w", PRECISION.weights[0], "bits", "sensitivity of weights"),
            Parameter("n_w", PRECISION.weights[1], "1", "offset of weights"),
            Parameter(
                "g_a", PRECISION.activations[0], "bits", "sensitivity of activations"
            ),
            Parameter("n_a", PRECISION.activations[1], "1", "offset of activations"),
            Parameter("g_kv", PRECISION.kv_cache[0], "bits", "sensitivity of the KV cache"),
            Parameter("n_kv", PRECISION.kv_cache[1], "1", "offset of the KV cache"),
            Parameter("C_T", PRECISION.after_scale, "nats/token", "scale of rounding"),
            Parameter("g_D", PRECISION.after_tokens_exponent, "1", "exponent of tokens"),
            Parameter(
                "g_N", PRECISION.after_params_exponent, "1", "exponent of parameters"
            ),
            Parameter("g_post", PRECISION.after[0], "bits", "sensitivity to rounding"),
            Parameter("n_post", PRECISION.after[1], "1", "offset of rounding"),
        ),
        PRECISION.domain,
        PRECISION.source,
        ("PrecisionLaw.effective_params", "PrecisionLaw.rounding_loss"),
    ),
)
