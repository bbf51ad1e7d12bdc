"""Engines draw responses of a model; `open_engine` opens the one a target names."""

from importlib import import_module
from pathlib import Path

from planner.engines.base import Engine
from planner.models.errors import InputError
from planner.models.specs import ModelTarget

# engine -> the extra that brings what it imports; "": the default install has it
_EXTRAS = {
    "embedded": "",
    "openai": "",
    "recorded": "",
    "transformers": "transformers",
    "vllm": "vllm",
}


def open_engine(target: ModelTarget) -> Engine:
    """Open the engine that serves `target`.

    Raises:
        InputError: The engine is unknown, its extra is not installed, or what the target
            points at (folder, URL, file) cannot be used.
    """
    name = target.engine
    if name not in _EXTRAS:
        raise InputError(
            f"model {target.name!r}: unknown engine {name!r}; one of {', '.join(_EXTRAS)}"
        )
    try:
        module = import_module(f"planner.engines.{name}")
    except ModuleNotFoundError as error:
        missing, extra = error.name or "", _EXTRAS[name]
        if not extra or missing.startswith("planner"):
            raise
        raise InputError(
            f"model {target.name!r}: the engine {name} needs {missing}, which is not "
            f"installed; run: pip install 'inferplan[{extra}]'"
        ) from None
    if name == "openai":
        engine: Engine = module.OpenAIEngine(target)
        return engine
    location = Path(target.location)
    if not location.exists():
        kind = "Parquet file" if name == "recorded" else "folder with the model's weights"
        raise InputError(f"model {target.name!r}: {location}: no such {kind}")
    kinds = {
        "embedded": "EmbeddedEngine",
        "recorded": "RecordedEngine",
        "transformers": "TransformersEngine",
        "vllm": "VllmEngine",
    }
    engine = getattr(module, kinds[name])(target.name, location)
    return engine
