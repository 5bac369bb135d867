"""The registry entries of the C++ kernels (csrc/cpu): from a problem to a plan of pycv._cpu.

Which of the entries that support a problem runs it is decided by what it costs (pycv/choice), not by their order.
"""

from __future__ import annotations

import math

from pycv.problem import PASSES, ConvProblem, GemmProblem, NormProblem, PointwiseProblem, PoolProblem

from . import Kernel, _fields, _geometry, _limits, large_results

try:
    import pycv._cpu as _cpu  # `from pycv` would speak of a circular import where there is none
except ImportError as error:  # reported by pycv.info() and by every reason below
    _cpu, missing = None, str(error)  # type: ignore[assignment]


def _advised(plan, problem):
    return large_results.wrapped(plan, problem, _cpu.advise_huge_pages)


def _plan_conv(algorithm: str):
    def plan(p: ConvProblem, threads: int, workspace_limit: int):
        return _advised(_cpu.conv_plan(algorithm, *_fields.conv(p), threads, workspace_limit), p)

    return plan


def _plan_gemm(algorithm: str):
    def plan(p: GemmProblem, threads: int, workspace_limit: int):
        return _advised(_cpu.gemm_plan(algorithm, *_fields.gemm(p), threads, workspace_limit), p)

    return plan


def _plan_pool(algorithm: str):
    def plan(p: PoolProblem, threads: int, workspace_limit: int):
        return _advised(_cpu.pool_plan(algorithm, *_fields.pool(p), threads), p)

    return plan


def _plan_norm(algorithm: str):
    def plan(p: NormProblem, threads: int, workspace_limit: int):
        return _advised(_cpu.norm_plan(algorithm, *_fields.norm(p), threads), p)

    return plan


def _plan_pointwise(algorithm: str):
    def plan(p: PointwiseProblem, threads: int, workspace_limit: int):
        return _advised(_cpu.pointwise_plan(algorithm, *_fields.pointwise(p), threads), p)

    return plan


def _supports(problem) -> str | None:
    """What holds for every kernel of this backend."""
    if _cpu is None:
        return f"the C++ kernels are not built ({missing})"
    if problem.device != "cpu":
        return f"device {problem.device}: the C++ kernels run on the CPU"
    if problem.dtype not in ("f32", "f64"):
        return f"dtype {problem.dtype}: the C++ kernels take f32 and f64"
    if isinstance(problem, ConvProblem) and problem.weight.block > 1:
        return f"layout w={problem.weight}: the weight is nchw or nhwc"
    return None


def _unblocked(problem) -> str | None:
    """What holds for kernels that know only whole channels or whole pixels."""
    blocked = next((layout for layout in _fields.layouts(problem) if layout.block > 1), None)
    if blocked is not None:
        return f"layout {blocked}: this kernel takes nchw and nhwc"
    return _supports(problem)


def _one_block(p: NormProblem) -> str | None:
    """A kernel whose tensors, if blocked, all have blocks of one size."""
    blocks = {layout.block for layout in _fields.layouts(p)}
    if len(blocks) > 1:
        return f"layouts {', '.join(map(str, _fields.layouts(p)))}: this kernel takes blocks of one size"
    return _supports(p)


def _plain_conv(p: ConvProblem) -> str | None:
    """A convolution kernel without prologue and blocked layouts."""
    if p.prologue:
        return f"prologue {'+'.join(p.prologue)}: this kernel has none"
    return _unblocked(p)


def _relu(p: PointwiseProblem) -> str | None:
    return _limits.mask(p, "C++") or _supports(p)


def _same_blocks(p: PoolProblem) -> str | None:
    if p.input.block != p.output.block:
        return f"layout {p.input}>{p.output}: blocked on both sides or on none"
    return _supports(p)


_GATHERS = ("forward", "grad_input")

# Winograd's tiles by filter size, and how many channels a sum of class "default" may have: beyond that it is "fast".
_ANY = math.inf
_WINOGRAD_TILES = {
    3: {"f4": _ANY, "f5": 256, "f6": 0, "f2": _ANY},
    5: {"f3": _ANY, "f4": 0, "f2": _ANY},
}


