"""What is installed, which engines work, and what to do about the rest."""

import os
import platform
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Literal

from planner import __version__
from planner.config import Workspace, reference_targets
from planner.data import REFERENCE
from planner.engines import open_engine
from planner.engines.base import Request, draw_all
from planner.models.errors import PlannerError
from planner.models.specs import ModelTarget

Status = Literal["works", "missing", "fails"]
DEFAULT_ENGINE = "engine embedded"
# extra engines: what they import, and the extra that installs it
_EXTRAS = {"transformers": ("torch", "transformers"), "vllm": ("vllm",)}
_PROBE = "A037+8:"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing looked at."""

    name: str
    status: Status
    found: str
    advice: str = ""  # what to do; empty when nothing is

    @property
    def essential(self) -> bool:
        """Whether the package is of no use without it."""
        return self.name in (DEFAULT_ENGINE, "workspace")


def diagnose(workspace: Path | None = None) -> tuple[Check, ...]:
    """Look at everything; nothing is raised, what fails is said.

    Args:
        workspace: A folder to look at too: can it be written, is its config valid.
    """
    checks = [
        Check(
            name="python",
            status="works",
            found=f"{platform.python_version()} on {platform.system()}",
        ),
        Check(name="inferplan", status="works", found=__version__),
        _machine(),
        _blas(),
        *_reference_models(),
        _importable("openai", "openai"),
        *(_extra(name) for name in _EXTRAS),
        _importable("recorded", "duckdb"),
    ]
    if workspace is not None:
        checks.append(_workspace(workspace))
    return tuple(checks)


def _machine() -> Check:
    cores = (
        len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count() or 1
    )
    memory = ""
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        memory = f", {size / 1e9:.1f} GB memory"
    return Check(name="machine", status="works", found=f"{cores} cores{memory}")


def _blas() -> Check:
    import numpy as np
    from threadpoolctl import threadpool_info

    pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    named = ", ".join(
        f"{p['internal_api']} {p.get('version') or ''}".strip()
        + f", {p['num_threads']} threads"
        for p in pools
    )
    return Check(
        name="numpy", status="works", found=f"{np.__version__}; BLAS: {named or 'unknown'}"
    )


def _reference_models() -> list[Check]:
    """The embedded engine, tried on every reference model: a few tokens each."""
    targets = reference_targets()
    if not targets:
        return [
            Check(
                name=DEFAULT_ENGINE,
                status="fails",
                found=f"no reference models in {REFERENCE}",
                advice="install inferplan again, from a wheel that holds data/reference",
            )
        ]
    checks = [_decodes(target) for target in targets]
    failed = [check for check in checks if check.status != "works"]
    return [
        Check(
            name=DEFAULT_ENGINE,
            status="fails" if failed else "works",
            found=f"{len(targets) - len(failed)} of {len(targets)} reference models decode",
            advice=failed[0].advice if failed else "",
        ),
        *checks,
    ]


def _decodes(target: ModelTarget) -> Check:
    name = f"  {target.name}"

    def attempt() -> str:
        engine = open_engine(target)
        try:
            draws = draw_all(
                engine, [Request(prompt=_PROBE, max_tokens=8, seed=0, temperature=0.0)]
            )
            return f"{draws[0][0].output_tokens} tokens decoded; {engine.version}"
        finally:
            engine.close()

    return _tried(
        name, attempt, "install inferplan again: a file of the model is missing or damaged"
    )


def _tried(name: str, attempt: Callable[[], str], advice: str) -> Check:
    try:
        return Check(name=name, status="works", found=attempt())
    # whatever a broken install raises is what this command is for
    except Exception as error:
        first = str(error).strip().splitlines()[:1] or [type(error).__name__]
        own = "" if isinstance(error, PlannerError) else f"{type(error).__name__}: "
        return Check(name=name, status="fails", found=f"{own}{first[0]}", advice=advice)


def _importable(engine: str, distribution: str) -> Check:
    name = f"engine {engine}"
    version = _version(distribution)
    if version is None or util.find_spec(f"planner.engines.{engine}") is None:
        return Check(
            name=name,
            status="fails",
            found=f"{distribution} is not installed",
            advice="pip install --force-reinstall inferplan",
        )
    needs = "a server's URL" if engine == "openai" else "recorded samples"
    return Check(
        name=name, status="works", found=f"{distribution} {version}; needs {needs}"
    )


def _extra(engine: str) -> Check:
    name, modules = f"engine {engine}", _EXTRAS[engine]
    missing = [module for module in modules if util.find_spec(module) is None]
    if missing:
        return Check(
            name=name,
            status="missing",
            found=f"{' and '.join(missing)} not installed",
            advice=f"pip install 'inferplan[{engine}]'",
        )
    versions = ", ".join(f"{m} {_version(m) or 'of unknown version'}" for m in modules)
    return Check(name=name, status="works", found=f"{versions} installed; not loaded")


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _workspace(folder: Path) -> Check:
    def attempt() -> str:
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: no such folder")
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor-"):
            pass
        config = Workspace(folder).config()
        return f"can be written; {len(config.models)} models in its config"

    return _tried(
        "workspace",
        attempt,
        f"`planner init {folder}` makes one; else correct what is named",
    )
