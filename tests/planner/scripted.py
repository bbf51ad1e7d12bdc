"""An engine that says what it is told to, and what the tests of the executor share."""

import math
import random
from collections import defaultdict
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from planner.engines.base import Finished
from planner.executor import Executor
from planner.ledger import Ledger
from planner.limits import Budget
from planner.models.cost import UNITS, CostModel
from planner.models.errors import ServingError
from planner.models.latency import LatencyLaw
from planner.models.records import Draw, Problem
from planner.models.specs import Architecture, Prices
from planner.plan import Option


class ScriptedEngine:
    """An engine whose texts are `script(prompt, seed)`: a token a character, one to end.

    A step gives each running draw one token. `faults` maps (prompt, attempt) to an error.
    """

    version = "scripted 1"
    max_context_tokens = None

    def __init__(self, model, script, *, faults=None, undercount=0):
        self.model = model
        self.script, self.faults = script, faults or {}
        self.undercount = undercount  # prompt tokens that count_tokens leaves out
        self.requests, self.cancelled_tokens, self.opened = [], 0, []
        self.attempts = defaultdict(int)

    def count_tokens(self, text):
        return len(text) + 1

    def session(self):
        self.opened.append(ScriptedSession(self))
        return self.opened[-1]

    def close(self):
        pass


@dataclass
class Running:
    key: int
    request: object
    text: str
    error: ServingError | None
    tokens: int = 0

    def finish(self, reason, prompt_tokens):
        return Finished(
            self.key, 0,
            Draw(text=self.text[: self.tokens], finish_reason=reason,
                 prompt_tokens=prompt_tokens, output_tokens=self.tokens,
                 ttft_s=0.1, latency_s=0.1 * self.tokens),
            self.error if reason == "cancelled" and self.error else None,
        )  # fmt: skip


@dataclass
class ScriptedSession:
    engine: ScriptedEngine
    running: list = field(default_factory=list)
    ended: list = field(default_factory=list)
    keys: set = field(default_factory=set)
    closed: bool = False
    most: int = 0

    @property
    def outstanding(self):
        return len(self.running) + len(self.ended)

    def submit(self, key, request):
        assert key not in self.keys
        assert not self.closed
        self.keys.add(key)
        engine = self.engine
        engine.requests.append(request)
        attempt = engine.attempts[request.prompt, request.seed]
        engine.attempts[request.prompt, request.seed] += 1
        error = engine.faults.get((request.prompt, attempt)) or engine.faults.get("all")
        text = engine.script(request.prompt, request.seed)
        self.running.append(Running(key, request, text, error))
        self.most = max(self.most, self.outstanding)

    def _end(self, draw, reason):
        self.running.remove(draw)
        prompt_tokens = len(draw.request.prompt) + 1 + self.engine.undercount
        if reason == "cancelled" and draw.error is None:
            self.engine.cancelled_tokens += prompt_tokens + draw.tokens
        self.ended.append(draw.finish(reason, prompt_tokens))

    def cancel(self, key):
        for draw in [d for d in self.running if d.key == key]:
            draw.error = None
            self._end(draw, "cancelled")

    def poll(self, timeout_s=1.0):
        if not self.ended:
            for draw in list(self.running):
                draw.tokens += 1
                if draw.error is not None and draw.tokens == 2:
                    self._end(draw, "cancelled")
                elif draw.tokens > len(draw.text):
                    self._end(draw, "stop")
                elif draw.tokens == draw.request.max_tokens:
                    self._end(draw, "length")
        ended, self.ended = self.ended, []
        return ended

    def close(self):
        self.closed = True
        self.running.clear()

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self.close()


def digits(prompt, seed):
    """A text of 0 to 11 digits, by the seed alone."""
    source = random.Random(seed)
    return "".join(source.choice("12") for _ in range(source.randrange(12)))


SIZE = Architecture(
    layers=2, hidden=32, heads=4, kv_heads=2, head_dim=8, intermediate=64, vocabulary=32,
    tied_embeddings=False, weight_bytes=4.0, kv_bytes=4.0,
)  # fmt: skip
COSTS = CostModel(
    architecture=SIZE,
    prices=Prices(usd_per_input_token=1e-6, usd_per_output_token=3e-6, source="a test"),
    latency=LatencyLaw(
        architecture=SIZE, machine="box", flop_per_s=1e11, bytes_per_s=2e10,
        log_parameters=np.log([1e-3, 5e-4, 0.5, 0.3]), covariance=np.eye(4) * 1e-4,
        residual_sd=0.05, batch_max=128, context_max=160, n_points=24, source="assumed",
    ),
    intensity_flop_per_byte=10.0, reference_batch=8,
)  # fmt: skip


def option(strategy="single", n=1, model="m", max_tokens=16, temperature=1.0):
    return Option(
        model=model, strategy=strategy, n=n, max_tokens=max_tokens, temperature=temperature
    )


def problems(count, verifier="exact", reference="1"):
    return [
        Problem(problem_id=f"p{i}", task="t", prompt=f"q{i:03d}:", verifier=verifier,
                reference=reference)
        for i in range(count)
    ]  # fmt: skip


def countdowns(count):
    """Half of the time `4+6=10` is drawn, which is right."""
    return [
        Problem(
            problem_id=f"c{i}", task="countdown", prompt="C4,6>10:", verifier="countdown"
        )
        for i in range(count)
    ]


def coin(prompt, seed):
    return "4+6=10" if random.Random(seed).random() < 0.5 else "4*6=24"


def executor(*engines, budget="1e9 tokens", costs=COSTS, **settings_):
    ledger = Ledger(Budget.parse(budget) if isinstance(budget, str) else budget)
    made = Executor(
        engines={engine.model: engine for engine in engines},
        cost_models={engine.model: costs for engine in engines},
        ledger=ledger, backoff_s=0.0, **settings_,
    )  # fmt: skip
    return made, ledger


def always(chosen):
    return lambda problem, remaining, left: chosen


def stripped(results):
    """Results without what a clock wrote."""
    return [
        replace(result, samples=tuple(replace(s, measured_at="") for s in result.samples))
        for result in results
    ]


def check_books(results, ledger):
    """Costs of the results add up to the ledger, and to their rows where nothing failed."""
    for unit in UNITS:
        total = math.fsum(result.cost.in_unit(unit) for result in results)
        assert total == pytest.approx(ledger.spent.in_unit(unit), rel=1e-9)
    assert sum(result.draws for result in results) == ledger.draws
    assert sum(result.cancelled_draws for result in results) == ledger.cancelled_draws
    assert ledger.reserved == 0
