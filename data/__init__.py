"""Facts with their sources, and the reference workload's models."""

from pathlib import Path

if __name__ != "planner.data":
    raise ImportError("run `pip install -e .` and import planner.data, not data")

FOLDER = Path(__file__).parent
REFERENCE = (
    FOLDER / "reference"
)  # one folder a reference model, each in Hugging Face format
