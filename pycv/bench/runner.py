"""``pycv.bench.run``: measures problems under contenders and gives rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from types import ModuleType
from typing import Any

import torch

from .. import registry
from ..problem import Problem
from ..timing import Timing, measure
from . import check, device, gpu, machine, roofline
from .contenders import DEFAULT, Call, Contender, contender
from .data import random_data, require_device, require_dtype
from .problems import Case, case

Row = dict[str, Any]
Progress = Callable[[int, int, str], None]
SECONDS_PER_PROBLEM = 2.0
REFUSALS = (RuntimeError, ValueError, TypeError)  # what torch objects to a problem with, out of memory included
MEASURED = ("seconds", "low", "high", "q25", "q75", "samples", "disturbed", "noisy")


def run(
    problems: Iterable[str | Problem | Case],
    contenders: Iterable[str | Contender] = DEFAULT,
    *,
    threads: int | None = None,
    budget: float | None = None,
    precision: float = 0.02,
    seed: int = 0,
    warm: bool = False,
    tf32: bool = False,
    progress: Progress | None = None,
    rows: list[Row] | None = None,
) -> list[Row]:
    """Times every contender on every problem, then compares each with float64 on fresh data.

    Parameters
    ----------
    problems : texts (``"conv2d.forward n8c64h56w56 k64r3s3 p1"``, optionally after ``NAME:``), problems or cases.
    contenders : names out of :func:`pycv.bench.contender_names`, or :class:`Contender` objects of your own.
    threads : for torch and pycv alike; ``torch.get_num_threads()`` if None. Restored afterwards.
    budget : seconds for everything, checks included, exceeded only where three rounds do not fit; None: 2 per problem.
    precision : half the width of a median's 95 % confidence interval, as a share of it, at which sampling stops.
    seed : of the random data.
    warm : on a GPU, leave the caches as the last call left them; else each call finds its operands in memory.
    tf32 : on a GPU, torch may round the operands of f32 products and convolutions to TF32; else nobody does who was
        not asked for a kernel of class fast by its name.
    progress : called as ``progress(done, total, name)`` before each problem and once at the end.
    rows : a list to add to, problem by problem, so that an interrupt leaves those before it; it is what is returned.

    Returns
    -------
    One dict per problem and contender, each measured once however often it is named, described by
    :data:`pycv.bench.report.ROW`. A contender that cannot run a problem, or raises an error at it, has ``seconds`` None
    and ``unavailable`` the reason; so has one whose time is above its own roofline, and one whose result is wrong.

    Raises
    ------
    ValueError
        For a problem or contender that does not exist, before anything is measured.
    """
    cases = list(dict.fromkeys(case(item) for item in problems))
    made = [contender(item) if isinstance(item, str) else item for item in contenders]
    chosen = list({each.name: each for each in made}.values())
    for one in cases:
        require_dtype(one.problem)
        require_device(one.problem)
    rows = [] if rows is None else rows
    deadline = time.perf_counter() + (SECONDS_PER_PROBLEM * len(cases) if budget is None else budget)
    with _threads(threads), torch.no_grad():
        if progress:
            progress(0, len(cases), "this machine's peaks")
        roofs = {name: _Roof(gpu if name == "cuda" else machine) for name in {one.problem.device for one in cases}}
        for done, one in enumerate(cases):
            if progress:
                progress(done, len(cases), one.name)
            seconds = max(0.0, deadline - time.perf_counter()) / (len(cases) - done)
            with device.fair(tf32) if one.problem.device == "cuda" else nullcontext():
                rows += _measure_case(one, chosen, roofs[one.problem.device], seconds, precision, seed, warm)
        if progress:
            progress(len(cases), len(cases), "done")
    return rows


def _measure_case(
    one: Case,
    contenders: list[Contender],
    roof: _Roof,
    seconds: float,
    precision: float,
    seed: int,
    warm: bool,
) -> list[Row]:
    start = time.perf_counter()
    calls, reasons = _prepared(one.problem, contenders, seed)
    # Checks and preparations come out of this problem's time: about as much again as has been spent so far.
    rest = seconds - 2 * (time.perf_counter() - start)
    if one.problem.device == "cuda":
        timings, late = device.measure(calls, rest, precision, flush=not warm)
        reasons |= late
    else:
        timings = measure(calls, rest, precision)
    calls.clear()
    fresh, failed = _prepared(one.problem, [c for c in contenders if c.name in timings], seed + 1)
    reasons |= failed
    expected = None
    try:
        expected = check.reference(one.problem, random_data(one.problem, seed + 1)) if fresh else None
    except REFUSALS as error:
        reasons |= dict.fromkeys(fresh, f"no float64 to compare with: {_reason(error)}")
        fresh.clear()
    rows = []
    for each in contenders:
        row = _row(one, each.name, timings.get(each.name) if each.name in fresh else None)
        row["unavailable"] = reasons.get(each.name)
        if each.name in fresh and expected is not None:
            with registry.record() as log:
                row["error"] = check.error(fresh[each.name], expected)
            choice = _choice_that_ran(log, one.problem)
            row["kernel"] = choice.kernel.name if choice else each.name
            refusal = check.refusal(one.problem, row["error"])
            if refusal is None:
                roof.place(row, one.problem, choice.plan if choice else None)
            else:
                _refuse(row, refusal)
        rows.append(row)
    return rows


def _prepared(problem: Problem, contenders: list[Contender], seed: int) -> tuple[dict[str, Call], dict[str, str]]:
    """The call of each contender that can run the problem, as a first run has shown, and why the others cannot."""
    calls: dict[str, Call] = {}
    reasons: dict[str, str] = {}
    try:
        data = random_data(problem, seed)
    except REFUSALS as error:  # more than there is memory for
        return calls, {each.name: _reason(error) for each in contenders}
    for each in contenders:
        try:
            call = each.prepare(problem, data)
            call()
            calls[each.name] = call
        except Exception as error:  # of whatever it stands on: a compiler, a driver
            reasons[each.name] = _reason(error)
    return calls, reasons


def _reason(error: Exception) -> str:
    """In one line."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def _choice_that_ran(log: list[registry.Call], problem: Problem) -> registry.Choice | None:
    """Of the recorded calls the one that did this problem's op and pass (a function may run several)."""
    choices = [call.choice for call in log]
    exact = [c for c in choices if (c.kernel.op, c.kernel.pass_) == (problem.op, problem.pass_)]
    return next(iter(exact or choices), None)


