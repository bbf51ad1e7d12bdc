"""Rows that calibration and the executor share: problem, draw, sample, timing, machine."""

from dataclasses import dataclass
from typing import Literal

Source = Literal["measured", "transferred", "assumed"]
FinishReason = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One item of a task, and how an answer to it is graded."""

    problem_id: str
    task: str
    prompt: str
    verifier: str  # a name registered in planner.verifiers
    reference: str = ""  # right answer, where the verifier needs one


@dataclass(frozen=True, kw_only=True)
class Draw:
    """One response of a model, as an engine returns it."""

    text: str  # without the stop string and special tokens
    finish_reason: FinishReason  # "cancelled": dropped on request; its tokens were paid for
    prompt_tokens: int
    output_tokens: int  # generated, the end-of-sequence token included
    ttft_s: float  # from submission to the first token
    latency_s: float  # from submission to the last token
    logprobs: tuple[float, ...] | None = None  # one an output token; nats at temperature 1


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One graded draw: a row of `measurements/samples`.

    None, and an empty prompt or text, is what the file of an imported draw did not tell;
    draws made here know all but score and logprob.
    """

    model: str
    task: str
    problem_id: str
    prompt: str
    temperature: float
    top_p: float | None
    max_tokens: int | None
    draw: int  # index among the draws of this (model, problem, temperature)
    seed: int | None
    text: str
    answer: str  # extracted by the verifier; "" when there is none
    correct: bool
    score: float | None  # of a scored verifier, a log-odds; None when not scored
    finish_reason: FinishReason | None
    prompt_tokens: int | None
    output_tokens: int | None
    ttft_s: float | None
    latency_s: float | None
    logprob: float | None  # sum over the output tokens, nats
    engine: str  # "embedded 0.1.0", "imported from runs.jsonl"
    machine: str  # id of a row of `measurements/machines`; "import ..." names a file
    source: Source
    measured_at: str  # ISO 8601, UTC; imported where the file has no date


@dataclass(frozen=True, kw_only=True)
class Timing:
    """One timed engine step: a row of `measurements/timings`."""

    model: str
    phase: Literal["prefill", "decode"]
    batch: int
    context_tokens: int  # prefill: prompt length; decode: tokens already in the cache
    repeat: int
    seconds: float  # of one step: the whole prefill, or one decoded token for each row
    flop: float
    moved_bytes: float  # weights and KV, read and written
    kv_bytes: float  # the KV part of moved_bytes
    engine: str
    machine: str
    source: Source
    measured_at: str


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where rows were measured, and its ceilings: a row of `measurements/machines`."""

    machine: str  # short hash of what follows, the ceilings aside
    device: str  # "AMD EPYC 9555, 2 cores", "NVIDIA H200"
    cores: int
    memory_bytes: float
    os: str
    python: str
    numpy: str
    blas: str
    flop_per_s: float  # measured fp32 matmul rate
    bytes_per_s: float  # measured read bandwidth
    source: Source
    measured_at: str
