"""Every kernel under the roofline: `pycv bench roofline`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .. import registry, settings
from . import gpu, machine
from .problems import Case
from .report import aligned_table, by_problem, grouped_table, reasons
from .runner import Progress, Row, run

SET = "roofline"  # problems for every kernel
SECONDS_PER_KERNEL = 0.2


def kernels(one: Case) -> list[str]:
    """The contenders that force each of pycv's kernels for this problem: those that support it, of its own backend."""
    backend = "cuda" if one.problem.device == "cuda" else "cpu"
    found = registry.kernels(one.problem.op, one.problem.pass_)
    return list(dict.fromkeys(k.name for k in found if k.backend == backend and k.supports(one.problem) is None))


def place_all(
    cases: Iterable[Case], threads: int | None = None, budget: float | None = None, progress: Progress | None = None
) -> list[Row]:
    """Rows as of :func:`pycv.bench.run`, for every kernel that supports a problem. ``budget``: seconds for all."""
    chosen = [(one, names) for one in cases if (names := kernels(one))]
    count = sum(len(names) for _, names in chosen)
    each = SECONDS_PER_KERNEL if budget is None else budget / max(count, 1)
    rows: list[Row] = []
    for done, (one, names) in enumerate(chosen):
        if progress:
            progress(done, len(chosen), one.name)
        with settings.use(precision="fast"):  # kernels of every numeric class
            rows += run([one], names, threads=threads, budget=each * len(names))
    if progress:
        progress(len(chosen), len(chosen), "done")
    return rows


def gpu_peak_table() -> str:
    """The same of the current GPU. Raises RuntimeError where there is none."""
    here = gpu.peaks()
    lines = [("multiply-adds", "TFLOP/s"), *((dtype, f"{rate / 1e12:.1f}") for dtype, rate in here.flops.items())]
    return f"{here.gpu}\n\n{aligned_table(lines)}\n\n{_memory_table(here)}"


def peak_table(threads: int | None = None) -> str:
    """The measured peaks: multiply-adds with each instruction set, and what each level of memory holds and moves.

    Raises RuntimeError where the C++ kernels are not built.
    """
    here = machine.peaks(threads)
    from .. import _cpu  # is there, or there would be no peaks

    lines: list[Sequence[str]] = [("multiply-adds", *(f"{dtype} GFLOP/s" for dtype in here.flops))]
    for isa in _cpu.compiled_isas():
        found = machine.peaks_of(isa, threads)
        rates = [f"{rate / 1e9:.0f}" for rate in found.flops.values()] if found else ["-"] * len(here.flops)
        lines.append((isa + (" (in use)" if isa == here.isa else ""), *rates))
    head = f"{machine.describe()['cpu']}, {here.threads} threads"
    return f"{head}\n\n{aligned_table(lines)}\n\n{_memory_table(here)}"


def _memory_table(peaks: machine.Peaks) -> str:
    memory: list[Sequence[str]] = [("memory", "holds", "GB/s")]
    for level in peaks.levels:
        size = "-" if level.name == "memory" else f"{level.bytes / 1024:.0f} KB"
        memory.append((level.name, size, f"{level.bandwidth / 1e9:.0f}"))
    return aligned_table(memory)


def table(rows: Sequence[Row]) -> str:
    """One line per kernel and problem, with what bounds it: the share of the least time that this allows."""
    header = ("problem", "kernel", "ms", "own GFLOP/s", "GB/s", "FLOP/byte", "roofline", "bound by")
    groups = [(group[0]["name"], [(row["contender"], *_cells(row)) for row in group]) for group in by_problem(rows)]
    return "\n".join([grouped_table(header, groups, left=(0, 1, 7)), *reasons(rows)])


def _cells(row: Row) -> tuple[str, ...]:
    if not row["seconds"] or row["roofline"] is None:
        return ("-",) * 6
    flops = row["algorithm_flops"]
    return (
        f"{'~' if row['noisy'] else ''}{1e3 * row['seconds']:.3f}",
        "-" if flops is None else f"{flops / row['seconds'] / 1e9:.1f}",
        f"{row['bytes'] / row['seconds'] / 1e9:.1f}",
        "-" if flops is None else f"{flops / row['bytes']:.1f}",
        f"{100 * row['roofline']:.0f} %",
        row["bound"],
    )
