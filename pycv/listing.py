"""``pycv.kernels()``: the registered kernels as a table, and what each says to a problem.

``pycv.kernels`` is the package of kernels and, as a module that can be called, the function that lists them.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch

from . import kernels as _package
from . import registry, settings
from .choice import verified
from .kernels import Kernel
from .kernels import cuda as _cuda_backend
from .kernels import triton as _triton_backend
from .problem import Problem, parse

_COLUMNS = (
    "op", "pass", "backend", "algorithm", "numeric class", "deterministic", "dtypes", "layouts", "devices", "GPU state",
)  # fmt: skip
_DTYPES = ("f32", "f64", "f16", "bf16")
_LAYOUTS = ("nchw", "nhwc")
_DEVICES = ("cpu", "cuda")


class KernelList(list[Kernel]):
    """Registered kernels in the order in which they are tried; ``str(...)`` is a table."""

    def rows(self) -> list[dict[str, Any]]:
        """One dict per kernel, with the table's columns as keys."""
        names = ((k.op, k.pass_, k.backend, k.full_algorithm, k.numeric_class, k.deterministic) for k in self)
        return [
            dict(zip(_COLUMNS, (*row, *_supported(k), _gpu_state(k)), strict=True))
            for row, k in zip(names, self, strict=True)
        ]

    def __str__(self) -> str:
        return _table([_COLUMNS, *([_shown(value) for value in row.values()] for row in self.rows())])

    __repr__ = __str__


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return (value if isinstance(value, str) else " ".join(value)) or "-"


def _supported(kernel: Kernel) -> tuple[list[str], list[str], list[str]]:
    """The dtypes, layouts and devices that a kernel takes, found by asking it about a small plain problem."""

    def takes(dtype: str, layout: str, device: str) -> bool:
        return kernel.supports(parse(small_problem(kernel, dtype, layout, device))) is None

    devices = [device for device in _DEVICES if takes("f32", "nchw", device)]
    if not devices:
        return [], [], []
    has_layouts = kernel.op not in ("gemm", "relu")
    layouts = [layout for layout in _LAYOUTS if takes("f32", layout, devices[0])] if has_layouts else []
    return [dtype for dtype in _DTYPES if takes(dtype, "nchw", devices[0])], layouts, devices


def _gpu_state(kernel: Kernel) -> str:
    """How far a GPU kernel has come here: host-executed, compiled, verified on a device. Empty of other kernels."""
    if not kernel.on_gpu:
        return ""
    devices = [f"verified on {v.device} ({v.date}, {v.commit})" for v in verified.of(kernel)]
    backend = _cuda_backend if kernel.backend == "cuda" else _triton_backend
    return ", ".join([*backend.state(kernel), *(devices or ["not verified on a device"])])


def small_problem(kernel: Kernel, dtype: str, layout: str, device: str) -> str:
    head = f"{kernel.op}.{kernel.pass_}"
    if kernel.op == "relu":
        return f"{head} e64 {dtype} {device}"
    if kernel.op == "gemm":
        return f"{head} m8n8k8 {dtype} {device}"
    rank = int(kernel.op[-2]) if kernel.op[-1] == "d" else 2
    axes = slice(3 - rank, 3)
    sizes = "n2c8" + "".join(f"{axis}9" for axis in "dhw"[axes])
    window = "".join(f"{axis}3" for axis in "trs"[axes])
    shape = {"conv": f"k8{window}", "max_": window, "avg_": window, "adap": "o3", "loca": "l5"}.get(kernel.op[:4], "")
    return f"{head} {sizes} {shape} {dtype} {layout} {device}"


class Answers(list[tuple[Kernel, str]]):
    """Each kernel of a problem's op with what it says to the problem; the one that runs comes first."""

    problem: Problem

    def __init__(self, problem: Problem, answers: list[tuple[Kernel, str]]) -> None:
        super().__init__(answers)
        self.problem = problem

    def rows(self) -> list[dict[str, str]]:
        return [{"kernel": kernel.name, "numeric class": kernel.numeric_class, "answer": text} for kernel, text in self]

    def __str__(self) -> str:
        header = ("kernel", "numeric class", "answer")
        return f"{self.problem}\n" + _table([header, *(row.values() for row in self.rows())])

    __repr__ = __str__


def list_kernels(problem: str | Problem | None = None, *, op: str | None = None) -> KernelList | Answers:
    """All registered kernels, or with a problem (or its text) which of them would run it here and now, and why.

    Parameters
    ----------
    problem : such as ``"conv2d.forward n8c64h56w56 k64r3s3 p1 f32 nchw cpu"``; judged under the settings in force.
    op : only the kernels of this op (``conv2d``).

    Raises ValueError for a text that is no problem or an op that does not exist.
    """
    if problem is not None:
        from .bench.problems import case

        return _answers(case(problem).problem)
    known = {name.partition(".")[0] for name in registry.algorithms()}
    if op is not None and op not in known:
        raise ValueError(f"op={op!r}: expected one of {', '.join(sorted(known))}")
    return KernelList(registry.kernels(op))


def _answers(problem: Problem) -> Answers:
    candidates, in_force = registry.kernels(problem.op, problem.pass_), settings.current()
    try:
        choice = registry.choose(problem, in_force, torch.get_num_threads())
    except registry.UnsupportedError:
        return Answers(problem, [(kernel, _objection(kernel, problem)) for kernel in candidates])
    others = [
        (kernel, f"no: {reason}" if (reason := registry.why_not(kernel, problem, in_force)) else "could run it")
        for kernel in candidates
        if (kernel.backend, kernel.full_algorithm) != (choice.kernel.backend, choice.kernel.full_algorithm)
    ]
    return Answers(problem, [(choice.kernel, f"runs it: {choice.reason}"), *others])


def _objection(kernel: Kernel, problem: Problem) -> str:
    return "no: " + (kernel.supports(problem) or "excluded by the settings in force")


def _table(lines: list) -> str:
    cells = [list(line) for line in lines]
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    return "\n".join([text[0], "-" * max(map(len, text)), *text[1:]])


class _CallablePackage(ModuleType):
    __call__ = staticmethod(list_kernels)


_package.__class__ = _CallablePackage
kernels: Any = _package
