"""The machine that measures: what it is, and its measured ceilings.

No host, user or path names: a row of it may be published.
"""

import hashlib
import json
import os
import platform
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter

import numpy as np
from threadpoolctl import threadpool_info, threadpool_limits

from planner.models.prediction import Array
from planner.models.records import Machine

_CPUINFO = Path("/proc/cpuinfo")
_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_MATRIX = 1024  # side of the square product that is timed
_ARRAY_BYTES = (64 * 2**20, 512 * 2**20)  # least and most that the bandwidth test reads
_TIMING_S = 0.3  # spent on each ceiling, set-up aside


def now() -> str:
    """The time of a measurement: ISO 8601, UTC, whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def describe_machine() -> Machine:
    """This machine, with its ceilings measured now; takes one to two seconds."""
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    threads = max((pool["num_threads"] for pool in threadpool_info()), default=1)
    machine = Machine(
        machine="",
        device=f"{_processor()}, {available_cores()} cores",
        cores=available_cores(),
        memory_bytes=_memory_bytes(),
        os=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        numpy=np.__version__,
        blas=f"{blas['name']} {blas['version']}, {threads} threads",
        flop_per_s=0.0,
        bytes_per_s=0.0,
        source="measured",
        measured_at="",
    )
    # hashed before the ceilings are known, as they differ a little each time
    identity = hashlib.sha256(json.dumps(asdict(machine), sort_keys=True).encode())
    return replace(
        machine,
        machine=identity.hexdigest()[:12],
        flop_per_s=matmul_flop_per_s(),
        bytes_per_s=read_bytes_per_s(),
        measured_at=now(),
    )


def available_cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def matmul_flop_per_s() -> float:
    """Rate of a large fp32 matrix product, with as many threads as BLAS is set to."""
    rng = np.random.default_rng(0)
    left = rng.standard_normal((_MATRIX, _MATRIX), dtype=np.float32)
    right, out = left.T.copy(), np.empty_like(left)
    best_s = _best_s(lambda: np.matmul(left, right, out=out))
    return 2.0 * _MATRIX**3 / best_s


def read_bytes_per_s() -> float:
    """Rate of reading an array larger than the caches, a thread a core."""
    least, most = _ARRAY_BYTES
    size = int(min(max(least, 2 * _cache_bytes()), most, max(_memory_bytes() / 16, least)))
    cores = available_cores()
    # ones, not zeros: the system maps all untouched zero pages to the same memory
    parts = [np.ones(size // 4 // cores, dtype=np.float32) for _ in range(cores)]

    def read(part: Array) -> float:
        return float(np.dot(part, part))  # one pass; BLAS releases the interpreter lock

    with threadpool_limits(1, "blas"), ThreadPoolExecutor(cores) as pool:
        best_s = _best_s(lambda: list(pool.map(read, parts)))
    return sum(part.nbytes for part in parts) / best_s


def _best_s(run: Callable[[], object]) -> float:
    """Seconds of the fastest run: other work on the machine only ever slows one."""
    run()
    best, start = float("inf"), perf_counter()
    while perf_counter() - start < _TIMING_S:
        begun = perf_counter()
        run()
        best = min(best, perf_counter() - begun)
    return best


def _processor() -> str:
    if _CPUINFO.exists():
        names = re.findall(r"^model name\s*:\s*(.+)$", _CPUINFO.read_text(), re.MULTILINE)
        if names:
            return str(names[0]).strip()
    return platform.processor() or platform.machine()


def _memory_bytes() -> float:
    """Physical memory, in whole GiB so that it is the same after every boot."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not on this system: said as such
        return float("nan")
    return float(round(total / 2**30) * 2**30)


def _cache_bytes() -> int:
    """The last-level cache; 0 where the system does not tell."""
    sizes = [file.read_text().strip() for file in _CACHES.glob("index*/size")]
    scale = {"K": 2**10, "M": 2**20}
    return max(
        (int(size[:-1]) * scale[size[-1]] for size in sizes if size and size[-1] in scale),
        default=0,
    )
