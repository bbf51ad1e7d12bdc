"""The latency law on timings simulated from known truth."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom

from planner.models.errors import FitError, InputError
from planner.models.flops import decode_step, prefill_step, read_bytes
from planner.models.latency import LatencyLaw
from planner.models.specs import Architecture

ARCH = Architecture(
    layers=4, hidden=256, heads=8, kv_heads=4, head_dim=32, intermediate=704, vocabulary=32,
    tied_embeddings=True, weight_bytes=4.0, kv_bytes=4.0,
)  # fmt: skip
FLOP_PER_S, BYTES_PER_S = 1e11, 2e10
OVERHEAD_S = {"prefill": 2e-3, "decode": 6e-4}
COMPUTE, WEIGHTS, CACHE = 0.5, 0.9, 0.15
SHAPES = [
    (phase, batch, context)
    for phase in ("prefill", "decode")
    for batch in (1, 8, 32, 128)
    for context in (16, 64, 160)
]


def true_s(phase: str, batch: int, context: int) -> float:
    if phase == "prefill":
        step = prefill_step(ARCH, batch=batch, prompt_tokens=context)
    else:
        step = decode_step(ARCH, batch=batch, context_tokens=context)
    return (
        OVERHEAD_S[phase]
        + step.flop / (COMPUTE * FLOP_PER_S)
        + step.weight_bytes / (WEIGHTS * BYTES_PER_S)
        + step.kv_bytes / (CACHE * BYTES_PER_S)
    )


def fitted(rng: np.random.Generator, sd: float, repeats: int = 1) -> LatencyLaw:
    rows = [shape for shape in SHAPES for _ in range(repeats)]
    noise = np.exp(sd * rng.standard_normal(len(rows)))
    return fit(rows, [true_s(*row) for row in rows] * noise)


def fit(rows: list[tuple[str, int, int]], seconds: object) -> LatencyLaw:
    phase, batch, context = zip(*rows, strict=True)
    return LatencyLaw.fit(
        phase, batch, context, seconds, architecture=ARCH, machine="m",
        flop_per_s=FLOP_PER_S, bytes_per_s=BYTES_PER_S, source="measured",
    )  # fmt: skip


def test_recovers_the_truth_from_clean_timings(rng):
    law = fitted(rng, sd=0.002)
    shapes = [("decode", 16, 100), ("prefill", 16, 100), ("decode", 128, 16)]
    phase, batch, context = zip(*shapes, strict=True)
    mean = law.predict_step(phase, batch, context, rng).mean
    np.testing.assert_allclose(mean, [true_s(*s) for s in shapes], rtol=0.02)
    sds = np.sqrt(np.diag(law.covariance))
    weights_s = read_bytes(ARCH) / (WEIGHTS * BYTES_PER_S)
    fixed_s = [OVERHEAD_S["prefill"] + weights_s, OVERHEAD_S["decode"] + weights_s]
    assert (np.abs(law.log_parameters - np.log([*fixed_s, COMPUTE, CACHE])) < 4 * sds).all()
    assert sds.max() < 0.2  # what the timings decide is decided


def test_a_step_interval_holds_new_shapes_as_often_as_it_says(rng):
    new = [
        ("decode", 4, 40),
        ("decode", 64, 100),
        ("prefill", 16, 30),
        ("prefill", 64, 120),
    ]
    phase, batch, context = zip(*new, strict=True)
    truth, sd, repeats, hits = np.array([true_s(*s) for s in new]), 0.15, 60, 0
    for _ in range(repeats):
        law = fitted(rng, sd)
        low, high = law.predict_step(phase, batch, context, rng).interval(0.9)
        seen = truth * np.exp(sd * rng.standard_normal(len(new)))
        hits += int(((low <= seen) & (seen <= high)).sum())
    # the four shapes of a repeat share a fit, so their hits hang together a little
    trials = repeats * len(new)
    assert binom.ppf(0.0005, trials, 0.9) <= hits <= binom.ppf(0.9995, trials, 0.9)


def test_repeats_of_a_shape_count_as_their_median(rng):
    rows = [shape for shape in SHAPES for _ in range(3)]
    seconds = np.array([true_s(*row) for row in rows])
    clean = fit(rows, seconds)
    seconds[::3] *= 50  # one stall a shape
    stalled = fit(rows, seconds)
    np.testing.assert_allclose(stalled.log_parameters, clean.log_parameters, atol=1e-6)
    assert clean.n_points == len(SHAPES)


def test_a_draw_is_the_sum_of_its_steps(rng):
    law = fitted(rng, sd=0.05)
    parameters = np.exp(law.log_parameters)

    def step_s(phase: str, batch: int, context: int) -> float:
        # the law's own step, from draws that do not vary
        still = replace(law, covariance=np.eye(4) * 1e-24, residual_sd=0.0)
        return float(still.predict_step(phase, batch, context, rng).mean[0])

    for prompt, output, batch in ((20, 1, 1), (20, 30, 1), (33, 17, 64)):
        expected = step_s("prefill", batch, prompt)
        expected += sum(step_s("decode", batch, prompt + i) for i in range(output - 1))
        got = law.draw_s(np.array([prompt]), np.array([output]), batch=batch)
        assert got[0] == pytest.approx(expected, rel=1e-6)
    assert (parameters > 0).all()


def test_extrapolation_is_flagged(rng):
    law = fitted(rng, sd=0.02)
    flags = law.predict_step("decode", [128, 129, 8], [160, 8, 161], rng).extrapolated
    assert flags.tolist() == [False, True, True]


def test_the_file_form_gives_the_law_back(rng):
    law = fitted(rng, sd=0.05)
    back = LatencyLaw.from_fit(law.to_fit(), ARCH)
    prompt, output = np.array([10.0, 40.0]), np.array([5.0, 70.0])
    np.testing.assert_array_equal(
        back.draw_s(prompt, output, batch=8), law.draw_s(prompt, output, batch=8)
    )
    assert back.to_fit() == law.to_fit()
    broken = law.to_fit().model_copy(update={"covariance": ((0.0,) * 4,) * 4})
    with pytest.raises(InputError, match="positive definite"):
        LatencyLaw.from_fit(broken, ARCH)


def test_too_few_shapes_are_not_a_law():
    rows = [s for s in SHAPES if s[0] == "prefill"] + [("decode", 1, 16), ("decode", 8, 16)]
    with pytest.raises(FitError, match="2 timed decode shapes"):
        fit(rows, [true_s(*row) for row in rows])


def test_timings_of_something_else_are_not_a_law(rng):
    seconds = np.exp(3 * rng.standard_normal(len(SHAPES)))
    with pytest.raises(FitError, match="off the latency law"):
        fit(SHAPES, seconds)


@pytest.mark.parametrize("wrong", [0.0, -1.0, np.nan])
def test_times_that_cannot_be_are_refused(wrong):
    with pytest.raises(InputError, match="positive"):
        fit(SHAPES, [wrong, *(true_s(*row) for row in SHAPES[1:])])
