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
    elements, windows = bytearray(size), bytearray(out)  # 1 for those that meet some of the others
    for r in range(filter):
        offset = r * dilation - padding
        begin, end = max(0, -(offset // stride)), min(out, (size - 1 - offset) // stride + 1)
        if begin < end:
            elements[offset + begin * stride : offset + (end - 1) * stride + 1 : stride] = b"\1" * (end - begin)
            windows[begin:end] = b"\1" * (end - begin)
    return all(0 not in met.strip(b"\0") for met in (elements, windows))
