"""The registry entries of the Triton kernels: the same operations in Python, compiled for a GPU when first needed.

They take tensors of a GPU and run on torch's current stream. With TRITON_INTERPRET=1 in the environment (from before
Triton is imported) they take CPU tensors instead, on which Triton's interpreter executes them: slow, for tests. The
kernels are imported with the first plan.

Nothing predicts times on a GPU yet: of the entries of an op and pass that support a problem, the first is preferred.
"""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec
from math import prod
from typing import TYPE_CHECKING, Any

import torch

from pycv.problem import PASSES, ConvProblem, GemmProblem, NormProblem, PointwiseProblem, PoolProblem

from .. import Kernel, _geometry, _limits

if TYPE_CHECKING:
    from .tiles import Block, Limits, Tile

_DTYPES = ("f32", "f64", "f16", "bf16")
_COUNTED = 2**31 - 2**12  # what 31 bits hold, and a block more


@cache
def missing() -> str | None:
    """Why none of these kernels can run in this installation; None if they can."""
    return None if find_spec("triton") is not None else "Triton is not installed: pip install triton"


def interpreted() -> bool:
    """Whether Triton's interpreter is to execute the kernels, on CPU tensors."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def state(kernel: Kernel) -> list[str]:
    """How far a kernel of this backend has come in this installation."""
    return [] if missing() else ["interpreted", "compiled when needed"]


# ------------------------------------------------------------------------------------------ what can run here


def _supports(problem) -> str | None:
    """What holds for every kernel of this backend."""
    if reason := missing():
        return reason
    if interpreted():
        if problem.device != "cpu":
            return f"device {problem.device}: with TRITON_INTERPRET=1 the Triton kernels run on CPU tensors"
    elif problem.device != "cuda":
        return f"device {problem.device}: the Triton kernels run on a GPU, on CPU tensors only with TRITON_INTERPRET=1"
    elif reason := _unusable():
        return reason
    return _limits.dtype_or_layout(problem, _DTYPES, "Triton")


def _unusable() -> str | None:
    """Why no Triton kernel can run on torch's current GPU, in words; None if they can."""
    if not torch.cuda.is_available():
        return "no CUDA device that torch can use"
    if (present := torch.cuda.get_device_capability()) < (8, 0):
        return "capability {}.{}: the Triton kernels need 8.0 or newer".format(*present)
    return None


def _spatial(problem) -> str | None:
    """What holds for kernels that count positions."""
    largest = max(prod(problem.size), prod(getattr(problem, "output_size", ())))
    if isinstance(problem, ConvProblem):
        largest *= problem.n
    if largest >= _COUNTED:
        return f"{largest} positions: the Triton kernels count them in 31 bits"
    has_windows = bool(getattr(problem, "stride", ()))
    return (_limits.long_axis(problem) if has_windows else None) or _supports(problem)


def _conv(p: ConvProblem) -> str | None:
    terms = max(p.c, p.k) // max(1, p.groups) * prod(p.filter)
    if max(terms, p.c, p.k) >= _COUNTED:
        return f"{p.c} and {p.k} channels, {terms} terms of a sum: the Triton kernels count them in 31 bits"
    return _limits.prologue(p, "Triton") or _spatial(p)


def _relu(p: PointwiseProblem) -> str | None:
    return _limits.mask(p, "Triton") or _supports(p)


def _direct_conv(p: ConvProblem) -> str | None:
    return _limits.many_channels(p) or _conv(p)


FFT_SIDES = (16, 32, 64)  # of a tile; a line of conv1d has the elements of one


def _fft(p: ConvProblem) -> str | None:
    longest = FFT_SIDES[-1] ** (2 if len(p.size) == 1 else 1)
    extents = [d * (f - 1) + 1 for f, d in zip(p.filter, p.dilation, strict=True)]
    if max(extents) > longest:
        return f"filter of extent {'x'.join(map(str, extents))}: the tiles of fft have sides of up to {longest}"
    if (reason := _conv(p)) is not None:
        return reason
    if not _geometry.all_read(p):
        return "fft would mix in the elements that the windows leave out in between"
    return None


