"""What several backends ask of a convolution's geometry."""

from __future__ import annotations

from pycv.problem import ConvProblem


def all_read(p: ConvProblem) -> bool:
    """Whether no input element, and no window, lies between others and yet meets none of them."""
    axes = zip(p.size, p.filter, p.output_size, p.stride, p.padding, p.dilation, strict=True)
    return all(_all_read(*axis) for axis in axes)


def _all_read(size: int, filter: int, out: int, stride: int, padding: int, dilation: int) -> bool:
    if dilation == 1 and stride <= filter:
        return True
    pairs = [
        (i, o) for o in range(out) for r in range(filter) if 0 <= (i := o * stride - padding + r * dilation) < size
    ]
    return all(len(met) == max(met) - min(met) + 1 for met in map(set, zip(*pairs, strict=True)))
