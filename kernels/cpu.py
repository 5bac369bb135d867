"""The registry entries of the C++ kernels (csrc/cpu): from a problem to a plan of pycv._cpu.

Which of the entries that support a problem runs it is decided by what it costs (pycv/choice), not by their order.
"""

from __future__ import annotations

from pycv.problem import PASSES, ConvProblem, GemmProblem, NormProblem, PointwiseProblem, PoolProblem

from . import Kernel, _fields, _geometry

try:
    from pycv import _cpu
except ImportError as error:  # reported by pycv.info() and by every reason below
    _cpu, missing = None, str(error)  # type: ignore[assignment]


def _plan_conv(algorithm: str):
    def plan(p: ConvProblem, threads: int, workspace_limit: int):
        return _cpu.conv_plan(algorithm, *_fields.conv(p), threads, workspace_limit)

    return plan


def _plan_gemm(algorithm: str):
    def plan(p: GemmProblem, threads: int, workspace_limit: int):
        return _cpu.gemm_plan(algorithm, *_fields.gemm(p), threads, workspace_limit)

    return plan


def _plan_pool(algorithm: str):
    def plan(p: PoolProblem, threads: int, workspace_limit: int):
        return _cpu.pool_plan(algorithm, *_fields.pool(p), threads)

    return plan


def _plan_norm(algorithm: str):
    def plan(p: NormProblem, threads: int, workspace_limit: int):
        return _cpu.norm_plan(algorithm, *_fields.norm(p), threads)

    return plan


def _plan_pointwise(algorithm: str):
    def plan(p: PointwiseProblem, threads: int, workspace_limit: int):
        return _cpu.pointwise_plan(algorithm, *_fields.pointwise(p), threads)

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


def _same_blocks(p: PoolProblem) -> str | None:
    if p.input.block != p.output.block:
        return f"layout {p.input}>{p.output}: blocked on both sides or on none"
    return _supports(p)


# Winograd's tiles by filter size, and the numeric class that their errors with up to 512 channels allow.
_WINOGRAD_TILES = {
    3: {"f4": "default", "f6": "fast", "f2": "default"},
    5: {"f3": "default", "f4": "fast", "f2": "default"},
}


def _winograd(tile: str, filter: int):
    def supports(p: ConvProblem) -> str | None:
        if set(p.stride) != {1} or set(p.dilation) != {1}:
            steps = ("x".join(map(str, axes)) for axes in (p.stride, p.dilation))
            return "stride {}, dilation {}: winograd is for 1".format(*steps)
        if set(p.filter) != {filter}:
            return f"filter {'x'.join(map(str, p.filter))}: this tile is for {filter}x{filter}"
        if p.groups > 1 and any(layout.block > 1 for layout in _fields.layouts(p)):
            return f"{p.groups} groups in a blocked layout"
        return _supports(p)

    return supports


def _winograd_entries() -> list[Kernel]:
    return [
        Kernel(
            "conv2d", pass_, "cpu", "winograd", _winograd(tile, filter), _plan_conv(f"winograd/{tile}"),
            numeric_class=numeric_class, variant=tile,
        )
        for pass_ in PASSES
        for filter, tiles in _WINOGRAD_TILES.items()
        for tile, numeric_class in tiles.items()
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
    if not _geometry.all_read(p):
        return "fft would mix in the elements that the windows leave out in between"
    return _plain_conv(p)


_RANKS = ("1d", "2d", "3d")
_GATHERS = ("forward", "grad_input")
_CONVS = [f"conv{rank}" for rank in _RANKS]
_POOLS = [f"{kind}_pool{rank}" for kind in ("max", "avg", "adaptive_max", "adaptive_avg") for rank in _RANKS]

KERNELS: list[Kernel] = [
    *_entries(_CONVS, PASSES, ("im2col",), _plan_conv, _plain_conv),
    *_entries(_CONVS, PASSES, ("implicit_gemm",), _plan_conv, _implicit_gemm),
    *_entries(_CONVS, PASSES, ("direct",), _plan_conv, _direct),
    *_entries(_CONVS, PASSES, ("depthwise",), _plan_conv, _supports),
    *_winograd_entries(),
    *_entries(["conv1d", "conv2d"], PASSES, ("fft",), _plan_conv, _fft, "default"),
    *_entries(["gemm"], ("forward",), ("packed",), _plan_gemm, _supports),
    *_entries(_POOLS, _GATHERS, ("direct",), _plan_pool, _same_blocks),
    *_entries(["batch_norm"], _GATHERS, ("direct",), _plan_norm, _one_block),
    *_entries(["local_response_norm"], _GATHERS, ("direct",), _plan_norm),
    *_entries(["channel_sum"], ("forward",), ("direct",), _plan_norm),
    *_entries(["relu"], _GATHERS, ("direct",), _plan_pointwise, _supports),
]
