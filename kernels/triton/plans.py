"""Plans of the Triton kernels: all that follows from a problem, ready to be launched on addresses.

As the C++ plans (csrc/cpu/plan.h): immutable, shared between threads; ``run`` takes addresses and keeps no state.
"""

from __future__ import annotations

from math import prod

from pycv.problem import ITEMSIZES, GemmProblem, Layout, Matrix, PointwiseProblem, PoolProblem, Sizes

from . import DESCRIPTOR_ALIGNMENT, avg_pool, gemm, gemm_persistent, max_pool, relu, tiles
from .launch import Block, Launch, bits, ceil_div, power_of_2, present, sum_dtype, sum_type
from .tiles import Block as Part
from .tiles import Product, Tile, tile_of

# ------------------------------------------------------------------------------------------------------- pointwise


class Relu:
    """csrc/bindings: run(input, grad_output, output)."""

    def __init__(self, p: PointwiseProblem) -> None:
        self._forward, block = p.pass_ == "forward", 2 * tiles.ELEMENTS
        kernel, names = (relu.forward, ("x", "y")) if self._forward else (relu.gradient, ("y", "grad", "out"))
        self.launches = (
            Launch(
                kernel, ceil_div(p.count, block), dict.fromkeys(names, p.dtype),
                count=p.count, ACC=sum_type(p.dtype), BLOCK=block, num_warps=8,
            ),
        )  # fmt: skip

    def run(self, input: int, grad_output: int, output: int) -> None:
        if self._forward:
            self.launches[0](x=input, y=output)
        else:
            self.launches[0](y=input, grad=grad_output, out=output)

    launch = run


# ------------------------------------------------------------------------------------------------------------ gemm


def product_of(p: GemmProblem, precision: str) -> Product:
    return Product(p.m, p.n, p.k, p.dtype, precision, p.batch)


class Gemm:
    """csrc/bindings: run(a, b, out, bias, residual, alpha, beta, workspace, b_prepared)."""

    workspace_bytes = 0
    prepared_weight_bytes = 0

    def __init__(self, p: GemmProblem, precision: str, tile: Tile | None = None, out_dtype: str = "") -> None:
        """``out_dtype``: another one of the result and the residual than that of the operands."""
        tile = tile or tile_of(product_of(p, precision))
        strides = {
            "a": p.a.strides(p.m, p.k), "b": p.b.strides(p.k, p.n), "out": p.out.strides(p.m, p.n),
            "residual": p.residual.strides(p.m, p.n) if p.residual is not None else (0, 0, 0),
        }  # fmt: skip
        self.launches = (
            Launch(
                gemm.product, p.batch * tile.covering(p.m, p.n),
                dict.fromkeys(("a", "b", "bias"), p.dtype) | dict.fromkeys(("out", "residual"), out_dtype or p.dtype),
                m=p.m, n=p.n, k=p.k, alpha=bits(1.0), beta=bits(1.0), SCALED=False, RELU="relu" in p.epilogue,
                **{f"{x}_{axis}": stride for x in strides for axis, stride in zip(_AXES, strides[x], strict=True)},
                ACC=sum_type(p.dtype), PRECISION=precision, **tile.constants(),
            ),
        )  # fmt: skip

    def run(
        self, a: int, b: int, out: int, bias: int = 0, residual: int = 0, alpha: float = 1.0, beta: float = 1.0,
        workspace: int = 0, b_prepared: bool = False,
    ) -> None:  # fmt: skip
        """With beta 0 the residual is not read."""
        operands = {"a": present(a), "b": present(b), "bias": bias, "residual": residual if beta != 0 else 0}
        self.launches[0](_scaled(alpha, beta), out=out, **operands)

    def launch(self, a: int, b: int, out: int, bias: int, residual: int, workspace: int, b_prepared: bool) -> None:
        self.run(a, b, out, bias, residual)


