"""Plans of the convolution by Fourier transforms (conv_fft.py): how its axes are cut into tiles, workspace, steps.

A tile of t = m + extent - 1 elements of the source gives m results at distance 1, the extent being that of the dilated
filter; a stride leaves out results (forward) or puts zeros between the source's elements (grad_input, grad_weight).
Elements of input and output that meet nothing but padding are never looked at.
"""

from __future__ import annotations

from itertools import product as pairs
from math import prod
from typing import Any, NamedTuple

import torch

from pycv.problem import ITEMSIZES, ConvProblem, Layout, Sizes

from . import FFT_SIDES, conv_fft
from .conv_plans import Plan
from .launch import Launch, ceil_div, power_of_2, present, sum_dtype, sum_type
from .plans import strides_of
from .tiles import Product, tile_of

_ALIGNMENT = 64
_BLOCK = 1024
_ROWS = 16  # of a spectrum that are computed together
_THIN, _THINNEST = 8, 4  # channels per group, of input and output: both, or one of them
_THIN_BLOCK = 512  # elements of a program
_FLOPS_PER_BYTE = 20  # of memory traffic that takes as long


def plan(p: ConvProblem, workspace_limit: int) -> Plan:
    return FftGradWeight(p, workspace_limit) if p.pass_ == "grad_weight" else FftImage(p, workspace_limit)


# ------------------------------------------------------------------------------------------------------------ axes


class _Span(NamedTuple):
    """How positions of a tile's axis meet elements of a tensor's (conv_fft.met)."""

    origin: int
    advance: int
    step: int
    low: int
    high: int
    first: int
    limit: int


