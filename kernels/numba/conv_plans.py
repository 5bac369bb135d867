"""Plans of the convolution kernels: geometry, tiling and workspace of a problem."""

from __future__ import annotations

from math import prod
from typing import Any

from pycv.problem import ITEMSIZES, ConvProblem, Layout, Sizes

from .._plans import ConvPlan
from . import conv_direct, conv_im2col
from .conv_gather import Gather, Weight
from .conv_im2col import Residual
from .conv_phases import Im2colPhases
from .conv_tiling import image_shares, weight_shares
from .memory import View, is_row, spatial, strides_of
from .plans import Cost, Launch, image_view
from .sharing import apart, worthwhile


def plan(algorithm: str, p: ConvProblem, team: int, workspace_limit: int) -> Any:
    """A plan as csrc/bindings has them: workspace_bytes, prepared_weight_bytes, prepare_weight, run and launch."""
    elements = workspace_limit // ITEMSIZES[p.dtype]
    if p.pass_ == "grad_weight":
        return DirectGradWeight(p, team) if algorithm == "direct" else Im2colGradWeight(p, team, elements)
    if algorithm == "direct":
        return DirectImage(p, team)
    if p.pass_ == "grad_input" and max(p.stride) > 1:
        return Im2colPhases(p, _geometry(p), team, elements)
    return Im2colImage(p, team, elements)


# -------------------------------------------------------------------------------------------------------- geometry


def _geometry(p: ConvProblem, *others: Sizes) -> Gather:
    """What the pass reads where (conv_gather.py). ``others``: strides of further images of the positions."""
    size, out, taps = spatial(p.size, 1), spatial(p.output_size, 1), spatial(p.filter, 1)
    stride, padding, dilation = spatial(p.stride, 1), spatial(p.padding, 0), spatial(p.dilation, 1)
    inputs, outputs = strides_of(p.input, p.c, p.size), strides_of(p.output, p.k, p.output_size)
    c, k, ones = p.c // p.groups, p.k // p.groups, (1, 1, 1)
    if p.pass_ == "grad_input":
        back = tuple(-d for d in dilation)
        fields = (c, k, p.n, *size, *out, *taps, *ones, *back, *padding, *stride, *outputs, *inputs)
    else:
        before = tuple(-pad for pad in padding)
        fields = (k, c, p.n, *out, *size, *taps, *stride, *dilation, *before, *ones, *inputs, *outputs)
    g = Gather._make((p.groups, *fields))
    same = (taps, stride, padding, size) == (ones, ones, (0, 0, 0), out)
    if not same or not all(is_row(size, strides[2:]) for strides in (inputs, outputs, *others)):
        return g
    count = prod(size)  # every element is read once, in the order of memory: images are single rows
    return g._replace(depth=1, height=1, width=count, source_depth=1, source_height=1, source_width=count)


