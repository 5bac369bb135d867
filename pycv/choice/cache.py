"""The choice cache: what was measured for a problem once stays known on this machine.

One file per device class and versions of pycv and torch, for a GPU also of CUDA, cuDNN and Triton; what other kernels
measured (another build of the extension) counts as absent and is overwritten. Within it an entry is kept under
everything else that the answer depends on: the problem, the thread count, the settings that restrict the choice, and
whether the prepared weight is kept. ``where`` is the device of a problem, cpu or cuda: the file is that of this CPU or
of torch's current GPU.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from . import device, files

SCHEMA = 1
MAX_ENTRIES = 4096  # the oldest go first
MAX_FILES = 8  # of other device classes and versions, newest first
_loaded: dict[Path, tuple[tuple[int, int, int, str], dict[str, Entry]]] = {}


@dataclass(frozen=True)
class Entry:
    """What was measured: the winner, its tile included where it has the choice, and the seconds of every contender."""

    kernel: str
    seconds: dict[str, float]


def path(where: str = "cpu") -> Path:
    """The file for this machine and these versions. Raises RuntimeError where nothing is measured: the C++ kernels are
    not built, there is no GPU."""
    digest = hashlib.sha256(repr(_identity(where)).encode()).hexdigest()[:12]
    return files.cache_dir() / f"choices-{digest}.json"


def paths() -> dict[str, Path]:
    """Every such file that this machine has, by where."""
    found = {}
    for where in ("cpu", "cuda"):
        with suppress(RuntimeError):
            found[where] = path(where)
    return found


def _identity(where: str = "cpu") -> dict[str, Any]:
    from .. import __version__

    here = asdict(device.current_gpu() if where == "cuda" else device.current())
    return {"schema": SCHEMA, "device": here, "pycv": __version__, "torch": torch.__version__}


def _kernels(where: str) -> str:
    return device.gpu_kernel_hash() if where == "cuda" else device.kernel_hash()


def lookup(key: str, where: str = "cpu") -> Entry | None:
    """The entry of a key, if it was tuned with these kernels."""
    return entries(where).get(key)


def entries(where: str | None = None) -> dict[str, Entry]:
    """All entries by key, read again where the file has changed. ``where`` None: those of the CPU and of the GPU."""
    if where is None:
        return {key: entry for each in paths() for key, entry in entries(each).items()}
    try:
        file = path(where)
        status = file.stat()
    except (OSError, RuntimeError):
        return {}
    stamp = (status.st_mtime_ns, status.st_size, status.st_ino, _kernels(where))
    known = _loaded.get(file)
    if known is None or known[0] != stamp:
        known = _loaded[file] = (stamp, _read(file, where))
    return known[1]


def _read(file: Path, where: str) -> dict[str, Entry]:
    value = files.read(file, partial(_check, where=where))
    if value is None or value["kernels"] != _kernels(where):
        return {}
    return {key: Entry(**entry) for key, entry in value["entries"].items()}


def _check(value: Any, where: str = "cpu") -> None:
    if not isinstance(value, dict) or value.get("identity") != _identity(where):
        raise ValueError("it is not of this machine and these versions")
    if not isinstance(value["kernels"], str):
        raise ValueError("the hash of the kernels is missing")
    for key, entry in value["entries"].items():
        seconds = Entry(**entry).seconds
        good = [isinstance(s, float) and math.isfinite(s) and s > 0 for s in seconds.values()]
        if entry["kernel"] not in seconds or not all(good):
            raise ValueError(f"the entry of {key!r} makes no sense")


class NotWritten(UserWarning):
    """A choice is known to this process only."""


def store(key: str, entry: Entry, where: str = "cpu") -> None:
    """Adds an entry. What other processes have added meanwhile is kept; a directory that cannot be written is a
    warning."""
    file = path(where)
    try:
        with files.locked(file):
            known = {k: e for k, e in entries(where).items() if k != key}
            for oldest in list(known)[: max(0, len(known) + 1 - MAX_ENTRIES)]:
                del known[oldest]
            kept = {k: asdict(e) for k, e in [*known.items(), (key, entry)]}
            files.write(file, {"identity": _identity(where), "kernels": _kernels(where), "entries": kept})
        for _, old in sorted(((f.stat().st_mtime, f) for f in _files() if f != file), reverse=True)[MAX_FILES:]:
            files.remove(old)
    except OSError as error:
        warn(file, error)


def warn(file: Path, error: OSError) -> None:
    """That nothing can be kept there."""
    warnings.warn(f"the choice cache {file} cannot be written: {error}", NotWritten, stacklevel=3)


def clear() -> list[Path]:
    """Removes the caches of every device class and version; returns the files that were there."""
    found = sorted(_files())
    for file in found:
        files.remove(file)
    _loaded.clear()
    return found


def _files() -> Iterator[Path]:
    return files.cache_dir().glob("choices-*.json")
