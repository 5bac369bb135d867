"""Which kernels may run: ``pycv.use(...)`` for a block, ``pycv.set_default(...)`` for the process.

Settings are immutable values in a context variable. Operations save those in force at forward and apply them again
in backward and double backward, whatever thread runs them; compiled graphs carry them as text.
"""

from __future__ import annotations

import contextvars
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from typing import Any

BACKENDS = ("cpu", "cuda", "triton", "numba", "torch")
NUMERIC_CLASSES = ("strict", "default", "fast")
DEFAULT_WORKSPACE_LIMIT = 256 * 2**20
DEFAULT_WEIGHT_CACHE_LIMIT = 2**30
AlgorithmChoice = str | tuple[tuple[str, str], ...] | None


@dataclass(frozen=True)
class Settings:
    """One value per argument of :func:`use`; None leaves the choice to pycv."""

    backend: str | None = None
    algorithm: AlgorithmChoice = None
    prefer: AlgorithmChoice = None
    precision: str | None = None
    deterministic: bool | None = None
    workspace_limit: int = DEFAULT_WORKSPACE_LIMIT
    weight_cache_limit: int = DEFAULT_WEIGHT_CACHE_LIMIT
    autotune: bool = False
    _text: str = field(init=False, compare=False, repr=False, default="")

    def __post_init__(self) -> None:
        changed = {f.name: getattr(self, f.name) for f in fields(self) if f.init and getattr(self, f.name) != f.default}
        object.__setattr__(self, "_text", json.dumps(changed, sort_keys=True) if changed else "")

    def wanted(self, choice: AlgorithmChoice, op: str, pass_: str) -> str | None:
        """The algorithm that ``algorithm`` or ``prefer`` names for this op and pass, if any."""
        if isinstance(choice, tuple):
            return dict(choice).get(f"{op}.{pass_}")
        return choice

    def text(self) -> str:
        """A canonical form that :func:`from_text` reads back; op argument in compiled graphs (which read it, so it is
        made beforehand)."""
        return self._text


_PLAIN = Settings()
_default = _PLAIN
_current: contextvars.ContextVar[Settings | None] = contextvars.ContextVar("pycv_settings", default=None)


_interned: dict[Settings, Settings] = {_PLAIN: _PLAIN}


def interned(settings: Settings) -> Settings:
    """The one object that stands for equal settings, so that the ops can key on its identity."""
    return _interned.setdefault(settings, settings)


def current() -> Settings:
    """The settings in force here (interned)."""
    return _current.get() or _default


class _Traceable:
    """``settings`` is what the context variable holds, or this object itself where it holds nothing.

    torch.compile cannot trace ContextVar.get, but it reads a property whose getter is written in C, and guards on what
    it read; the guard asks the context variable again on every call of the compiled function, on the calling thread.
    So compiled code is compiled anew where the settings differ, and only there. None of this is needed in eager mode.
    """

    settings = property(_current.get)


_traceable = _Traceable()


def current_text() -> str:
    """The text of the settings in force here, readable under torch.compile(fullgraph=True)."""
    settings = _traceable.settings
    return _default.text() if settings is _traceable or settings is None else settings.text()


@lru_cache(maxsize=256)
def from_text(text: str) -> Settings:
    """The settings that :meth:`Settings.text` wrote."""
    values = json.loads(text) if text else {}
    for name in ("algorithm", "prefer"):
        if isinstance(values.get(name), list):
            values[name] = tuple((key, value) for key, value in values[name])
    return interned(Settings(**values))


_NAMES = tuple(each.name for each in fields(Settings) if each.init)
_ALLOWED: dict[str, tuple] = {
    "backend": (None, *BACKENDS),
    "precision": (None, *NUMERIC_CLASSES),
    "deterministic": (None, True, False),
    "autotune": (True, False),
}


