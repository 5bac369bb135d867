"""``pycv tune``: measures the constants of the cost model (pycv/choice/model.py) on this machine, or single choices.

A fixed drawn set of problems covers what the model distinguishes: passes, filters, strides, groups, layouts, dtypes,
sizes. Each is run by every kernel that supports it and by torch, with one thread and with all, several times over in
shuffled order: what disturbs a machine for seconds, or takes its caches, would else be taken for the speed of a kernel.
The constants of each group are fitted to the medians. Nothing here names an algorithm: a kernel that is registered is
measured.

`tune model` and `tune set` fill the choice cache instead (pycv/choice/cache.py): they run a network or problems once
under ``autotune``, so that what is measured is what later runs ask for.
"""

from __future__ import annotations

import math
import random
import statistics
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import torch

from . import models, registry, settings
from .bench import machine
from .bench.contenders import Unavailable, contender
from .bench.data import random_data
from .bench.problems import Case
from .choice import autotune, cache, device, files, model, runs
from .choice.fit import Fit, fit_related
from .problem import (
    ConvProblem,
    GemmProblem,
    Layout,
    NormProblem,
    PointwiseProblem,
    PoolProblem,
    Problem,
    has_offsets,
    output_size,
)
from .settings import DEFAULT_WORKSPACE_LIMIT

SEED = 2
PASSES = 3  # over all problems
SECONDS = 0.005  # for a contender on a problem in a pass
PREPARE_RUNS = 3
Progress = Callable[[int, int, str], None]
# Of each group, and in it of each problem and kernel: what is counted there, and the seconds of every pass.
Times = dict[str, dict[tuple[Problem, str], tuple[model.Counts, list[float]]]]


# ---------------------------------------------------------------------------------------------------- the problems


@dataclass(frozen=True)
class _Kind:
    """So many convolutions with one of these filters; channels between bounds, ``groups`` 1, "some" or "all".

    ``stem``: the first of a network, of an image with 1 to 4 channels; ``channels`` are then those of the output.
    """

    count: int
    filters: Sequence[int]
    stride: int = 1
    groups: str = "1"
    channels: tuple[int, int] = (8, 1024)
    rank: int = 2
    dtype: str = "f32"
    stem: bool = False


_KINDS = (
    _Kind(26, (3,)),
    _Kind(4, (3, 5), channels=(3, 12)),
    _Kind(6, (3, 5), channels=(16, 256), stem=True),
    _Kind(6, (3,), stride=2, channels=(16, 256), stem=True),
    _Kind(12, (5, 7), stride=2, channels=(16, 512), stem=True),
    _Kind(8, (8, 11), stride=4, channels=(16, 256), stem=True),
    _Kind(20, (1,)),
    _Kind(10, (5,)),
    _Kind(6, (7, 11, 15, 31), channels=(8, 128)),
    _Kind(16, (3,), stride=2),
    _Kind(5, (7, 5), stride=2, channels=(3, 64)),
    _Kind(3, (11, 8), stride=4, channels=(3, 32)),
    _Kind(12, (1,), stride=2),
    _Kind(14, (3, 5), groups="all"),
    _Kind(10, (3, 5), stride=2, groups="all"),
    _Kind(3, (15, 31), groups="all", channels=(8, 256)),
    _Kind(5, (3,), groups="some", channels=(32, 512)),
    _Kind(3, (3, 7), rank=1),
    _Kind(3, (3,), rank=3, channels=(4, 128)),
    _Kind(3, (1, 3), dtype="f64"),
)
_FLOPS = (1e5, 3e9)
_PRODUCTS = 6e8  # multiply-adds of a matrix product
_LEAST = 0.8  # of the time that multiply-adds take at the peak: counts contain padding that not every kernel multiplies
_BYTES = 1.2e8  # of a problem: some come from memory, some results are fresh memory
_LARGEST = {1: 2000, 2: 112, 3: 16}  # sizes, by the number of axes
_LAYOUTS = ("nchw", "nhwc", "nchw8c", "nchw16c")


