"""Every kernel, what it supports, and which one runs.

``choose`` is asked once per problem and settings; the ops keep its answer in their own dictionaries. Of the kernels
that settings and support allow it takes the one that was measured to be the fastest, or is predicted to be
(pycv/choice). What runs is recorded while somebody listens (``record``): the call log of the tests and of
``pycv.explain``.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, NamedTuple

import torch

from .choice import autotune, device, model, verified
from .choice import cache as tuned_choices
from .kernels import Kernel
from .kernels import cpu as _cpu_backend
from .kernels import cuda as _cuda_backend
from .kernels import numba as _numba_backend
from .kernels import torch as _vendor
from .kernels import triton as _triton_backend
from .problem import NormProblem, Problem
from .settings import BACKENDS, NUMERIC_CLASSES, Settings


class UnsupportedError(NotImplementedError):
    """The backend or algorithm that was asked for cannot run this problem; the message says why."""


@dataclass(frozen=True)
class Choice:
    """The answer of :func:`choose`. ``plan`` is None where torch runs the problem.

    ``estimates``: the seconds of each contender by which it was chosen, fastest first; ``basis`` says what they are:
    "predicted", "measured", or "" where there was nothing to choose between.
    """

    problem: Problem
    kernel: Kernel
    plan: Any
    reason: str
    rejected: tuple[str, ...] = ()
    estimates: tuple[tuple[str, float], ...] = ()
    basis: str = ""


_registered: list[Kernel] = []


def register(kernel: Kernel) -> None:
    """Adds a kernel of your own for an op and pass that are there: listed, tested and chosen like those of pycv.

    Calls whose kernel was chosen before keep it: register first. A kernel that the same file has registered under the
    same name is replaced: a script that PYCV_KERNELS names, too, registers twice. What the file holds is part of what
    the choice cache is kept under, so that an edited kernel is measured again.

    Raises
    ------
    ValueError
        For an op or pass that does not exist, a backend that pycv does not know, or a name that is taken.
    """
    there = _by_op().get((kernel.op, kernel.pass_))
    if there is None:
        raise ValueError(f"register: there is no {kernel.op}.{kernel.pass_}; pycv.kernels() lists what there is")
    if kernel.backend not in BACKENDS or kernel.backend == "torch":
        raise ValueError(f"register: backend={kernel.backend!r}: expected one of {', '.join(BACKENDS[:-1])}")
    earlier = next((other for other in there if other.name == kernel.name), None)
    if earlier is not None and (earlier not in _registered or earlier.file is None or earlier.file != kernel.file):
        raise ValueError(f"register: {kernel.op}.{kernel.pass_} has a kernel {kernel.name} already")
    _registered[:] = [other for other in _registered if other is not earlier] + [kernel]
    if kernel.file is not None:
        device.add_source(kernel.file)
    _by_op.cache_clear()
    algorithms.cache_clear()


def load_named() -> None:
    """Runs the Python files that PYCV_KERNELS names, which register their kernels."""
    for name in filter(None, os.environ.get("PYCV_KERNELS", "").split(os.pathsep)):
        path = Path(name).resolve()
        spec = spec_from_file_location(path.stem, path)
        if spec is None or spec.loader is None or not path.is_file():
            raise ImportError(f"PYCV_KERNELS={name}: there is no such Python file")
        module = sys.modules[path.stem] = module_from_spec(spec)
        spec.loader.exec_module(module)


@cache
def _by_op() -> dict[tuple[str, str], tuple[Kernel, ...]]:
    table: dict[tuple[str, str], list[Kernel]] = {}
    backends = (_cpu_backend, _cuda_backend, _triton_backend, _numba_backend)
    for kernel in (*(kernel for backend in backends for kernel in backend.KERNELS), *_registered):
        table.setdefault((kernel.op, kernel.pass_), []).append(kernel)
    for (op, pass_), kernels in table.items():
        kernels.append(_vendor.entry(op, pass_))
    return {key: tuple(kernels) for key, kernels in table.items()}


def kernels(op: str | None = None, pass_: str | None = None) -> list[Kernel]:
    """All registered kernels, optionally of one op (``conv2d``) and pass; torch's own is the last of each."""
    return [k for (o, p), ks in _by_op().items() if op in (None, o) and pass_ in (None, p) for k in ks]


@cache
def algorithms() -> dict[str, set[str]]:
    """The algorithm names of each ``op.pass``, and the names of their variants (``winograd/f4``)."""
    return {
        f"{op}.{pass_}": {name for k in ks for name in (k.algorithm, k.full_algorithm)}
        for (op, pass_), ks in _by_op().items()
    }


def own_backend() -> str | None:
    """The backend of pycv's own kernels on this CPU: ``cpu``, or ``numba`` where the C++ kernels are not built; None
    where neither can run, so that torch runs everything."""
    if _cpu_backend._cpu is not None:
        return "cpu"
    return None if _numba_backend.missing() else "numba"


