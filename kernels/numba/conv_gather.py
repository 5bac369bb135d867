"""Which elements of an image a convolution reads: what its kernels have in common.

All three passes pair positions with elements of a source image. Along an axis, position i meets at filter tap r the
element (i * step + r * pace + first) / every, where that is a whole number inside the image:
    forward and grad_weight (positions of the output, elements of the input): step = stride, pace = dilation,
        first = -padding, every = 1;
    grad_input (positions of the input, elements of the output's gradient): step = 1, pace = -dilation, first = padding,
        every = stride.
One of step and every is 1. A term is a channel of the source's group and a tap, channel-major: a weight's own order.
"""

from __future__ import annotations

from typing import NamedTuple

from .compiled import inner


class Gather(NamedTuple):
    """The image of positions, the source image and what leads from one to the other; strides in elements."""

    groups: int
    rows: int  # channels of the computed image per group
    channels: int  # of the source image per group
    images: int
    depth: int  # of the image of positions, as height and width
    height: int
    width: int
    source_depth: int
    source_height: int
    source_width: int
    taps_d: int
    taps_h: int
    taps_w: int
    step_d: int
    step_h: int
    step_w: int
    pace_d: int
    pace_h: int
    pace_w: int
    first_d: int
    first_h: int
    first_w: int
    every_d: int
    every_h: int
    every_w: int
    source_n: int
    source_c: int
    source_d: int
    source_h: int
    source_w: int
    at_n: int  # strides of the image of positions: what is computed, or the output's gradient in grad_weight
    at_c: int
    at_d: int
    at_h: int
    at_w: int


class Weight(NamedTuple):
    """Element (group, row, term) of a weight lies at group * self.group + row * self.row + term * self.term."""

    group: int
    row: int
    term: int


@inner
def source_of(position, step, every, shift, size):
    """The element that a position meets, -1 for none."""
    value = position * step + shift
    if value < 0 or value % every != 0 or value >= size * every:
        return -1
    return value // every


@inner
def overlap(first, count, step, every, shift, size):
    """The positions first + i, 0 <= i < count, that meet an element: i = start, start + every, ... as the elements
    source, source + step, ...: (start, how many, source)."""
    origin = first * step + shift
    start = max(0, -(origin // step))
    start += -(origin + start * step) % every
    source = (origin + start * step) // every
    if start >= count or source >= size:
        return 0, 0, 0
    return start, min((count - 1 - start) // every, (size - 1 - source) // step) + 1, source


@inner
def locate(position, g):
    """(image, depth, height, width) of a position, counted through all images."""
    w = position % g.width
    row = position // g.width
    h = row % g.height
    plane = row // g.height
    return plane // g.depth, plane % g.depth, h, w


@inner
def next_row(n, d, h, g):
    """(image, depth, height) of the row of positions after that one."""
    if h + 1 < g.height:
        return n, d, h + 1
    if d + 1 < g.depth:
        return n, d + 1, 0
    return n + 1, 0, 0


@inner
def tap_of(term, g):
    """(channel, tap along each axis) of a term."""
    s = term % g.taps_w
    rest = term // g.taps_w
    r = rest % g.taps_h
    rest = rest // g.taps_h
    return rest // g.taps_d, rest % g.taps_d, r, s


@inner
def gather(x, g, group, first_term, terms, first_position, positions, panel, panel_at, term_step, position_step):
    """panel[panel_at + t * term_step + j * position_step] = the element that position first_position + j meets at term
    first_term + t, 0 where there is none. ``g.every_*`` are 1.

    Rows of positions are short, and what a whole one meets differs between taps only: it is found once for each.
    """
    for t in range(terms):
        c, td, th, tw = tap_of(first_term + t, g)
        channel = (group * g.channels + c) * g.source_c
        shift_d, shift_h = td * g.pace_d + g.first_d, th * g.pace_h + g.first_h
        shift_w = tw * g.pace_w + g.first_w
        whole, of_whole, whole_source = overlap(0, g.width, g.step_w, 1, shift_w, g.source_width)
        n, d, h, w = locate(first_position, g)
        j = 0
        while j < positions:
            count = min(g.width - w, positions - j)
            to = panel_at + t * term_step + j * position_step
            sd = source_of(d, g.step_d, 1, shift_d, g.source_depth)
            sh = source_of(h, g.step_h, 1, shift_h, g.source_height)
            start, met, sw = whole, of_whole, whole_source
            if sd < 0 or sh < 0:
                met = 0
            elif count < g.width:
                start, met, sw = overlap(w, count, g.step_w, 1, shift_w, g.source_width)
            if met < count:
                _clear(panel, to, position_step, count)
            if met > 0:
                from_ = n * g.source_n + channel + sd * g.source_d + sh * g.source_h + sw * g.source_w
                copy(x, from_, g.step_w * g.source_w, panel, to + start * position_step, position_step, met)
            j += count
            n, d, h = next_row(n, d, h, g)
            w = 0


@inner
def _clear(to, at, step, count):
    if step == 1:
        to[at : at + count] = 0
    else:
        for i in range(count):
            to[at + i * step] = 0


@inner
def copy(x, from_, from_step, to, at, step, count):
    if from_step == 1 and step == 1:
        source, target = x[from_ : from_ + count], to[at : at + count]
        for i in range(count):
            target[i] = source[i]
    else:
        for i in range(count):
            to[at + i * step] = x[from_ + i * from_step]
