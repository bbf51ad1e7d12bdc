"""Decode steps of several blocks, side by side in threads.

numpy lets go of the interpreter inside its loops, so blocks in threads use all cores where
BLAS threads would idle: on matrices this small BLAS gains nothing from threads of its own
(and loses much when another process is busy). It is held to one thread meanwhile.
"""

import functools
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

from planner.engines.kv_cache import Block, Ints
from planner.engines.llama import Llama
from planner.engines.sampling import Bools, Slots

ROWS_MAX = 64  # of a block: matrix products are near their best, the cache still near
ROWS_MIN = 24  # smaller blocks are merged: a block costs a fixed 0.1 ms a step


class Decoder:
    """A model and the threads that run it.

    Args:
        llama: Shared by the threads.
        threads: Blocks decoded at the same time.
    """

    def __init__(self, llama: Llama, threads: int) -> None:
        self.llama, self.threads = llama, threads
        self._pool: ThreadPoolExecutor | None = None

    def step(self, blocks: Sequence[Block], slots: Slots) -> list[Bools]:
        """One token of every row; for each block, which rows may be over."""

        def run(share: Sequence[int]) -> dict[int, Bools]:
            return {i: self._step(blocks[i], slots) for i in share}

        shares = _shares([block.rows for block in blocks], self.threads)
        others = shares[1:]
        if others and self._pool is None:
            self._pool = ThreadPoolExecutor(self.threads - 1, "embedded-decode")
        started = [self._pool.submit(run, share) for share in others] if self._pool else []
        done = run(shares[0])
        for future in started:
            done |= future.result()
        return [done[i] for i in range(len(blocks))]

    def parts(self, slots: Ints) -> list[Ints]:
        """Slots split into blocks: enough for every thread, none too small or too large."""
        count = max(
            -(-len(slots) // ROWS_MAX), min(self.threads, len(slots) // ROWS_MIN), 1
        )
        return np.array_split(slots, count)

    def tidied(self, blocks: Sequence[Block]) -> list[Block]:
        """The blocks without empty ones, and the small ones of like length merged."""
        live = [block for block in blocks if block.rows]
        if len(live) <= self.threads:
            return live
        kept = [block for block in live if block.rows >= ROWS_MIN]
        small = sorted((b for b in live if b.rows < ROWS_MIN), key=lambda b: b.length)
        group: list[Block] = []
        for block in small:
            # Rows of the shorter block drag the difference along as masked columns.
            if (
                group
                and block.length - group[0].length > 2 * ROWS_MIN + group[0].length // 2
            ):
                kept.append(_merged(group))
                group = []
            group.append(block)
            if sum(b.rows for b in group) >= ROWS_MIN:
                kept.append(_merged(group))
                group = []
        return [*kept, _merged(group)] if group else kept

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    def _step(self, block: Block, slots: Slots) -> Bools:
        logits = self.llama.decode(block, slots.last(block.slots))
        return slots.append(block.slots, logits)


def _merged(group: Sequence[Block]) -> Block:
    return group[0] if len(group) == 1 else Block.merged(group)


def _shares(rows: Sequence[int], threads: int) -> list[list[int]]:
    """Block numbers of each thread: the largest first, to whoever has the least."""
    shares: list[list[int]] = [[] for _ in range(max(1, min(threads, len(rows))))]
    load = [0] * len(shares)
    for i in sorted(range(len(rows)), key=lambda i: -rows[i]):
        least = load.index(min(load))
        shares[least].append(i)
        load[least] += rows[i]
    return shares


@functools.cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


@functools.cache
def default_threads() -> int:
    """Threads of this process' BLAS: the cores it may use, unless the user set fewer."""
    found = [pool["num_threads"] for pool in _controller().select(user_api="blas").info()]
    return max(1, min(max(found, default=1), os.cpu_count() or 1))


class _BlasGuard:
    """How many sessions want BLAS on one thread; the last to leave restores it."""

    def __init__(self) -> None:
        self.lock, self.users = threading.Lock(), 0
        self.limiter: Any = None


_guard = _BlasGuard()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Hold BLAS to one thread. It is global: the first in sets, the last out restores."""
    with _guard.lock:
        if _guard.users == 0:
            _guard.limiter = _controller().limit(limits=1, user_api="blas")
        _guard.users += 1
    try:
        yield
    finally:
        with _guard.lock:
            _guard.users -= 1
            if _guard.users == 0 and _guard.limiter is not None:
                _guard.limiter.restore_original_limits()
