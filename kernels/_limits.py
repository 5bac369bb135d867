"""Why the kernels of several backends do not take a problem, in words; None where they do."""

from __future__ import annotations

from pycv.problem import ConvProblem, PointwiseProblem

from . import _fields

_LONGEST_AXIS = 2**30  # what kernels hold in 32 bits: coordinates along an axis, padding and all
_THIN_GROUP, _FEW_CHANNELS = 16, 4


def dtype_or_layout(problem, dtypes: tuple[str, ...], whose: str) -> str | None:
    """What kernels of some dtypes, without blocked layouts, do not take."""
    if problem.dtype not in dtypes:
        return f"dtype {problem.dtype}: the {whose} kernels take {', '.join(dtypes)}"
    blocked = next((layout for layout in _fields.layouts(problem) if layout.block > 1), None)
    return None if blocked is None else f"layout {blocked}: the {whose} kernels take nchw and nhwc"


def prologue(p: ConvProblem, whose: str) -> str | None:
    """What kernels without a prologue do not take."""
    return f"prologue {'+'.join(p.prologue)}: the {whose} kernels have none" if p.prologue else None


def mask(p: PointwiseProblem, whose: str) -> str | None:
    """What kernels do not take whose gradient of relu reads the forward's output."""
    return f"mask: the {whose} kernels have none" if p.mask else None


def long_axis(p) -> str | None:
    """What kernels with coordinates of 32 bits do not take; of a convolution or pooling."""
    axes = zip(p.size, p.output_size, p.filter, p.stride, p.padding, p.dilation, strict=True)
    if any(max(i, o * u + f * d) + pad >= _LONGEST_AXIS for i, o, f, u, pad, d in axes):
        return f"an axis of 2^30 or more positions (size {p.size}, output {p.output_size})"
    return None


def many_channels(p: ConvProblem) -> str | None:
    """What direct kernels without a matrix product are not for."""
    c, k = p.c // p.groups, p.k // p.groups
    if max(c, k) > _THIN_GROUP and not (p.groups == 1 and c <= _FEW_CHANNELS):
        return (
            f"{c} and {k} channels per group: direct is for groups of up to {_THIN_GROUP} channels "
            f"and for images of up to {_FEW_CHANNELS}"
        )
    return None
