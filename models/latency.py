"""Seconds of an engine step, and of a whole draw, from FLOP and bytes.

A step takes

    s = fixed + flop / (e_c P) + kv_bytes / (e_k BW)

with P and BW the machine's measured ceilings: a sum, not a maximum, as engines overlap the
terms poorly. `fixed`, one for prefill and one for decode, is what a step takes however many
rows it has: its overhead and one reading of the weights, which the timings of one model
cannot tell apart. Amount over ceiling is what Kinetics (arXiv:2506.05333) charges, at
efficiencies of one; servers take a multiple of it, so the four positive parameters are
fitted to log seconds under log-normal priors (maximum a posteriori: a free fit of few
timings extrapolates worse than none).

What the law gives is the typical (median) step of a shape; its spread is the fit's and the
law's own misfit, not the jitter between repeats.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from planner.models.artifact import LatencyFit, SourceName
from planner.models.errors import FitError, InputError
from planner.models.flops import (
    cached_tokens,
    decode_step,
    decode_steps,
    prefill_step,
    read_bytes,
)
from planner.models.prediction import Array, Prediction
from planner.models.specs import Architecture

# Parameters: log fixed seconds of a prefill and of a decode step, log e_c, log e_k. The
# priors' widths are factors of e**2 and e: an interpreter's step against a fused kernel's,
# and an efficiency from a tenth of the ceiling to well over it (small caches stay in L2).
_PRIOR_OVERHEAD_S = 5e-4
_PRIOR_EFFICIENCY = 0.5
_PRIOR_SD = np.array([2.0, 2.0, 1.0, 1.0])
# A fixed time adds, an efficiency divides: seconds = terms @ exp(sign * parameters).
_SIGN = np.array([1.0, 1.0, -1.0, -1.0])
_MIN_CELLS = 4  # shapes a phase; fewer leave nothing to judge the fit by
_MIN_SD = 0.01  # log seconds; below it the clock and the schedule decide
_MAX_SD = 1.5  # log seconds; a law off by a factor of four describes nothing
_N_DRAWS = 1000


@dataclass(frozen=True, eq=False, kw_only=True)
class LatencyLaw:
    """A fitted law of one model on one machine."""

    architecture: Architecture
    machine: str
    flop_per_s: float  # ceilings that the efficiencies multiply
    bytes_per_s: float
    log_parameters: Array  # (4,): log fixed_s of prefill and of decode, log e_c, log e_k
    covariance: Array  # (4, 4), of log_parameters
    residual_sd: float  # of log seconds, between shapes
    batch_max: int
    context_max: int
    n_points: int  # shapes
    source: SourceName

    @classmethod
    def fit(
        cls,
        phase: ArrayLike,
        batch: ArrayLike,
        context_tokens: ArrayLike,
        seconds: ArrayLike,
        *,
        architecture: Architecture,
        machine: str,
        flop_per_s: float,
        bytes_per_s: float,
        source: SourceName,
    ) -> Self:
        """Fit one model's timings on one machine; repeats of a shape count as their median.

        Args:
            phase: "prefill" or "decode" of each row; shape (n_rows,).
            batch: Rows of the step; same shape.
            context_tokens: Prompt length, or tokens in the cache; same shape.
            seconds: Time of the step; same shape.
            architecture: Of the model.
            machine: Id of the machine.
            flop_per_s: The machine's matmul rate.
            bytes_per_s: The machine's memory bandwidth.
            source: Where the rows are from.

        Raises:
            InputError: Rows of different lengths, seconds or ceilings not positive.
            FitError: Too few shapes of a phase, or the timings do not follow the law.
        """
        from scipy.optimize import least_squares  # slow to import, and only fits need it

        phases, rows = np.asarray(phase, str), np.asarray(batch, int)
        contexts, s = np.asarray(context_tokens, int), np.asarray(seconds, float)
        if not phases.shape == rows.shape == contexts.shape == s.shape or s.ndim != 1:
            raise InputError(
                "phase, batch, context_tokens and seconds need one entry a row"
            )
        if not (
            np.isfinite(s).all() and (s > 0).all() and flop_per_s > 0 and bytes_per_s > 0
        ):
            raise InputError("seconds and the machine's ceilings must be positive")
        shapes = sorted(
            set(zip(phases.tolist(), rows.tolist(), contexts.tolist(), strict=True))
        )
        for name in ("prefill", "decode"):
            count = sum(shape[0] == name for shape in shapes)
            if count < _MIN_CELLS:
                raise FitError(
                    f"{count} timed {name} shapes (batch x context) on machine {machine}; "
                    f"the latency law needs {_MIN_CELLS}: time more of them"
                )
        ceilings = np.array([1.0, 1.0, flop_per_s, bytes_per_s])
        terms = np.array([_terms(architecture, *shape) for shape in shapes]) / ceilings
        weights_s = read_bytes(architecture) / (_PRIOR_EFFICIENCY * bytes_per_s)
        fixed_s = _PRIOR_OVERHEAD_S + weights_s
        prior = np.log([fixed_s, fixed_s, _PRIOR_EFFICIENCY, _PRIOR_EFFICIENCY])
        log_s = np.array(
            [
                np.median(np.log(s[(phases == p) & (rows == b) & (contexts == c)]))
                for p, b, c in shapes
            ]
        )

        def misfit(x: Array) -> Array:
            return np.asarray(np.log(terms @ np.exp(_SIGN * x)) - log_s)

        def weighted(x: Array, sd: float) -> Array:
            return np.concatenate([misfit(x) / sd, (x - prior) / _PRIOR_SD])

        def jacobian(x: Array, sd: float) -> Array:
            share = terms * np.exp(_SIGN * x)
            share /= share.sum(axis=1, keepdims=True)
            return np.vstack([_SIGN * share / sd, np.diag(1 / _PRIOR_SD)])

        # The misfit's size weighs the timings against the priors and comes out of the fit
        # itself: a few rounds settle it.
        x, sd = prior.copy(), 0.3
        for _ in range(30):
            best = least_squares(weighted, x, jacobian, args=(sd,), method="lm")
            x, previous = np.asarray(best.x, float), sd
            weight = jacobian(x, sd)
            covariance = np.asarray(np.linalg.inv(weight.T @ weight), float)
            # parameters that the timings, not the priors, decide
            used = len(x) - float(np.sum(np.diag(covariance) / _PRIOR_SD**2))
            free = max(len(shapes) - used, 1.0)
            sd = max(float(np.sqrt(np.sum(misfit(x) ** 2) / free)), _MIN_SD)
            if best.success and abs(sd / previous - 1) < 1e-3:
                break
        else:
            raise FitError(f"the latency fit of machine {machine} does not settle")
        if sd > _MAX_SD:
            raise FitError(
                f"timings on machine {machine} are off the latency law by a factor of "
                f"{np.exp(sd):.1f}; time again on an idle machine"
            )
        return cls(
            architecture=architecture, machine=machine, flop_per_s=flop_per_s,
            bytes_per_s=bytes_per_s, log_parameters=x, covariance=covariance,
            residual_sd=sd, batch_max=int(rows.max()), context_max=int(contexts.max()),
            n_points=len(shapes), source=source,
        )  # fmt: skip

    def predict_step(
        self,
        phase: ArrayLike,
        batch: ArrayLike,
        context_tokens: ArrayLike,
        rng: np.random.Generator,
    ) -> Prediction:
        """Seconds of the typical step of each shape; the spread includes the law's misfit.

        Args:
            phase: "prefill" or "decode"; shape (n_points,), or one for all.
            batch: Rows of the step; the same.
            context_tokens: Prompt length, or tokens in the cache; the same.
            rng: Source of the draws.

        Raises:
            InputError: An unknown phase, or a shape that cannot be.
        """
        names, rows, contexts = np.broadcast_arrays(
            np.atleast_1d(np.asarray(phase, str)),
            np.atleast_1d(np.asarray(batch, int)),
            np.atleast_1d(np.asarray(context_tokens, int)),
        )
        shapes = zip(names.tolist(), rows.tolist(), contexts.tolist(), strict=True)
        ceilings = np.array([1.0, 1.0, self.flop_per_s, self.bytes_per_s])
        terms = np.array([_terms(self.architecture, *shape) for shape in shapes]) / ceilings
        # Student's t: with few shapes the misfit's size is itself uncertain
        free = self.n_points - len(self.log_parameters)
        scale = np.sqrt(free / rng.chisquare(free, _N_DRAWS))[:, None]
        root = np.linalg.cholesky(self.covariance)
        shift = rng.standard_normal((_N_DRAWS, len(root))) @ root.T
        x = self.log_parameters + scale * shift
        noise = self.residual_sd * scale * rng.standard_normal((_N_DRAWS, len(terms)))
        seconds = np.exp(_SIGN * x) @ terms.T * np.exp(noise)
        return Prediction(seconds, "s", self.extrapolates(rows, contexts))

    def extrapolates(
        self, batch: ArrayLike, context_tokens: ArrayLike
    ) -> NDArray[np.bool_]:
        """Whether shapes lie beyond the largest batch or context that was timed."""
        beyond = np.asarray(batch) > self.batch_max
        return np.asarray(beyond | (np.asarray(context_tokens) > self.context_max))

    def draw_s(
        self, prompt_tokens: ArrayLike, output_tokens: ArrayLike, *, batch: int
    ) -> Array:
        """Seconds from submission to the last token of draws in a batch of their like.

        One prefill of the `batch` prompts, then a decode step of `batch` rows for each
        further token: what a draw of an engine kept at that batch waits for, whether the
        prompts come together or in between. Steps are linear in the context, so their sum
        is a closed form.

        Args:
            prompt_tokens: Shape (n,), at least 1; expectations need not be whole.
            output_tokens: Shape (n,).
            batch: Rows of each step.

        Returns:
            Shape (n,).

        Raises:
            InputError: batch is not at least 1.
        """
        prompt, steps = np.asarray(prompt_tokens, float), decode_steps(output_tokens)
        first = self._mean_s("decode", batch, 0)
        growth = self._mean_s("decode", batch, 1) - first
        decode = steps * first + growth * cached_tokens(prompt, output_tokens)
        # A prefill is quadratic in its length: three points give it.
        one, two, three = (self._mean_s("prefill", batch, t) for t in (1, 2, 3))
        bend = (three - 2 * two + one) / 2
        slope = two - one - bend
        return np.asarray(
            one + (prompt - 1) * (slope + bend * (prompt - 1)) + decode, float
        )

    def _mean_s(self, phase: str, batch: int, context_tokens: int) -> float:
        terms = np.array(_terms(self.architecture, phase, batch, context_tokens))
        ceilings = np.array([1.0, 1.0, self.flop_per_s, self.bytes_per_s])
        return float(terms / ceilings @ np.exp(_SIGN * self.log_parameters))

    def to_fit(self) -> LatencyFit:
        """What `laws.json` keeps."""
        return LatencyFit(
            machine=self.machine,
            flop_per_s=self.flop_per_s,
            bytes_per_s=self.bytes_per_s,
            log_parameters=tuple(map(float, self.log_parameters)),
            covariance=tuple(tuple(map(float, row)) for row in self.covariance),
            residual_sd=self.residual_sd,
            batch_max=self.batch_max,
            context_max=self.context_max,
            n_points=self.n_points,
            source=self.source,
        )

    @classmethod
    def from_fit(cls, fit: LatencyFit, architecture: Architecture) -> Self:
        """The law that `to_fit` wrote.

        Raises:
            InputError: It does not hold four parameters and a positive definite covariance.
        """
        parameters, covariance = np.array(fit.log_parameters), np.array(fit.covariance)
        size = len(_PRIOR_SD)
        if parameters.shape != (size,) or covariance.shape != (size, size):
            raise InputError(
                f"a latency law has {size} parameters; run `planner fit` again"
            )
        if (
            not np.allclose(covariance, covariance.T)
            or np.linalg.eigvalsh(covariance)[0] <= 0
        ):
            raise InputError(
                "latency covariance not positive definite; run `planner fit` again"
            )
        return cls(
            architecture=architecture, machine=fit.machine, flop_per_s=fit.flop_per_s,
            bytes_per_s=fit.bytes_per_s, log_parameters=parameters, covariance=covariance,
            residual_sd=fit.residual_sd, batch_max=fit.batch_max,
            context_max=fit.context_max, n_points=fit.n_points, source=fit.source,
        )  # fmt: skip


def _terms(arch: Architecture, phase: str, batch: int, context_tokens: int) -> list[float]:
    """What the parameters multiply or divide: 1 or 0, 0 or 1, FLOP, KV bytes."""
    if phase not in ("prefill", "decode"):
        raise InputError(f"phase {phase!r} is neither prefill nor decode")
    if phase == "prefill":
        step = prefill_step(arch, batch=batch, prompt_tokens=context_tokens)
    else:
        step = decode_step(arch, batch=batch, context_tokens=context_tokens)
    prefill = float(phase == "prefill")
    return [prefill, 1 - prefill, step.flop, step.kv_bytes]
