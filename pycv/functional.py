"""The torch.nn.functional look-alike: same names, arguments and results, on pycv's kernels."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .ops.conv import conv as _conv
from .ops.conv import conv_transpose as _conv_transpose
from .ops.relu import relu as _relu

Ints = int | Sequence[int]


def conv1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Ints = 1,
    padding: Ints | str = 0,
    dilation: Ints = 1,
    groups: int = 1,
    *,
    residual: Tensor | None = None,
    activation: str | None = None,
) -> Tensor:
    """1-D convolution of input (N, C, W) or (C, W) with weight (K, C / groups, S); see :func:`conv2d`."""
    return _conv(1, input, weight, bias, stride, padding, dilation, groups, residual, activation)


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Ints = 1,
    padding: Ints | str = 0,
    dilation: Ints = 1,
    groups: int = 1,
    *,
    residual: Tensor | None = None,
    activation: str | None = None,
) -> Tensor:
    """2-D cross-correlation, as torch.nn.functional.conv2d, with an optional fused epilogue.

    Parameters
    ----------
    input : (N, C, H, W) or (C, H, W), any dtype and memory format. float32 and float64 run on pycv's CPU kernels,
        everything else on torch.
    weight : (K, C / groups, R, S), dtype of input.
    bias : (K), optional.
    stride, padding, dilation : int or (vertical, horizontal). padding may be "valid" or "same" (stride 1 only; an
        uneven amount is padded on the right).
    groups : int that divides C and K.
    residual : tensor of the output's shape, optional. Added after the bias.
    activation : None or "relu". Applied last.

    Returns
    -------
    (N, K, H', W') with H' = floor((H + 2 padding - dilation (R - 1) - 1) / stride) + 1; channels_last if input or
    weight is.

    Raises
    ------
    RuntimeError, TypeError, ValueError
        The class that torch raises for the same mistake; the message names the argument and its value.
    """
    return _conv(2, input, weight, bias, stride, padding, dilation, groups, residual, activation)


def conv3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Ints = 1,
    padding: Ints | str = 0,
    dilation: Ints = 1,
    groups: int = 1,
    *,
    residual: Tensor | None = None,
    activation: str | None = None,
) -> Tensor:
    """3-D convolution of input (N, C, D, H, W) or (C, D, H, W), weight (K, C / groups, T, R, S); see :func:`conv2d`."""
    return _conv(3, input, weight, bias, stride, padding, dilation, groups, residual, activation)


def conv_transpose1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Ints = 1,
    padding: Ints = 0,
    output_padding: Ints = 0,
    groups: int = 1,
    dilation: Ints = 1,
    *,
    residual: Tensor | None = None,
    activation: str | None = None,
) -> Tensor:
    """1-D transposed convolution; see :func:`conv_transpose2d`."""
    arguments = (stride, padding, output_padding, groups, dilation, residual, activation)
    return _conv_transpose(1, input, weight, bias, *arguments)


def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Ints = 1,
    padding: Ints = 0,
    output_padding: Ints = 0,
    groups: int = 1,
    dilation: Ints = 1,
    *,
    residual: Tensor | None = None,
    activation: str | None = None,
) -> Tensor:
    """2-D transposed convolution (the gradient of conv2d in its input), with an optional fused epilogue.

    Parameters
    ----------
    input : (N, C, H, W) or (C, H, W).
    weight : (C, K / groups, R, S), dtype of input.
    bias : (K), optional.
    stride, padding, output_padding, dilation : int or (vertical, horizontal); output_padding below stride or dilation.
    groups : int that divides C and K.
    residual, activation : as in :func:`conv2d`.

    Returns
    -------
    (N, K, H', W') with H' = (H - 1) stride - 2 padding + dilation (R - 1) + output_padding + 1; channels_last if input
    or weight is.

    Raises
    ------
    RuntimeError, TypeError, ValueError
        The class that torch raises for the same mistake; the message names the argument and its value.
    """
    arguments = (stride, padding, output_padding, groups, dilation, residual, activation)
    return _conv_transpose(2, input, weight, bias, *arguments)


def conv_transpose3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Ints = 1,
    padding: Ints = 0,
    output_padding: Ints = 0,
    groups: int = 1,
    dilation: Ints = 1,
    *,
    residual: Tensor | None = None,
    activation: str | None = None,
) -> Tensor:
    """3-D transposed convolution; see :func:`conv_transpose2d`."""
    arguments = (stride, padding, output_padding, groups, dilation, residual, activation)
    return _conv_transpose(3, input, weight, bias, *arguments)


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(input, 0) per element; NaN stays NaN. Any shape and dtype; the result keeps shape, dtype and memory format."""
    return _relu(input, inplace)
