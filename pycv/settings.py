"""Which kernels may run: ``pycv.use(...)`` for a block, ``pycv.set_default(...)`` for the process.

Settings are immutable values in a context variable. Operations save those in force at forward and apply them again
in backward and double backward, whatever thread runs them; compiled graphs carry them as text.
"""

from __future__ import annotations

import contextvars
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache

BACKENDS = ("cpu", "cuda", "triton", "numba", "torch")
NUMERIC_CLASSES = ("strict", "default", "fast")
DEFAULT_WORKSPACE_LIMIT = 256 * 2**20
DEFAULT_WEIGHT_CACHE_LIMIT = 2**30
_UNSET = object()
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

    def wanted(self, choice: AlgorithmChoice, op: str, pass_: str) -> str | None:
        """The algorithm that ``algorithm`` or ``prefer`` names for this op and pass, if any."""
        if isinstance(choice, tuple):
            return dict(choice).get(f"{op}.{pass_}")
        return choice

    @cached_property
    def text(self) -> str:
        """A canonical form that :func:`from_text` reads back; op argument in compiled graphs."""
        changed = {name: value for name, value in asdict(self).items() if value != getattr(_PLAIN, name)}
        return json.dumps(changed, sort_keys=True) if changed else ""


_PLAIN = Settings()
_default = _PLAIN
_current: contextvars.ContextVar[Settings | None] = contextvars.ContextVar("pycv_settings", default=None)
# The text of the settings entered last, for torch.compile alone: it cannot trace a context variable, but it guards
# on a module's variable, so that a compiled function recompiles when settings change. Process-wide: functions
# compiled once and called by threads with different settings at the same time must be compiled per thread.
traced_text = ""


_interned: dict[Settings, Settings] = {_PLAIN: _PLAIN}


def interned(settings: Settings) -> Settings:
    """The one object that stands for equal settings, so that the ops can key on its identity."""
    return _interned.setdefault(settings, settings)


def current() -> Settings:
    """The settings in force here (interned)."""
    return _current.get() or _default


@lru_cache(maxsize=256)
def from_text(text: str) -> Settings:
    """The settings that :attr:`Settings.text` holds."""
    values = json.loads(text) if text else {}
    for name in ("algorithm", "prefer"):
        if isinstance(values.get(name), list):
            values[name] = tuple((key, value) for key, value in values[name])
    return interned(Settings(**values))


def _checked(
    backend=_UNSET, algorithm=_UNSET, prefer=_UNSET, precision=_UNSET, deterministic=_UNSET, workspace_limit=_UNSET,
    weight_cache_limit=_UNSET,
) -> dict:  # fmt: skip
    given = {name: value for name, value in locals().items() if value is not _UNSET}
    if given.get("backend") not in (None, *BACKENDS):
        raise ValueError(f"backend={backend!r}: expected one of {', '.join(BACKENDS)}")
    if given.get("precision") not in (None, *NUMERIC_CLASSES):
        raise ValueError(f"precision={precision!r}: expected one of {', '.join(NUMERIC_CLASSES)}")
    if given.get("deterministic") not in (None, True, False):
        raise ValueError(f"deterministic={deterministic!r}: expected True, False or None")
    for name in ("workspace_limit", "weight_cache_limit"):
        if name in given and (not isinstance(given[name], int) or given[name] < 0):
            raise ValueError(f"{name}={given[name]!r}: expected a number of bytes, 0 or more")
    for name in ("algorithm", "prefer"):
        if name in given:
            given[name] = _algorithm_choice(name, given[name])
    return given


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
        Bytes of workspace that a kernel may ask for.
    weight_cache_limit : int
        Bytes of prepared weights that all layers of the process together may keep; a layer whose prepared weight would
        exceed it prepares on every call.

    Raises
    ------
    ValueError, TypeError
        For a value that no kernel knows, before anything changes.
    """
    with applied(interned(replace(current(), **_checked(**settings)))):
        yield


class applied:  # noqa: N801 (a context manager, named as the verb it is used as; a class costs half of a generator)
    """Exactly these settings for a block: what a backward pass runs under."""

    __slots__ = ("_outer_text", "_settings", "_token")

    def __init__(self, settings: Settings):
        self._settings = settings

    def __enter__(self) -> None:
        global traced_text
        self._token, self._outer_text = _current.set(self._settings), traced_text
        traced_text = self._settings.text

    def __exit__(self, *exception) -> None:
        global traced_text
        _current.reset(self._token)
        traced_text = self._outer_text


def set_default(**settings) -> None:
    """Change the process-wide settings that hold outside every ``with pycv.use(...)``. Arguments as :func:`use`."""
    global _default, traced_text
    _default = interned(replace(_default, **_checked(**settings)))
    traced_text = current().text
