"""The threads of the Numba kernels: Numba's OpenMP layer on torch's own runtime, as many as torch would use.

Numba's wheel asks for the OpenMP runtime of the system under the name of its file, libgomp.so.1.0.0. torch has brought
one of its own, whose name is libgomp.so.1: left alone the process would have two, whose threads get in each other's
way, and where the system has none (no compiler was ever installed) Numba would not run at all. So a copy of the layer
that asks for libgomp.so.1 is made, and is there before Numba looks.

A forked child runs on one thread, without the runtime (forks.py).
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numba
from numba.core import config

from . import forks
from .disk import folder

_LAYER = "numba.np.ufunc.omppool"
_BY_FILE, _BY_NAME = b"\0libgomp.so.1.0.0\0", b"\0libgomp.so.1\0\0\0\0\0"


def share_runtime() -> None:
    """Loads the OpenMP layer so that it finds torch's runtime. Where that cannot be done Numba loads its own way."""
    if config.THREADING_LAYER == "default":  # otherwise somebody else has chosen
        config.THREADING_LAYER = "omp"
    spec = importlib.util.find_spec(_LAYER)
    if _LAYER in sys.modules or spec is None or spec.origin is None:
        return
    try:
        original = Path(spec.origin)
        content = original.read_bytes()
        if _BY_FILE not in content:
            return
        copy = folder() / original.name
        if not copy.exists():
            unfinished = copy.with_suffix(f".{os.getpid()}")
            unfinished.write_bytes(content.replace(_BY_FILE, _BY_NAME))
            unfinished.replace(copy)
        patched = importlib.util.spec_from_file_location(_LAYER, copy)
        assert patched is not None and patched.loader is not None
        module = importlib.util.module_from_spec(patched)
        patched.loader.exec_module(module)
        sys.modules[_LAYER] = module
    except (OSError, ImportError):
        pass


@numba.njit(nogil=True)
def _exchange(threads):
    """Sets the thread count and returns what it was. Compiled, this takes a hundredth of what Python needs for it."""
    before = numba.get_num_threads()
    numba.set_num_threads(threads)
    return before


@contextmanager
def team(threads: int) -> Iterator[None]:
    """This thread's parallel loops run on so many threads; what the user has told Numba holds again afterwards."""
    if forks.forked:
        yield
        return
    wanted = min(threads, config.NUMBA_NUM_THREADS)
    before = _exchange(wanted)
    try:
        yield
    finally:
        if before != wanted:
            _exchange(before)
