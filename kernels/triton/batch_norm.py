"""batch_norm: y = relu((x - mean) * invstd * weight + bias + residual) per channel, invstd = 1 / sqrt(variance + eps);
residual and relu are optional.

Training reads x twice: once for mean and sum of squares around it, tile by tile, merged as Chan, Golub and LeVeque do
(Updating Formulae and a Pairwise Algorithm for Computing Sample Variances, 1979), which leaves nothing to cancel; once
to normalise. With g the gradient of y, 0 where relu cut off (y <= 0):
    grad_weight = invstd * sum(g * (x - mean)), grad_bias = sum(g), grad_residual = g
    grad_input  = weight * invstd * (g - grad_bias / m - (x - mean) * invstd * grad_weight / m), m values per channel
where evaluation, whose statistics are constants, drops the last two terms.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .channels import block, offsets
from .language import number, put
from .windows import elements, locate


@triton.jit
def moments(
    x, parts, channels, positions, count, part_count, x_n, x_c, x_p,
    ACC: tl.constexpr, BC: tl.constexpr, BE: tl.constexpr,
):  # fmt: skip
    """parts[part, 0, channel] = mean, parts[part, 1, channel] = sum of squares around it."""
    channel, there, part = block(channels, BC)
    first = part * part_count
    last = tl.minimum(first + part_count, count)
    mean = tl.zeros([BC], ACC)
    squares = tl.zeros([BC], ACC)
    for begin in range(first, last, BE):
        n, position, inside = offsets(begin, last, positions, BE)
        at = n * x_n + position * x_p + channel[None, :] * x_c
        value = tl.load(x + at, mask=inside & there[None, :], other=0).to(ACC)
        more = tl.minimum(last - begin, BE).to(ACC)
        tile_mean = tl.sum(value, 0) / more
        difference = tl.where(inside, value - tile_mean[None, :], 0.0)
        tile_squares = tl.sum(difference * difference, 0)
        mean, squares = merged(mean, squares, (begin - first).to(ACC), tile_mean, tile_squares, more)
    at = parts + 2 * part * channels + channel
    tl.store(at, mean, mask=there)
    tl.store(at + channels, squares, mask=there)


@triton.jit
def merged(mean, squares, count, other_mean, other_squares, other_count):
    """Mean and sum of squares around it of two sets together."""
    distance = other_mean - mean
    share = other_count / (count + other_count)
    return mean + distance * share, squares + other_squares + distance * distance * count * share


@triton.jit(do_not_specialize=["eps", "momentum"])
def scales(
    parts, parameters, weight, bias, running_mean, running_var, mean, invstd, eps: tl.int64, momentum: tl.int64,
    channels, count, part_count, TRAINING: tl.constexpr, ACC: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """parameters[0..2, channel] = mean, scale and shift; keeps the statistics."""
    channel = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there = channel < channels
    if TRAINING:
        center = tl.zeros([BLOCK], ACC)
        squares = tl.zeros([BLOCK], ACC)
        for first in range(0, count, part_count):
            at = parts + 2 * (tl.cast(first, tl.int64) // part_count) * channels + channel
            part_mean = tl.load(at, mask=there, other=0)
            part_squares = tl.load(at + channels, mask=there, other=0)
            more = tl.minimum(count - first, part_count).to(ACC)
            center, squares = merged(center, squares, tl.cast(first, ACC), part_mean, part_squares, more)
        variance = squares / tl.cast(count, ACC)
    else:
        center = tl.load(running_mean + channel, mask=there, other=0).to(ACC)
        variance = tl.load(running_var + channel, mask=there, other=1).to(ACC)
    deviation = 1.0 / tl.sqrt(variance + number(eps, ACC))
    if TRAINING:
        tl.store(mean + channel, center, mask=there)
        tl.store(invstd + channel, deviation, mask=there)
        new = number(momentum, ACC)
        if running_mean is not None:
            old_mean = tl.load(running_mean + channel, mask=there, other=0).to(ACC)
            put(running_mean + channel, old_mean + new * (center - old_mean), there)
        if running_var is not None:
            old_var = tl.load(running_var + channel, mask=there, other=0).to(ACC)
            unbiased = squares / (tl.cast(count, ACC) - 1.0)
            put(running_var + channel, old_var + new * (unbiased - old_var), there)
    scale, shift = deviation, tl.zeros([BLOCK], ACC)
    if weight is not None:
        scale *= tl.load(weight + channel, mask=there, other=0).to(ACC)
    if bias is not None:
        shift += tl.load(bias + channel, mask=there, other=0).to(ACC)
    tl.store(parameters + channel, center, mask=there)
    tl.store(parameters + channels + channel, scale, mask=there)
    tl.store(parameters + 2 * channels + channel, shift, mask=there)


@triton.jit
def normalise(
    x, y, residual, parameters, count, channels, positions, x_n, x_c, x_p, y_n, y_c, y_p, z_n, z_c, z_p,
    RELU: tl.constexpr, ACC: tl.constexpr, CHANNELS_LAST: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    element, there = elements(count, BLOCK, WIDE)
    n, c, p = locate(element, channels, positions, CHANNELS_LAST)
    center = tl.load(parameters + c, mask=there, other=0)
    scale = tl.load(parameters + channels + c, mask=there, other=0)
    shift = tl.load(parameters + 2 * channels + c, mask=there, other=0)
    value = tl.load(x + n * x_n + c * x_c + p * x_p, mask=there, other=0).to(ACC)
    value = (value - center) * scale + shift
    if residual is not None:
        value += tl.load(residual + n * z_n + c * z_c + p * z_p, mask=there, other=0).to(ACC)
    if RELU:
        value = tl.where(value < 0, 0.0, value)
    put(y + n * y_n + c * y_c + p * y_p, value, there)


# -------------------------------------------------------------------------------------------------------- gradient


@triton.jit
def products(
    x, grad, forward_output, center, parts, channels, positions, count, part_count, x_n, x_c, x_p, y_n, y_c, y_p,
    ACC: tl.constexpr, BC: tl.constexpr, BE: tl.constexpr,
):  # fmt: skip
    """parts[part, 0, channel] = sum of g, parts[part, 1, channel] = sum of g * (x - center)."""
    channel, there, part = block(channels, BC)
    middle = tl.load(center + channel, mask=there, other=0).to(ACC)[None, :]
    total = tl.zeros([BE, BC], ACC)
    product = tl.zeros([BE, BC], ACC)
    last = tl.minimum((part + 1) * part_count, count)
    for begin in range(part * part_count, last, BE):
        n, position, inside = offsets(begin, last, positions, BE)
        inside = inside & there[None, :]
        at = n * y_n + position * y_p + channel[None, :] * y_c
        slope = tl.load(grad + at, mask=inside, other=0).to(ACC)
        if forward_output is not None:
            kept = tl.load(forward_output + at, mask=inside, other=0).to(ACC)
            slope = tl.where(kept <= 0, 0.0, slope)
        value = tl.load(x + n * x_n + position * x_p + channel[None, :] * x_c, mask=inside, other=0).to(ACC)
        total += slope
        product += tl.where(inside, slope * (value - middle), 0.0)
    at = parts + 2 * part * channels + channel
    tl.store(at, tl.sum(total, 0), mask=there)
    tl.store(at + channels, tl.sum(product, 0), mask=there)


@triton.jit(do_not_specialize=["eps"])
def slopes(
    parts, parameters, weight, center, invstd, running_var, grad_weight, grad_bias, eps: tl.int64,
    channels, count, part_count, TRAINING: tl.constexpr, ACC: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """parameters[0..3, channel] = mean, scale, and what is taken from g: a constant, and a multiple of x - mean."""
    channel = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there = channel < channels
    total = tl.zeros([BLOCK], ACC)
    product = tl.zeros([BLOCK], ACC)
    for first in range(0, count, part_count):
        at = parts + 2 * (tl.cast(first, tl.int64) // part_count) * channels + channel
        total += tl.load(at, mask=there, other=0)
        product += tl.load(at + channels, mask=there, other=0)
    if TRAINING:
        deviation = tl.load(invstd + channel, mask=there, other=0).to(ACC)
    else:
        deviation = 1.0 / tl.sqrt(tl.load(running_var + channel, mask=there, other=1).to(ACC) + number(eps, ACC))
    if grad_weight is not None:
        put(grad_weight + channel, product * deviation, there)
    if grad_bias is not None:
        put(grad_bias + channel, total, there)
    scale = deviation
    if weight is not None:
        scale *= tl.load(weight + channel, mask=there, other=0).to(ACC)
    tl.store(parameters + channel, tl.load(center + channel, mask=there, other=0).to(ACC), mask=there)
    tl.store(parameters + channels + channel, scale, mask=there)
    if TRAINING:
        values = tl.cast(count, ACC)
        tl.store(parameters + 2 * channels + channel, total / values, mask=there)
        tl.store(parameters + 3 * channels + channel, product / values * deviation * deviation, mask=there)


@triton.jit
def gradients(
    x, grad, out, forward_output, grad_residual, parameters, count, channels, positions,
    x_n, x_c, x_p, y_n, y_c, y_p, z_n, z_c, z_p, TRAINING: tl.constexpr,
    ACC: tl.constexpr, CHANNELS_LAST: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    element, there = elements(count, BLOCK, WIDE)
    n, c, p = locate(element, channels, positions, CHANNELS_LAST)
    at = n * y_n + c * y_c + p * y_p
    slope = tl.load(grad + at, mask=there, other=0).to(ACC)
    if forward_output is not None:
        slope = tl.where(tl.load(forward_output + at, mask=there, other=0).to(ACC) <= 0, 0.0, slope)
    if grad_residual is not None:
        put(grad_residual + n * z_n + c * z_c + p * z_p, slope, there)
    if out is not None:
        at = n * x_n + c * x_c + p * x_p
        if TRAINING:
            difference = tl.load(x + at, mask=there, other=0).to(ACC) - tl.load(parameters + c, mask=there, other=0)
            slope -= tl.load(parameters + 2 * channels + c, mask=there, other=0)
            slope -= difference * tl.load(parameters + 3 * channels + c, mask=there, other=0)
        put(out + at, slope * tl.load(parameters + channels + c, mask=there, other=0), there)
