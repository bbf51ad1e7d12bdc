"""The search finds settings between the measured ones, and keeps them only if worth it."""

import math
import time
from dataclasses import replace

import numpy as np
import optuna
import pytest

from planner.allocate import Ladder
from planner.candidates import candidates
from planner.limits import Slo
from planner.models.artifact import LatencyFit
from planner.models.cost import UNITS
from planner.models.joint_fill import SD
from planner.options import build_options, known_groups
from planner.search import search_options

EFLOP = UNITS.index("eflop")


@pytest.fixture
def coarse(known_laws, rng):
    """Laws that measured n = 1 and 16 alone, with next to no noise; voting helps a lot."""
    laws = known_laws(rng, n_problems=400, true_problems=50).laws

    def ends(curve):
        if len(curve.n) == 1:
            return curve.model_copy(update={"accuracy_sd": (1e-4,)})
        kept = {"n": (1, 16), "accuracy_sd": (1e-4, 1e-4)}
        for name in ("accuracy", "draws", "output_tokens", "output_tokens_sd"):
            values = getattr(curve, name)
            kept[name] = (values[0], values[-1])
        single = kept["accuracy"][0]
        kept["accuracy"] = (single, single + 0.6 * (1 - single))
        return curve.model_copy(update=kept)

    cells = tuple(
        c.model_copy(update={"curves": tuple(map(ends, c.curves))}) for c in laws.cells
    )
    laws = laws.model_copy(update={"cells": cells})
    return build_options(laws, known_groups(laws), rng)


def accuracy_at(table, per_prompt):
    ladder = Ladder.of_options(
        table.group, table.column("eflop"), table.accuracy, len(table.groups)
    )
    shares = np.full(len(table.groups), 1 / len(table.groups))
    return ladder.allocate(shares, per_prompt)


def test_it_finds_the_n_between_two_measured_ones(coarse):
    # voting's cost is linear in n and its accuracy, as read, in log n: there is a best n
    # between the measured 1 and 16 wherever the price lies between the slopes at the ends
    g = coarse.groups.index(("sums", 0))
    rows = [
        i for i in coarse.rows_of[g].tolist()
        if coarse.points[i].option.model == "small"
        and coarse.points[i].option.max_tokens == 64
        and coarse.points[i].option.temperature == 0.6
    ]  # fmt: skip
    one, many = sorted(rows, key=lambda i: coarse.points[i].option.n)
    rise = coarse.accuracy[many] - coarse.accuracy[one]
    per_draw = coarse.cost[one, EFLOP]
    best_n = 5.0
    price = rise / math.log(16) / best_n / per_draw
    alone = coarse.take(np.array([*rows, *np.concatenate(
        [r[:1] for i, r in enumerate(coarse.rows_of) if i != g]).tolist()]))  # fmt: skip
    found = search_options(
        alone, "eflop", price, np.random.default_rng(0), groups=[g], trials=60
    )
    new = found.points[len(alone) :]
    assert new, "nothing found"
    assert all(4 <= p.option.n <= 7 for p in new[:1])
    assert all(p.origin == "optuna" and p.group == ("sums", 0) for p in new)
    worth = found.accuracy - price * found.cost[:, EFLOP]
    assert worth[len(alone)] > worth[[0, 1]].max() + 1e-3


def of_small(table):
    small = [i for i, p in enumerate(table.points) if p.option.model == "small"]
    return table.take(np.array(small))


def test_what_it_finds_raises_accuracy_at_the_same_budget(coarse):
    coarse, budget = of_small(coarse), 2e8
    before = accuracy_at(coarse, budget)
    found = search_options(
        coarse, "eflop", before.shadow_price, np.random.default_rng(0), trials=120
    )
    after = accuracy_at(found, budget)
    assert after.accuracy > before.accuracy + 1e-3
    assert after.spend <= budget * (1 + 1e-9)


def test_a_full_grid_leaves_little_to_find(known_laws, rng):
    # chords between measured caps and temperatures promise nothing a mixture does not
    table = build_options(
        laws := known_laws(rng, true_problems=50).laws, known_groups(laws), rng
    )
    before = accuracy_at(table, 1.5e8)
    found = search_options(
        table, "eflop", before.shadow_price, np.random.default_rng(0), trials=120
    )
    gain = accuracy_at(found, 1.5e8).accuracy - before.accuracy
    assert 0 <= gain < 0.01


