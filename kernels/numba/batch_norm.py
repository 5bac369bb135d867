"""batch_norm: y = relu((x - mean) * invstd * weight + bias + residual) per channel, invstd = 1 / sqrt(variance + eps);
residual and relu are optional.

Training takes the mean from one read and both moments around it from a second, which leaves nothing to cancel. What the
mean loses when it is rounded goes into the shift. With g the gradient of y, 0 where relu cut off (y <= 0):
    grad_weight = invstd * sum(g * (x - mean)), grad_bias = sum(g), grad_residual = g
    grad_input  = weight * invstd * (g - grad_bias / m - (x - mean) * invstd * grad_weight / m), m values per channel
where evaluation, whose statistics are constants, drops the last two terms. A thread takes a channel (nhwc: a block of
them, channels.py) from beginning to end, so that what it reads twice is in its cache the second time.
"""

from __future__ import annotations

from math import sqrt

from numba import prange

from .channels import CHUNK, add_parts, row_offsets, row_sum, strided_row
from .compiled import inner, kernel, summed
from .sharing import apart, share

SUMS, PARAMETERS = 3, 4  # per channel of a block: in float64 (twice: sums and parts), and in the tensors' dtype


@kernel
def forward(threads, x, y, weight, bias, running_mean, running_var, mean, invstd, residual, sums, parameters, eps,
            momentum, training, relu, g):  # fmt: skip
    """Arrays of what is not there are empty. A thread has apart(2 * SUMS * g.block) elements of ``sums`` and
    apart(PARAMETERS * g.block) of ``parameters``."""
    for thread in prange(threads):
        begin, end = share(-(-g.c // g.block), thread, threads)
        for block in range(begin, end):
            at, own = thread * apart(2 * SUMS * g.block), thread * apart(PARAMETERS * g.block)
            own_sums, own_parameters = sums[at : at + 2 * SUMS * g.block], parameters[own : own + PARAMETERS * g.block]
            _scales(block * g.block, x, weight, bias, running_mean, running_var, mean, invstd, own_sums, own_parameters,
                    eps, momentum, training, g)  # fmt: skip
            _normalize(block * g.block, x, y, residual, own_parameters, relu, g)


@inner
def _scales(first, x, weight, bias, running_mean, running_var, mean, invstd, sums, parameters, eps, momentum, training,
            g):  # fmt: skip
    """Mean, scale and shift of each channel of a block, in this order in ``parameters``; keeps the statistics."""
    count = g.n * g.d * g.h * g.w
    if training:
        _moments(first, x, sums, parameters, g)
    for i in range(min(g.block, g.c - first)):
        c = first + i
        if training:
            beyond = sums[i] / count
            center = parameters[i] + beyond
            variance = sums[g.block + i] / count - beyond * beyond
            variance = 0.0 if variance < 0.0 else variance
        else:
            center, variance = running_mean[c] * 1.0, running_var[c] * 1.0
        deviation = 1.0 / sqrt(variance + eps)
        scale = deviation * weight[c] if weight.size > 0 else deviation
        if training:
            mean[c], invstd[c] = center, deviation
            if running_mean.size > 0:
                running_mean[c] = (1.0 - momentum) * running_mean[c] + momentum * center
            if running_var.size > 0:
                unbiased = variance * count / (count - 1.0)
                running_var[c] = (1.0 - momentum) * running_var[c] + momentum * unbiased
        parameters[i], parameters[g.block + i] = center, scale
        shift = (parameters[i] - center) * scale
        parameters[2 * g.block + i] = shift + bias[c] if bias.size > 0 else shift


@inner
def _moments(first, x, sums, parameters, g):
    """The rounded means in ``parameters``; sums of x minus that and of its square in ``sums``."""
    channels = min(g.block, g.c - first)
    totals, parts = sums[: SUMS * g.block], sums[SUMS * g.block :]
    sums[:] = 0
    for row in range(g.n * g.d * g.h):
        at = row_offsets(row, g)[0] + first * g.x_c
        if g.block > 1:
            for w in range(g.w):
                for i in range(channels):
                    parts[i] += x[at + w * g.x_w + i]
            add_parts(totals, parts)
        else:
            for w in range(0, g.w, CHUNK):
                from_, count = at + w * g.x_w, min(CHUNK, g.w - w)
                if g.x_w == 1:
                    sums[0] += row_sum(x[from_ : from_ + count])
                else:
                    sums[0] += row_sum(strided_row(x, from_, g.x_w, count))
    for i in range(channels):
        parameters[i] = sums[i] / (g.n * g.d * g.h * g.w)
    sums[:] = 0
    for row in range(g.n * g.d * g.h):
        at = row_offsets(row, g)[0] + first * g.x_c
        if g.block > 1:
            for w in range(g.w):
                for i in range(channels):
                    difference = x[at + w * g.x_w + i] - parameters[i]
                    parts[i] += difference
                    parts[g.block + i] += difference * difference
            add_parts(totals, parts)
        else:
            for w in range(0, g.w, CHUNK):
                from_, count = at + w * g.x_w, min(CHUNK, g.w - w)
                if g.x_w == 1:
                    one, two = _row_moments(x[from_ : from_ + count], parameters[0])
                else:
                    one, two = _row_moments(strided_row(x, from_, g.x_w, count), parameters[0])
                sums[0] += one
                sums[1] += two


@summed
def _row_moments(x, center):
    one, two = x.dtype.type(0), x.dtype.type(0)
    for i in range(x.size):
        difference = x[i] - center
        one += difference
        two += difference * difference
    return one, two


@inner
def _normalize(first, x, y, residual, parameters, relu, g):
    contiguous = g.x_w == 1 and g.y_w == 1 and (residual.size == 0 or g.z_w == 1)
    channels, block = min(g.block, g.c - first), g.block
    mean, scale, shift = parameters[0], parameters[block], parameters[2 * block]
    means, scales, shifts = parameters[:block], parameters[block : 2 * block], parameters[2 * block : 3 * block]
    for row in range(g.n * g.d * g.h):
        at_x, at_y, at_z = row_offsets(row, g)
        at_x, at_y, at_z = at_x + first * g.x_c, at_y + first * g.y_c, at_z + first * g.z_c
        if block > 1:
            for w in range(g.w):
                from_, to, z = at_x + w * g.x_w, at_y + w * g.y_w, at_z + w * g.z_w
                _normalize_pixel(x[from_ : from_ + channels], y[to : to + channels], residual[z : z + channels], means,
                                 scales, shifts, relu)  # fmt: skip
        elif contiguous:
            _normalize_row(x[at_x : at_x + g.w], y[at_y : at_y + g.w], residual[at_z : at_z + g.w], mean, scale, shift,
                           relu)  # fmt: skip
        else:
            _normalize_row(strided_row(x, at_x, g.x_w, g.w), strided_row(y, at_y, g.y_w, g.w),
                           strided_row(residual, at_z, g.z_w, g.w), mean, scale, shift, relu)  # fmt: skip


@inner
def _normalize_row(x, y, residual, mean, scale, shift, relu):
    for i in range(x.size):
        value = (x[i] - mean) * scale + shift
        if residual.size > 0:
            value += residual[i]
        y[i] = 0 if relu and value < 0 else value


@inner
def _normalize_pixel(x, y, residual, mean, scale, shift, relu):
    for i in range(x.size):
        value = (x[i] - mean[i]) * scale[i] + shift[i]
        if residual.size > 0:
            value += residual[i]
        y[i] = 0 if relu and value < 0 else value