def _winograd(filter: int, channels: float, numeric_class: str):
    def supports(p: ConvProblem) -> str | None:
        if set(p.stride) != {1} or set(p.dilation) != {1}:
            steps = ("x".join(map(str, axes)) for axes in (p.stride, p.dilation))
            return "stride {}, dilation {}: winograd is for 1".format(*steps)
        if set(p.filter) != {filter}:
            return f"filter {'x'.join(map(str, p.filter))}: this tile is for {filter}x{filter}"
        if (reason := _not_of_class(p, channels, numeric_class)) is not None:
            return reason
        if p.groups > 1 and any(layout.block > 1 for layout in _fields.layouts(p)):
            return f"{p.groups} groups in a blocked layout"
        return _supports(p)

    return supports


def _not_of_class(p: ConvProblem, channels: float, numeric_class: str) -> str | None:
    """Of a tile that is of class "default" for sums over up to so many channels, otherwise "fast"."""
    summed = _summed_channels(p)
    if (summed <= channels) == (numeric_class == "default"):
        return None
    return f"sums over {summed} channels: not of numeric class {numeric_class}"


def _summed_channels(p: ConvProblem) -> int:
    """With the phases of a stride. grad_weight sums over positions, whose number makes little difference."""
    if p.pass_ == "grad_weight":
        return 1
    return (p.c * p.stride[0] * p.stride[1] if p.pass_ == "forward" else p.k) // p.groups


def _winograd_entries() -> list[Kernel]:
    return [
        Kernel(
            "conv2d", pass_, "cpu", "winograd", _winograd(filter, channels, numeric_class),
            _plan_conv(f"winograd/{tile}"), numeric_class=numeric_class, variant=tile,
        )
        for pass_ in PASSES
        for filter, tiles in _WINOGRAD_TILES.items()
        for tile, channels in tiles.items()
        for numeric_class in _classes(pass_, channels)
    ]  # fmt: skip


def _classes(pass_: str, channels: float) -> tuple[str, ...]:
    """Those that a tile's sums may have."""
    if channels == 0:
        return ("fast",)
    return ("default",) if channels == _ANY or pass_ == "grad_weight" else ("default", "fast")


# The same for strided convolutions, whose filters have ceil(r / s) taps over c * s * s channels (space to depth): by
# those taps. The numeric class holds for sums over up to so many channels; beyond them it is "fast".
_STRIDED_TILES = {2: ("f5", "f3"), 3: ("f4", "f2"), 4: ("f4", "f3")}
_STRIDED_CHANNELS = 512


