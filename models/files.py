"""Files that are written whole or not at all."""

import os
from contextlib import suppress
from pathlib import Path

from planner.models.errors import StoreError


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write to a temporary file beside `path`, flush it to disk, then rename.

    Raises:
        StoreError: The disk is full or the folder cannot be written.
    """
    raw = content.encode() if isinstance(content, str) else content
    staged = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with staged.open("wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        staged.replace(path)
    except OSError as error:
        with suppress(OSError):  # the folder may be what cannot be written
            staged.unlink()
        raise StoreError(
            f"{path}: cannot be written ({error.strerror}); free space or choose another"
            " folder"
        ) from error
