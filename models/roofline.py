"""Time of an engine step from the roofline (Williams et al. 2009)."""

from planner.models.errors import InputError
from planner.models.flops import StepCost


def ridge_flop_per_byte(*, flop_per_s: float, bytes_per_s: float) -> float:
    """Arithmetic intensity above which a machine is bound by compute, not by memory.

    Raises:
        InputError: A ceiling is not positive.
    """
    if not (flop_per_s > 0 and bytes_per_s > 0):
        raise InputError(f"ceilings must be positive, got {flop_per_s:g}, {bytes_per_s:g}")
    return flop_per_s / bytes_per_s


def step_floor_s(step: StepCost, *, flop_per_s: float, bytes_per_s: float) -> float:
    """Lower bound on the seconds of a step.

    A floor for weights that live in memory, not an estimate: a model small enough for the
    processor's caches can beat its memory term.

    Raises:
        InputError: A ceiling is not positive.
    """
    ridge_flop_per_byte(flop_per_s=flop_per_s, bytes_per_s=bytes_per_s)
    return max(step.flop / flop_per_s, step.moved_bytes / bytes_per_s)
