"""From torch's convolution arguments to one geometry, with torch's errors.

Nothing here looks at data or at kernels: it answers what the extents are, or why the arguments are wrong.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..problem import Sizes, output_size
from ._dispatch import require_64_bits


class Geometry(NamedTuple):
    """All extents of a convolution: the same three tensors in every pass (see ConvProblem)."""

    rank: int
    size: Sizes
    filter: Sizes
    output_size: Sizes
    stride: Sizes
    padding: Sizes
    dilation: Sizes
    groups: int

    @property
    def right_padding(self) -> Sizes:
        """What the input lacks behind its end for the last window; differs from ``padding`` for even 'same' filters."""
        reach = [
            (o - 1) * u + d * (f - 1) + 1
            for o, u, d, f in zip(self.output_size, self.stride, self.dilation, self.filter, strict=True)
        ]
        return tuple(r - p - i for r, p, i in zip(reach, self.padding, self.size, strict=True))


def _integers(name: str, value, rank: int, op: str) -> Sizes:
    """One int per axis from an int, a one-element or a full sequence."""
    if isinstance(value, bool) or not isinstance(value, (int, torch.SymInt, tuple, list)):
        if not (isinstance(value, Tensor) and value.dim() == 0 and not value.is_floating_point()):
            raise TypeError(f"{op}(): argument {name}={value!r} must be an int or a tuple of {rank} ints")
        value = int(value)
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    for v in values:
        if isinstance(v, bool) or not isinstance(v, (int, torch.SymInt)):
            raise TypeError(f"{op}(): argument {name}={value!r} must be an int or a tuple of {rank} ints")
    require_64_bits(op, name, value, *values)
    if len(values) not in (1, rank):
        raise RuntimeError(
            f"expected {name} to be a single integer value or a list of {rank} values to match the convolution "
            f"dimensions, but got {name}={list(values)}"
        )
    return values if len(values) == rank else values * rank


def _require_tensors(op: str, input, weight, bias) -> None:
    for name, value in (("input", input), ("weight", weight), ("bias", bias)):
        if not isinstance(value, Tensor) and not (name == "bias" and value is None):
            raise TypeError(f"{op}(): argument {name} must be a Tensor, not {type(value).__name__}")


def _require_ranks(op: str, rank: int, input: Tensor, weight: Tensor) -> None:
    if weight.dim() != rank + 2:
        raise RuntimeError(
            f"{op}: expected weight with {rank + 2} dimensions, but got weight of size {list(weight.shape)}"
        )
    if input.dim() != rank + 2:
        raise RuntimeError(
            f"Expected {rank + 1}D (unbatched) or {rank + 2}D (batched) input to {op}, but got input of size: "
            f"{list(input.shape)}"
        )


def _require_same_kind(input: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    for name, other in (("weight", weight), ("bias", bias)):
        if other is None:
            continue
        if other.dtype != input.dtype:
            raise RuntimeError(f"Input type ({input.dtype}) and {name} type ({other.dtype}) should be the same")
        if other.device != input.device:
            raise RuntimeError(f"expected input and {name} on one device, but got {input.device} and {other.device}")


def _require_channels(weight: Tensor, groups: int) -> None:
    if groups <= 0:
        raise RuntimeError(f"non-positive groups is not supported: got groups={groups}")
    channels = weight.shape[0]
    if channels < groups:
        raise RuntimeError(
            f"Given groups={groups}, expected weight to be at least {groups} at dimension 0, but got weight of size "
            f"{list(weight.shape)} instead"
        )
    if channels % groups:
        raise RuntimeError(
            f"Given groups={groups}, expected weight to be divisible by {groups} at dimension 0, but got weight of "
            f"size {list(weight.shape)} instead"
        )


def _require_bias(weight: Tensor, bias: Tensor | None, channels: int) -> None:
    if bias is not None and (bias.dim() != 1 or bias.shape[0] != channels):
        raise RuntimeError(
            f"Given weight of size {list(weight.shape)}, expected bias to be 1-dimensional with {channels} elements, "
            f"but got bias of size {list(bias.shape)} instead"
        )


def _require_positive(stride: Sizes, padding: Sizes, dilation: Sizes) -> None:
    for name, values in (("stride", stride), ("dilation", dilation)):
        if any(v <= 0 for v in values):
            raise RuntimeError(f"non-positive {name} is not supported: got {name}={list(values)}")
    if any(v < 0 for v in padding):
        raise RuntimeError(f"negative padding is not supported: got padding={list(padding)}")
    if any(v >= 2**61 for v in padding):
        raise RuntimeError(f"padding is too large to be added to the input's size: got padding={list(padding)}")


def _require_pixels(input: Tensor) -> None:
    if any(s == 0 for s in input.shape[2:]):
        raise RuntimeError(
            f"Only zero batch or zero channel inputs are supported, but got input shape: {list(input.shape)}"
        )


def _same_padding(stride: Sizes, dilation: Sizes, filter: Sizes) -> Sizes:
    """The left half of padding='same'; where it is uneven the right side gets one more, as in torch."""
    if any(u != 1 for u in stride):
        raise RuntimeError(f"padding='same' is not supported for strided convolutions: got stride={list(stride)}")
    return tuple(d * (f - 1) // 2 for d, f in zip(dilation, filter, strict=True))


def forward_geometry(
    rank: int, input: Tensor, weight: Tensor, bias: Tensor | None, stride, padding, dilation, groups
) -> Geometry:
    """The geometry of convNd for a batched input.

    Raises
    ------
    RuntimeError, TypeError
        The class that torch raises, naming the argument and its value.
    """
    op = f"conv{rank}d"
    _require_tensors(op, input, weight, bias)
    _require_ranks(op, rank, input, weight)
    stride = _integers("stride", stride, rank, op)
    dilation = _integers("dilation", dilation, rank, op)
    if isinstance(groups, bool) or not isinstance(groups, int):
        raise TypeError(f"{op}(): argument groups={groups!r} must be an int")
    require_64_bits(op, "groups", groups, groups)
    size, filter = tuple(input.shape[2:]), tuple(weight.shape[2:])
    same = padding == "same"
    if isinstance(padding, str) and padding not in ("same", "valid"):
        raise RuntimeError(f"Invalid padding string: {padding!r}, expected 'same' or 'valid'")
    if same:
        padding = _same_padding(stride, dilation, filter)
    padding = (0,) * rank if padding == "valid" else _integers("padding", padding, rank, op)
    _require_positive(stride, padding, dilation)
    _require_channels(weight, groups)
    _require_same_kind(input, weight, bias)
    if input.shape[1] != weight.shape[1] * groups:
        raise RuntimeError(
            f"Given groups={groups}, weight of size {list(weight.shape)}, expected input{list(input.shape)} to have "
            f"{weight.shape[1] * groups} channels, but got {input.shape[1]} channels instead"
        )
    _require_bias(weight, bias, weight.shape[0])
    out = size if same else output_size(size, filter, stride, padding, dilation)
    if any(f == 0 for f in filter):
        raise RuntimeError(f"weight of size {list(weight.shape)}: a filter needs at least one element per axis")
    if any(o < 1 for o in out):
        padded = " x ".join(str(i + 2 * p) for i, p in zip(size, padding, strict=True))
        reach = " x ".join(str(d * (f - 1) + 1) for f, d in zip(filter, dilation, strict=True))
        raise RuntimeError(
            f"Calculated padded input size per channel: ({padded}). Kernel size: ({reach}). Kernel size can't be "
            "greater than actual input size"
        )
    _require_pixels(input)
    return Geometry(rank, size, filter, out, stride, padding, dilation, groups)


def transposed_geometry(
    rank: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride,
    padding,
    output_padding,
    groups,
    dilation,
) -> Geometry:
    """The geometry of conv_transposeNd: its output is the ``size`` side of the convolution it transposes.

    Raises as :func:`forward_geometry`.
    """
    op = f"conv_transpose{rank}d"
    _require_tensors(op, input, weight, bias)
    _require_ranks(op, rank, input, weight)
    stride = _integers("stride", stride, rank, op)
    padding = _integers("padding", padding, rank, op)
    output_padding = _integers("output_padding", output_padding, rank, op)
    dilation = _integers("dilation", dilation, rank, op)
    if isinstance(groups, bool) or not isinstance(groups, int):
        raise TypeError(f"{op}(): argument groups={groups!r} must be an int")
    require_64_bits(op, "groups", groups, groups)
    _require_positive(stride, padding, dilation)
    if any(v < 0 for v in output_padding):
        raise RuntimeError(f"negative output_padding is not supported: got output_padding={list(output_padding)}")
    _require_channels(weight, groups)
    _require_same_kind(input, weight, bias)
    if input.shape[1] != weight.shape[0]:
        raise RuntimeError(
            f"Given transposed=1, weight of size {list(weight.shape)}, expected input{list(input.shape)} to have "
            f"{weight.shape[0]} channels, but got {input.shape[1]} channels instead"
        )
    _require_bias(weight, bias, weight.shape[1] * groups)
    if any(e >= max(u, d) for e, u, d in zip(output_padding, stride, dilation, strict=True)):
        raise RuntimeError(
            "output padding must be smaller than either stride or dilation, but got "
            f"output_padding={list(output_padding)}, stride={list(stride)}, dilation={list(dilation)}"
        )
    out, filter = tuple(input.shape[2:]), tuple(weight.shape[2:])
    _require_pixels(input)
    size = tuple(
        (o - 1) * u - 2 * p + d * (f - 1) + e + 1
        for o, u, p, d, f, e in zip(out, stride, padding, dilation, filter, output_padding, strict=True)
    )
    if any(s < 1 for s in size):
        raise RuntimeError(
            f"Given input size per channel: {list(out)}. Calculated output size per channel: {list(size)}. Output size "
            f"is too small (padding={list(padding)})"
        )
    return Geometry(rank, size, filter, out, stride, padding, dilation, groups)


def require_tensor(residual: Tensor | None) -> None:
    """The fused residual is one, if given: where torch adds it, a number would do."""
    if residual is not None and not isinstance(residual, Tensor):
        raise TypeError(f"argument residual must be a Tensor, not {type(residual).__name__}")


def require_residual(residual: Tensor | None, shape: Sizes, like: Tensor) -> None:
    """The fused residual has the result's shape, and the dtype and device of ``like``."""
    if residual is None:
        return
    require_tensor(residual)
    if tuple(residual.shape) != shape or residual.dtype != like.dtype:
        raise RuntimeError(
            f"expected residual of size {list(shape)} and {like.dtype}, "
            f"but got {list(residual.shape)} and {residual.dtype}"
        )
    if residual.device != like.device:
        raise RuntimeError(f"expected residual on {like.device}, but got {residual.device}")


def require_activation(activation: str | None) -> bool:
    """Whether the fused activation is relu."""
    if activation not in (None, "relu"):
        raise ValueError(f"activation={activation!r}: expected None or 'relu'")
    return activation == "relu"
