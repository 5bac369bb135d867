"""Plans of the convolution kernels: geometry, tiles and workspace of a problem."""

from __future__ import annotations

from math import prod
from typing import Any

from pycv.problem import ITEMSIZES, ConvProblem, GemmProblem, Matrix, Sizes

from .._plans import ConvPlan
from . import conv_direct, conv_im2col, conv_implicit, tiles
from .launch import Launch, ceil_div, power_of_2, present, sum_dtype, sum_type
from .plans import Gemm, per_axis, spatial, strides_of
from .tiles import Block, Product, Tile, block_of, tile_of

_ALIGNMENT = 64


def direct(p: ConvProblem, block: Block | None = None) -> Any:
    """A plan as csrc/bindings has them: workspace_bytes, prepared_weight_bytes, prepare_weight, run and launch.
    ``block``: another one than that of the rule."""
    block = block or direct_blocks(p)[0]
    return DirectGradWeight(p, block) if p.pass_ == "grad_weight" else DirectImage(p, block)


def direct_blocks(p: ConvProblem) -> tuple[Block, ...]:
    """What a program may take of the computed image, or of the weight's filters and the positions that they meet."""
    g = _Geometry(p)
    if p.pass_ == "grad_weight":
        widest = 16 if strides_of("", p.output, p.k, p.output_size)["_c"] == 1 else 1
    else:
        layout, channels, size = (p.output, p.k, p.output_size) if p.pass_ == "forward" else (p.input, p.c, p.size)
        widest = 64 if strides_of("", layout, channels, size)["_c"] == 1 else 8 if g.groups == 1 else 1
    width, height = block_of(g.groups * g.rows, g.positions, widest)
    most = 64 // ITEMSIZES[sum_dtype(p.dtype)]
    return tiles.blocks(Block(height, width, 4), g.positions, g.groups * g.rows, most)


def im2col(p: ConvProblem, workspace_limit: int) -> Any:
    return (Im2colGradWeight if p.pass_ == "grad_weight" else Im2colImage)(p, workspace_limit)


def implicit(p: ConvProblem, workspace_limit: int, precision: str, tile: Tile | None = None) -> Any:
    """``tile``: another one than that of the rule."""
    tile = tile or tile_of(implicit_product(p, precision))
    if p.pass_ == "grad_weight":
        return ImplicitGradWeight(p, workspace_limit, precision, tile)
    return ImplicitImage(p, precision, tile)


def implicit_product(p: ConvProblem, precision: str) -> Product:
    """What an implicit GEMM multiplies."""
    g = _Geometry(p)
    if p.pass_ == "grad_weight":  # split into parts, as many as keep the GPU busy
        return Product(g.rows, g.terms, g.positions, p.dtype, precision, tiles.PROCESSORS, gathered=True)
    source, channels, size = (p.input, p.c, p.size) if p.pass_ == "forward" else (p.output, p.k, p.output_size)
    divides = p.pass_ == "grad_input" and max(p.stride, default=1) > 1  # to find an element: more registers
    scattered = 0 if g.uniform and source.strides(channels, size)[1] == 1 else 8 if divides else 16
    depth = g.channels if g.uniform else g.terms
    return Product(g.positions, g.rows, depth, p.dtype, precision, g.groups, gathered=True, scattered=scattered)


# -------------------------------------------------------------------------------------------------------- geometry


class _Geometry:
    """What the kernels take of a problem (gather.py), by the names that they give it."""

    def __init__(self, p: ConvProblem) -> None:
        size, out, taps = spatial(p.size, 1), spatial(p.output_size, 1), spatial(p.filter, 1)
        stride, padding, dilation = spatial(p.stride, 1), spatial(p.padding, 0), spatial(p.dilation, 1)
        ones: Sizes = (1, 1, 1)
        c, k = p.c // p.groups, p.k // p.groups
        if p.pass_ == "grad_input":
            self.rows, self.channels, image, source = c, k, size, out
            step, pace, every, first = ones, tuple(-d for d in dilation), stride, padding
        else:
            self.rows, self.channels, image, source = k, c, out, size
            step, pace, every, first = stride, dilation, ones, tuple(-pad for pad in padding)
        self.groups, self.taps = p.groups, prod(taps)
        self.terms = self.taps * self.channels
        self.uniform = self.channels >= 32 or self.channels == 16 or self.taps == 1  # a step takes one tap
        self.plane = prod(image)
        self.positions = p.n * self.plane
        self.sizes = {
            "depth": image[0], "height": image[1], "width": image[2],
            "source_depth": source[0], "source_height": source[1], "source_width": source[2],
            **per_axis("first", first),
        }  # fmt: skip
        self.constants = {
            **per_axis("TAPS", taps, "DHW"), **per_axis("STEP", step, "DHW"), **per_axis("PACE", pace, "DHW"),
            **per_axis("EVERY", every, "DHW"),
        }  # fmt: skip

    @property
    def numbers(self) -> dict[str, int]:
        counts = {"groups": self.groups, "rows": self.rows, "channels": self.channels, "positions": self.positions}
        return counts | self.sizes