# torch runs what it is predicted to run this many times faster, and by this much. Predictions err by a fifth, the
# smallest of many by more; over the times recorded of some 2000 layers smaller margins lost time, larger ones gained
# little.
TORCH_MARGIN, TORCH_SECONDS = 1.5, 2e-6


class _TooMuchWorkspace(Exception):
    """Of a plan, with the kernel's name and the reason in words."""


def choose(problem: Problem, settings: Settings, threads: int, kept: bool = False) -> Choice:
    """Which kernel runs a problem under these settings, with its plan.

    ``kept``: the caller keeps the prepared weight, so that preparing it is no part of a call.

    What a kernel needs of workspace shows when it is planned, which only those are that may be taken. A GPU kernel that
    needs more than the settings allow is passed over, and the others are weighed again; not so of norms.

    Raises
    ------
    UnsupportedError
        If ``settings.backend``, ``settings.algorithm`` or ``settings.workspace_limit`` leaves no kernel that supports
        the problem.
    """
    too_large: dict[str, str] = {}
    while True:
        try:
            return _choose(problem, settings, threads, kept, too_large)
        except _TooMuchWorkspace as excess:
            name, reason = excess.args
            too_large[name] = reason


def _choose(problem: Problem, settings: Settings, threads: int, kept: bool, too_large: dict[str, str]) -> Choice:
    """The same without the kernels that need too much workspace. Raises _TooMuchWorkspace where one more does."""
    reasons: list[tuple[str, str]] = []
    allowed = []
    for kernel in _by_op()[problem.op, problem.pass_]:
        reason = why_not(kernel, problem, settings) or too_large.get(kernel.name)
        if reason is None:
            allowed.append(kernel)
        else:
            reasons.append((kernel.name, reason))
    if not allowed:
        raise UnsupportedError(f"no kernel for {problem}: {_why_none(reasons)}")
    rejected = [f"{name}: {reason}" for name, reason in reasons]
    wanted = settings.wanted(settings.prefer, problem.op, problem.pass_)
    trusted = [kernel for kernel in allowed if verified.trusted(kernel, problem)]
    preferred = _named(wanted, trusted) or _named(wanted, allowed)
    standing_in = [kernel for kernel in allowed if kernel.backend == "numba"]
    candidates = preferred or standing_in or trusted or allowed
    choosable = len(candidates) > 1 or candidates[0].tiles is not None
    verdict = _tuned(candidates, problem, settings, threads, kept, too_large) if choosable else None
    if verdict is None and len(candidates) == 1:
        asked_for = (settings.backend, settings.algorithm) != (None, None)
        alone = "the only one that supports it" if len(allowed) == 1 else "the GPU kernels were never verified here"
        alone = "it stands in for the C++ kernels, which are not built" if standing_in else alone
        reason = "preferred" if preferred else "asked for" if asked_for else alone
        return Choice(problem, candidates[0], _plan(candidates[0], problem, settings, threads), reason, tuple(rejected))
    verdict = verdict or _default(candidates, problem, settings, threads, kept)
    reason = f"preferred, {verdict.reason}" if preferred else verdict.reason
    estimates = tuple(sorted(verdict.seconds.items(), key=lambda item: item[1]))
    return Choice(problem, verdict.kernel, verdict.plan, reason, tuple(rejected), estimates, verdict.basis)


def same_kernel(choice: Choice, problem: Problem, settings: Settings, threads: int) -> Choice | None:
    """The chosen kernel for a problem that differs a little from the one it was chosen for; None where it does not
    take that, or torch was chosen."""
    kernel = choice.kernel
    if choice.plan is None or kernel.supports(problem) is not None:
        return None
    return replace(choice, problem=problem, plan=_plan(kernel, problem, settings, threads))


def _why_none(reasons: list[tuple[str, str]]) -> str:
    """Of the kernels that were asked for, each reason once; what was asked for, where no kernel is all of it."""
    told: dict[str, list[str]] = {}
    for name, reason in reasons:
        told.setdefault(reason, []).append(name)
    asked = [reason for reason in told if not reason.endswith(_ASKED_FOR)]
    if not asked:
        return f"none is all that was asked for ({', '.join(reason.removesuffix(_ASKED_FOR) for reason in told)})"
    return "; ".join(f"{', '.join(dict.fromkeys(told[reason]))}: {reason}" for reason in asked)


def _named(wanted: str | None, kernels: list[Kernel]) -> list[Kernel]:
    return [kernel for kernel in kernels if wanted in (kernel.algorithm, kernel.full_algorithm)]


class _Verdict(NamedTuple):
    """A kernel, its plan, why it was taken, and the seconds of the contenders that decided it."""

    kernel: Kernel
    plan: Any
    reason: str
    seconds: dict[str, float]
    basis: str