def problems() -> list[Problem]:
    """What is measured: always the same problems. Those that no kernel of pycv supports are left out."""
    drawn: list[Problem] = [*_convolutions(), *_products(), *_pools(), *_norms(), *_pointwise()]
    return [p for p in drawn if any(k.plan is not None and k.supports(p) is None for k in _kernels(p))]


def _kernels(p: Problem):
    """Those among which the cost model chooses: Numba's stand in for the C++ kernels, never beside them."""
    return [kernel for kernel in registry.kernels(p.op, p.pass_) if kernel.backend != "numba"]


def _convolutions() -> Iterator[ConvProblem]:
    for name in _LAYOUTS:
        draw = random.Random(SEED)
        layout = Layout(name)
        for kind in _KINDS:
            for number in range(kind.count):
                p = _convolution(draw, kind)
                if layout.block > 1 and (number % 2 or kind.rank != 2):
                    continue
                p = replace(p, input=layout, output=layout, weight=Layout() if layout.block > 1 else layout)
                yield _with_epilogue(p, layout) if number % 4 == 3 else p
                yield from (replace(p, pass_=pass_) for pass_ in ("grad_input", "grad_weight"))


def _with_epilogue(p: ConvProblem, layout: Layout) -> ConvProblem:
    if p.k % 3:
        return replace(p, epilogue=("bias", "relu"))
    return replace(p, epilogue=("bias", "residual", "relu"), residual=layout)


