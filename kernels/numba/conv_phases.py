"""The plan of a strided grad_input by im2col: a product for each phase, which multiplies no zeros.

Along an axis, position i of the input meets the output at filter tap r where (i + padding - r * dilation) / stride is a
whole number. Positions a multiple of the stride apart, a phase, meet the same taps: every stride / gcd(stride,
dilation)-th one. So a phase is a grad_input of stride 1, with fewer taps and larger steps from one of its positions to
the next, and conv_im2col computes it: all together each product once, where a single gather would multiply stride^2 as
many factors, most of them 0. A phase that meets no tap is bias, residual and relu of zeros.
"""

from __future__ import annotations

from itertools import product
from math import gcd, prod
from typing import NamedTuple

from pycv.problem import ITEMSIZES, ConvProblem, Layout

from .._plans import ConvPlan
from . import conv_im2col
from .conv_gather import Gather, Weight
from .conv_im2col import Residual
from .conv_tiling import Shares, image_shares
from .memory import View, extent, spatial, strides_of
from .plans import Cost, Launch, image_view
from .sharing import worthwhile


class Axis(NamedTuple):
    """A phase along an axis: its positions; its taps first, first + step, ...; what the first one meets, and how far on
    each of the others."""

    positions: int
    taps: int
    first_tap: int
    tap_step: int
    first: int
    pace: int


def axis_of(phase: int, size: int, filter: int, stride: int, padding: int, dilation: int) -> Axis:
    common = gcd(stride, dilation)
    step, pace = stride // common, -(dilation // common)
    positions = -(-(size - phase) // stride)
    for tap in range(min(step, filter)):
        if (phase + padding - tap * dilation) % stride == 0:
            first = (phase + padding - tap * dilation) // stride
            return Axis(positions, -(-(filter - tap) // step), tap, step, first, pace)
    return Axis(positions, 0, 0, 1, 0, 0)


class _Tensor:
    """What a phase takes of a tensor: every stride-th position from the phase's own."""

    def __init__(self, layout: Layout, p: ConvProblem, phase: tuple[int, ...], positions: tuple[int, ...]) -> None:
        n, c, *axes = strides_of(layout, p.c, p.size)
        stride = spatial(p.stride, 1)
        self.offset = sum(i * step for i, step in zip(phase, axes, strict=True))
        self.strides = (n, c, *(s * step for s, step in zip(stride, axes, strict=True)))
        self.view = View(extent((p.n, p.c, *positions), self.strides), p.dtype)


class _Phase:
    """``whole``: the gather of the problem; ``at``: where the phase's weight lies in the prepared one, in elements."""

    def __init__(self, p: ConvProblem, whole: Gather, phase: tuple[int, ...], at: int, team: int) -> None:
        fields = (spatial(p.size, 1), spatial(p.filter, 1), spatial(p.stride, 1), spatial(p.padding, 0))
        axes = [axis_of(*each) for each in zip(phase, *fields, spatial(p.dilation, 1), strict=True)]
        positions, taps, first_taps, tap_steps, first, pace = zip(*axes, strict=True)
        self._p, self._at, self._itemsize = p, at, ITEMSIZES[p.dtype]
        self._computed = _Tensor(p.input, p, phase, positions)
        self._residual = None if p.residual is None else _Tensor(p.residual, p, phase, positions)
        d, h, w = positions
        self.gather = whole._replace(
            depth=d, height=h, width=w, taps_d=taps[0], taps_h=taps[1], taps_w=taps[2], pace_d=pace[0], pace_h=pace[1],
            pace_w=pace[2], first_d=first[0], first_h=first[1], first_w=first[2], every_d=1, every_h=1, every_w=1,
            **dict(zip(("at_n", "at_c", "at_d", "at_h", "at_w"), self._computed.strides, strict=True)),
        )  # fmt: skip
        self.positions, self.terms = p.n * prod(positions), whole.channels * prod(taps)
        self.weights = p.groups * whole.rows * self.terms
        self._prepare = self._arrangement(taps, first_taps, tap_steps, worthwhile(team, self.weights, self.weights))

    def _arrangement(self, taps: tuple, first_taps: tuple, tap_steps: tuple, team: int) -> Launch:
        p, g = self._p, self.gather
        k, c, *steps = strides_of(p.weight, p.c // p.groups, p.filter)
        self._first_tap = sum(tap * step for tap, step in zip(first_taps, steps, strict=True))
        of_taps = tuple(step * apart for step, apart in zip(steps, tap_steps, strict=True))
        view = View(extent((p.k, p.c // p.groups, *taps), (k, c, *of_taps)), p.dtype)
        numbers = (p.groups, g.rows, g.channels, *taps, k * (p.k // p.groups), c, k, *of_taps)
        return Launch(conv_im2col.arrange, team, (view, View(self.weights, p.dtype)), numbers)

    def plan(self, shares: Shares, workspace: View) -> None:
        p = self._p
        none = View(0, p.dtype)
        residual = self._residual
        source = image_view(p.output, p.n, p.k, p.output_size, p.dtype)
        views = (
            source, View(self.weights, p.dtype), self._computed.view, View(p.c, p.dtype),
            none if residual is None else residual.view, workspace,
        )  # fmt: skip
        at_weight = Weight(self.gather.rows * self.terms, self.terms, 1)
        at_residual = Residual(*(residual.strides if residual else (0,) * 5))
        numbers = ("relu" in p.epilogue, self.gather, at_weight, at_residual, shares.tiling)
        self._launch = Launch(conv_im2col.image, shares.threads, views, numbers)

    def prepare_weight(self, weight: int, prepared: int) -> None:
        if self.weights > 0:
            self._prepare((weight + self._first_tap * self._itemsize, prepared + self._at * self._itemsize))

    def launch(self, source: int, weight: int, computed: int, bias: int, residual: int, workspace: int) -> None:
        computed += self._computed.offset * self._itemsize
        if self._residual is not None and residual:
            residual += self._residual.offset * self._itemsize
        self._launch((source, weight + self._at * self._itemsize, computed, bias, residual, workspace))


class Im2colPhases(ConvPlan):
    """``whole``: the gather of the problem; the workspace is to hold ``elements`` at most."""

    def __init__(self, p: ConvProblem, whole: Gather, team: int, elements: int) -> None:
        axes = [range(min(s, n)) for s, n in zip(spatial(p.stride, 1), spatial(p.size, 1), strict=True)]
        self._phases: list[_Phase] = []
        at = 0
        for phase in product(*axes):
            self._phases.append(_Phase(p, whole, phase, at, team))
            at += self._phases[-1].weights
        self.prepared_weight_bytes = at * ITEMSIZES[p.dtype]
        shares = [
            image_shares(whole.groups, whole.rows, x.terms, x.positions, team, elements, in_rows=True)
            for x in self._phases
        ]
        workspace = max((each.workspace for each in shares), default=0)
        self.workspace_bytes = workspace * ITEMSIZES[p.dtype]
        for each, share in zip(self._phases, shares, strict=True):
            each.plan(share, View(workspace, p.dtype))
        products, gathered = sum(each.products for each in shares), sum(each.gathered for each in shares)
        self.cost = Cost(products, gathered, p.bytes, len(shares))

    def prepare_weight(self, weight: int, prepared: int) -> None:
        for phase in self._phases:
            phase.prepare_weight(weight, prepared)

    def launch(self, input: int, weight: int, output: int, bias: int, residual: int, workspace: int) -> None:
        for phase in self._phases:
            phase.launch(output, weight, input, bias, residual, workspace)