def test_a_seed_gives_the_same_options_and_logging_is_left_alone(coarse):
    level = optuna.logging.get_verbosity()
    runs = [
        search_options(
            coarse, "eflop", 1e-9, np.random.default_rng(4), groups=[0, 1], trials=60
        )
        for _ in range(2)
    ]
    assert runs[0].points == runs[1].points
    assert optuna.logging.get_verbosity() == level


def test_models_without_the_unit_are_never_suggested(known_laws, rng):
    laws = known_laws(rng, priced=("small",), true_problems=50).laws
    table = build_options(laws, [("sums", 0)], rng)
    table = table.take(np.flatnonzero(np.isfinite(table.column("usd"))))
    found = search_options(table, "usd", 1e3, np.random.default_rng(0), trials=30)
    assert {p.option.model for p in found.points} == {"small"}


def test_there_is_nothing_to_search_in_a_single_setting(known_laws, rng):
    laws = known_laws(rng, true_problems=50).laws
    table = build_options(laws, [("sums", 0)], rng)
    only = table.take(table.rows_of[0][:1])
    assert search_options(only, "eflop", 0.0, np.random.default_rng(0)) is only


def test_a_guard_keeps_uncertain_options_out(coarse):
    coarse = of_small(coarse)
    before = accuracy_at(coarse, 2e8)
    certain = search_options(
        coarse, "eflop", before.shadow_price, np.random.default_rng(0), trials=90
    )

    def doubtful(law):
        grids = {name: replace(g, values=g.values.copy()) for name, g in law.grids.items()}
        for grid in grids.values():
            grid.values[..., SD] = np.where(grid.ns > 1, 0.3, grid.values[..., SD])
        return replace(law, grids=grids)

    unsure = replace(coarse, laws={key: doubtful(law) for key, law in coarse.laws.items()})
    found = search_options(
        unsure, "eflop", before.shadow_price, np.random.default_rng(0), trials=90
    )
    assert len(found) < len(certain)


def test_what_it_finds_is_as_fast_as_asked(known_laws, rng):
    laws = known_laws(rng, true_problems=50).laws
    timing = LatencyFit(
        machine="m", flop_per_s=1e11, bytes_per_s=1e10,
        log_parameters=(-7.0, -7.0, -0.7, -0.7),
        covariance=tuple(tuple(0.01 * (i == j) for j in range(4)) for i in range(4)),
        residual_sd=0.1, batch_max=128, context_max=160, n_points=20, source="measured",
    )  # fmt: skip
    cells = tuple(
        c.model_copy(update={"curves": tuple(
            k.model_copy(update={"accuracy_sd": (1e-4,) * len(k.n)}) for k in c.curves
        )})
        for c in laws.cells if c.model == "small"
    )  # fmt: skip
    models = (laws.models[0].model_copy(update={"latency": timing}),)
    laws = laws.model_copy(update={"cells": cells, "models": models})
    table = build_options(laws, [("sums", 0)], rng)
    # all n are fast enough under the small cap, half of them under the large one
    many = max(s for p, s in zip(table.points, table.latency_s(95), strict=True)
               if p.option.max_tokens == 32)  # fmt: skip
    slo = Slo(latency_s=1.1 * float(many))
    kept, _ = candidates(table, "eflop", slo)
    assert 0 < len(kept) < len(table)

    def seconds_found(**more):
        found = search_options(
            kept, "eflop", 0.0, np.random.default_rng(0), trials=60, **more
        )
        return found.latency_s(95)[len(kept) :]

    assert (seconds_found() > slo.latency_s).any()
    assert (seconds_found(slo=slo) <= slo.latency_s).all()


def test_it_takes_seconds(known_laws, rng):
    laws = known_laws(rng, true_problems=50).laws
    table = build_options(laws, [("sums", 0)], rng)
    start_s = time.process_time()
    search_options(table, "eflop", 1e-9, np.random.default_rng(0), trials=60)
    assert time.process_time() - start_s < 60 * 0.03  # about 0.006 a trial on an idle core
