"""The torch.nn.functional look-alike: same names, arguments and results, on pycv's kernels."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .ops import avg_pool as _avg
from .ops import batch_norm as _norm
from .ops import linear as _linear
from .ops import local_response_norm as _lrn
from .ops import matmul as _matmul
from .ops import max_pool as _max
from .ops.conv import conv as _conv
from .ops.conv import conv_transpose as _conv_transpose
from .ops.relu import relu as relu

Ints = int | Sequence[int]
OutputSize = int | Sequence[int | None] | None


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


def mm(input: Tensor, mat2: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Matrix product of input (m, k) and mat2 (k, n), as :func:`torch.mm`.

    Raises RuntimeError where the operands are no matrices, do not fit together or differ in dtype.
    """
    return _matmul.mm(input, mat2, out=out)


def bmm(input: Tensor, mat2: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Matrix products of input (batch, m, k) and mat2 (batch, k, n), one per batch entry, as :func:`torch.bmm`.

    Raises RuntimeError where the operands are not 3-D, do not fit together or differ in dtype.
    """
    return _matmul.bmm(input, mat2, out=out)


def matmul(input: Tensor, other: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Matrix product with broadcast leading axes, as :func:`torch.matmul`: (..., m, k) and (..., k, n).

    A 1-D input is a row, a 1-D other a column; the result then has no such axis.
    Raises RuntimeError where an operand is 0-D or the two do not fit together or differ in dtype.
    """
    return _matmul.matmul(input, other, out=out)


def addmm(
    input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: float = 1, alpha: float = 1, out: Tensor | None = None
) -> Tensor:
    """beta * input + alpha * mat1 @ mat2, as :func:`torch.addmm`: mat1 (m, k), mat2 (k, n), input broadcast to (m, n).

    With beta = 0 the input is not read: its NaN do not spread.
    Raises RuntimeError where the operands do not fit together or differ in dtype.
    """
    return _matmul.addmm(input, mat1, mat2, beta=beta, alpha=alpha, out=out)


def linear(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    residual: Tensor | None = None,
    activation: str | None = None,
) -> Tensor:
    """input @ weight^T + bias, as :func:`torch.nn.functional.linear`, and more in the same pass over the result.

    Parameters
    ----------
    input : (..., in_features)
    weight : (out_features, in_features); or (in_features), and the result has no axis of outputs
    bias : (out_features), optional
    residual : optional
        Added after the bias; broadcast to the result's shape (..., out_features).
    activation : {"relu"}, optional
        Applied last.

    Raises
    ------
    RuntimeError
        Where the operands do not fit together or differ in dtype.
    ValueError
        For an activation that is not known.
    """
    return _linear.linear(input, weight, bias, residual=residual, activation=activation)


def max_pool1d(
    input: Tensor,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    dilation: Ints = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """1-D max pooling of input (N, C, W), batched or not; see :func:`max_pool2d`."""
    return _max.max_pool(1, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool2d(
    input: Tensor,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    dilation: Ints = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Largest element of each window, as torch.nn.functional.max_pool2d.

    Parameters
    ----------
    input : (N, C, H, W) or (C, H, W), any dtype and memory format.
    kernel_size, stride, padding, dilation : int or (vertical, horizontal). stride None is kernel_size; padding is at
        most half of the window and counts as -inf.
    ceil_mode : whether the last window may hang over the end.
    return_indices : also return, for each output, the int64 offset h * W + w of its (first) maximum.

    Returns
    -------
    (N, C, H', W'), with the same shape of indices behind it if asked for. NaN wins over everything.

    Raises
    ------
    RuntimeError, TypeError
        The class that torch raises for the same mistake; the message names the argument and its value.
    """
    return _max.max_pool(2, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool3d(
    input: Tensor,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    dilation: Ints = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """3-D max pooling of input (N, C, D, H, W), batched or not; see :func:`max_pool2d`."""
    return _max.max_pool(3, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool1d_with_indices(
    input: Tensor,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    dilation: Ints = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> tuple[Tensor, Tensor]:
    """:func:`max_pool1d` that always returns the indices too, as torch's function of this name."""
    return _max.max_pool(1, input, kernel_size, stride, padding, dilation, ceil_mode, True)


def max_pool2d_with_indices(
    input: Tensor,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    dilation: Ints = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> tuple[Tensor, Tensor]:
    """:func:`max_pool2d` that always returns the indices too, as torch's function of this name."""
    return _max.max_pool(2, input, kernel_size, stride, padding, dilation, ceil_mode, True)


def max_pool3d_with_indices(
    input: Tensor,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    dilation: Ints = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> tuple[Tensor, Tensor]:
    """:func:`max_pool3d` that always returns the indices too, as torch's function of this name."""
    return _max.max_pool(3, input, kernel_size, stride, padding, dilation, ceil_mode, True)


def avg_pool1d(
    input: Tensor,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """1-D average pooling of input (N, C, W), batched or not; see :func:`avg_pool2d`."""
    return _avg.avg_pool(1, input, kernel_size, stride, padding, ceil_mode, count_include_pad, None)


def avg_pool2d(
    input: Tensor,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """Mean of each window, as torch.nn.functional.avg_pool2d.

    Parameters
    ----------
    input : (N, C, H, W) or (C, H, W), any dtype and memory format.
    kernel_size, stride, padding : int or (vertical, horizontal). stride None is kernel_size; padding is at most half of
        the window.
    ceil_mode : whether the last window may hang over the end.
    count_include_pad : whether padding counts in the divisor.
    divisor_override : the divisor, if not the window's size.

    Returns
    -------
    (N, C, H', W')

    Raises
    ------
    RuntimeError, TypeError
        The class that torch raises for the same mistake; the message names the argument and its value.
    """
    return _avg.avg_pool(2, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


def avg_pool3d(
    input: Tensor,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """3-D average pooling of input (N, C, D, H, W), batched or not; see :func:`avg_pool2d`."""
    return _avg.avg_pool(3, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


def adaptive_max_pool1d(
    input: Tensor, output_size: OutputSize, return_indices: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    """Max pooling of input (N, C, W), batched or not, to output_size (None keeps an axis): output o of an axis of
    length i covers floor(o i / size) up to ceil((o + 1) i / size). With return_indices also the int64 offsets.
    """
    return _max.adaptive_max_pool(1, input, output_size, return_indices)


def adaptive_max_pool1d_with_indices(
    input: Tensor, output_size: OutputSize, return_indices: bool = False
) -> tuple[Tensor, Tensor]:
    """:func:`adaptive_max_pool1d` that always returns the indices too, as torch's function of this name."""
    return _max.adaptive_max_pool(1, input, output_size, True)


def adaptive_max_pool2d(
    input: Tensor, output_size: OutputSize, return_indices: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    """Max pooling of input (N, C, H, W), batched or not, to output_size (None keeps an axis): output o of an axis of
    length i covers floor(o i / size) up to ceil((o + 1) i / size). With return_indices also the int64 offsets.
    """
    return _max.adaptive_max_pool(2, input, output_size, return_indices)


def adaptive_max_pool2d_with_indices(
    input: Tensor, output_size: OutputSize, return_indices: bool = False
) -> tuple[Tensor, Tensor]:
    """:func:`adaptive_max_pool2d` that always returns the indices too, as torch's function of this name."""
    return _max.adaptive_max_pool(2, input, output_size, True)


def adaptive_max_pool3d(
    input: Tensor, output_size: OutputSize, return_indices: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    """Max pooling of input (N, C, D, H, W), batched or not, to output_size (None keeps an axis): output o of an axis of
    length i covers floor(o i / size) up to ceil((o + 1) i / size). With return_indices also the int64 offsets.
    """
    return _max.adaptive_max_pool(3, input, output_size, return_indices)


def adaptive_max_pool3d_with_indices(
    input: Tensor, output_size: OutputSize, return_indices: bool = False
) -> tuple[Tensor, Tensor]:
    """:func:`adaptive_max_pool3d` that always returns the indices too, as torch's function of this name."""
    return _max.adaptive_max_pool(3, input, output_size, True)


def adaptive_avg_pool1d(input: Tensor, output_size: OutputSize) -> Tensor:
    """Average pooling of input (N, C, W), batched or not, to output_size (None keeps an axis): output o of an axis
    of length i covers floor(o i / size) up to ceil((o + 1) i / size).
    """
    return _avg.adaptive_avg_pool(1, input, output_size)


def adaptive_avg_pool2d(input: Tensor, output_size: OutputSize) -> Tensor:
    """Average pooling of input (N, C, H, W), batched or not, to output_size (None keeps an axis): output o of an axis
    of length i covers floor(o i / size) up to ceil((o + 1) i / size).
    """
    return _avg.adaptive_avg_pool(2, input, output_size)


def adaptive_avg_pool3d(input: Tensor, output_size: OutputSize) -> Tensor:
    """Average pooling of input (N, C, D, H, W), batched or not, to output_size (None keeps an axis): output o of an
    axis of length i covers floor(o i / size) up to ceil((o + 1) i / size).
    """
    return _avg.adaptive_avg_pool(3, input, output_size)


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    residual: Tensor | None = None,
    activation: str | None = None,
) -> Tensor:
    """Normalise each channel, as torch.nn.functional.batch_norm (Ioffe and Szegedy 2015), and more in the same pass.

    Parameters
    ----------
    input : (N, C, ...), any memory format.
    running_mean, running_var : (C), optional in training, where they are moved by ``momentum`` (the variance unbiased).
    weight, bias : (C), optional.
    training : statistics of this batch instead of the running ones; needs more than one value per channel.
    eps : added to the variance.
    residual : tensor of the input's shape, optional. Added to the result.
    activation : None or "relu". Applied last.

    Returns
    -------
    (N, C, ...) in input's memory format.

    Raises
    ------
    ValueError, RuntimeError
        As torch does.
    """
    return _norm.batch_norm(
        input, running_mean, running_var, weight, bias, training, momentum, eps, residual, activation
    )


def local_response_norm(input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """input / (k + alpha / size * sum of squares over ``size`` neighbouring channels) ** beta, for (N, C, ...).

    Krizhevsky, Sutskever and Hinton 2012, section 3.3, with torch's division of alpha by the size.
    """
    return _lrn.local_response_norm(input, size, alpha, beta, k)
