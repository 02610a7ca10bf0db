"""Writing files so that a reader sees the old content or the new one, never half of it."""

import json
import os
from pathlib import Path
from typing import Any


def write_atomic(path: Path, data: bytes | memoryview) -> None:
    """Write to a temporary file beside ``path``, sync it, rename it into place, sync the folder.

    Raises:
        OSError: disk full, no permission; ``path`` is as it was and the temporary file is gone.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    # The rename itself lives in the folder: without this a power cut may undo it.
    if hasattr(os, "O_DIRECTORY"):
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_json(path: Path, content: Any) -> None:
    """Write indented JSON atomically. nan and inf are refused: other readers do not take them."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    # A file name that is not UTF-8 has surrogates in it, which this turns into JSON's own escapes.
    write_atomic(path, (text + "\n").encode(errors="backslashreplace"))


def remove_temporary_files(folder: Path) -> None:
    """Remove what a killed ``write_atomic`` left in the folder."""
    for temporary in folder.glob(".*.tmp"):
        temporary.unlink(missing_ok=True)
