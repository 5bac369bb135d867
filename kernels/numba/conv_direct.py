"""Direct convolution: rows of the computed image are sums of shifted rows of the source, times one weight each.

For an output row the sums stay in a row of workspace, in the L1 cache; for every term (channel and tap) the source's
row is read once and added. No more memory than that is needed, and nothing is gathered: best where a group has few
channels (depthwise convolutions), where a product of matrices would be thin. grad_weight: every element is one sum of
products over all positions.
"""

from __future__ import annotations

from numba import prange

from .compiled import inner, kernel, summed
from .conv_gather import overlap, source_of
from .product import clear
from .row_products import dot
from .sharing import apart, share


@kernel
def image(threads, x, weight, y, bias, residual, workspace, relu, g, at_weight, at_residual):
    """forward and grad_input. ``bias`` and ``residual`` are empty where there is none. A thread has
    apart(g.width) elements of the workspace."""
    rows = g.images * g.groups * g.rows * g.depth * g.height
    for thread in prange(threads):
        begin, end = share(rows, thread, threads)
        for row in range(begin, end):
            _row(row, thread * apart(g.width), x, weight, y, bias, residual, workspace, relu, g, at_weight, at_residual)


@inner
def _row(row, sums, x, weight, y, bias, residual, workspace, relu, g, at_weight, at_residual):
    h = row % g.height
    d = row // g.height % g.depth
    channel = row // g.height // g.depth % (g.groups * g.rows)
    n = row // g.height // g.depth // (g.groups * g.rows)
    group = channel // g.rows
    clear(workspace, sums, g.width)
    at = group * at_weight.group + channel % g.rows * at_weight.row
    for c in range(g.channels):
        from_ = n * g.source_n + (group * g.channels + c) * g.source_c
        for td in range(g.taps_d):
            sd = source_of(d, g.step_d, g.every_d, td * g.pace_d + g.first_d, g.source_depth)
            for th in range(g.taps_h):
                sh = source_of(h, g.step_h, g.every_h, th * g.pace_h + g.first_h, g.source_height)
                if sd < 0 or sh < 0:
                    continue
                term = ((c * g.taps_d + td) * g.taps_h + th) * g.taps_w
                for tw in range(g.taps_w):
                    shift = tw * g.pace_w + g.first_w
                    start, met, sw = overlap(0, g.width, g.step_w, g.every_w, shift, g.source_width)
                    source = from_ + sd * g.source_d + sh * g.source_h + sw * g.source_w
                    factor = weight[at + (term + tw) * at_weight.term]
                    _add(factor, x, source, g.step_w * g.source_w, workspace, sums + start, g.every_w, met)
    zero = y.dtype.type(0)
    to = n * g.at_n + channel * g.at_c + d * g.at_d + h * g.at_h
    other = n * at_residual.n + channel * at_residual.c + d * at_residual.d + h * at_residual.h
    for w in range(g.width):
        value = workspace[sums + w]
        if bias.size > 0:
            value += bias[channel]
        if residual.size > 0:
            value += residual[other + w * at_residual.w]
        y[to + w * g.at_w] = zero if relu and value < zero else value


@inner
def _add(factor, x, from_, from_step, sums, at, step, count):
    if from_step == 1 and step == 1:
        source, target = x[from_ : from_ + count], sums[at : at + count]
        for i in range(count):
            target[i] += factor * source[i]
    else:
        for i in range(count):
            sums[at + i * step] += factor * x[from_ + i * from_step]


@kernel
def grad_weight(threads, x, grad, out, g, out_row, out_channel, out_d, out_h, out_w):
    elements = g.groups * g.rows * g.channels * g.taps_d * g.taps_h * g.taps_w
    for thread in prange(threads):
        begin, end = share(elements, thread, threads)
        for element in range(begin, end):
            tw = element % g.taps_w
            th = element // g.taps_w % g.taps_h
            td = element // g.taps_w // g.taps_h % g.taps_d
            plane = element // g.taps_w // g.taps_h // g.taps_d
            c, channel = plane % g.channels, plane // g.channels
            at = channel * out_row + c * out_channel + td * out_d + th * out_h + tw * out_w
            out[at] = _correlation(x, grad, g, channel, c, td, th, tw)


@inner
def _correlation(x, grad, g, channel, c, td, th, tw):
    """The sum over all positions of the gradient's element times the element of x that its position meets."""
    total = 0.0
    start, met, sw = overlap(0, g.width, g.step_w, 1, tw * g.pace_w + g.first_w, g.source_width)
    source_channel = channel // g.rows * g.channels + c
    for n in range(g.images):
        for d in range(g.depth):
            sd = source_of(d, g.step_d, 1, td * g.pace_d + g.first_d, g.source_depth)
            for h in range(g.height):
                sh = source_of(h, g.step_h, 1, th * g.pace_h + g.first_h, g.source_height)
                if sd < 0 or sh < 0:
                    continue
                from_ = n * g.source_n + source_channel * g.source_c
                from_ += sd * g.source_d + sh * g.source_h + sw * g.source_w
                at = n * g.at_n + channel * g.at_c + d * g.at_d + h * g.at_h + start * g.at_w
                total += _strided_dot(x, from_, g.step_w * g.source_w, grad, at, g.at_w, met)
    return total


@summed
def _strided_dot(x, from_, from_step, grad, at, step, count):
    if from_step == 1 and step == 1:
        return dot(x, from_, grad, at, count)
    total = x.dtype.type(0)
    for i in range(count):
        total += x[from_ + i * from_step] * grad[at + i * step]
    return total
