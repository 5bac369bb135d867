"""The registry entries of the Numba kernels: the same operations in Python, compiled when they are first needed.

They stand in for the C++ kernels where those are not built, and run wherever they are asked for. Numba itself is
imported with the first plan.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

from pycv.problem import PASSES, ConvProblem, GemmProblem, NormProblem, PointwiseProblem, PoolProblem

from .. import Kernel, _limits
from . import forks as forks  # so that it sees every fork from here on


@cache
def missing() -> str | None:
    """Why none of these kernels can run in this installation; None if they can."""
    return None if find_spec("numba") is not None else "Numba is not installed: pip install numba"


def state() -> str:
    """What has been compiled on this machine so far, how long it took and where it lies; or why nothing can be."""
    if reason := missing():
        return f"none can run: {reason}"
    from . import disk

    records = disk.records()
    seconds = sum(entry.seconds for entry in records)
    return f"{len(records)} compiled in {seconds:.0f} s so far, kept in {disk.folder()}"


def _supports(problem) -> str | None:
    """What holds for every kernel of this backend."""
    if reason := missing():
        return reason
    if problem.device != "cpu":
        return f"device {problem.device}: the Numba kernels run on the CPU"
    return _limits.dtype_or_layout(problem, ("f32", "f64"), "Numba")


def _conv(p: ConvProblem) -> str | None:
    return _limits.prologue(p, "Numba") or _supports(p)


def _relu(p: PointwiseProblem) -> str | None:
    return _limits.mask(p, "Numba") or _supports(p)


def _plan_conv(algorithm: str):
    def plan(p: ConvProblem, threads: int, workspace_limit: int):
        from . import conv_plans

        return conv_plans.plan(algorithm, p, threads, workspace_limit)

    return plan


def _plan_gemm(p: GemmProblem, threads: int, workspace_limit: int):
    from .plans import Gemm

    return Gemm(p, threads, workspace_limit)


def _plan_pool(p: PoolProblem, threads: int, workspace_limit: int):
    from .plans import Pooling

    return Pooling(p, threads)


def _plan_norm(p: NormProblem, threads: int, workspace_limit: int):
    from .plans import NORMS

    return NORMS[p.op](p, threads)


def _plan_pointwise(p: PointwiseProblem, threads: int, workspace_limit: int):
    from .plans import Relu

    return Relu(p, threads)


def _entries(ops, passes, algorithm, plan, supports=_supports) -> list[Kernel]:
    return [Kernel(op, pass_, "numba", algorithm, supports, plan) for op in ops for pass_ in passes]


_RANKS = ("1d", "2d", "3d")
_CONVS = [f"conv{rank}" for rank in _RANKS]
_POOLS = [f"{kind}_pool{rank}" for kind in ("max", "avg", "adaptive_max", "adaptive_avg") for rank in _RANKS]
_GATHERS = ("forward", "grad_input")

KERNELS: list[Kernel] = [
    *_entries(_CONVS, PASSES, "im2col", _plan_conv("im2col"), _conv),
    *_entries(_CONVS, PASSES, "direct", _plan_conv("direct"), _conv),
    *_entries(["gemm"], ("forward",), "blocked", _plan_gemm),
    *_entries(_POOLS, _GATHERS, "direct", _plan_pool),
    *_entries(["batch_norm", "local_response_norm"], _GATHERS, "direct", _plan_norm),
    *_entries(["channel_sum"], ("forward",), "direct", _plan_norm),
    *_entries(["relu"], _GATHERS, "direct", _plan_pointwise, _relu),
]