class PersistentGemm:
    """As Gemm, for what gemm_persistent.py takes. A second launch does without descriptors, for addresses that they do
    not take: in the tile of the rule, as the larger ones leave too few registers for addresses."""

    workspace_bytes = 0
    prepared_weight_bytes = 0

    def __init__(self, p: GemmProblem, processors: int, tile: Tile | None = None) -> None:
        rule = tile_of(product_of(p, "ieee"))
        tile = tile or rule
        strides = {
            "a": p.a.strides(p.m, p.k), "b": p.b.strides(p.k, p.n), "out": p.out.strides(p.m, p.n),
            "residual": (p.residual or p.out).strides(p.m, p.n),
        }  # fmt: skip
        row = strides["out"][1]
        stored = p.out.kind == "row" and row >= p.n and row * ITEMSIZES[p.dtype] % DESCRIPTOR_ALIGNMENT == 0
        addresses: dict[str, str | Block] = dict.fromkeys(("a", "b", "out", "bias", "residual"), p.dtype)
        blocks = {
            "a": _block(p.a, p.dtype, p.m, p.k, (tile.rows, tile.depth)),
            "b": _block(p.b, p.dtype, p.k, p.n, (tile.depth, tile.columns)),
        } | ({"out": _block(p.out, p.dtype, p.m, p.n, (tile.rows, tile.columns))} if stored else {})
        self._blocks = tuple(blocks)
        self._described, self._plain = self.launches = tuple(
            Launch(
                gemm_persistent.product, programs := min(processors, each.covering(p.m, p.n)), pointers,
                m=p.m, n=p.n, k=p.k, alpha=bits(1.0), beta=bits(1.0), SCALED=False, RELU="relu" in p.epilogue,
                **{f"{x}_row": row for x, (_, row, _) in strides.items()},
                **{f"{x}_column": column for x, (_, _, column) in strides.items()},
                DESCRIBED="a" in described, OUT_DESCRIBED="out" in described,
                A_IS_COLUMNS=p.a.kind == "col", B_IS_COLUMNS=p.b.kind == "col", PROGRAMS=programs,
                ACC=sum_type(p.dtype), PRECISION="ieee", **each.constants(),
            )
            for each, described, pointers in ((tile, blocks, addresses | blocks), (rule, {}, addresses))
        )  # fmt: skip

    def run(
        self, a: int, b: int, out: int, bias: int = 0, residual: int = 0, alpha: float = 1.0, beta: float = 1.0,
        workspace: int = 0, b_prepared: bool = False,
    ) -> None:  # fmt: skip
        """With beta 0 the residual is not read."""
        operands = {"a": a, "b": b, "out": out, "bias": bias, "residual": residual if beta != 0 else 0}
        fits = all(operands[name] % DESCRIPTOR_ALIGNMENT == 0 for name in self._blocks)
        (self._described if fits else self._plain)(_scaled(alpha, beta), **operands)

    def launch(self, a: int, b: int, out: int, bias: int, residual: int, workspace: int, b_prepared: bool) -> None:
        self.run(a, b, out, bias, residual)


def _block(matrix: Matrix, dtype: str, rows: int, columns: int, block: tuple[int, int]) -> Block:
    _, row, column = matrix.strides(rows, columns)
    if matrix.kind == "col":
        return Block(dtype, (columns, rows), column, (block[1], block[0]))
    return Block(dtype, (rows, columns), row, block)


def _scaled(alpha: float, beta: float) -> dict[str, int]:
    if alpha == 1 and beta == 1:
        return {}
    return {"alpha": bits(alpha), "beta": bits(beta), "SCALED": True}


_AXES = ("batch", "row", "column")


# ------------------------------------------------------------------------------------------------------------ pool


def spatial(values: Sizes, fill: int) -> Sizes:
    """One, two or three axes as (depth, height, width)."""
    return (fill,) * (3 - len(values)) + tuple(values)


def strides_of(name: str, layout: Layout, c: int, size: Sizes) -> dict[str, int]:
    """Those of image, channel and position, as the kernels name them: the positions of an image are evenly spaced."""
    n, channel, *axes = layout.strides(c, size)
    return {f"{name}_n": n, f"{name}_c": channel, f"{name}_p": axes[-1] if axes else 0}