def _convolution(draw: random.Random, kind: _Kind) -> ConvProblem:
    while True:
        n = draw.choice((1, 1, 2, 8))
        c, k = (_channels(draw, *bounds) for bounds in ((1, 4) if kind.stem else kind.channels, kind.channels))
        groups = 1
        if kind.groups != "1":
            groups = c if kind.groups == "all" else draw.choice((2, 4, 8, 32))
            k = c
        size = round(_log_uniform(draw, 28 if kind.stem else 2, _LARGEST[kind.rank] * (2 if kind.stem else 1)))
        filter = (draw.choice(kind.filters),) * kind.rank
        axes = ((size,) * kind.rank, filter, (kind.stride,) * kind.rank, tuple(f // 2 for f in filter))
        out = output_size(*axes, (1,) * kind.rank)
        p = ConvProblem(
            f"conv{kind.rank}d",
            "forward",
            n,
            c,
            axes[0],
            k,
            filter,
            out,
            *axes[2:],
            (1,) * kind.rank,
            groups,
            kind.dtype,
        )
        highest = _FLOPS[1] if groups == 1 else _FLOPS[1] / 4
        if c % groups == 0 and min(out) > 0 and _FLOPS[0] <= p.flops <= highest and p.bytes < _BYTES:
            return p


def _log_uniform(draw: random.Random, low: float, high: float) -> float:
    return math.exp(draw.uniform(math.log(low), math.log(high)))


def _channels(draw: random.Random, low: int, high: int) -> int:
    """Mostly whole vectors, as channels are."""
    count = round(_log_uniform(draw, low, high))
    return count if low < 8 or draw.random() < 0.2 else max(8, round(count / 16) * 16)


def _products() -> Iterator[GemmProblem]:
    draw = random.Random(SEED)
    for low, high, count in ((16, 700, 12), (1, 7, 6)):
        for number in range(count):
            m, n, k = round(_log_uniform(draw, low, high)), *(round(_log_uniform(draw, 16, 1500)) for _ in range(2))
            if m * n * k > _PRODUCTS:
                k = max(16, int(_PRODUCTS / (m * n)))
            plain = GemmProblem(m, n, k, dtype="f64" if number == 0 else "f32")
            weight = replace(plain, b=replace(plain.b, kind="col"), epilogue=("bias",))
            yield from (plain, weight, replace(plain, m=k, k=m, a=replace(plain.a, kind="col")))
            if number % 3 == 0:
                yield replace(plain, batch=draw.choice((4, 16)), m=min(m, 128), n=min(n, 128), k=min(k, 128))


def _pools() -> Iterator[PoolProblem]:
    ops = {kernel.op for kernel in registry.kernels() if "pool2d" in kernel.op}
    for name in ("nchw", "nhwc"):
        for op in sorted(ops):
            draw = random.Random(SEED)
            for number in range(16):
                yield from _pooling(draw, op, number, Layout(name))


def _pooling(draw: random.Random, op: str, number: int, layout: Layout) -> Iterator[PoolProblem]:
    n, c = draw.choice((1, 8)), _channels(draw, 16, 512)
    size = (round(_log_uniform(draw, 7, 112)),) * 2
    filter, stride, padding = ((2, 2), (2, 2), (0, 0)) if number % 2 else ((3, 3), (2, 2), (1, 1))
    if op.startswith("adaptive"):
        out: tuple[int, ...] = (7 if number % 2 else 1,) * 2
        p = PoolProblem(op, "forward", n, c, size, out, input=layout, output=layout)
    else:
        out = output_size(size, filter, stride, padding, (1, 1))
        p = PoolProblem(op, "forward", n, c, size, out, filter, stride, padding, (1, 1), input=layout, output=layout)
    yield p
    if "max" in op:
        forms = ["int64", "offset"] if has_offsets(p.size, p.filter, p.padding, p.dilation) else ["int64"]
        yield from (replace(p, indices=form, pass_=pass_) for form in forms for pass_ in ("forward", "grad_input"))
    else:
        yield replace(p, pass_="grad_input")


def _norms() -> Iterator[NormProblem]:
    for name in ("nchw", "nhwc"):
        draw = random.Random(SEED)
        for _ in range(8):
            n, c, size = draw.choice((1, 8)), _channels(draw, 16, 512), round(_log_uniform(draw, 7, 112))
            p = NormProblem("batch_norm", "forward", n, c, (size, size), input=Layout(name), output=Layout(name))
            yield from (p, replace(p, training=True), replace(p, training=True, pass_="grad_input"))


def _pointwise() -> Iterator[PointwiseProblem]:
    for count in (10, 1000, 30_000, 300_000, 1_000_000, 6_000_000):
        yield from (PointwiseProblem("relu", pass_, count) for pass_ in ("forward", "grad_input"))


# ------------------------------------------------------------------------------------------------------ measuring


@dataclass
class Tuning:
    """What :func:`tune` found: the recorded form of a table, and where it lies."""

    value: dict[str, Any]
    path: Path
    fits: dict[tuple[int, str], Fit] = field(default_factory=dict)

    def __str__(self) -> str:
        header = ("threads", "kernel and kind of problem", "problems", "median error", "worst")
        lines = [header] + [
            (str(threads), group, str(len(f.errors)), f"{f.median_error:.0%}", f"{f.worst_error:.0%}")
            for (threads, group), f in sorted(self.fits.items())
        ]
        widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
        text = [
            "  ".join(c.ljust(w) if i == 1 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True)))
            for line in lines
        ]
        return "\n".join([*text, f"Predicted against measured times. Recorded in {self.path}"])


def tune(
    only: str = "",
    threads: Iterable[int] | None = None,
    path: Path | None = None,
    chosen: Sequence[Problem] | None = None,
    progress: Progress | None = None,
) -> Tuning:
    """Measures this machine and records its table.

    Parameters
    ----------
    only : of the problems those whose text starts with this (``conv2d.forward``); the rest of a table that is there
        stays as it is.
    threads : the thread counts; one, and as many as torch uses, if None.
    path : the file; that of this machine in the cache directory if None.
    chosen : other problems than :func:`problems`.
    progress : called as ``progress(done, total, name)``.

    Raises
    ------
    RuntimeError
        If the C++ kernels are not built.
    """
    here = device.current()
    path = model.machine_file(here) if path is None else path
    selected = [p for p in (problems() if chosen is None else chosen) if str(p).startswith(only)]
    before = torch.get_num_threads()
    counts = sorted({1, before} if threads is None else set(threads))
    rates = _rates()
    found: dict[int, Times] = {}
    total = len(counts) * PASSES * len(selected)
    done = 0
    try:
        for count in counts:
            torch.set_num_threads(count)
            times = found.setdefault(count, {})
            for problem in _shuffled(selected):
                if progress:
                    progress(done, total, f"{problem.op}.{problem.pass_}")
                _measure(problem, count, times)
                done += 1
    finally:
        torch.set_num_threads(before)
    if progress:
        progress(total, total, "done")
    fits = {(count, group): one for count, times in found.items() for group, one in _fits(times, rates).items()}
    value = _recorded(path, here, rates, fits)
    files.write(path, value)
    model.forget()
    return Tuning(value, path, fits)