def _checked(given: dict[str, Any]) -> dict[str, Any]:
    """The settings that a user gave, as the dataclass takes them."""
    for name in given:
        if name not in _NAMES:
            raise TypeError(f"{name}: there is no such setting, only {', '.join(_NAMES)}")
    for name, values in _ALLOWED.items():
        if name in given and given[name] not in values:
            words = ", ".join(str(value) for value in values if value is not None)
            raise ValueError(f"{name}={given[name]!r}: expected one of {words}")
    checked = dict(given)
    for name in ("workspace_limit", "weight_cache_limit"):
        if name in given and (not isinstance(given[name], int) or not 0 <= given[name] < 2**63):
            raise ValueError(f"{name}={given[name]!r}: expected a number of bytes, 0 or more and below 2**63")
    for name in ("algorithm", "prefer"):
        if name in given:
            checked[name] = _algorithm_choice(name, given[name])
    return checked


def _algorithm_choice(name: str, value) -> AlgorithmChoice:
    from .registry import algorithms

    known = algorithms()
    if value is None:
        return None
    if isinstance(value, str):
        if not any(value in names for names in known.values()):
            raise ValueError(f"{name}={value!r}: known are {', '.join(sorted(set().union(*known.values())))}")
        return value
    if not isinstance(value, Mapping):
        raise TypeError(f"{name}={value!r}: expected a name or a mapping from 'op.pass' to a name")
    for key, algorithm in value.items():
        if key not in known:
            raise ValueError(f"{name}: {key!r} is no op.pass; pycv.kernels() lists them")
        if not isinstance(algorithm, str):
            raise TypeError(f"{name}: {key} is to be {algorithm!r}: expected the name of an algorithm")
        if algorithm not in known[key]:
            raise ValueError(f"{name}: {key} has no {algorithm!r}, only {', '.join(sorted(known[key]))}")
    return tuple(sorted(value.items()))


@contextmanager
def use(**settings) -> Iterator[None]:
    """Restrict or steer the choice of kernels inside a ``with`` block, on this thread and its backward passes.

    Parameters
    ----------
    backend : {"cpu", "cuda", "triton", "numba", "torch"}, optional
        Only kernels of this backend; an operation that has none for the problem raises
        :class:`pycv.UnsupportedError` with the reason.
    algorithm : str or mapping, optional
        Only this algorithm, for the ops that have it; a mapping like ``{"conv2d.forward": "direct"}`` names it per op
        and pass. Raises :class:`pycv.UnsupportedError` where it cannot run the problem.
    prefer : str or mapping, optional
        As ``algorithm``, but only where it is supported.
    precision : {"strict", "default", "fast"}, optional
        The loosest numeric class allowed. None: torch's own switches decide.
    deterministic : bool, optional
        Only kernels that are bit-identical from run to run. None: ``torch.use_deterministic_algorithms`` decides.
    workspace_limit : int
        Bytes of workspace that a kernel may ask for. Where it is little kernels take smaller pieces or fewer parts at a
        time; a GPU kernel that needs more all the same is passed over. What norms keep for each channel comes on top.
        On a CPU it bounds what grows with the problem: some 100 KB for each thread, pieces that stay in its caches,
        come on top, too. torch's kernels are not bound by it.
    weight_cache_limit : int
        Bytes of prepared weights that all layers of the process together may keep; a layer whose prepared weight would
        exceed it prepares on every call.
    autotune : bool
        Measure every kernel that may run a problem, and torch, when the problem is met for the first time (a third of
        a second; on a GPU after compiling what has to be), take the fastest, and keep what was measured on disk, where
        it is found again with or without autotune (:mod:`pycv.choice.cache`; ``pycv tune show``). Otherwise a cost
        model predicts which is the fastest. Nothing is measured while a CUDA graph is captured.

    Raises
    ------
    ValueError, TypeError
        For a value that no kernel knows, before anything changes.
    """
    token = _current.set(interned(replace(current(), **_checked(settings))))
    try:
        yield
    finally:
        _current.reset(token)


class applied:
    """Exactly these settings for a block: what a backward pass runs under."""

    __slots__ = ("_settings", "_token")

    def __init__(self, settings: Settings):
        self._settings = settings

    def __enter__(self) -> None:
        self._token = _current.set(self._settings)

    def __exit__(self, *exception) -> None:
        _current.reset(self._token)


def set_default(**settings) -> None:
    """Change the process-wide settings that hold outside every ``with pycv.use(...)``. Arguments as :func:`use`."""
    global _default
    _default = interned(replace(_default, **_checked(settings)))