def _winograd_strided(taps: int, numeric_class: str):
    def supports(p: ConvProblem) -> str | None:
        strides = "x".join(map(str, p.stride))
        if set(p.dilation) != {1}:
            return f"dilation {'x'.join(map(str, p.dilation))}: winograd is for 1"
        if set(p.stride) == {1} or max(p.stride) > 4:
            return f"stride {strides}: this tile is for strides up to 4 that are not 1"
        if any(r < s for r, s in zip(p.filter, p.stride, strict=True)):
            return f"filter {'x'.join(map(str, p.filter))}: less than the stride {strides}"
        if max(-(-r // s) for r, s in zip(p.filter, p.stride, strict=True)) != taps:
            return f"filter {'x'.join(map(str, p.filter))}, stride {strides}: this tile is for {taps} taps per stride"
        if p.groups > 1 and any(layout.block > 1 for layout in _fields.layouts(p)):
            return f"{p.groups} groups in a blocked layout"
        if p.pass_ == "grad_input" and any(r <= pad for r, pad in zip(p.filter, p.padding, strict=True)):
            return f"padding {'x'.join(map(str, p.padding))}: there are windows of padding alone"
        if (reason := _not_of_class(p, _STRIDED_CHANNELS, numeric_class)) is not None:
            return reason
        return _supports(p) if p.pass_ == "forward" else _unblocked(p)

    return supports


def _winograd_strided_entries() -> list[Kernel]:
    return [
        Kernel(
            "conv2d", pass_, "cpu", "winograd", _winograd_strided(taps, numeric_class),
            _plan_conv(f"winograd/s2d-{tile}"), numeric_class=numeric_class, variant=f"s2d-{tile}",
        )
        for pass_ in _GATHERS
        for taps, tiles in _STRIDED_TILES.items()
        for tile in tiles
        for numeric_class in ("default", "fast")
    ]  # fmt: skip


def _winograd_split(p: ConvProblem) -> str | None:
    """3x3 with stride 2, whose phases have planes of their own."""
    if set(p.filter) != {3} or set(p.stride) != {2} or set(p.dilation) != {1}:
        window = ("x".join(map(str, axes)) for axes in (p.filter, p.stride, p.dilation))
        return "filter {}, stride {}, dilation {}: this tile is for 3, 2 and 1".format(*window)
    if p.groups > 1 and any(layout.block > 1 for layout in _fields.layouts(p)):
        return f"{p.groups} groups in a blocked layout"
    return _supports(p)


def _winograd_split_entries() -> list[Kernel]:
    return [
        Kernel(
            "conv2d", pass_, "cpu", "winograd", _winograd_split, _plan_conv(f"winograd/split-{tile}"),
            numeric_class="default", variant=f"split-{tile}",
        )
        for pass_ in PASSES
        for tile in ("f4", "f2")
    ]  # fmt: skip


def _direct(p: ConvProblem) -> str | None:
    """Blocked activations in forward only."""
    return _supports(p) if p.pass_ == "forward" else _plain_conv(p)


def _implicit_gemm(p: ConvProblem) -> str | None:
    if set(p.filter) != {1}:
        return f"filter {'x'.join(map(str, p.filter))}: implicit_gemm is for 1x1"
    return _plain_conv(p)


def _entries(ops, passes, algorithms, plan, supports=_unblocked, numeric_class="strict"):
    return [
        Kernel(op, pass_, "cpu", algorithm, supports, plan(algorithm), numeric_class)
        for op in ops
        for pass_ in passes
        for algorithm in algorithms
    ]


def _fft(p: ConvProblem) -> str | None:
    """What no window reads would be transformed along with what they do read."""
    if (reason := _plain_conv(p)) is not None:
        return reason
    if not _geometry.all_read(p):
        return "fft would mix in the elements that the windows leave out in between"
    return None


_RANKS = ("1d", "2d", "3d")
_CONVS = [f"conv{rank}" for rank in _RANKS]
_POOLS = [f"{kind}_pool{rank}" for kind in ("max", "avg", "adaptive_max", "adaptive_avg") for rank in _RANKS]

KERNELS: list[Kernel] = [
    *_entries(_CONVS, PASSES, ("im2col",), _plan_conv, _plain_conv),
    *_entries(_CONVS, PASSES, ("implicit_gemm",), _plan_conv, _implicit_gemm),
    *_entries(_CONVS, PASSES, ("direct",), _plan_conv, _direct),
    *_entries(_CONVS, PASSES, ("depthwise",), _plan_conv, _supports),
    *_winograd_entries(),
    *_winograd_strided_entries(),
    *_winograd_split_entries(),
    *_entries(["conv1d", "conv2d"], PASSES, ("fft",), _plan_conv, _fft, "default"),
    *_entries(["gemm"], ("forward",), ("packed",), _plan_gemm, _supports),
    *_entries(_POOLS, _GATHERS, ("direct",), _plan_pool, _same_blocks),
    *_entries(["batch_norm"], _GATHERS, ("direct",), _plan_norm, _one_block),
    *_entries(["local_response_norm"], _GATHERS, ("direct",), _plan_norm),
    *_entries(["channel_sum"], ("forward",), ("direct",), _plan_norm),
    *_entries(["relu"], _GATHERS, ("direct",), _plan_pointwise, _relu),
]
