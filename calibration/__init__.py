"""Calibration: what did we measure, and the laws fitted to it."""

if __name__ != "planner.calibration":
    raise ImportError("run `pip install -e .`; import planner.calibration, not calibration")