def _norm(p: NormProblem) -> str | None:
    """What holds for kernels that add up the elements of a channel."""
    elements = p.n * prod(p.size)
    if max(elements, p.c) >= _COUNTED:
        return f"{elements} elements in each of {p.c} channels: the Triton kernels count both in 31 bits"
    return _spatial(p)


def _gemm(p: GemmProblem) -> str | None:
    if max(p.batch, p.m, p.n, p.k) >= _COUNTED:
        return f"b{p.batch}m{p.m}n{p.n}k{p.k}: the Triton kernels count matrices, rows and columns in 31 bits"
    return _supports(p)


DESCRIPTOR_ALIGNMENT = 16  # bytes, of addresses and of the distance between rows


def _persistent(p: GemmProblem) -> str | None:
    """What tensor descriptors ask of the operands."""
    if p.dtype not in ("f16", "bf16"):
        return f"dtype {p.dtype}: persistent takes f16 and bf16"
    if p.batch != 1 or 0 in (p.m, p.n, p.k):
        return f"b{p.batch}m{p.m}n{p.n}k{p.k}: persistent multiplies one matrix, none of whose sizes is 0"
    for name, matrix, rows, columns in (("a", p.a, p.m, p.k), ("b", p.b, p.k, p.n)):
        _, row, column = matrix.strides(rows, columns)
        leading, length = (column, rows) if matrix.kind == "col" else (row, columns)
        if matrix.kind == "any" or leading < length or leading * 2 % DESCRIPTOR_ALIGNMENT:
            return f"{name}={matrix}: its rows or columns must be contiguous and begin at multiples of 16 bytes"
    if (reason := _gemm(p)) is not None:
        return reason
    if not interpreted() and (present := torch.cuda.get_device_capability()) < (9, 0):
        return "capability {}.{}: persistent needs 9.0 or newer".format(*present)
    return None


def _tensor_cores(supports):
    """What the variants of f32 that round their operands take of the problems that ``supports`` lets through."""

    def answer(problem) -> str | None:
        if problem.dtype != "f32":
            return f"dtype {problem.dtype}: tf32 and 3xtf32 are ways to multiply f32"
        return supports(problem)

    return answer


# ------------------------------------------------------------------------------------------------------- plans


def _plan_direct(p: ConvProblem, threads: int, workspace_limit: int, tile: Block | None = None):
    from . import conv_plans

    return conv_plans.direct(p, tile)


def _plan_im2col(p: ConvProblem, threads: int, workspace_limit: int):
    from . import conv_plans

    return conv_plans.im2col(p, workspace_limit)


def _plan_implicit(precision: str = "ieee"):
    def plan(p: ConvProblem, threads: int, workspace_limit: int, tile: Tile | None = None):
        from . import conv_plans

        return conv_plans.implicit(p, workspace_limit, precision, tile)

    return plan


def _plan_fft(p: ConvProblem, threads: int, workspace_limit: int):
    from . import conv_fft_plans

    return conv_fft_plans.plan(p, workspace_limit)


def _plan_gemm(precision: str = "ieee"):
    def plan(p: GemmProblem, threads: int, workspace_limit: int, tile: Tile | None = None):
        from .plans import Gemm

        return Gemm(p, precision, tile)

    return plan


def _plan_persistent(p: GemmProblem, threads: int, workspace_limit: int, tile: Tile | None = None):
    from .plans import PersistentGemm
    from .tiles import PROCESSORS

    if interpreted() or not torch.cuda.is_available():
        return PersistentGemm(p, 2 if interpreted() else PROCESSORS, tile)
    return PersistentGemm(p, torch.cuda.get_device_properties().multi_processor_count, tile)


def _plan_pool(p: PoolProblem, threads: int, workspace_limit: int, tile: Block | None = None):
    from .plans import Pooling

    return Pooling(p, tile)


def _plan_norm(p: NormProblem, threads: int, workspace_limit: int):
    from .norm_plans import NORMS

    return NORMS[p.op](p)


def _plan_pointwise(p: PointwiseProblem, threads: int, workspace_limit: int):
    from .plans import Relu

    return Relu(p)


