"""The registry entries of the C++ kernels (csrc/cpu): from a problem to a plan of pycv._cpu.

The order of the entries of one op and pass is the order in which they are tried.
"""

from __future__ import annotations

from pycv.problem import ConvProblem, GemmProblem, Layout, NormProblem, PointwiseProblem, PoolProblem, Sizes

from . import Kernel, _never

try:
    from pycv import _cpu
except ImportError as error:  # reported by pycv.info() and by every reason below
    _cpu, missing = None, str(error)  # type: ignore[assignment]


def _spatial(values: Sizes, fill: int) -> list[int]:
    """One, two or three axes as (depth, height, width)."""
    return [fill] * (3 - len(values)) + list(values)


def _strides(layout: Layout, c: int, size: Sizes) -> list[int]:
    n, c, *spatial = layout.strides(c, size)
    return [n, c, *([0] * (3 - len(spatial))), *spatial, layout.block]


def _plan_conv(algorithm: str):
    def plan(p: ConvProblem, threads: int, workspace_limit: int):
        computed_channels = p.k if p.pass_ == "forward" else p.c
        residual = p.residual or Layout()
        return _cpu.conv_plan(
            algorithm, p.pass_, p.dtype, p.n, p.c, p.k, p.groups,
            _spatial(p.size, 1), _spatial(p.filter, 1), _spatial(p.output_size, 1),
            _spatial(p.stride, 1), _spatial(p.padding, 0), _spatial(p.dilation, 1),
            _strides(p.input, p.c, p.size),
            _strides(p.weight, p.c // p.groups, p.filter),
            _strides(p.output, p.k, p.output_size),
            _strides(residual, computed_channels, p.computed_size),
            "bias" in p.epilogue, "residual" in p.epilogue, "relu" in p.epilogue,
            "scale" in p.prologue, "relu" in p.prologue, threads, workspace_limit,
        )  # fmt: skip

    return plan


def _plan_gemm(algorithm: str):
    def plan(p: GemmProblem, threads: int, workspace_limit: int):
        residual = p.residual.strides(p.m, p.n) if p.residual is not None else (0, 0, 0)
        return _cpu.gemm_plan(
            algorithm, p.dtype, p.batch, p.m, p.n, p.k,
            p.a.strides(p.m, p.k), p.b.strides(p.k, p.n), p.out.strides(p.m, p.n), residual,
            "bias" in p.epilogue, "residual" in p.epilogue, "relu" in p.epilogue, threads, workspace_limit,
        )  # fmt: skip

    return plan


def _plan_pool(algorithm: str):
    def plan(p: PoolProblem, threads: int, workspace_limit: int):
        return _cpu.pool_plan(
            p.op[:-2], algorithm, p.pass_, p.dtype, p.n, p.c,
            _spatial(p.size, 1), _spatial(p.filter, 1), _spatial(p.output_size, 1),
            _spatial(p.stride, 1), _spatial(p.padding, 0), _spatial(p.dilation, 1),
            _strides(p.input, p.c, p.size), _strides(p.output, p.c, p.output_size),
            p.indices, p.count_include_pad, p.divisor, threads,
        )  # fmt: skip

    return plan


def _plan_norm(algorithm: str):
    def plan(p: NormProblem, threads: int, workspace_limit: int):
        return _cpu.norm_plan(
            p.op, algorithm, p.pass_, p.dtype, p.n, p.c, _spatial(p.size, 1),
            _strides(p.input, p.c, p.size), _strides(p.output, p.c, p.size), p.training, p.window, threads,
        )  # fmt: skip

    return plan


def _plan_pointwise(algorithm: str):
    def plan(p: PointwiseProblem, threads: int, workspace_limit: int):
        return _cpu.pointwise_plan(p.op, algorithm, p.pass_, p.dtype, p.count, threads)

    return plan


def _supports(problem) -> str | None:
    """What holds for every kernel of this backend."""
    if _cpu is None:
        return f"the C++ kernels are not built ({missing})"
    if problem.device != "cpu":
        return f"device {problem.device}: the C++ kernels run on the CPU"
    if problem.dtype not in ("f32", "f64"):
        return f"dtype {problem.dtype}: the C++ kernels take f32 and f64"
    return None


def _layouts(problem) -> list[Layout]:
    named = (getattr(problem, name, None) for name in ("input", "output", "weight", "residual"))
    return [layout for layout in named if layout is not None]


def _unblocked(problem) -> str | None:
    """What holds for kernels that know only whole channels or whole pixels."""
    blocked = next((layout for layout in _layouts(problem) if layout.block > 1), None)
    if blocked is not None:
        return f"layout {blocked}: this kernel takes nchw and nhwc"
    return _supports(problem)


def _plain_conv(p: ConvProblem) -> str | None:
    """A convolution kernel without prologue and blocked layouts."""
    if p.prologue:
        return f"prologue {'+'.join(p.prologue)}: this kernel has none"
    return _unblocked(p)


def _depthwise_conv(p: ConvProblem) -> str | None:
    if p.weight.block > 1:
        return f"layout w={p.weight}: the weight is plain"
    return _supports(p)


def _pool_layouts(p: PoolProblem) -> str | None:
    if p.input.block != p.output.block:
        return f"layout {p.input}>{p.output}: blocked on both sides or on none"
    return _supports(p)


def _thin_groups(p: ConvProblem) -> str | None:
    """Where the GEMM of im2col would be too thin."""
    return "fewer than 4 channels per group" if p.groups > 1 and min(p.k, p.c) // p.groups < 4 else None


_SHUNS = {"im2col": _thin_groups}


def _entries(ops, passes, algorithms, plan, supports=_unblocked):
    return [
        Kernel(op, pass_, "cpu", algorithm, supports, plan(algorithm), shuns=_SHUNS.get(algorithm, _never))
        for op in ops
        for pass_ in passes
        for algorithm in algorithms
    ]


_RANKS = ("1d", "2d", "3d")
_POOLS = [f"{kind}_pool{rank}" for kind in ("max", "avg", "adaptive_max", "adaptive_avg") for rank in _RANKS]

KERNELS: list[Kernel] = [
    *_entries(
        [f"conv{rank}" for rank in _RANKS],
        ("forward", "grad_input", "grad_weight"),
        ("im2col",),
        _plan_conv,
        _plain_conv,
    ),
    *_entries(
        [f"conv{rank}" for rank in _RANKS],
        ("forward", "grad_input", "grad_weight"),
        ("depthwise", "direct"),
        _plan_conv,
        _depthwise_conv,
    ),
    *_entries(["gemm"], ("forward",), ("packed",), _plan_gemm, _supports),
    *_entries(_POOLS, ("forward", "grad_input"), ("direct",), _plan_pool, _pool_layouts),
    *_entries(["batch_norm", "local_response_norm"], ("forward", "grad_input"), ("direct",), _plan_norm),
    *_entries(["channel_sum"], ("forward",), ("direct",), _plan_norm),
    *_entries(["relu"], ("forward", "grad_input"), ("direct",), _plan_pointwise, _supports),
]
