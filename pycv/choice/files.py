"""Where pycv keeps what it has measured, and how several processes write there at once.

A file is replaced as a whole, under a lock of its own beside it: a reader sees the old or the new one and needs no
lock. A file that is not what it should be is a warning that names it, and counts as absent.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


def cache_dir() -> Path:
    """``$PYCV_CACHE_DIR``, or ``pycv`` in the platform's directory for caches of this user. May not exist yet."""
    if given := os.environ.get("PYCV_CACHE_DIR"):
        return Path(given)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "pycv"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home())) / "pycv" / "Cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pycv"


def read(path: Path, check: Callable[[Any], None]) -> Any | None:
    """The JSON value in a file; None if there is no file, or (with a warning) if ``check`` raises on its value."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        check(value)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        problem = f"{type(error).__name__}: {error}"
        warnings.warn(f"{path} is ignored: it is not a file that pycv can use ({problem})", stacklevel=2)
        return None
    return value


def write(path: Path, value: Any) -> None:
    """Replaces a file by this JSON value in one step. Raises OSError where the directory cannot be written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=path.name, suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(value, file, indent=1, allow_nan=False)
            file.write("\n")
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Alone among the processes and threads that ask for the lock of this file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(path.name + ".lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # given back when the file is closed, and when the process dies
        yield