def _shuffled(selected: Sequence[Problem]) -> Iterator[Problem]:
    draw = random.Random(SEED)
    for _ in range(PASSES):
        yield from draw.sample(selected, len(selected))


def _fits(times: Times, rates: model.Rates) -> dict[str, Fit]:
    """Groups whose names differ in the last word alone, the layout or the kind of problem, are related."""
    related: dict[str, dict[str, list[tuple[model.Counts, float]]]] = {}
    for group, taken in times.items():
        samples = [(counts, statistics.median(seconds)) for counts, seconds in taken.values()]
        related.setdefault(group.rpartition(" ")[0], {})[group] = samples
    least = {"multiply_adds": _LEAST / rates.multiply_adds}
    fits: dict[str, Fit] = {}
    for groups in related.values():
        fits |= fit_related(groups, rates.guess(), least)
    return fits


def _rates() -> model.Rates:
    """Nominal rates of this machine: the peak of one thread, and the bandwidth of all."""
    peaks = machine.peaks()
    return model.Rates(peaks.flops["f32"] / 2 / peaks.threads, peaks.memory_bandwidth)


def _measure(problem: Problem, threads: int, times: Times) -> None:
    """Adds what every kernel takes for a problem, and what it counts there, to the times of its group."""

    def add(kernel, plan, step: str, counts: model.Counts, seconds: float) -> None:
        taken = times.setdefault(model.group_of(kernel, problem, plan, step), {})
        taken.setdefault((problem, kernel.name), (counts, []))[1].append(seconds)

    contenders = [
        (kernel, kernel.plan(problem, threads, DEFAULT_WORKSPACE_LIMIT) if kernel.plan is not None else None)
        for kernel in _kernels(problem)
        if kernel.supports(problem) is None
    ]
    steps = (("", False), ("kept", True)) if isinstance(problem, GemmProblem) else (("", True),)
    for step, kept in steps:
        seconds = autotune.measure(problem, contenders, {}, kept, budget=SECONDS * len(contenders))
        for kernel, plan in contenders:
            if kernel.name in seconds:
                add(kernel, plan, step, model.counts_of(problem, plan, threads), seconds[kernel.name])
    preparable = [(kernel, plan) for kernel, plan in contenders if model.prepare_counts(problem, plan) is not None]
    if not preparable:
        return
    operands = runs.Operands(problem)
    for kernel, plan in preparable:
        call, counts = runs.preparing(plan, operands), model.prepare_counts(problem, plan)
        if call is not None and counts is not None:
            add(kernel, plan, "prepare", counts, min(_timed(call) for _ in range(PREPARE_RUNS)))


def _timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _recorded(path: Path, here: device.Device, rates: model.Rates, fits: dict[tuple[int, str], Fit]) -> dict[str, Any]:
    """The table with these fits in it; of one that is there, of the same device class, the other groups are kept."""
    old = files.read(path, model.check)
    threads: dict[str, Any] = old["threads"] if old is not None and old["device"] == asdict(here) else {}
    for (count, group), one in sorted(fits.items()):
        threads.setdefault(str(count), {})[group] = {
            "constants": {name: float(f"{c:.4g}") for name, c in one.constants.items()},
            "problems": len(one.errors),
            "median_error": round(one.median_error, 3),
            "worst_error": round(one.worst_error, 3),
        }
    from . import __version__

    return {
        "schema": model.SCHEMA,
        "recorded": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "device": asdict(here),
        "pycv": __version__,
        "torch": torch.__version__,
        "rates": {name: float(f"{rate:.4g}") for name, rate in asdict(rates).items()},
        "threads": threads,
    }


# ------------------------------------------------------------------------------------------- filling the cache