def per_axis(name: str, values: Sizes, ending: str = "dhw") -> dict[str, int]:
    return {f"{name}_{axis}": value for axis, value in zip(ending, values, strict=True)}


def pool_blocks(p: PoolProblem) -> tuple[Part, ...]:
    """What a program may take of the computed images, in the order of memory."""
    count = p.n * p.c * prod(p.output_size if p.pass_ == "forward" else p.size)
    most = 32 // ITEMSIZES[sum_dtype(p.dtype)]  # by what ptxas says: more spill where windows overlap along three axes
    return tiles.blocks(Part(power_of_2(count, 32, tiles.ELEMENTS // 2), 1, 4), count, 1, most)


class Pooling:
    """csrc/bindings: run(input, output, indices). ``part``: another block than that of the rule."""

    def __init__(self, p: PoolProblem, part: Part | None = None) -> None:
        self._max, self._forward = "max" in p.op, p.pass_ == "forward"
        adaptive = p.op.startswith("adaptive")
        size, out = spatial(p.size, 1), spatial(p.output_size, 1)
        stride, padding, dilation = spatial(p.stride, 1), spatial(p.padding, 0), spatial(p.dilation, 1)
        extent = tuple(d * (f - 1) + 1 for d, f in zip(dilation, spatial(p.filter, 1), strict=True))
        if self._forward:
            kernel = max_pool.forward if self._max else avg_pool.forward
            names = ("x", "y")
            taps = tuple(map(_longest_part, size, out)) if adaptive else spatial(p.filter, 1)
            loops, layout, positions = per_axis("taps", taps), p.output, prod(out)
        else:
            kernel = max_pool.gradient if self._max else avg_pool.gradient
            names = ("grad", "out")
            met = map(_longest_part, out, size) if adaptive else map(_windows, extent, stride)
            loops, layout, positions = per_axis("windows", tuple(met)), p.input, prod(size)
        numbers = {"depth": size[0], "height": size[1], "width": size[2]}
        numbers |= {"out_depth": out[0], "out_height": out[1], "out_width": out[2]} | loops
        numbers |= strides_of("x", p.input, p.c, p.size) | strides_of("y", p.output, p.c, p.output_size)
        constants = per_axis("STRIDE", stride, "DHW") | per_axis("PADDING", padding, "DHW")
        constants |= per_axis("EXTENT", extent, "DHW")
        pointers = dict.fromkeys(names, p.dtype)
        if self._max:
            pointers["indices"] = p.index_dtype
            constants |= per_axis("DILATION", dilation, "DHW") | {"OFFSETS": p.indices == "offset"}
            constants |= {} if self._forward else per_axis("FILTER", spatial(p.filter, 1)[1:], "HW")
        else:
            constants |= {"DIVISOR": p.divisor, "PADDED": p.count_include_pad and not adaptive}
        count = p.n * p.c * positions
        block, _, warps = part or pool_blocks(p)[0]
        self.launches = (
            Launch(
                kernel, ceil_div(count, block), pointers, count=count, channels=p.c, positions=positions,
                **numbers, **constants, ADAPTIVE=adaptive, ACC=sum_type(p.dtype), BLOCK=block,
                CHANNELS_LAST=layout.name == "nhwc", WIDE=count + block >= 2**31, num_warps=warps,
            ),
        )  # fmt: skip

    def run(self, input: int, output: int, indices: int = 0) -> None:
        first, second = (input, output) if self._forward else (output, input)
        tensors = {"x": first, "y": second} if self._forward else {"grad": first, "out": second}
        self.launches[0](**tensors, **({"indices": indices} if self._max else {}))

    launch = run


def _longest_part(size: int, parts: int) -> int:
    """The most elements that a part has where adaptive pooling splits ``size`` into ``parts``."""
    return 0 if parts == 0 else min(size, (size + parts - 2) // parts + 1)


def _windows(extent: int, stride: int) -> int:
    """The most windows that an element lies in."""
    return (extent - 1) // stride + 1