def _row(one: Case, name: str, timing: Timing | None) -> Row:
    problem = one.problem
    row: Row = {
        "name": one.name,
        "problem": str(problem),
        "contender": name,
        "kernel": None,
        "threads": torch.get_num_threads(),
        "flops": problem.flops,
        "bytes": problem.bytes,
    }
    row |= {field: getattr(timing, field, None) for field in MEASURED}
    row["gflops"] = problem.flops / timing.seconds / 1e9 if timing else None
    return row | dict.fromkeys(("algorithm_flops", "roofline", "bound", "error", "unavailable"))


def _refuse(row: Row, reason: str) -> None:
    """Takes back what was measured."""
    row |= dict.fromkeys((*MEASURED, "gflops", "roofline"))
    row["unavailable"] = reason


class _Roof:
    """What rows are measured by: the peaks of this machine or of its GPU, None where they are not known."""

    def __init__(self, source: ModuleType) -> None:
        self._source = source
        self._again = False  # whether the peaks were measured once more
        self.peaks: machine.Peaks | None
        try:
            self.peaks = source.peaks()
        except RuntimeError:  # no C++ kernels, no memory on the GPU: torch can still be measured
            self.peaks = None

    def place(self, row: Row, problem: Problem, plan: Any) -> None:
        """Fills in a measured row's place under the roofline, and refuses one that is above it.

        Before that the peaks are measured again: those that are kept may be of a busy hour.
        """
        placed = roofline.place(problem, plan, self.peaks, row["kernel"]) if self.peaks else None
        if placed is None or not row["seconds"]:
            return
        if placed.share(row["seconds"]) > 1 + roofline.MARGIN and not self._again:
            self.peaks, self._again = self._source.remeasured(), True
            self.place(row, problem, plan)
            return
        share = placed.share(row["seconds"])
        row |= {"algorithm_flops": placed.flops, "roofline": share, "bound": placed.bound}
        if share > 1 + roofline.MARGIN:
            _refuse(
                row,
                f"refused: {share:.2f} of its own roofline ({placed.bound}, {1e3 * placed.seconds:.3g} ms at best), "
                "which cannot be: a bug in the timing, in what its plan counts or in the machine's peaks",
            )


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if count is not None and count < 1:
        raise ValueError(f"threads={count}: expected 1 or more")
    try:
        torch.set_num_threads(before if count is None else count)
        yield
    finally:
        torch.set_num_threads(before)