def _weight_view(p: ConvProblem) -> View:
    return image_view(p.weight, p.k, p.c // p.groups, p.filter, p.dtype)


class _Plan(ConvPlan):
    cost: Cost
    _launch: Launch


# ------------------------------------------------------------------------------------------ forward and grad_input


class _Image(_Plan):
    """One image from another and the weight."""

    def __init__(self, p: ConvProblem, team: int) -> None:
        self._forward = p.pass_ == "forward"
        channels, size = (p.k, p.output_size) if self._forward else (p.c, p.size)
        strides = None if p.residual is None else strides_of(p.residual, channels, size)
        self._g = _geometry(p, *([strides] if strides else []))
        self._terms = self._g.channels * prod(p.filter)
        self._positions = p.n * prod(size)
        input, output = (
            image_view(p.input, p.n, p.c, p.size, p.dtype),
            image_view(p.output, p.n, p.k, p.output_size, p.dtype),
        )
        source, computed = (input, output) if self._forward else (output, input)
        weight, self._at_weight = self._weight(p, team)
        others = (
            View(channels, p.dtype),
            image_view(p.residual or Layout(), p.n if strides else 0, channels, size, p.dtype),
        )
        self._views = (source, weight, computed, *others)
        self._numbers = ("relu" in p.epilogue, self._g, self._at_weight, Residual(*(strides or (0,) * 5)))

    def _weight(self, p: ConvProblem, team: int) -> tuple[View, Weight]:
        """The weight as the kernel reads it, where possible as it is: one stride must lead through all terms."""
        g, taps, view = self._g, spatial(p.filter, 1), _weight_view(p)
        k, c, *others = strides_of(p.weight, p.c // p.groups, p.filter)
        steps = tuple(others)
        row, channel = (k, c) if self._forward else (c, k)
        group, count = k * (p.k // p.groups), prod(taps)
        if count == 1:
            return view, Weight(group, row, channel)
        if is_row(taps, steps) and steps[2] in (1, channel) and (g.channels == 1 or channel == count * steps[2]):
            return view, Weight(group, row, steps[2])
        elements = p.groups * g.rows * self._terms
        dense = View(elements, p.dtype)
        self.prepared_weight_bytes = elements * ITEMSIZES[p.dtype]
        numbers = (p.groups, g.rows, g.channels, *taps, group, row, channel, *steps)
        self._prepare = Launch(conv_im2col.arrange, worthwhile(team, elements, elements), (view, dense), numbers)
        return dense, Weight(g.rows * self._terms, self._terms, 1)

    def prepare_weight(self, weight: int, prepared: int) -> None:
        self._prepare((weight, prepared))

    def launch(self, input: int, weight: int, output: int, bias: int, residual: int, workspace: int) -> None:
        source, computed = (input, output) if self._forward else (output, input)
        self._launch((source, weight, computed, bias, residual, workspace))


class Im2colImage(_Image):
    def __init__(self, p: ConvProblem, team: int, elements: int) -> None:
        super().__init__(p, team)
        g = self._g
        in_rows = self._at_weight.term == 1
        shares = image_shares(g.groups, g.rows, self._terms, self._positions, team, elements, in_rows)
        self.workspace_bytes = shares.workspace * ITEMSIZES[p.dtype]
        self.cost = Cost(shares.products, shares.gathered, p.bytes)
        views = (*self._views, View(shares.workspace, p.dtype))
        self._launch = Launch(conv_im2col.image, shares.threads, views, (*self._numbers, shares.tiling))


class DirectImage(_Image):
    def __init__(self, p: ConvProblem, team: int) -> None:
        super().__init__(p, team)
        g = self._g
        products = self._positions * self._terms * g.groups * g.rows
        team = worthwhile(team, products, max(1, p.n * g.groups * g.rows * g.depth * g.height))
        workspace = team * apart(g.width)
        self.workspace_bytes = workspace * ITEMSIZES[p.dtype]
        self.cost = _direct_cost(products, team, p, g)
        views = (*self._views, View(workspace, p.dtype))
        self._launch = Launch(conv_direct.image, team, views, self._numbers)


def _direct_cost(products: int, team: int, p: ConvProblem, g: Gather) -> Cost:
    """Three times what a product in registers takes; where rows do not lie as vectors, a cache line for each."""
    contiguous = g.source_w * g.step_w == 1 and g.every_w == 1
    return Cost(3 * products / team, 0.0 if contiguous else products / team, p.bytes)


# ----------------------------------------------------------------------------------------------------- grad_weight


class Im2colGradWeight(_Plan):
    def __init__(self, p: ConvProblem, team: int, elements: int) -> None:
        g = _geometry(p)
        terms, positions = g.channels * prod(p.filter), p.n * prod(p.output_size)
        shares = weight_shares(g.groups, g.rows, terms, positions, team, elements)
        self.workspace_bytes = shares.workspace * ITEMSIZES[p.dtype]
        self.cost = Cost(shares.products, shares.gathered, p.bytes)
        input, grad = (
            image_view(p.input, p.n, p.c, p.size, p.dtype),
            image_view(p.output, p.n, p.k, p.output_size, p.dtype),
        )
        strides = strides_of(p.weight, p.c // p.groups, p.filter)
        in_order = p.weight.name == "nchw" or prod(p.filter) == 1
        numbers = (g, *strides, in_order, shares.tiling)
        views = (input, grad, _weight_view(p), View(shares.workspace, p.dtype))
        self._launch = Launch(conv_im2col.grad_weight, shares.threads, views, numbers)

    def launch(self, input: int, weight: int, output: int, bias: int, residual: int, workspace: int) -> None:
        self._launch((input, output, weight, workspace))


class DirectGradWeight(_Plan):
    def __init__(self, p: ConvProblem, team: int) -> None:
        g = _geometry(p)
        sums = g.groups * g.rows * g.channels * prod(p.filter)
        products = sums * p.n * prod(p.output_size)
        team = worthwhile(team, products, max(1, sums))
        self.cost = _direct_cost(products, team, p, g)
        input, grad = (
            image_view(p.input, p.n, p.c, p.size, p.dtype),
            image_view(p.output, p.n, p.k, p.output_size, p.dtype),
        )
        numbers = (g, *strides_of(p.weight, p.c // p.groups, p.filter))
        self._launch = Launch(conv_direct.grad_weight, team, (input, grad, _weight_view(p)), numbers)

    def launch(self, input: int, weight: int, output: int, bias: int, residual: int, workspace: int) -> None:
        self._launch((input, output, weight))
