"""Time prefill and decode steps of an engine over a grid of batch and context.

Engines that can run one step at a time (`StepTimer`) are timed step by step; a server is
timed from outside, by what its concurrent draws report.
"""

from collections.abc import Callable, Sequence
from itertools import product
from typing import Literal

import numpy as np

from planner.calibration.environment import now
from planner.calibration.store import Store
from planner.engines.base import Engine, Request, StepTimer
from planner.models.errors import InputError, NotMeasuredError
from planner.models.flops import decode_step, prefill_step
from planner.models.records import Draw, Timing
from planner.models.specs import Architecture

Phase = Literal["prefill", "decode"]
Progress = Callable[[int, int], None]  # shapes timed, shapes to time

BATCHES = (1, 8, 32, 128)
CONTEXTS = (16, 64, 160)
FILLER = "1+2-3*4,"  # prompts for timing: characters that any tokenizer knows
_DECODED = 16  # tokens of a draw that times the decode of a server
_SLOW_S = 0.5  # a step this long is timed once
# Tokens of a timed prefill: by then compute decides, and a longer one only takes longer.
_PREFILL_TOKENS = 4096
_LONGEST_FILLER = 10**6  # characters


def time_engine(
    store: Store,
    engine: Engine,
    architecture: Architecture,
    machine: str,
    *,
    batches: Sequence[int] = BATCHES,
    contexts: Sequence[int] = CONTEXTS,
    repeats: int = 3,
    progress: Progress | None = None,
) -> int:
    """Time the shapes that the store lacks for this model and machine.

    Contexts that the model cannot hold are left out, and so are prefills of more than 4096
    tokens, the shortest of each context aside. Each shape is one part of the store,
    so that a run that is killed loses one shape.

    Args:
        store: Where to.
        engine: Of the model.
        architecture: Of the model; gives each row's FLOP and bytes.
        machine: Id of the machine that runs the engine.
        batches: Rows of a step.
        contexts: Prompt lengths, and tokens in the cache of a decode step.
        repeats: Timings of each shape, after a warm-up; slow shapes are timed once.
        progress: Called with shapes timed and shapes to time, at first and after each.

    Returns:
        Shapes timed.

    Raises:
        InputError: No context fits the model, or a number is not positive.
        NotMeasuredError: A server's draws are too short to time a step.
        ServingError: The server failed.
        StoreError: A part is damaged, or the disk is full.
    """
    if repeats < 1 or min(batches, default=0) < 1 or min(contexts, default=0) < 1:
        raise InputError("timing needs batches, contexts and repeats of at least 1")
    longest = engine.max_context_tokens
    # a prefill is followed by one output token, a decode step adds one to the cache
    fitting = [c for c in contexts if longest is None or c + 1 <= longest]
    if not fitting:
        raise InputError(
            f"{engine.model}: no context of {list(contexts)} fits its {longest} tokens"
        )
    rows = store.timings()
    rows = rows[(rows["model"] == engine.model) & (rows["machine"] == machine)]
    known = set(zip(rows["phase"], rows["batch"], rows["context_tokens"], strict=True))
    phases: tuple[Phase, ...] = ("prefill", "decode")
    shapes = [
        (phase, batch, context)
        for phase, batch, context in product(phases, batches, fitting)
        if (phase, batch, context) not in known
        and (
            phase == "decode" or batch == min(batches) or batch * context <= _PREFILL_TOKENS
        )
    ]
    if progress is not None:
        progress(0, len(shapes))
    for done, (phase, batch, context) in enumerate(shapes, 1):
        seconds = _time(engine, phase, batch, context, repeats)
        store.append_timings(
            _rows(engine, architecture, machine, phase, batch, context, seconds)
        )
        if progress is not None:
            progress(done, len(shapes))
    return len(shapes)