def _tuned(
    candidates: list[Kernel], problem, settings: Settings, threads: int, kept: bool, too_large: dict[str, str]
) -> _Verdict | None:
    """What was measured, now or (with the same result for as long as the kernels are the same) earlier."""
    on_gpu = problem.device == "cuda"
    if not any(kernel.on_gpu if on_gpu else kernel.backend == "cpu" for kernel in candidates):
        return None  # nothing else is measured
    names = sorted({*(kernel.name for kernel in candidates), *too_large})  # the same, whoever was planned so far
    key = _tuning_key(names, problem, settings, threads, kept)
    entry = tuned_choices.lookup(key, problem.device)
    measuring = settings.autotune and not (on_gpu and torch.cuda.is_current_stream_capturing())
    if entry is None and not measuring:
        return None
    by_name = {each.name: each for kernel in candidates for each in kernel.in_tiles(problem)}
    if entry is None or entry.kernel not in by_name:
        if not measuring or len(by_name) == 1:
            return None
        contenders = [(kernel, _plan(kernel, problem, settings, threads)) for kernel in by_name.values()]
        guesses = {} if on_gpu else _predictions(contenders, problem, threads, kept)
        entry = autotune.tuned(key, problem, contenders, guesses, kept)
    winner = by_name[entry.kernel]
    reason = "tuned: measured " + _compared(winner.name, entry.seconds)
    return _Verdict(winner, _plan(winner, problem, settings, threads), reason, entry.seconds, "measured")


def _tuning_key(names: list[str], problem: Problem, settings: Settings, threads: int, kept: bool) -> str:
    """All that the fastest kernel depends on besides machine and versions; what torch's switches do to it included."""
    on_gpu = problem.device == "cuda"
    facts = {
        "contenders": names,
        "deterministic": _deterministic(settings),
        "kept": kept,
        "precision": settings.precision,
        "threads": None if on_gpu else threads,
        "torch_precision": _torch_precision(on_gpu),
        "workspace_limit": settings.workspace_limit,
    }
    if on_gpu:
        cudnn = torch.backends.cudnn
        facts["cudnn"] = [cudnn.enabled, cudnn.benchmark, cudnn.deterministic]
    return f"{problem} {json.dumps(facts)}"


def _torch_precision(on_gpu: bool) -> list[str]:
    """What torch may round the operands of matrix products and convolutions to. Its older switches answer through the
    newer ones, which answer even where both were used."""
    backends: Any = torch.backends
    switches = (backends.cuda.matmul, backends.cudnn.conv) if on_gpu else (backends.mkldnn.matmul, backends.mkldnn.conv)
    return [{"none": "ieee"}.get(switch.fp32_precision, switch.fp32_precision) for switch in switches]


def _default(candidates: list[Kernel], problem, settings: Settings, threads: int, kept: bool) -> _Verdict:
    """The kernel with the smallest predicted time; torch where it is ahead by a margin. Of GPU kernels, the first."""
    if candidates[0].on_gpu:
        plan = _plan(candidates[0], problem, settings, threads)
        return _Verdict(candidates[0], plan, "the first of its backend that supports it", {}, "")
    contenders = [(kernel, _plan(kernel, problem, settings, threads)) for kernel in candidates]
    plans = {kernel.name: plan for kernel, plan in contenders}
    own = [kernel for kernel in candidates if kernel.plan is not None]
    torchs = next((kernel for kernel in candidates if kernel.plan is None), None)
    if torchs is not None and not model.current().measured:
        return _Verdict(torchs, None, "this device class is not measured: `pycv tune machine` does it", {}, "")
    seconds = _predictions(contenders, problem, threads, kept)
    best = min(own, key=lambda kernel: seconds[kernel.name])
    rival = float("inf") if torchs is None else seconds.get(torchs.name, float("inf"))
    if torchs is not None and max(rival * TORCH_MARGIN, rival + TORCH_SECONDS) < seconds[best.name]:
        best = torchs
    return _Verdict(best, plans[best.name], "predicted " + _compared(best.name, seconds), seconds, "predicted")


def _predictions(contenders, problem: Problem, threads: int, kept: bool) -> dict[str, float]:
    """Predicted seconds by name; torch is missing where nothing was measured for it."""
    table = model.current()
    predictions = {
        kernel.name: model.predicted(table, kernel, problem, plan, threads, kept) for kernel, plan in contenders
    }
    return {name: seconds for name, seconds in predictions.items() if seconds is not None}


