"""Cost of draws in every unit, recomputed independently."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.models.cost import UNITS, Cost, CostModel
from planner.models.errors import NotMeasuredError
from planner.models.flops import draw_steps
from planner.models.latency import LatencyLaw
from planner.models.specs import Architecture, Prices

ARCH = Architecture(
    layers=4, hidden=128, heads=4, kv_heads=4, head_dim=32, intermediate=352, vocabulary=32,
    tied_embeddings=True, weight_bytes=4.0, kv_bytes=4.0,
)  # fmt: skip
PRICES = Prices(usd_per_input_token=2e-6, usd_per_output_token=7e-6, source="test")
LAW = LatencyLaw(
    architecture=ARCH, machine="m", flop_per_s=1e11, bytes_per_s=2e10,
    log_parameters=np.log([1e-3, 5e-4, 0.5, 0.3]), covariance=np.eye(4) * 1e-4,
    residual_sd=0.05, batch_max=128, context_max=160, n_points=24, source="measured",
)  # fmt: skip
FULL = CostModel(
    architecture=ARCH, prices=PRICES, latency=LAW, intensity_flop_per_byte=6.0,
    reference_batch=32,
)  # fmt: skip


def test_every_unit_of_one_draw():
    cost = FULL.of_draw(20, 50)
    flop, moved = draw_steps(ARCH, np.array([20.0]), np.array([50.0]), batch=32)
    assert cost.tokens == 70
    assert cost.usd == pytest.approx(20 * 2e-6 + 50 * 7e-6)
    assert (cost.flop, cost.bytes) == (flop[0], moved[0])
    assert cost.eflop == pytest.approx(flop[0] + 6.0 * moved[0])
    assert cost.s == LAW.draw_s(np.array([20.0]), np.array([50.0]), batch=32)[0]


def test_a_table_is_its_rows():
    prompt, output = np.array([5.0, 20.0, 31.0]), np.array([1.0, 64.0, 7.0])
    table = FULL.of_draws(prompt, output)
    for row, p, o in zip(table, prompt, output, strict=True):
        one = FULL.of_draw(int(p), int(o))
        np.testing.assert_allclose(row, [one.in_unit(unit) for unit in UNITS])


def test_unknown_units_are_said_not_guessed():
    bare = CostModel(
        architecture=None, prices=None, latency=None, intensity_flop_per_byte=6.0,
        reference_batch=32,
    )  # fmt: skip
    cost = bare.of_draw(10, 10)
    assert cost.in_unit("tokens") == 20
    with pytest.raises(NotMeasuredError, match="prices"):
        cost.in_unit("usd")
    for unit in ("s", "flop", "bytes", "eflop"):
        with pytest.raises(NotMeasuredError, match="architecture"):
            cost.in_unit(unit)


@given(prompt=st.integers(1, 200), output=st.integers(1, 200), more=st.integers(1, 50))
def test_longer_draws_cost_more_in_every_unit(prompt: int, output: int, more: int):
    base, longer, wider = FULL.of_draws(
        [prompt, prompt, prompt + more], [output, output + more, output]
    )
    assert (longer > base).all()
    assert (wider > base).all()


def test_costs_add_and_scale():
    one = FULL.of_draw(20, 50)
    both = one + one
    assert both == one.scaled(2.0)
    assert Cost() + one == one
