"""How near a kernel is to what the machine allows: the one definition of a share of the roofline.

The least time of a problem under an algorithm is that of the operations which the algorithm itself performs, at the
machine's measured peak, or of the fewest bytes that the problem needs, at the bandwidth of the smallest memory that
holds all of its tensors, whichever is longer. The share is that time over the measured one. So Winograd and FFT, which
perform fewer operations than the direct sums, are measured by their own; and a share above 1 is no achievement but a
mistake: in the timing, in what the plan counts, or in the peaks. Of a library only the products with pixels count: it
may leave out those with padding, which are many where a large filter meets a small image.

The plans of GPU kernels count nothing. There the operations are the direct sums', of Winograd those of its products;
with TF32 they are measured by the peak of TF32's, of which 3xTF32 needs three. Where they are not known (FFT, and a
library's convolution, which may be any) only the bytes bound.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ..problem import ITEMSIZES, ConvProblem, PoolProblem, Problem
from .machine import Peaks

MARGIN = 0.02  # of a share: the bursts that peaks are measured by agree this well


@dataclass(frozen=True)
class Placement:
    """Where a kernel stands under the roof.

    Attributes
    ----------
    flops : operations that the algorithm performs; None where they are not known.
    bytes : the fewest that have to move.
    seconds : the least that both can take on this machine.
    bound : which of them it is: "compute", or the name of the memory level.
    """

    flops: float | None
    bytes: float
    seconds: float
    bound: str

    def share(self, seconds: float) -> float:
        """Of the roofline, at a measured time."""
        return self.seconds / seconds


def place(problem: Problem, plan: Any, peaks: Peaks, kernel: str = "") -> Placement | None:
    """The placement of a problem run by a plan (None for torch and other libraries) of a kernel, by its name.

    None where no peak is known: of another device than that of ``peaks``, or of another dtype.
    """
    if problem.device != peaks.device or problem.dtype not in peaks.flops:
        return None
    if problem.device == "cpu":
        flops: float | None = algorithm_flops(problem, plan, peaks.threads)
    else:
        flops = gpu_flops(problem, kernel)
    moved = fewest_bytes(problem)
    compute = (flops or 0.0) / peaks.flops["tf32" if kernel.endswith("tf32") else problem.dtype]
    memory = peaks.move_seconds(moved, working_set=problem.bytes)
    bound = "compute" if compute >= memory else peaks.level_of(problem.bytes).name
    return Placement(flops, moved, max(compute, memory), bound)


def algorithm_flops(problem: Problem, plan: Any, threads: int) -> float:
    """Two per multiply-add that the plan counts, of the busiest thread, for all threads; else what the direct sums need
    without padding."""
    cost = getattr(plan, "cost", None)
    if cost is not None and cost.multiply_adds:
        return 2.0 * cost.multiply_adds * threads
    return problem.flops * _unpadded_share(problem) if isinstance(problem, ConvProblem) else float(problem.flops)


def _unpadded_share(p: ConvProblem) -> float:
    """Of the products of the direct sums, those with a pixel of the input."""
    axes = zip(p.size, p.output_size, p.filter, p.stride, p.padding, p.dilation, strict=True)
    return math.prod(_products_inside(*axis) / max(axis[1] * axis[2], 1) for axis in axes)


def _products_inside(size: int, outputs: int, taps: int, stride: int, padding: int, dilation: int) -> int:
    """Of an axis: how often a tap of an output reads a pixel 0 <= output * stride + tap * dilation - padding < size."""
    count = 0
    for tap in range(taps):
        offset = tap * dilation - padding
        first, last = max(0, -(offset // stride)), min(outputs - 1, (size - 1 - offset) // stride)
        count += max(0, last - first + 1)
    return count


def gpu_flops(problem: Problem, kernel: str) -> float | None:
    """Operations of a GPU kernel, by its name; None where they are not known."""
    backend, _, algorithm = kernel.partition(":")
    algorithm, _, variant = algorithm.partition("/")
    if not isinstance(problem, ConvProblem):
        return problem.flops * (3.0 if variant == "3xtf32" else 1.0)
    if backend not in ("cuda", "triton") or algorithm == "fft":
        return None
    if algorithm == "winograd":
        return _products_of_tiles(problem, int(variant.removeprefix("f")))
    return problem.flops * (3.0 if variant == "3xtf32" else 1.0)


def _products_of_tiles(p: ConvProblem, tile: int) -> float:
    """Of Winograd without its transforms: ``tile`` outputs of an axis take ``tile + filter - 1`` products instead of
    ``tile * filter``, in whichever pass."""
    return p.flops * math.prod((tile + filter - 1) / (tile * filter) for filter in p.filter)


def fewest_bytes(problem: Problem) -> int:
    """Each tensor once, less what of the input no window sees (windows that are smaller than their stride)."""
    if not isinstance(problem, (ConvProblem, PoolProblem)) or not problem.filter or problem.pass_ == "grad_input":
        return problem.bytes
    window = zip(problem.size, problem.output_size, problem.filter, strict=True)
    seen = math.prod(min(size, out * filter) for size, out, filter in window)
    unseen = problem.n * problem.c * (math.prod(problem.size) - seen)
    return problem.bytes - ITEMSIZES.get(problem.dtype, 4) * unseen
