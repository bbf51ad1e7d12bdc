"""FLOP and bytes against figures counted by hand and against explicit loops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.models.errors import InputError
from planner.models.flops import (
    decode_step,
    draw_steps,
    kv_bytes_per_token,
    parameters,
    prefill_step,
)
from planner.models.roofline import ridge_flop_per_byte, step_floor_s
from planner.models.specs import Architecture

SMALL = Architecture(
    layers=2, hidden=4, heads=2, kv_heads=1, head_dim=3, intermediate=5, vocabulary=7,
    tied_embeddings=False, weight_bytes=2.0, kv_bytes=4.0,
)  # fmt: skip
# Qwen3-8B's config, but for its few query and key norms
QWEN3_8B = Architecture(
    layers=36, hidden=4096, heads=32, kv_heads=8, head_dim=128, intermediate=12288,
    vocabulary=151936, tied_embeddings=False,
)  # fmt: skip
# by hand: q and o 4x6 each, k and v 4x3 each, three of 4x5: 132 a layer
LAYERS = 2 * 132
HEAD = 7 * 4
NORMS = 5 * 4


def test_parameters_counted_by_hand():
    assert parameters(SMALL) == LAYERS + NORMS + 2 * HEAD
    assert parameters(QWEN3_8B) == pytest.approx(
        8.19e9, rel=1e-3
    )  # the model card's figure


def test_kv_cache_of_a_published_model():
    # Kinetics (arXiv:2506.05333), table 1: 32k tokens of Qwen3-8B take 4.5 GiB
    assert kv_bytes_per_token(QWEN3_8B) * 32768 / 2**30 == pytest.approx(4.5)


def test_decode_step_counted_by_hand():
    step = decode_step(SMALL, batch=3, context_tokens=10)
    # attention: 2 layers, 2 heads, 3 dims, score and sum, multiply and add, 11 keys
    assert step.flop == 3 * (2 * LAYERS + 2 * HEAD + 2 * 2 * 3 * 4 * 11)
    assert step.weight_bytes == 2 * (LAYERS + NORMS + HEAD)
    assert step.kv_bytes == 3 * 4 * (2 * 2 * 1 * 3) * (10 + 1)
    assert step.moved_bytes == step.weight_bytes + step.kv_bytes


def test_prefill_is_its_tokens_decoded_but_for_heads_and_rereading():
    tokens = 9
    prefill = prefill_step(SMALL, batch=4, prompt_tokens=tokens)
    decoded = [decode_step(SMALL, batch=4, context_tokens=c) for c in range(tokens)]
    heads = 4 * (tokens - 1) * 2 * HEAD  # only the last token has logits
    assert prefill.flop == sum(s.flop for s in decoded) - heads
    assert prefill.weight_bytes == decoded[0].weight_bytes
    assert prefill.kv_bytes == 4 * 2 * tokens * kv_bytes_per_token(SMALL)


@given(prompt=st.integers(1, 60), output=st.integers(1, 80), batch=st.integers(1, 300))
def test_a_draw_is_the_sum_of_its_steps(prompt: int, output: int, batch: int):
    steps = [prefill_step(SMALL, batch=batch, prompt_tokens=prompt)]
    steps += [
        decode_step(SMALL, batch=batch, context_tokens=prompt + i)
        for i in range(output - 1)
    ]
    flop, moved = draw_steps(SMALL, np.array([prompt]), np.array([output]), batch=batch)
    assert flop[0] == pytest.approx(sum(s.flop for s in steps) / batch, rel=1e-12)
    assert moved[0] == pytest.approx(sum(s.moved_bytes for s in steps) / batch, rel=1e-12)


def test_long_generations_approach_kinetics():
    # dense compute of N trials: 2 P L + 2 (2 Lin + L) L H D, with D = head_dim x layers
    prompt, output = 512, 16384
    arch = QWEN3_8B
    flop, moved = draw_steps(arch, np.array([prompt]), np.array([output]), batch=10**9)
    pair = 2 * (2 * prompt + output) * output * arch.head_dim * arch.layers
    prefill = prefill_step(arch, batch=1, prompt_tokens=prompt).flop
    table = (
        arch.vocabulary * arch.hidden
    )  # the paper counts the embedding's lookup as a product
    kinetics = 2 * (parameters(arch) - table) * output + pair * arch.heads + prefill
    assert flop[0] == pytest.approx(kinetics, rel=1e-3)
    assert moved[0] == pytest.approx(2 * pair / 2 * arch.kv_heads, rel=1e-2)


def test_steps_that_cannot_be_are_refused():
    for wrong in (
        lambda: prefill_step(SMALL, batch=0, prompt_tokens=1),
        lambda: prefill_step(SMALL, batch=1, prompt_tokens=0),
        lambda: decode_step(SMALL, batch=1, context_tokens=-1),
        lambda: draw_steps(SMALL, np.ones(1), np.ones(1), batch=0),
    ):
        with pytest.raises(InputError):
            wrong()


def test_roofline_switches_sides_at_the_ridge():
    step = decode_step(SMALL, batch=1, context_tokens=0)
    intensity = step.flop / step.moved_bytes
    ridge = ridge_flop_per_byte(flop_per_s=intensity * 5.0, bytes_per_s=5.0)
    assert ridge == pytest.approx(intensity)
    at_ridge = step_floor_s(step, flop_per_s=intensity * 5.0, bytes_per_s=5.0)
    assert at_ridge == pytest.approx(step.flop / (intensity * 5.0))
    slower_memory = step_floor_s(step, flop_per_s=intensity * 5.0, bytes_per_s=2.5)
    assert slower_memory == pytest.approx(2 * at_ridge)
    faster_memory = step_floor_s(step, flop_per_s=intensity * 5.0, bytes_per_s=50.0)
    assert faster_memory == pytest.approx(at_ridge)
    with pytest.raises(InputError, match="positive"):
        step_floor_s(step, flop_per_s=1.0, bytes_per_s=0.0)
