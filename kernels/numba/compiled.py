"""Kernels compiled by Numba: ``@kernel`` for what a plan calls, ``@inner`` for what kernels are made of.

A kernel is written once and compiled twice at most for a dtype: its ``prange`` in parallel, and (only in a forked
child, forks.py) as a plain loop. It is compiled when the first plan needs it, not when it first runs: seconds then,
milliseconds once it lies on disk (disk.py). On a terminal whatever takes longer than a moment says so.

Arguments are flat arrays, numbers, and tuples of numbers, so that there is one compilation for a dtype and no more:
where an element lies is computed from strides, as in csrc.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numba
from numba.core import config

from . import disk, forks, threads

# Multiplication and addition may become one instruction; sums are left in the order in which they stand.
_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}
# A call would copy the tuple that says where elements lie, twenty to forty numbers: everything inner is inlined.
inner = numba.njit(forceinline=True, **_OPTIONS)
# A sum of many terms in whatever order vectors make of it.
summed = numba.njit(forceinline=True, **(_OPTIONS | {"fastmath": {"contract", "reassoc"}}))

PATIENCE = 1.0  # seconds before a compilation is announced
_compiling = threading.RLock()
Call = Callable[..., None]

threads.share_runtime()
if not forks.forked:
    numba.get_num_threads()  # starts the layer: what comes from the disk would not


class Compiled:
    """A kernel and its compilations, by the types of its arguments."""

    def __init__(self, function: Callable[..., None]) -> None:
        self.name = f"{function.__module__.rpartition('.')[2]}.{function.__name__}"
        self.function = function
        self._dispatchers: dict[bool, Any] = {}
        self._compiled: dict[tuple, Call] = {}

    @staticmethod
    def signature(*arguments: Any) -> tuple:
        """Numba's types of such arguments."""
        return tuple(map(numba.typeof, arguments))

    def compiled(self, signature: tuple) -> Call:
        """The code for arguments of these types, compiled or loaded if it is the first time in this process.

        It is Numba's entry point itself, without the look at the arguments' types that a call of a dispatcher begins
        with: they are known.
        """
        key = (forks.forked, signature)
        call = self._compiled.get(key)
        if call is None:
            with _compiling:
                call = self._compiled.get(key) or self._compile(signature, not forks.forked)
                self._compiled[key] = call
        return call

    def _compile(self, signature: tuple, parallel: bool) -> Call:
        dtype = next((str(t.dtype) for t in signature if isinstance(t, numba.types.Array)), "")
        with _announced(f"{self.name} for {dtype}"):
            start = time.perf_counter()
            dispatcher = self._dispatcher(parallel)
            call = dispatcher.compile(signature)
        if not sum(dispatcher.stats.cache_hits.values()):
            disk.record(disk.Record(self.name, dtype, time.perf_counter() - start))
        return call

    def _dispatcher(self, parallel: bool) -> Any:
        """Numba takes the folder of its cache from its configuration when a function is decorated."""
        if parallel not in self._dispatchers:
            place, config.CACHE_DIR = config.CACHE_DIR, str(disk.folder() / ("parallel" if parallel else "serial"))
            try:
                self._dispatchers[parallel] = numba.njit(parallel=parallel, cache=True, **_OPTIONS)(self.function)
            finally:
                config.CACHE_DIR = place
        return self._dispatchers[parallel]


kernel = Compiled


class _announced:
    """Says on a terminal what is being compiled, if it takes long."""

    def __init__(self, what: str) -> None:
        self._timer = threading.Timer(PATIENCE, self._say)
        self._timer.daemon = True
        self._what = what

    def _say(self) -> None:
        if sys.stderr.isatty():
            print(f"pycv: compiling {self._what} with Numba, once on this machine", file=sys.stderr, flush=True)

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *exception) -> None:
        self._timer.cancel()