def _compared(name: str, seconds: dict[str, float]) -> str:
    """``0.18 ms; torch:torch 0.52, cpu:direct 0.6``: the winner, the two that came closest, and torch."""
    others = sorted((s, other) for other, s in seconds.items() if other != name)
    shown = others[:2] + [pair for pair in others[2:] if pair[1].startswith("torch")]
    beside = ", ".join(f"{other} {1e3 * s:.2g}" for s, other in shown)
    return f"{1e3 * seconds[name]:.2g} ms" + (f"; {beside}" if beside else "")


def _plan(kernel: Kernel, problem: Problem, settings: Settings, threads: int) -> Any:
    if kernel.plan is None:
        return None
    plan = kernel.plan(problem, threads, settings.workspace_limit)
    needed = getattr(plan, "workspace_bytes", 0)
    # What norms and sums keep for each channel is never much, and no kernel of them does with less.
    if kernel.on_gpu and needed > settings.workspace_limit and not isinstance(problem, NormProblem):
        reason = f"needs {needed} bytes of workspace, workspace_limit={settings.workspace_limit}"
        raise _TooMuchWorkspace(replace(kernel, tile="").name, reason)
    return plan


_ASKED_FOR = " was asked for"


def why_not(kernel: Kernel, problem: Problem, settings: Settings) -> str | None:
    """Why a kernel may not run a problem under these settings, in words; None if it may."""
    if settings.backend not in (None, kernel.backend):
        return f"backend={settings.backend!r}{_ASKED_FOR}"
    wanted = settings.wanted(settings.algorithm, problem.op, problem.pass_)
    has_it = wanted in algorithms()[f"{problem.op}.{problem.pass_}"]
    if wanted is not None and has_it and wanted not in (kernel.algorithm, kernel.full_algorithm):
        return f"algorithm={wanted!r}{_ASKED_FOR}"
    if kernel.backend == "numba" and _stands_back(kernel, problem, settings):
        return "it stands in for the C++ kernels, which are built"
    loosest = settings.precision or "default"
    if NUMERIC_CLASSES.index(kernel.numeric_class) > NUMERIC_CLASSES.index(loosest):
        return f"numeric class {kernel.numeric_class} is looser than precision={loosest!r}"
    if _deterministic(settings) and not kernel.deterministic:
        return "not deterministic"
    return kernel.supports(problem)


def _stands_back(kernel: Kernel, problem: Problem, settings: Settings) -> bool:
    """A Numba kernel runs where the C++ ones are not built, or is asked for by a name that they do not have."""
    if settings.backend is not None or _cpu_backend._cpu is None:
        return False
    others = [other for other in _by_op()[problem.op, problem.pass_] if other.backend == "cpu"]
    for choice in (settings.algorithm, settings.prefer):
        wanted = settings.wanted(choice, problem.op, problem.pass_)
        if _named(wanted, [kernel]) and not _named(wanted, others):
            return False
    return True


def _deterministic(settings: Settings) -> bool:
    asked = settings.deterministic
    return torch.are_deterministic_algorithms_enabled() if asked is None else asked


# ---------------------------------------------------------------------------------------------- call log


@dataclass
class Call:
    """One recorded run of a kernel (or of torch in its place)."""

    choice: Choice
    clock: _HostClock | _DeviceClock
    thread: int = field(default_factory=threading.get_ident)

    @property
    def seconds(self) -> float:
        """How long it took. Of a run on a GPU this waits until it has ended."""
        return self.clock.seconds()


recorders: list[list[Call]] = []  # empty almost always: the ops test its truth before anything else


@contextmanager
def record() -> Iterator[list[Call]]:
    """Collects every call of every thread inside the block, in the order in which they end."""
    calls: list[Call] = []
    recorders.append(calls)
    try:
        yield calls
    finally:
        recorders[:] = [calls_ for calls_ in recorders if calls_ is not calls]


RANGE = "pycv.call"  # the profiler range around every recorded call


@contextmanager
def timed(choice: Choice) -> Iterator[None]:
    """Times one run and hands it to the recorders. To torch's profiler the run is a range named ``RANGE``."""
    if not recorders:
        yield
        return
    with torch._C._profiler._RecordFunctionFast(RANGE):
        on_device = choice.problem.device == "cuda" and not torch.cuda.is_current_stream_capturing()
        clock = _DeviceClock() if on_device else _HostClock()
        yield
        clock.stop()
        call = Call(choice, clock)
        for calls in recorders:
            calls.append(call)


class _HostClock:
    """Time that passes in this thread."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    def stop(self) -> None:
        self._stop = time.perf_counter()

    def seconds(self) -> float:
        return self._stop - self._start


class _DeviceClock:
    """Time that passes on the current stream of a GPU, which runs behind: nothing waits for it before it is asked."""

    def __init__(self) -> None:
        self._start, self._stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self._start.record()

    def stop(self) -> None:
        self._stop.record()

    def seconds(self) -> float:
        self._stop.synchronize()
        return self._start.elapsed_time(self._stop) / 1e3