def _weight_strides(name: str, p: ConvProblem) -> dict[str, int]:
    """Those of a group, of a channel of the computed image (row), of one of its source, and of a tap."""
    k, c, *axes = p.weight.strides(p.c // p.groups, p.filter)
    row, channel = (c, k) if p.pass_ == "grad_input" else (k, c)
    group = k * (p.k // p.groups)
    return {f"{name}_group": group, f"{name}_row": row, f"{name}_channel": channel, f"{name}_tap": axes[-1]}


class Plan(ConvPlan):
    launches: tuple[Launch, ...]


# ------------------------------------------------------------------------------------------ forward and grad_input


class _Image(Plan):
    """One image from another and the weight."""

    def __init__(self, p: ConvProblem) -> None:
        self.geometry = g = _Geometry(p)
        self._forward = p.pass_ == "forward"
        channels, size = (p.k, p.output_size) if self._forward else (p.c, p.size)
        source, computed = (p.input, p.output) if self._forward else (p.output, p.input)
        source_channels, source_size = (p.c, p.size) if self._forward else (p.k, p.output_size)
        self._pointers = dict.fromkeys(("source", "weight", "out", "bias", "residual"), p.dtype)
        self._numbers = {
            **g.numbers, **strides_of("source", source, source_channels, source_size),
            **strides_of("out", computed, channels, size),
            **strides_of("residual", p.residual or computed, channels, size),
            **_weight_strides("weight", p),
        }  # fmt: skip
        self._constants = {**g.constants, "RELU": "relu" in p.epilogue, "ACC": sum_type(p.dtype)}

    def launch(self, input: int, weight: int, output: int, bias: int, residual: int, workspace: int) -> None:
        source, computed = (input, output) if self._forward else (output, input)
        self.launches[0](source=present(source), weight=present(weight), out=computed, bias=bias, residual=residual)


class ImplicitImage(_Image):
    def __init__(self, p: ConvProblem, precision: str, tile: Tile) -> None:
        super().__init__(p)
        g = self.geometry
        self.launches = (
            Launch(
                conv_implicit.image, g.groups * tile.covering(g.positions, g.rows), self._pointers,
                **self._numbers, **self._constants, UNIFORM=g.uniform, PRECISION=precision,
                **tile.constants(),
            ),
        )  # fmt: skip


class DirectImage(_Image):
    def __init__(self, p: ConvProblem, block: Block) -> None:
        super().__init__(p)
        g = self.geometry
        programs = ceil_div(g.positions, block.positions) * ceil_div(g.groups * g.rows, block.channels)
        self.launches = (
            Launch(
                conv_direct.image, programs, self._pointers, **self._numbers, **self._constants,
                DENSE=g.groups == 1, BP=block.positions, BR=block.channels, num_warps=block.warps,
            ),
        )  # fmt: skip


class Im2colImage(_Image):
    """Images and groups one after the other, as many images at a time as the workspace holds, and at least one."""

    def __init__(self, p: ConvProblem, workspace_limit: int) -> None:
        super().__init__(p)
        g, itemsize = self.geometry, ITEMSIZES[p.dtype]
        self._n, self._itemsize = p.n, itemsize
        image_bytes = itemsize * g.plane * g.terms
        self._images = max(1, min(p.n, workspace_limit // max(1, image_bytes)))
        self.workspace_bytes = self._images * image_bytes
        weights = p.groups * g.rows * g.terms
        self.prepared_weight_bytes = weights * itemsize
        strides = _weight_strides("weight", p)
        self._prepare = Launch(
            conv_im2col.arrange, ceil_div(weights, tiles.ELEMENTS), dict.fromkeys(("weight", "arranged"), p.dtype),
            count=weights, rows=g.rows, channels=g.channels, taps=g.taps, **strides,
            WIDE=weights + tiles.ELEMENTS >= 2**31, BLOCK=tiles.ELEMENTS,
        )  # fmt: skip
        sizes = {min(self._images, p.n), p.n % self._images} - {0}
        self._steps = {images: self._step(p, images) for images in sizes}
        steps = [launch for gather, product in self._steps.values() for launch in (gather, *product.launches)]
        self.launches = (self._prepare, *steps)

    def _step(self, p: ConvProblem, images: int) -> tuple[Launch, Gemm]:
        """What gathers the columns of so many images, and what multiplies them: an image is a matrix of the batch."""
        g = self.geometry
        gather = _gather(p, g, images, self._numbers)
        dense = Matrix("row", (g.terms, g.plane * g.terms))
        numbers = self._numbers
        out, residual = (
            Matrix("any", (numbers[f"{x}_p"], numbers[f"{x}_c"], numbers[f"{x}_n"])) for x in ("out", "residual")
        )
        product = GemmProblem(
            m=g.plane, n=g.rows, k=g.terms, batch=images, dtype=p.dtype, a=dense,
            b=Matrix("any", (1, g.terms, 0)), out=out, residual=residual if p.residual is not None else None,
            epilogue=p.epilogue,
        )  # fmt: skip
        return gather, Gemm(product, "ieee")

    def prepare_weight(self, weight: int, prepared: int) -> None:
        self._prepare(weight=weight, arranged=prepared)

    def launch(self, input: int, weight: int, output: int, bias: int, residual: int, workspace: int) -> None:
        source, computed = (input, output) if self._forward else (output, input)
        g, numbers, size = self.geometry, self._numbers, self._itemsize
        for first in range(0, self._n, self._images):
            gather, product = self._steps[min(self._images, self._n - first)]
            for group in range(g.groups):
                gather({"first_image": first, "group": group}, source=source, columns=workspace)
                channel = group * g.rows
                to = computed + size * (first * numbers["out_n"] + channel * numbers["out_c"])
                added = size * (first * numbers["residual_n"] + channel * numbers["residual_c"])
                product.run(
                    workspace, weight + size * channel * g.terms, to, bias + size * channel if bias else 0,
                    residual + added if residual else 0,
                )  # fmt: skip


def _gather(p: ConvProblem, g: _Geometry, images: int, numbers: dict[str, int]) -> Launch:
    positions, block = images * g.plane, power_of_2(g.terms, 16, 64)
    height = power_of_2(positions, 16, tiles.ELEMENTS // block)
    strides = {name: numbers[name] for name in ("source_n", "source_c", "source_p")}
    return Launch(
        conv_im2col.gather, ceil_div(positions, height) * ceil_div(g.terms, block),
        dict.fromkeys(("source", "columns"), p.dtype),
        first_image=0, group=0, channels=g.channels, positions=positions, terms=g.terms, **g.sizes, **strides,
        **g.constants, BP=height, BT=block, num_warps=4,
    )  # fmt: skip


# ----------------------------------------------------------------------------------------------------- grad_weight


class _GradWeight(Plan):
    """The weight from the input and the gradient of the output."""

    def __init__(self, p: ConvProblem) -> None:
        self.geometry = g = _Geometry(p)
        self._numbers = {
            **g.numbers, **strides_of("source", p.input, p.c, p.size),
            **strides_of("grad", p.output, p.k, p.output_size),
        }  # fmt: skip
        self._weight = _weight_strides("out", p)


class ImplicitGradWeight(_GradWeight):
    """Positions are split into as many parts as it takes to keep a GPU busy, or as the workspace holds."""

    def __init__(self, p: ConvProblem, workspace_limit: int, precision: str, tile: Tile) -> None:
        super().__init__(p)
        g = self.geometry
        covering, weights = g.groups * tile.covering(g.rows, g.terms), g.groups * g.rows * g.terms
        part_bytes = ITEMSIZES[sum_dtype(p.dtype)] * weights
        busy = ceil_div(2 * tiles.PROCESSORS, max(1, covering))
        most = min(busy, ceil_div(g.positions, 8 * tile.depth), workspace_limit // max(1, part_bytes))
        part = ceil_div(ceil_div(g.positions, max(1, most)), tile.depth) * tile.depth
        self._parts = max(1, ceil_div(g.positions, max(1, part)))
        split = self._parts > 1
        self.workspace_bytes = self._parts * part_bytes if split else 0
        dense = {
            "out_group": g.rows * g.terms, "out_row": g.terms, "out_channel": 1, "out_tap": g.channels,
        }  # fmt: skip
        pointers = {"x": p.dtype, "grad": p.dtype, "out": sum_dtype(p.dtype) if split else p.dtype}
        product = Launch(
            conv_implicit.grad_weight, covering * self._parts, pointers, **self._numbers, **g.constants,
            **(dense if split else self._weight), part_positions=part, out_part=weights,
            ACC=sum_type(p.dtype), PRECISION=precision, **tile.constants(),
        )  # fmt: skip
        add = Launch(
            conv_implicit.add_parts, ceil_div(weights, tiles.ELEMENTS), {"parts": sum_dtype(p.dtype), "out": p.dtype},
            count=weights, part_count=self._parts, rows=g.rows, channels=g.channels, taps=g.taps, **self._weight,
            ACC=sum_type(p.dtype), WIDE=weights + tiles.ELEMENTS >= 2**31, BLOCK=tiles.ELEMENTS,
        )  # fmt: skip
        self.launches = (product, add) if split else (product,)

    def launch(self, input: int, weight: int, output: int, bias: int, residual: int, workspace: int) -> None:
        self.launches[0](x=present(input), grad=present(output), out=workspace if self._parts > 1 else weight)
        if self._parts > 1:
            self.launches[1](parts=workspace, out=weight)


class DirectGradWeight(_GradWeight):
    def __init__(self, p: ConvProblem, block: Block) -> None:
        super().__init__(p)
        g = self.geometry
        self.launches = (
            Launch(
                conv_direct.grad_weight, ceil_div(g.groups * g.rows, block.channels) * g.terms,
                dict.fromkeys(("x", "grad", "out"), p.dtype), **self._numbers, **g.constants, **self._weight,
                ACC=sum_type(p.dtype), BP=block.positions, BR=block.channels, num_warps=block.warps,
            ),
        )  # fmt: skip

    def launch(self, input: int, weight: int, output: int, bias: int, residual: int, workspace: int) -> None:
        self.launches[0](x=present(input), grad=present(output), out=weight)


class Im2colGradWeight(_GradWeight):
    """Per image and group, rows (positions) of the gradient, transposed, times columns; added to what is there: sums,
    in the workspace, which are rounded once in the end."""

    def __init__(self, p: ConvProblem, workspace_limit: int) -> None:
        super().__init__(p)
        g, sums = self.geometry, sum_dtype(p.dtype)
        self._n, self._itemsize, self._sum_size = p.n, ITEMSIZES[p.dtype], ITEMSIZES[sums]
        weights = g.groups * g.rows * g.terms
        self._columns = ceil_div(self._sum_size * weights, _ALIGNMENT) * _ALIGNMENT  # where they begin in the workspace
        self.workspace_bytes = self._columns + self._itemsize * g.plane * g.terms
        gather = _gather(p, g, 1, self._numbers)
        row, column = self._numbers["grad_c"], self._numbers["grad_p"]
        product, more = (
            Gemm(
                GemmProblem(
                    m=g.rows, n=g.terms, k=g.plane, dtype=p.dtype, a=Matrix("any", (row, column, 0)),
                    residual=Matrix() if added else None, epilogue=("residual",) if added else (),
                ),
                "ieee", out_dtype=sums,
            )
            for added in (False, True)
        )  # fmt: skip
        empty = GemmProblem(m=g.groups * g.rows, n=g.terms, k=0, dtype=p.dtype)  # of no images: zeros
        copy = Launch(
            conv_im2col.scatter, ceil_div(weights, tiles.ELEMENTS), {"arranged": sums, "weight": p.dtype},
            count=weights, rows=g.rows, channels=g.channels, taps=g.taps, **_weight_strides("weight", p),
            WIDE=weights + tiles.ELEMENTS >= 2**31, BLOCK=tiles.ELEMENTS,
        )  # fmt: skip
        self._gather, self._product, self._more, self._empty, self._copy = gather, product, more, None, copy
        if p.n == 0:
            self._empty = Gemm(empty, "ieee", out_dtype=sums)
        self.launches = (gather, *product.launches, *more.launches, copy)

    def launch(self, input: int, weight: int, output: int, bias: int, residual: int, workspace: int) -> None:
        g, numbers, size = self.geometry, self._numbers, self._itemsize
        columns = workspace + self._columns
        if self._empty is not None:
            self._empty.run(0, 0, workspace)
        for image in range(self._n):
            for group in range(g.groups):
                self._gather({"first_image": image, "group": group}, source=input, columns=columns)
                grad = output + size * (image * numbers["grad_n"] + group * g.rows * numbers["grad_c"])
                to = workspace + self._sum_size * group * g.rows * g.terms
                if image == 0:
                    self._product.run(grad, columns, to)
                else:
                    self._more.run(grad, columns, to, residual=to)
        self._copy(arranged=workspace, weight=weight)