# ------------------------------------------------------------------------------------------------------- tiles


def _tile_limits() -> Limits:
    """What torch's current GPU has for a tile; an H100 where there is none."""
    from .tiles import AMPERE, HOPPER

    if interpreted() or not torch.cuda.is_available():
        return HOPPER
    alike = HOPPER if torch.cuda.get_device_capability()[0] in (9, 10) else AMPERE
    properties: Any = torch.cuda.get_device_properties()
    return alike._replace(shared_memory=properties.shared_memory_per_block_optin)


def _tiles_gemm(precision: str = "ieee"):
    def tiles(p: GemmProblem) -> tuple[Tile, ...]:
        from .plans import product_of
        from .tiles import candidates

        return candidates(product_of(p, precision), _tile_limits())

    return tiles


def _tiles_implicit(precision: str = "ieee"):
    def tiles(p: ConvProblem) -> tuple[Tile, ...]:
        from .conv_plans import implicit_product
        from .tiles import candidates

        return candidates(implicit_product(p, precision), _tile_limits())

    return tiles


def _blocks_direct(p: ConvProblem) -> tuple[Block, ...]:
    from .conv_plans import direct_blocks

    return direct_blocks(p)


def _blocks_pool(p: PoolProblem) -> tuple[Block, ...]:
    from .plans import pool_blocks

    return pool_blocks(p)


# ----------------------------------------------------------------------------------------------------- entries


def _entries(ops, passes, algorithm, plan, supports=_supports, numeric_class="strict", tiles=None) -> list[Kernel]:
    return [
        Kernel(op, pass_, "triton", algorithm, supports, plan, numeric_class, tiles=tiles)
        for op in ops
        for pass_ in passes
    ]


_PRECISIONS = {"3xtf32": ("tf32x3", "default"), "tf32": ("tf32", "fast")}  # as Triton calls them; numeric class


def _rounding_entries(ops, passes, algorithm, plan, supports, tiles) -> list[Kernel]:
    """The variants of f32 on tensor cores."""
    return [
        Kernel(
            op, pass_, "triton", algorithm, _tensor_cores(supports), plan(precision), numeric_class,
            variant=variant, tiles=tiles(precision),
        )
        for op in ops
        for pass_ in passes
        for variant, (precision, numeric_class) in _PRECISIONS.items()
    ]  # fmt: skip


_RANKS = ("1d", "2d", "3d")
_CONVS = [f"conv{rank}" for rank in _RANKS]
_POOLS = [f"{kind}_pool{rank}" for kind in ("max", "avg", "adaptive_max", "adaptive_avg") for rank in _RANKS]
_GATHERS = ("forward", "grad_input")

KERNELS: list[Kernel] = [
    *_entries(["gemm"], ("forward",), "tiled", _plan_gemm(), _gemm, tiles=_tiles_gemm()),
    *_entries(["gemm"], ("forward",), "persistent", _plan_persistent, _persistent, tiles=_tiles_gemm()),
    *_rounding_entries(["gemm"], ("forward",), "tiled", _plan_gemm, _gemm, _tiles_gemm),
    *_entries(_CONVS, PASSES, "direct", _plan_direct, _direct_conv, tiles=_blocks_direct),
    *_entries(_CONVS, PASSES, "implicit_gemm", _plan_implicit(), _conv, tiles=_tiles_implicit()),
    *_rounding_entries(_CONVS, PASSES, "implicit_gemm", _plan_implicit, _conv, _tiles_implicit),
    *_entries(_CONVS[:2], PASSES, "fft", _plan_fft, _fft, "default"),
    *_entries(_CONVS, PASSES, "im2col", _plan_im2col, _conv),
    *_entries(_POOLS, _GATHERS, "direct", _plan_pool, _spatial, tiles=_blocks_pool),
    *_entries(["batch_norm"], _GATHERS, "direct", _plan_norm, _norm),
    *_entries(["local_response_norm"], _GATHERS, "direct", _plan_norm, _spatial),
    *_entries(["channel_sum"], ("forward",), "direct", _plan_norm, _norm),
    *_entries(["relu"], _GATHERS, "direct", _plan_pointwise, _relu),
]