def time_through_session(
    engine: Engine, phase: Phase, batch: int, context_tokens: int, repeats: int
) -> list[float]:
    """Seconds of a step, from `batch` different prompts submitted at once.

    prefill: until the last of them has its first token, the way to the server included.
    decode: (latency - ttft) / (output - 1), the median of the draws; their contexts are
    `context_tokens` on average, halfway through the output. Prompts differ from their first
    character, so that a prefix cache has nothing to share.

    Raises:
        NotMeasuredError: No draw had two tokens.
        ServingError: The server failed.
    """
    ahead = _DECODED // 2 if phase == "decode" else 0
    prompt_tokens = max(1, context_tokens - ahead)
    max_tokens = _DECODED if phase == "decode" else 1
    measured = []
    for repeat in range(repeats + 1):  # the first is a warm-up
        with engine.session() as session:
            for key in range(batch):
                turn = repeat * batch + key
                session.submit(
                    key,
                    Request(
                        prompt=_prompt(engine, prompt_tokens, turn),
                        max_tokens=max_tokens,
                        seed=turn,
                    ),
                )
            draws = []
            while session.outstanding:
                for done in session.poll():
                    if done.error is not None:
                        raise done.error
                    draws.append(done.draw)
        measured.append(_step_s(engine, phase, draws))
    return measured[1:]


def _step_s(engine: Engine, phase: Phase, draws: Sequence[Draw]) -> float:
    if phase == "prefill":
        return max(draw.ttft_s for draw in draws)
    gaps = [
        (draw.latency_s - draw.ttft_s) / (draw.output_tokens - 1)
        for draw in draws
        if draw.output_tokens > 1
    ]
    if not gaps or np.median(gaps) <= 0:
        raise NotMeasuredError(
            f"{engine.model}: its draws end at once, so a decode step cannot be timed; "
            "leave its architecture out of the config to plan without seconds"
        )
    return float(np.median(gaps))


def _prompt(engine: Engine, tokens: int, turn: int) -> str:
    """A text of about that many tokens, different for every turn from the start."""
    text = f"{turn}{FILLER}"
    while engine.count_tokens(text) < tokens and len(text) < _LONGEST_FILLER:
        text += text
    low, high = 1, len(text)
    while low < high:  # the shortest beginning that is long enough
        middle = (low + high) // 2
        if engine.count_tokens(text[:middle]) < tokens:
            low = middle + 1
        else:
            high = middle
    return text[:low]


def _time(
    engine: Engine, phase: Phase, batch: int, context: int, repeats: int
) -> list[float]:
    """Repeat a shape, but for one so slow that it averages over its own length."""
    seconds = _time_once(engine, phase, batch, context, 1)
    if repeats > 1 and seconds[0] < _SLOW_S:
        seconds += _time_once(engine, phase, batch, context, repeats - 1)
    return seconds


def _time_once(
    engine: Engine, phase: Phase, batch: int, context: int, repeats: int
) -> list[float]:
    if not isinstance(engine, StepTimer):
        return time_through_session(engine, phase, batch, context, repeats)
    if phase == "prefill":
        return engine.time_prefill(batch, context, repeats)
    return engine.time_decode(batch, context, repeats)


def _rows(
    engine: Engine,
    architecture: Architecture,
    machine: str,
    phase: Phase,
    batch: int,
    context: int,
    seconds: Sequence[float],
) -> list[Timing]:
    if phase == "prefill":
        step = prefill_step(architecture, batch=batch, prompt_tokens=context)
    else:
        step = decode_step(architecture, batch=batch, context_tokens=context)
    measured_at = now()
    return [
        Timing(
            model=engine.model, phase=phase, batch=batch, context_tokens=context,
            repeat=repeat, seconds=second, flop=step.flop, moved_bytes=step.moved_bytes,
            kv_bytes=step.kv_bytes, engine=engine.version, machine=machine,
            source="measured", measured_at=measured_at,
        )
        for repeat, second in enumerate(seconds)
    ]  # fmt: skip
