"""The gradient of batch_norm (batch_norm.py has the formulas): of input, weight, bias and residual together.

One read of x and the gradient for the sums, and a second for grad_input and grad_residual, which finds a channel in the
cache of its thread. Any of the four may not be asked for.
"""

from __future__ import annotations

from math import sqrt

from numba import prange

from .batch_norm import PARAMETERS, SUMS
from .channels import CHUNK, add_parts, row_offsets, strided_row
from .compiled import inner, kernel, summed
from .sharing import apart, share


@kernel
def gradient(threads, x, grad, out, weight, running_mean, running_var, mean, invstd, grad_weight, grad_bias, output,
             grad_residual, sums, parameters, eps, training, g):  # fmt: skip
    """``output`` is the forward's, empty without relu; arrays of what is not there or not asked for are empty."""
    for thread in prange(threads):
        begin, end = share(-(-g.c // g.block), thread, threads)
        for block in range(begin, end):
            at, own = thread * apart(2 * SUMS * g.block), thread * apart(PARAMETERS * g.block)
            own_sums, own_parameters = sums[at : at + 2 * SUMS * g.block], parameters[own : own + PARAMETERS * g.block]
            first = block * g.block
            for i in range(min(g.block, g.c - first)):
                own_parameters[i] = mean[first + i] if training else running_mean[first + i]
            _products(first, x, grad, output, own_sums, own_parameters, g)
            _slopes(
                first, weight, running_var, invstd, grad_weight, grad_bias, own_sums, own_parameters, eps, training, g
            )
            _gradients(first, x, grad, out, output, grad_residual, own_parameters, g)


@inner
def _products(first, x, grad, output, sums, parameters, g):
    """Per channel the sums of g, of g * (x - mean), and of x - mean."""
    channels, block = min(g.block, g.c - first), g.block
    totals, parts = sums[: SUMS * block], sums[SUMS * block :]
    sums[:] = 0
    for row in range(g.n * g.d * g.h):
        at_x, at_y, _ = row_offsets(row, g)
        at_x, at_y = at_x + first * g.x_c, at_y + first * g.y_c
        if block > 1:
            for w in range(g.w):
                for i in range(channels):
                    from_ = at_y + w * g.y_w + i
                    value = grad[from_]
                    if output.size > 0 and output[from_] <= 0:
                        value = 0
                    difference = x[at_x + w * g.x_w + i] - parameters[i]
                    parts[i] += value
                    parts[block + i] += value * difference
                    parts[2 * block + i] += difference
            add_parts(totals, parts)
            continue
        for w in range(0, g.w, CHUNK):
            count, x_from, y_from = min(CHUNK, g.w - w), at_x + w * g.x_w, at_y + w * g.y_w
            if g.x_w == 1 and g.y_w == 1:
                end = y_from + count
                row_sums = _row_products(
                    x[x_from : x_from + count], grad[y_from:end], output[y_from:end], parameters[0]
                )
            else:
                row_sums = _row_products(strided_row(x, x_from, g.x_w, count), strided_row(grad, y_from, g.y_w, count),
                                      strided_row(output, y_from, g.y_w, count), parameters[0])  # fmt: skip
            sums[0] += row_sums[0]
            sums[1] += row_sums[1]
            sums[2] += row_sums[2]


@summed
def _row_products(x, grad, output, mean):
    zero = x.dtype.type(0)
    total, product, distance = zero, zero, zero
    for i in range(x.size):
        value = zero if output.size > 0 and output[i] <= zero else grad[i]
        difference = x[i] - mean
        total += value
        product += value * difference
        distance += difference
    return total, product, distance


@inner
def _slopes(first, weight, running_var, invstd, grad_weight, grad_bias, sums, parameters, eps, training, g):
    """grad_weight and grad_bias; scale, shift and slope of each channel behind its mean in ``parameters``."""
    count, block = float(g.n * g.d * g.h * g.w), g.block
    for i in range(min(block, g.c - first)):
        c = first + i
        deviation = invstd[c] * 1.0 if training else 1.0 / sqrt(running_var[c] + eps)
        lost = sums[2 * block + i] / count if training else 0.0  # what the rounding of the mean took from it
        dot = sums[block + i] - lost * sums[i]
        slope = dot / count * deviation * deviation if training else 0.0
        if grad_weight.size > 0:
            grad_weight[c] = dot * deviation
        if grad_bias.size > 0:
            grad_bias[c] = sums[i]
        parameters[block + i] = deviation * weight[c] if weight.size > 0 else deviation
        parameters[2 * block + i] = sums[i] / count - lost * slope if training else 0.0
        parameters[3 * block + i] = slope


@inner
def _gradients(first, x, grad, out, output, grad_residual, parameters, g):
    contiguous = g.x_w == 1 and g.y_w == 1 and (grad_residual.size == 0 or g.z_w == 1)
    channels, block = min(g.block, g.c - first), g.block
    for row in range(g.n * g.d * g.h):
        at_x, at_y, at_z = row_offsets(row, g)
        at_x, at_y, at_z = at_x + first * g.x_c, at_y + first * g.y_c, at_z + first * g.z_c
        if block > 1:
            for w in range(g.w):
                x_from, y_from, z_from = at_x + w * g.x_w, at_y + w * g.y_w, at_z + w * g.z_w
                _pixel(x[x_from : x_from + channels], grad[y_from : y_from + channels], out[x_from : x_from + channels],
                       output[y_from : y_from + channels], grad_residual[z_from : z_from + channels], parameters,
                       block)  # fmt: skip
        elif contiguous:
            _row(x[at_x : at_x + g.w], grad[at_y : at_y + g.w], out[at_x : at_x + g.w], output[at_y : at_y + g.w],
                 grad_residual[at_z : at_z + g.w], parameters[0], parameters[1], parameters[2],
                 parameters[3])  # fmt: skip
        else:
            _row(strided_row(x, at_x, g.x_w, g.w), strided_row(grad, at_y, g.y_w, g.w),
                 strided_row(out, at_x, g.x_w, g.w), strided_row(output, at_y, g.y_w, g.w),
                 strided_row(grad_residual, at_z, g.z_w, g.w), parameters[0], parameters[1], parameters[2],
                 parameters[3])  # fmt: skip


@inner
def _row(x, grad, out, output, grad_residual, mean, scale, shift, slope):
    for i in range(x.size):
        value = grad[i]
        if output.size > 0 and output[i] <= 0:
            value = 0
        if out.size > 0:
            out[i] = (value - shift - (x[i] - mean) * slope) * scale
        if grad_residual.size > 0:
            grad_residual[i] = value


@inner
def _pixel(x, grad, out, output, grad_residual, parameters, block):
    scale, shift, slope = parameters[block : 2 * block], parameters[2 * block : 3 * block], parameters[3 * block :]
    for i in range(x.size):
        value = grad[i]
        if output.size > 0 and output[i] <= 0:
            value = 0
        if out.size > 0:
            out[i] = (value - shift[i] - (x[i] - parameters[i]) * slope[i]) * scale[i]
        if grad_residual.size > 0:
            grad_residual[i] = value
