"""Which kernels numpy's OpenBLAS uses: it knows processors by name, newer ones not at all.

On an x86 processor it does not know, OpenBLAS falls back to its AVX2 ("Haswell") kernels,
at half the matrix rate of its AVX-512 ones where the processor has those.
"""

import os
import platform
import sys
from pathlib import Path

_AVX512 = {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512cd"}


def prefer_wide_kernels() -> None:
    """Choose the AVX-512 kernels where the processor has them.

    For a process of our own, before numpy is imported; a user's own choice stands.
    """
    if "numpy" in sys.modules or "OPENBLAS_CORETYPE" in os.environ:
        return
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return
    flags = next((line for line in lines if line.startswith("flags")), "")
    if set(flags.split()) >= _AVX512:
        os.environ["OPENBLAS_CORETYPE"] = "SkylakeX"
