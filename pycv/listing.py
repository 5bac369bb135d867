"""``pycv.kernels()``: the registered kernels as a table, and what each says to a problem.

``pycv.kernels`` is the package of kernels and, as a module that can be called, the function that lists them.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch

from . import kernels as _package
from . import registry, settings
from .kernels import Kernel
from .problem import Problem

_COLUMNS = ("op", "pass", "backend", "algorithm", "numeric class", "deterministic")


class KernelList(list[Kernel]):
    """Registered kernels in the order in which they are tried; ``str(...)`` is a table."""

    def rows(self) -> list[dict[str, Any]]:
        """One dict per kernel, with the table's columns as keys."""
        values = [(k.op, k.pass_, k.backend, k.algorithm, k.numeric_class, k.deterministic) for k in self]
        return [dict(zip(_COLUMNS, row, strict=True)) for row in values]

    def __str__(self) -> str:
        shown = {True: "yes", False: "no"}
        return _table([_COLUMNS, *([shown.get(v, v) for v in row.values()] for row in self.rows())])


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
    candidates = registry.kernels(problem.op, problem.pass_)
    try:
        choice = registry.choose(problem, settings.current(), torch.get_num_threads())
    except registry.UnsupportedError:
        return Answers(problem, [(kernel, _objection(kernel, problem)) for kernel in candidates])
    rejected = dict(text.split(": ", 1) for text in choice.rejected)
    others = [
        (kernel, "no: " + rejected[kernel.name] if kernel.name in rejected else "could run it")
        for kernel in candidates
        if kernel is not choice.kernel
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