def tune_model(
    name: str,
    batches: Sequence[int] = (1,),
    layouts: Sequence[str] = ("nchw",),
    size: int | None = None,
    train: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
) -> dict[str, cache.Entry]:
    """Measures what a network of the zoo runs, once each, for the choice cache; returns the new entries.

    Parameters
    ----------
    batches, layouts : each combination is run; layouts are nchw and nhwc.
    size : height and width of the images; the model's own if None.
    train : forward in training mode and backward, besides inference.
    threads : ``torch.get_num_threads()`` if None.

    Raises ValueError for a model that does not exist, :class:`cache.NotWritten` where a choice could not be kept.
    """
    channels, *own = models.image_shape(name)
    sizes = own if size is None else [size, size]

    def run(batch: int, layout: str) -> None:
        memory_format = torch.channels_last if layout == "nhwc" else torch.contiguous_format
        network = models.create(name).eval().to(memory_format=memory_format)  # type: ignore[call-overload]
        x = torch.randn(batch, channels, *sizes).contiguous(memory_format=memory_format)
        with torch.no_grad():
            network(x)
        if train:
            output = network.train()(x)
            outputs = output if isinstance(output, tuple) else (output,)
            sum((each.sum() for each in outputs if each is not None), torch.zeros(())).backward()

    steps = {f"{name}, batch {b}, {layout}": (b, layout) for b in batches for layout in layouts}
    return _filled({text: partial(run, *step) for text, step in steps.items()}, threads, progress)


def tune_cases(
    cases: Iterable[Case], threads: int | None = None, progress: Progress | None = None
) -> dict[str, cache.Entry]:
    """Measures each problem once, as :func:`tune_model`; those that a function cannot be asked for are passed over."""

    def run(one: Case) -> None:
        with torch.no_grad(), suppress(Unavailable):
            contender("pycv").prepare(one.problem, random_data(one.problem, SEED))

    return _filled({str(one.problem): partial(run, one) for one in cases}, threads, progress)


def _filled(
    steps: dict[str, Callable[[], None]], threads: int | None, progress: Progress | None
) -> dict[str, cache.Entry]:
    known = set(cache.entries())
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(before if threads is None else threads)
        with settings.use(autotune=True), warnings.catch_warnings():
            warnings.simplefilter("error", cache.NotWritten)
            for done, (text, step) in enumerate(steps.items()):
                if progress:
                    progress(done, len(steps), text)
                step()
    finally:
        torch.set_num_threads(before)
    if progress:
        progress(len(steps), len(steps), "done")
    return {key: entry for key, entry in cache.entries().items() if key not in known}


def added(found: dict[str, cache.Entry]) -> str:
    """What :func:`tune_model` and :func:`tune_cases` have found, for people."""
    lines = [_entry_line(key, entry) for key, entry in found.items()]
    return "\n".join([f"tuned {len(found)} choices; the rest was known, or had no choice", *lines])


# -------------------------------------------------------------------------------------------------------- showing


def show() -> str:
    """The table in use and what has been tuned, for people."""
    lines = [f"cost model: {model.current().name}"]
    paths = cache.paths()
    for where, file in paths.items():
        entries = cache.entries(where)
        lines.append(f"tuned choices: {len(entries)} in {file}")
        lines += [_entry_line(key, entry) for key, entry in entries.items()]
    return "\n".join(lines if paths else [*lines, "nothing to tune: no C++ kernels are built, and there is no GPU"])


def _entry_line(key: str, entry: cache.Entry) -> str:
    problem = key.partition(" {")[0]
    others = ", ".join(f"{name} {1e3 * s:.3g}" for name, s in sorted(entry.seconds.items(), key=lambda i: i[1]))
    return f"  {problem}: {entry.kernel} ({others} ms)"


def clear(machine_too: bool = False) -> list[Path]:
    """Forgets what was tuned; with ``machine_too`` the tables of ``pycv tune machine`` as well. Returns the files."""
    removed = cache.clear()
    if machine_too:
        for file in sorted(files.cache_dir().glob("machine-*.json")):
            file.unlink(missing_ok=True)
            removed.append(file)
        model.forget()
    return removed
