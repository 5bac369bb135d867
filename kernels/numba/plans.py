"""Plans of the Numba kernels: all that follows from a problem, with the compiled code to run it.

As the C++ plans (csrc/cpu/plan.h): immutable, shared between threads; ``run`` takes addresses, keeps no state and
allocates nothing but the array objects through which Numba sees memory.
"""

from __future__ import annotations

from dataclasses import dataclass

from pycv.problem import ITEMSIZES, GemmProblem, PointwiseProblem

from . import gemm, relu, threads
from .compiled import Compiled
from .memory import View, extent
from .sharing import round_up, worthwhile


@dataclass(frozen=True)
class Cost:
    """Counts of work, as csrc/cpu/plan.h has them: what the choice among kernels goes by."""

    multiply_adds: float
    vector_elements: float
    bytes: float
    regions: float = 1.0


class Launch:
    """A kernel compiled for arrays like these: called with as many addresses, and the numbers that follow them.

    ``numbers`` are those of a run that gives none, and in any case of the types of all that will be given.
    """

    def __init__(self, kernel: Compiled, team: int, views: tuple[View, ...], numbers: tuple = ()) -> None:
        self._kernel, self._team, self._views, self._numbers = kernel, team, views, numbers
        self._signature = kernel.signature(team, *(view() for view in views), *numbers)
        self._call = kernel.compiled(self._signature)

    def __call__(self, addresses: tuple[int, ...], numbers: tuple | None = None) -> None:
        arrays = [view(address) for view, address in zip(self._views, addresses, strict=True)]
        call = self._kernel.compiled(self._signature) if threads.forked else self._call
        with threads.team(self._team):
            call(self._team, *arrays, *(self._numbers if numbers is None else numbers))


# ------------------------------------------------------------------------------------------------------- pointwise


class Relu:
    """csrc/bindings: run(input, grad_output, output)."""

    def __init__(self, p: PointwiseProblem, team: int) -> None:
        self._forward = p.pass_ == "forward"
        view = View(p.count, p.dtype)
        kernel, views = (relu.forward, (view,) * 2) if self._forward else (relu.gradient, (view,) * 3)
        self._launch = Launch(kernel, worthwhile(team, p.count, p.count), views)

    def run(self, input: int, grad_output: int, output: int) -> None:
        self._launch((input, output) if self._forward else (input, grad_output, output))

    launch = run


# ------------------------------------------------------------------------------------------------------------ gemm


class Gemm:
    """csrc/bindings: run(a, b, out, bias, residual, alpha, beta, workspace, b_prepared)."""

    def __init__(self, p: GemmProblem, team: int, workspace_limit: int) -> None:
        a, b, out = p.a.strides(p.m, p.k), p.b.strides(p.k, p.n), p.out.strides(p.m, p.n)
        residual = p.residual.strides(p.m, p.n) if p.residual is not None else (0, 0, 0)
        self._strides, self._sizes = (a, b, out, residual), (p.batch, p.m, p.n, p.k)
        self._relu = "relu" in p.epilogue
        itemsize = ITEMSIZES[p.dtype]
        self._tiling, team = _tiling(p, team, workspace_limit // itemsize)
        elements = team * (self._tiling.rows + self._tiling.depth) * self._tiling.columns
        self.workspace_bytes = itemsize * elements
        copies = p.batch == 1 and b[2] != 1
        self.prepared_weight_bytes = itemsize * p.k * p.n if copies else 0
        packed = 0 if b[2] == 1 else p.batch * p.k * p.n * self._tiling.row_blocks
        self.cost = Cost(p.flops / 2 / team, packed / team, p.bytes)
        dense = View(p.k * p.n, p.dtype)
        views = tuple(
            View(extent(shape, strides), p.dtype)
            for shape, strides in (
                ((p.batch, p.m, p.k), a), ((p.batch, p.k, p.n), b), ((p.batch, p.m, p.n), out), ((p.n,), (1,)),
                ((p.batch, p.m, p.n) if p.residual is not None else (0,) * 3, residual),
            )
        )  # fmt: skip
        workspace = View(elements, p.dtype)
        self._launch = Launch(gemm.product, team, (*views, workspace), self._numbers(1.0, 1.0, False))
        if copies:
            self._launch_prepared = Launch(
                gemm.product, team, (views[0], dense, *views[2:], workspace), self._numbers(1.0, 1.0, True)
            )
            self._prepare = Launch(gemm.prepare, team, (views[1], dense), (p.k, p.n, b[1], b[2]))

    def _numbers(self, alpha: float, beta: float, prepared: bool) -> tuple:
        a, b, out, residual = self._strides
        b = (0, self._sizes[2], 1) if prepared else b
        return float(alpha), float(beta), self._relu, gemm.Matrices(*self._sizes, *a, *b, *out, *residual), self._tiling

    def prepare_weight(self, b: int, prepared: int) -> None:
        self._prepare((b, prepared))

    def run(
        self, a: int, b: int, out: int, bias: int = 0, residual: int = 0, alpha: float = 1.0, beta: float = 1.0,
        workspace: int = 0, b_prepared: bool = False,
    ) -> None:  # fmt: skip
        prepared = bool(b_prepared) and self.prepared_weight_bytes > 0
        launch = self._launch_prepared if prepared else self._launch
        launch((a, b, out, bias, residual, workspace), self._numbers(alpha, beta, prepared))

    def launch(self, a: int, b: int, out: int, bias: int, residual: int, workspace: int, b_prepared: bool) -> None:
        self.run(a, b, out, bias, residual, 1.0, 1.0, workspace, b_prepared)


def _tiling(p: GemmProblem, team: int, elements: int) -> tuple[gemm.Tiling, int]:
    """Tiles and the threads that share them: smaller ones where there would be fewer than threads, or where the
    workspace would exceed so many elements."""
    team = worthwhile(team, p.batch * p.m * p.n * max(p.k, 1) // 8, max(1, p.batch * p.m * p.n))
    rows, depth, columns = min(gemm.ROWS, max(p.m, 1)), min(gemm.DEPTH, max(p.k, 1)), min(gemm.COLUMNS, max(p.n, 1))
    if p.batch * -(-p.m // rows) * -(-p.n // columns) < team:
        if p.n >= 16 * team:
            columns = min(columns, round_up(-(-p.n // team), 16))
        else:
            rows = min(rows, max(1, round_up(-(-p.m // team), 4)))
    while team * (rows + depth) * columns > elements and max(rows, depth, columns) > 16:
        rows, depth, columns = (max(1, size // 2) if size > 16 else size for size in (rows, depth, columns))
    tiling = gemm.Tiling(rows, depth, columns, -(-p.m // rows), -(-p.n // columns))
    return tiling, max(1, min(team, p.batch * tiling.row_blocks * tiling.column_blocks))
