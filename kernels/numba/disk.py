"""Where compiled kernels are kept: beside their sources if that can be written to, else in the user's cache.

Numba itself would look at the one file that a kernel stands in only, and not at those that it is inlined from. So the
folder carries a hash of all sources of this package and of the versions; what other versions compiled is left behind
and harmless. Within it Numba tells processors and dtypes apart. ``compiled.txt`` has a line for whatever was compiled.
"""

from __future__ import annotations

import hashlib
import os
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple


class Record(NamedTuple):
    """One compilation: which kernel, for which dtype, and how long it took."""

    kernel: str
    dtype: str
    seconds: float


@cache
def folder() -> Path:
    """It exists when this returns, if it can be made. NUMBA_CACHE_DIR names another place than the usual two."""
    here = Path(__file__).resolve().parent
    sources = b"".join(path.read_bytes() for path in sorted(here.glob("*.py")))
    versions = f"{version('numba')} {version('llvmlite')}".encode()
    name = f"pycv-numba-{hashlib.sha256(sources + versions).hexdigest()[:12]}"
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    named = os.environ.get("NUMBA_CACHE_DIR")
    places = [Path(named)] if named else [here / "__pycache__", Path(home) / "pycv"]
    for place in places:
        try:
            (place / name).mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(place / name, os.W_OK):
            return place / name
    return places[-1] / name


def record(entry: Record) -> None:
    """Notes a compilation for :func:`records`. Where that cannot be written, it is not."""
    try:
        with (folder() / "compiled.txt").open("a") as file:
            file.write(f"{entry.kernel} {entry.dtype} {entry.seconds:.2f}\n")
    except OSError:
        pass


def records() -> list[Record]:
    """What has been compiled with these sources so far, by whatever process."""
    try:
        lines = (folder() / "compiled.txt").read_text().splitlines()
    except OSError:
        return []
    words = [line.split() for line in lines]
    return [Record(kernel, dtype, float(seconds)) for kernel, dtype, seconds in words]
