"""Where pycv keeps what it has measured, and how several processes write there at once.

A file is replaced as a whole, under a lock of its own beside it: a reader sees the old or the new one and needs no
lock. A file that is not what it should be is set aside, with a warning that names it, and counts as absent.
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
    """The JSON value in a file; None if there is no file, or (with a warning) if ``check`` raises on its value.

    Then the file is renamed to ``NAME.bad``, for whoever wants to know what happened to it.
    """
    try:
        return _checked(path, check)
    except FileNotFoundError:
        return None
    except OSError as error:
        warnings.warn(f"{path} is ignored: it cannot be read ({error})", stacklevel=2)
    except _BAD as error:
        aside = _set_aside(path, check)
        where = f"; it was renamed to {aside.name}" if aside is not None else ""
        problem = f"{type(error).__name__}: {error}"
        warnings.warn(f"{path} is ignored: it is not a file that pycv can use ({problem}){where}", stacklevel=2)
    return None


_BAD = (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError)


def _checked(path: Path, check: Callable[[Any], None]) -> Any:
    value = json.loads(path.read_text(encoding="utf-8"))
    check(value)
    return value


def _set_aside(path: Path, check: Callable[[Any], None]) -> Path | None:
    """Where a bad file lies now; None if it could not be moved, or another process had put a good one in its place."""
    aside = path.with_name(f"{path.name}.bad")
    try:
        os.replace(path, aside)
        _checked(aside, check)
    except _BAD:
        return aside
    except OSError:
        return None
    with suppress(OSError):  # good after all: back it goes, unless there is an even newer one
        os.link(aside, path)
    aside.unlink(missing_ok=True)
    return None


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
    lock = _lock(path)
    while True:
        with lock.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # given back when the file is closed, and when the process dies
            if _is_at(lock, file.fileno()):  # else remove() was faster, and others have a new one
                yield
                return


def remove(path: Path) -> None:
    """Removes a file, if it is there, and its lock once nobody else holds that."""
    with locked(path):
        path.unlink(missing_ok=True)
        _lock(path).unlink(missing_ok=True)


def _lock(path: Path) -> Path:
    return path.with_name(path.name + ".lock")


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
