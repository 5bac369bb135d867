"""local_response_norm: y = x * d ** -beta, d = k + alpha / window * sum of x ** 2 over the channels from c - BEFORE to
c + AFTER, and its gradient

    grad_input = g * d ** -beta - 2 * alpha * beta / window * x * sum of g * x * d ** (-beta - 1)

over the channels whose windows hold c; where d is 0, NaN as torch's, unless beta is. Each program works out the d that
it needs; the window's reads meet in the caches. That makes the gradient's work grow with the square of the window, and
saves a tensor of d.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .language import number, put
from .windows import elements, locate


@triton.jit
def denominator(image, c, channels, there, share, k, x_c, BEFORE: tl.constexpr, AFTER: tl.constexpr, ACC: tl.constexpr):
    """The d of channels ``c``; 1 where there is none."""
    total = tl.where(there, 0.0, 1.0).to(ACC)
    for i in range(0, BEFORE + AFTER + 1):
        other = c + (i - BEFORE)
        inside = there & (other >= 0) & (other < channels)
        value = tl.load(image + other * x_c, mask=inside, other=0).to(ACC)
        total += value * value
    return tl.where(there, k + share * total, total)


@triton.jit
def power(d, exponent):
    """As C's pow, for finite exponents: 1 for that of 0; of a negative d, NaN unless the exponent is whole."""
    size = tl.exp(exponent * tl.log(tl.abs(d)))
    odd = tl.floor(exponent * 0.5) * 2.0 != exponent
    negative = tl.where(tl.floor(exponent) == exponent, tl.where(odd, -size, size), float("nan"))
    return tl.where(exponent == 0.0, 1.0, tl.where(d < 0, negative, size))


@triton.jit(do_not_specialize=["alpha", "beta", "k"])
def forward(
    x, y, alpha: tl.int64, beta: tl.int64, k: tl.int64, count, channels, positions, x_n, x_c, x_p, y_n, y_c, y_p,
    BEFORE: tl.constexpr, AFTER: tl.constexpr,
    ACC: tl.constexpr, CHANNELS_LAST: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    element, there = elements(count, BLOCK, WIDE)
    n, c, p = locate(element, channels, positions, CHANNELS_LAST)
    image = x + n * x_n + p * x_p
    share = number(alpha, ACC) / (BEFORE + AFTER + 1)
    d = denominator(image, c, channels, there, share, number(k, ACC), x_c, BEFORE, AFTER, ACC)
    value = tl.load(image + c * x_c, mask=there, other=0).to(ACC)
    put(y + n * y_n + c * y_c + p * y_p, value * power(d, -number(beta, ACC)), there)


@triton.jit(do_not_specialize=["alpha", "beta", "k"])
def gradient(
    x, grad, out, alpha: tl.int64, beta: tl.int64, k: tl.int64, count, channels, positions,
    x_n, x_c, x_p, y_n, y_c, y_p, BEFORE: tl.constexpr, AFTER: tl.constexpr,
    ACC: tl.constexpr, CHANNELS_LAST: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    element, there = elements(count, BLOCK, WIDE)
    n, c, p = locate(element, channels, positions, CHANNELS_LAST)
    image = x + n * x_n + p * x_p
    slopes = grad + n * y_n + p * y_p
    exponent = -number(beta, ACC)
    share = number(alpha, ACC) / (BEFORE + AFTER + 1)
    through = tl.zeros([BLOCK], ACC)
    for i in range(0, BEFORE + AFTER + 1):
        other = c + (i - AFTER)
        inside = there & (other >= 0) & (other < channels)
        d = denominator(image, other, channels, inside, share, number(k, ACC), x_c, BEFORE, AFTER, ACC)
        value = tl.load(image + other * x_c, mask=inside, other=0).to(ACC)
        slope = tl.load(slopes + other * y_c, mask=inside, other=0).to(ACC)
        through += slope * value * (power(d, exponent) / d)
    d = denominator(image, c, channels, there, share, number(k, ACC), x_c, BEFORE, AFTER, ACC)
    value = tl.load(image + c * x_c, mask=there, other=0).to(ACC)
    slope = tl.load(slopes + c * y_c, mask=there, other=0).to(ACC)
    change = 2.0 * share * exponent * value * through
    result = slope * power(d, exponent) + tl.where(exponent == 0.0, 0.0, change)  # then d is none of it, even if 0
    put(out + n * x_n + c * x_c + p * x_p, result, there)
