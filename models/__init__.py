"""Laws: what happens at a budget nobody measured. Imports nothing of ours outside it."""

if __name__ != "planner.models":
    raise ImportError("run `pip install -e .` and import planner.models, not models")