class _Axis:
    """An axis of a convolution, in tiles of ``length``."""

    def __init__(
        self, pass_: str, length: int, size: int, filter: int, out: int, stride: int, padding: int, dilation: int
    ) -> None:
        self._pass, self._length, self._size, self._filter, self._out = pass_, length, size, filter, out
        self._stride, self._padding, self._dilation = stride, padding, dilation
        self.extent = dilation * (filter - 1) + 1
        self.results = length - self.extent + 1  # per tile, at distance 1
        positions = size if pass_ == "grad_input" else (out - 1) * stride + 1 if out > 0 else 0
        self.tiles = ceil_div(positions, self.results)

    def in_use(self) -> tuple[int, int, int, int]:
        """The input elements that windows read, and the windows that read any: [begin, end) of both."""
        begins = torch.arange(self._out, device="cpu") * self._stride - self._padding
        first = (-begins).clamp(min=0).add(self._dilation - 1) // self._dilation
        last = ((self._size - 1 - begins) // self._dilation).clamp(max=self._filter - 1)  # of negative: below first
        windows = (first <= last).nonzero().flatten()
        if len(windows) == 0:
            return 0, 0, 0, 0
        lowest, highest = (begins + first * self._dilation)[windows], (begins + last * self._dilation)[windows]
        return int(lowest.min()), int(highest.max()) + 1, int(windows[0]), int(windows[-1]) + 1

    def source(self) -> _Span:
        """Of what an image is computed from; of the input, for grad_weight."""
        low, high, first, last = self.in_use()
        if self._pass == "grad_input":  # its results come last in their tile
            late = self.extent - 1
            return _Span(self._padding - late, self.results, self._stride, first, last, 0, self._length)
        return _Span(-self._padding, self.results, 1, low, high, 0, self._length)

    def computed(self) -> _Span:
        if self._pass == "grad_input":
            late = self.extent - 1
            return _Span(-late, self.results, 1, 0, self._size, late, self._length)
        return _Span(0, self.results, self._stride, 0, self._out, 0, self.results)

    def paired(self) -> _Span:
        """Of grad_weight: the gradients that a tile of the input is paired with."""
        _, _, first, last = self.in_use()
        return _Span(0, self.results, self._stride, first, last, 0, self.results)

    def taps(self) -> _Span:
        return _Span(0, 0, self._dilation, 0, self._filter, 0, self.extent)


class _Tiling:
    """Tiles of N1 x N2 elements, or lines of N1 * N2 (conv_fft.py)."""

    def __init__(self, p: ConvProblem, sides: tuple[int, int]) -> None:
        self.sides, self.line = sides, len(p.size) == 1
        lengths = (1, prod(sides)) if self.line else sides
        axes = zip(p.size, p.filter, p.output_size, p.stride, p.padding, p.dilation, strict=True)
        flat = [(1, 1, 1, 1, 0, 1)] if self.line else []
        self.axes = [_Axis(p.pass_, length, *axis) for length, axis in zip(lengths, [*flat, *axes], strict=True)]
        self.fits = all(axis.results > 0 for axis in self.axes)
        self.frequencies = (sides[0] // 2 + 1) * sides[1]
        self.grid = tuple(axis.tiles for axis in self.axes)  # of an image
        self.roots = sum(n * n for n in sides) + (prod(sides) if self.line else 0)  # cosines, and as many sines

    def cost(self, p: ConvProblem) -> float:
        """Time, about, in bytes of memory traffic."""
        tiles, (n1, n2), itemsize = p.n * prod(self.grid), self.sides, ITEMSIZES[sum_dtype(p.dtype)]
        filters = p.k * p.c // max(1, p.groups)
        spectra = tiles * (p.c + p.k) + filters
        flops = spectra * 4 * n1 * n2 * (n1 + 2 * n2) + 8 * self.frequencies * tiles * filters
        return flops / _FLOPS_PER_BYTE + spectra * self.frequencies * 4 * itemsize


def _best_tiling(p: ConvProblem) -> _Tiling:
    tilings = (_Tiling(p, sides) for sides in pairs(FFT_SIDES, FFT_SIDES))
    return min((tiling for tiling in tilings if tiling.fits), key=lambda tiling: tiling.cost(p))


# --------------------------------------------------------------------------------------------------------- launches


class _Spectra(NamedTuple):
    """A matrix of lines by channels for each group and frequency; two planes, real and imaginary."""

    groups: int
    frequencies: int
    lines: int
    channels: int

    @property
    def plane(self) -> int:
        return prod(self)

    def bytes(self, dtype: str) -> int:
        return _aligned(2 * self.plane * ITEMSIZES[dtype])


class _Elements(NamedTuple):
    """Where those of a tensor lie: strides of images (or filters), groups, channels and positions, and its width."""

    n: int
    g: int
    c: int
    p: int
    width: int

    def named(self, name: str) -> dict[str, int]:
        return {f"{name}_{x}": getattr(self, x) for x in "ngcp"} | {"width": self.width}


def _aligned(size: int) -> int:
    return ceil_div(size, _ALIGNMENT) * _ALIGNMENT


def _image(layout: Layout, channels: int, size: Sizes, groups: int) -> _Elements:
    n, c, p = strides_of("", layout, channels, size).values()
    return _Elements(n, channels // groups * c, c, p, size[-1])


def _filters(p: ConvProblem, transposed: bool = False) -> _Elements:
    """By [filter][channel]; ``transposed``: by [channel][filter]."""
    k, c, *axes = p.weight.strides(p.c // p.groups, p.filter)
    return _Elements(c if transposed else k, p.k // p.groups * k, k if transposed else c, axes[-1], p.filter[-1])


class _Steps:
    """The launches of a problem's tiling."""

    def __init__(self, p: ConvProblem, tiling: _Tiling) -> None:
        self._p, self._tiling, self._sums = p, tiling, sum_dtype(p.dtype)
        self.table_bytes = _aligned(2 * tiling.roots * ITEMSIZES[self._sums])
        self._constants: dict[str, Any] = {
            "LINE": tiling.line, "ACC": sum_type(p.dtype), "N1": tiling.sides[0], "N2": tiling.sides[1],
        }  # fmt: skip
        self._precision = "tf32x3" if self._sums == "f32" else "ieee"

    def roots(self) -> Launch:
        count = self._tiling.roots
        return Launch(
            conv_fft.roots, ceil_div(count, _BLOCK), {"table": self._sums}, count=count, **self._constants,
            BLOCK=_BLOCK,
        )  # fmt: skip

    def forth(
        self, to: _Spectra, count: int, source: _Elements, spans: list[_Span], grid: Sizes, conjugated: bool = False
    ) -> Launch:
        pointers = {"source": self._p.dtype, "table": self._sums, "spectra": self._sums}
        programs = to.groups * count * to.channels * ceil_div(self._tiling.sides[0] // 2 + 1, _ROWS)
        return Launch(
            conv_fft.to_spectra, programs, pointers,
            **self._transform(to, count, spans, grid), **source.named("source"), CONJUGATED=conjugated, BR=_ROWS,
            num_warps=4,
        )  # fmt: skip

    def back(self, of: _Spectra, count: int, out: _Elements, spans: list[_Span], grid: Sizes) -> Launch:
        p = self._p
        pointers = dict.fromkeys(("spectra", "table"), self._sums) | dict.fromkeys(("out", "bias", "residual"), p.dtype)
        residual = _Elements(0, 0, 0, 0, 0)
        if p.residual is not None:
            residual = _image(p.residual, p.k if p.pass_ == "forward" else p.c, p.computed_size, p.groups)
        return Launch(
            conv_fft.from_spectra, of.groups * count * of.channels, pointers,
            **self._transform(of, count, spans, grid), **residual.named("residual") | out.named("out"),
            RELU="relu" in p.epilogue, BR=_ROWS,
            num_warps=8 if prod(self._tiling.sides) > 32 * 32 else 4,
        )  # fmt: skip

    def _transform(self, spectra: _Spectra, count: int, spans: list[_Span], grid: Sizes) -> dict[str, Any]:
        axes = {f"{axis}_{x}": getattr(span, x) for axis, span in zip("hw", spans, strict=True) for x in span._fields}
        return {
            "spectra_imaginary": spectra.plane, "first_tile": 0, "tiles": count, "lines": spectra.lines,
            "channels": spectra.channels, "tile_rows": grid[0], "tile_columns": grid[1], **axes, **self._constants,
            "PRECISION": self._precision, "ROOTS": self._tiling.roots,
        }  # fmt: skip

    def product(self, a: _Spectra, b: _Spectra, out: _Spectra, count: int, a_transposed: bool = False) -> Launch:
        """``count`` lines of ``a`` (``a_transposed``: of its transpose, whose terms they are) times ``b``."""
        m, k = (a.channels, count) if a_transposed else (count, a.channels)
        n, batch, dtype = out.channels, out.groups * out.frequencies, self._sums
        row, column = (1, a.channels) if a_transposed else (a.channels, 1)
        operands: dict[str, Any] = {
            "a_imaginary": a.plane, "b_imaginary": b.plane, "out_imaginary": out.plane, "m": m, "n": n, "k": k,
            "a_batch": a.lines * a.channels, "a_row": row, "a_column": column,
            "b_batch": b.lines * b.channels, "b_row": b.channels,
            "out_batch": out.lines * n, "out_row": n, "ADD": False, "ACC": sum_type(dtype),
        }  # fmt: skip
        pointers = dict.fromkeys(("a", "b", "out"), dtype)
        if max(a.channels, n) <= _THIN or min(a.channels, n) <= _THINNEST:
            rows = power_of_2(m, 1, 64)
            batches = _THIN_BLOCK // rows
            programs = ceil_div(batch, batches) * ceil_div(m, rows) * n
            return Launch(
                conv_fft.thin_product, programs, pointers, batches=batch, **operands, BB=batches, BM=rows, num_warps=4
            )
        small = Product(m, n, k, dtype, matrices=batch, scattered=16)  # it holds two sums
        tile = tile_of(small)._replace(stages=3)
        return Launch(
            conv_fft.product, batch * tile.covering(m, n), pointers, **operands, PRECISION=self._precision,
            **tile.constants(),
        )  # fmt: skip


def _sizes(count: int, part: int) -> set[int]:
    """How many of ``count`` things there are in each part of them."""
    return {min(count, part), count % part} - {0}


# -------------------------------------------------------------------------------------------- forward, grad_input


class FftImage(Plan):
    """As many tiles at a time as the workspace holds, and at least one."""

    def __init__(self, p: ConvProblem, workspace_limit: int) -> None:
        self._forward = p.pass_ == "forward"
        tiling = _best_tiling(p)
        steps, grid = _Steps(p, tiling), tiling.grid
        c, k, spectra = p.c // p.groups, p.k // p.groups, (p.groups, tiling.frequencies)
        sources, channels = (c, k) if self._forward else (k, c)
        sums = sum_dtype(p.dtype)
        tile_bytes = 2 * ITEMSIZES[sums] * prod(spectra) * (sources + channels)
        self._tiles = p.n * prod(grid)
        self._at_a_time = max(1, min(self._tiles, workspace_limit // max(1, tile_bytes)))
        source = _Spectra(*spectra, self._at_a_time, sources)
        computed = _Spectra(*spectra, self._at_a_time, channels)
        weight = _Spectra(*spectra, sources, channels)
        self._computed, self._table = source.bytes(sums), steps.table_bytes  # where what follows them begins
        self.workspace_bytes = self._computed + computed.bytes(sums)
        self.prepared_weight_bytes = self._table + weight.bytes(sums)
        tensors = [_image(p.input, p.c, p.size, p.groups), _image(p.output, p.k, p.output_size, p.groups)]
        image, out = tensors if self._forward else reversed(tensors)
        taps = [axis.taps() for axis in tiling.axes]
        self._roots = steps.roots()
        self._filters = steps.forth(weight, sources, _filters(p, self._forward), taps, (1, 1), self._forward)
        spans = [axis.source() for axis in tiling.axes], [axis.computed() for axis in tiling.axes]
        self._steps = {
            count: (
                steps.forth(source, count, image, spans[0], grid),
                steps.product(source, weight, computed, count),
                steps.back(computed, count, out, spans[1], grid),
            )
            for count in _sizes(self._tiles, self._at_a_time)
        }
        self.launches = (self._roots, self._filters, *(launch for step in self._steps.values() for launch in step))

    def prepare_weight(self, weight: int, prepared: int) -> None:
        self._roots(table=prepared)
        self._filters(source=present(weight), table=prepared, spectra=prepared + self._table)

    def launch(self, input: int, weight: int, output: int, bias: int, residual: int, workspace: int) -> None:
        source, out = (input, output) if self._forward else (output, input)
        computed = workspace + self._computed
        for first in range(0, self._tiles, self._at_a_time):
            forth, product, back = self._steps[min(self._at_a_time, self._tiles - first)]
            forth({"first_tile": first}, source=present(source), table=weight, spectra=workspace)
            product(a=workspace, b=weight + self._table, out=computed)
            back({"first_tile": first}, spectra=computed, table=weight, out=out, bias=bias, residual=residual)


# ---------------------------------------------------------------------------------------------------- grad_weight


class _Part(NamedTuple):
    """The launches for some groups, and some filters of each: by how many tiles, and what ends them."""

    steps: dict[int, tuple[Launch, Launch, Launch]]
    back: Launch


class FftGradWeight(Plan):
    """As FftImage; sums that exceed half of the workspace are computed in parts, some groups or filters at a time."""

    def __init__(self, p: ConvProblem, workspace_limit: int) -> None:
        self._groups, self._k, self._sums = p.groups, p.k // p.groups, sum_dtype(p.dtype)
        tiling = _best_tiling(p)
        steps = _Steps(p, tiling)
        self._size, self._c, self._tiles = ITEMSIZES[p.dtype], p.c // p.groups, p.n * prod(tiling.grid)
        self._part = groups, filters = self._largest_part(workspace_limit // 2, tiling)
        found_bytes = steps.table_bytes + _Spectra(groups, tiling.frequencies, filters, self._c).bytes(self._sums)
        tile_bytes = 2 * ITEMSIZES[self._sums] * groups * tiling.frequencies * (self._c + filters)
        left = max(0, workspace_limit - found_bytes)
        self._at_a_time = max(1, min(self._tiles, left // max(1, tile_bytes)))
        inputs = _Spectra(groups, tiling.frequencies, self._at_a_time, self._c)
        self._input, self._output, self._weight = (
            _image(p.input, p.c, p.size, p.groups), _image(p.output, p.k, p.output_size, p.groups), _filters(p)
        )  # fmt: skip
        self._table, self._from_input = steps.table_bytes, found_bytes  # where what follows them begins
        self._from_output = found_bytes + inputs.bytes(self._sums)
        outputs = inputs._replace(channels=filters)
        self.workspace_bytes = self._from_output + outputs.bytes(self._sums)
        self._roots = steps.roots()
        self._parts = {
            (g, k): self._planned(steps, tiling, inputs._replace(groups=g), k)
            for g in _sizes(p.groups, groups)
            for k in _sizes(self._k, filters)
        }
        of_parts = [part.back for part in self._parts.values()]
        of_tiles = [launch for part in self._parts.values() for step in part.steps.values() for launch in step]
        self.launches = (self._roots, *of_tiles, *of_parts)

    def _largest_part(self, limit: int, tiling: _Tiling) -> tuple[int, int]:
        groups, filters = self._groups, max(1, self._k)
        while max(groups, filters) > 1:
            if _Spectra(groups, tiling.frequencies, filters, self._c).bytes(self._sums) <= limit:
                break
            groups, filters = (ceil_div(groups, 2), filters) if groups > 1 else (1, ceil_div(filters, 2))
        return groups, filters

    def _planned(self, steps: _Steps, tiling: _Tiling, x: _Spectra, filters: int) -> _Part:
        y, found = x._replace(channels=filters), x._replace(lines=filters)
        sources, pairs = ([f(axis) for axis in tiling.axes] for f in (_Axis.source, _Axis.paired))
        by_tiles = {
            count: (
                steps.forth(x, count, self._input, sources, tiling.grid),
                steps.forth(y, count, self._output, pairs, tiling.grid, conjugated=True),
                steps.product(y, x, found, count, a_transposed=True),
            )
            for count in _sizes(self._tiles, self._at_a_time) or {0}
        }
        return _Part(by_tiles, steps.back(found, filters, self._weight, [a.taps() for a in tiling.axes], (1, 1)))

    def launch(self, input: int, weight: int, output: int, bias: int, residual: int, workspace: int) -> None:
        self._roots(table=workspace)
        groups, filters = self._part
        for g in range(0, self._groups, groups):
            for k in range(0, self._k, filters):
                part = self._parts[min(groups, self._groups - g), min(filters, self._k - k)]
                x = present(input) + self._size * g * self._input.g
                y = present(output) + self._size * (g * self._output.g + k * self._output.c)
                to = weight + self._size * (g * self._weight.g + k * self._weight.n)
                self._find(part, x, y, to, workspace)

    def _find(self, part: _Part, input: int, output: int, weight: int, workspace: int) -> None:
        sums, x, y = (workspace + at for at in (self._table, self._from_input, self._from_output))
        for first in range(0, max(1, self._tiles), self._at_a_time):
            forth_x, forth_y, product = part.steps[min(self._at_a_time, self._tiles - first)]
            forth_x({"first_tile": first}, source=input, table=workspace, spectra=x)
            forth_y({"first_tile": first}, source=output, table=workspace, spectra=y)
            product({"ADD": first > 0}, a=y, b=x, out=sums)
        part.back(spectra=sums, table=workspace, out=weight)
