"""Plans of the Numba kernels: all that follows from a problem, with the compiled code to run it.

As the C++ plans (csrc/cpu/plan.h): immutable, shared between threads; ``run`` takes addresses, keeps no state and
allocates nothing but the array objects through which Numba sees memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

from pycv.problem import ITEMSIZES, GemmProblem, Layout, NormProblem, PointwiseProblem, PoolProblem, Sizes

from .._plans import NormPlan
from . import (
    avg_pool,
    batch_norm,
    batch_norm_gradient,
    channel_sum,
    forks,
    gemm,
    local_response_norm,
    max_pool,
    relu,
    threads,
)
from .channels import BLOCK, Image
from .compiled import Compiled
from .memory import View, extent, spatial, strides_of
from .pool_windows import Pool, bounds_of
from .sharing import apart, round_up, worthwhile


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
        call = self._kernel.compiled(self._signature) if forks.forked else self._call
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
        in_place = b[2] == 1 or self._tiling.in_rows
        copies = p.batch == 1 and not in_place
        self.prepared_weight_bytes = itemsize * p.k * p.n if copies else 0
        packed = 0 if in_place else p.batch * p.k * p.n * self._tiling.row_blocks
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
    in_rows = p.m <= gemm.FEW_ROWS and p.a.strides(p.m, p.k)[2] == 1 and p.b.strides(p.k, p.n)[1] == 1
    tiling = gemm.Tiling(rows, depth, columns, -(-p.m // rows), -(-p.n // columns), in_rows)
    return tiling, max(1, min(team, p.batch * tiling.row_blocks * tiling.column_blocks))


# ------------------------------------------------------------------------------------------------------------ pool


def image_view(layout: Layout, n: int, c: int, size: Sizes, dtype: str) -> View:
    """Of an (n, c, *size) tensor."""
    return View(extent((n, c, *spatial(size, 1)), strides_of(layout, c, size)), dtype)


class Pooling:
    """csrc/bindings: run(input, output, indices)."""

    def __init__(self, p: PoolProblem, team: int) -> None:
        adaptive = p.op.startswith("adaptive")
        self._max, self._forward = "max" in p.op, p.pass_ == "forward"
        axes = [(p.filter, 1), (p.output_size, 1), (p.stride, 1), (p.padding, 0), (p.dilation, 1)]
        sizes = (
            p.n, p.c, *spatial(p.size, 1), *(value for values, fill in axes for value in spatial(values, fill)),
            int(adaptive), *strides_of(p.input, p.c, p.size), *strides_of(p.output, p.c, p.output_size),
        )  # fmt: skip
        g = Pool._make(sizes)
        output = image_view(p.output, p.n, p.c, p.output_size, p.dtype)
        views = [image_view(p.input, p.n, p.c, p.size, p.dtype), output]
        numbers: tuple = (g,)
        offsets = p.indices == "offset"
        if self._max:
            views.append(image_view(p.output, p.n, p.c, p.output_size, p.index_dtype))
        if self._max and not self._forward:
            kernel, self._table = max_pool.gradient, max_pool.steps_of(g)
            views.append(View(self._table.size if offsets else 0, "i64"))
        else:
            self._table = bounds_of(g)
            views.append(View(self._table.size, "i64"))
            if self._max:
                kernel, numbers = max_pool.forward, (g, offsets)
            else:
                kernel = avg_pool.forward if self._forward else avg_pool.gradient
                numbers = (g, p.divisor, p.count_include_pad)
        items = p.n * p.c * (prod(p.output_size) if self._forward else 1)
        self._launch = Launch(kernel, worthwhile(team, 4 * p.flops, max(1, items)), tuple(views), numbers)

    def run(self, input: int, output: int, indices: int = 0) -> None:
        table = self._table.ctypes.data
        self._launch((input, output, indices, table) if self._max else (input, output, table))

    launch = run


# ----------------------------------------------------------------------------------------------------------- norms


def _image(p: NormProblem) -> tuple[Image, int]:
    """The tensors of a norm, and how many blocks of channels they have."""
    x, y = strides_of(p.input, p.c, p.size), strides_of(p.output, p.c, p.size)
    z = strides_of(p.residual or p.input, p.c, p.size)
    pixels = p.c > 1 and all(strides[1] == 1 for strides in ((x, z) if p.op == "channel_sum" else (x, y, z)))
    block = min(p.c, BLOCK) if pixels else 1
    sizes = (p.n, p.c, *spatial(p.size, 1))
    return Image._make((*sizes, *x, *y, *z, block)), -(-p.c // block)


def _in_long_rows(g: Image) -> Image:
    """The same image with rows joined where in all tensors one begins where the last ended: each row has its price."""
    for outer in "hdn":
        size = getattr(g, outer)
        strides = [(getattr(g, f"{tensor}_{outer}"), getattr(g, f"{tensor}_w")) for tensor in "xyz"]
        if size > 1 and any(step != g.w * of_w for step, of_w in strides):
            break
        g = g._replace(**{outer: 1, "w": size * g.w})
    return g


class _Norm(NormPlan):
    def __init__(self, p: NormProblem, long_rows: bool) -> None:
        self._forward = p.pass_ == "forward"
        self._g, self._blocks = _image(p)
        if long_rows and self._g.block == 1:  # pixels of a row are summed one by one, and must not become too many
            self._g = _in_long_rows(self._g)
        self._input, self._output = (image_view(layout, p.n, p.c, p.size, p.dtype) for layout in (p.input, p.output))
        self._steps = p.n * p.c * prod(p.size)


class BatchNorm(_Norm):
    def __init__(self, p: NormProblem, team: int) -> None:
        super().__init__(p, long_rows=True)
        self._training, self._relu = p.training, "relu" in p.epilogue
        team = worthwhile(team, 2 * self._steps, max(1, self._blocks))
        sums, parameters = (
            team * apart(count * self._g.block) for count in (2 * batch_norm.SUMS, batch_norm.PARAMETERS)
        )
        self._sum_bytes = 8 * sums
        self.workspace_bytes = self._sum_bytes + parameters * ITEMSIZES[p.dtype]
        channel, none = View(p.c, p.dtype), View(0, p.dtype)
        scratch = (View(sums, "f64"), View(parameters, p.dtype))
        residual = none if p.residual is None else image_view(p.residual, p.n, p.c, p.size, p.dtype)
        views: tuple[View, ...]
        if self._forward:
            views = (self._input, self._output, *[channel] * 6, residual, *scratch)
            numbers = (1e-5, 0.1, p.training, self._relu, self._g)
            self._launch = Launch(batch_norm.forward, team, views, numbers)
        else:
            masked = self._output if self._relu else none
            views = (self._input, self._output, self._input, *[channel] * 7, masked, residual, *scratch)
            self._launch = Launch(batch_norm_gradient.gradient, team, views, (1e-5, p.training, self._g))

    def run(
        self, input=0, grad_output=0, output=0, weight=0, bias=0, running_mean=0, running_var=0, mean=0, invstd=0,
        grad_weight=0, grad_bias=0, eps=0.0, momentum=0.0, alpha=0.0, beta=0.0, k=0.0, workspace=0, residual=0,
        forward_output=0, grad_residual=0,
    ) -> None:  # fmt: skip
        scratch = (workspace, workspace + self._sum_bytes)
        addresses: tuple[int, ...]
        if self._forward:
            addresses = (input, output, weight, bias, running_mean, running_var, mean, invstd, residual, *scratch)
            self._launch(addresses, (float(eps), float(momentum), self._training, self._relu, self._g))
            return
        addresses = (
            input, grad_output, output, weight, running_mean, running_var, mean, invstd, grad_weight, grad_bias,
            forward_output, grad_residual, *scratch,
        )  # fmt: skip
        self._launch(addresses, (float(eps), self._training, self._g))


class LocalResponseNorm(_Norm):
    def __init__(self, p: NormProblem, team: int) -> None:
        super().__init__(p, long_rows=False)  # its workspace holds a row
        self._window = p.window
        team = worthwhile(team, 8 * self._steps, max(1, self._steps // max(1, p.c * self._g.w)))
        elements = team * self._g.w * (p.c if self._forward else 2 * p.c + 1)
        self.workspace_bytes = elements * ITEMSIZES[p.dtype]
        gradient = () if self._forward else (self._input,)
        kernel = local_response_norm.forward if self._forward else local_response_norm.gradient
        views = (self._input, self._output, *gradient, View(elements, p.dtype))
        self._launch = Launch(kernel, team, views, (1e-4, 0.75, 1.0, self._window, self._g))

    def run(self, input=0, grad_output=0, output=0, alpha=0.0, beta=0.0, k=0.0, workspace=0, **others: Any) -> None:
        tensors = (input, output) if self._forward else (input, grad_output, output)
        numbers = (float(alpha), float(beta), float(k), self._window, self._g)
        self._launch((*tensors, workspace), numbers)


class ChannelSum(_Norm):
    def __init__(self, p: NormProblem, team: int) -> None:
        super().__init__(p, long_rows=True)
        team = worthwhile(team, self._steps, max(1, self._blocks))
        sums = team * apart(2 * self._g.block)
        self.workspace_bytes = 8 * sums
        views = (self._input, View(p.c, p.dtype), View(sums, "f64"))
        self._launch = Launch(channel_sum.forward, team, views, (self._g,))

    def run(self, input=0, output=0, workspace=0, **others: Any) -> None:
        self._launch((input, output, workspace))


NORMS = {"batch_norm": BatchNorm, "local_response_norm": LocalResponseNorm, "channel_sum": ChannelSum}
