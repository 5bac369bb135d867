"""The registry entries of the CUDA kernels (csrc/cuda): from a problem to a plan of pycv._cuda.

The kernels take tensors of a GPU and run on torch's current stream. With PYCV_CUDA_HOST=1 they take CPU tensors
instead and this CPU executes them (pycv._simt, which `python -m tools.simt` builds): slow, for tests.

Nothing predicts times on a GPU yet: of the entries of an op and pass that support a problem, the first is preferred.
GEMM and convolution on tensor cores offer tiles, which autotune measures: those that csrc/cuda names (tile_entry.h).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from math import prod
from types import ModuleType
from typing import Any

import torch

from pycv.problem import (
    PASSES,
    ConvProblem,
    GemmProblem,
    Layout,
    Matrix,
    NormProblem,
    PointwiseProblem,
    PoolProblem,
    Sizes,
)

from . import Kernel, _fields, _geometry, _limits

try:
    import pycv._cuda as _cuda  # `from pycv` would speak of a circular import where there is none
except ImportError as error:  # reported by pycv.info() and by every reason below
    _cuda, missing = None, str(error)  # type: ignore[assignment]

BUILD_HOST = "python -m tools.simt, in a checkout, builds it"
_DTYPES = ("f32", "f64", "f16", "bf16")


def on_host() -> bool:
    """Whether this CPU is to execute the kernels, on CPU tensors."""
    return os.environ.get("PYCV_CUDA_HOST") == "1"


def host_module() -> ModuleType | None:
    """pycv._simt, None where it is not built."""
    try:
        return import_module("pycv._simt")
    except ImportError:
        return None


# ------------------------------------------------------------------------------------------ what can run here


def _supports(problem) -> str | None:
    """What holds for every kernel of this backend."""
    if on_host():
        if host_module() is None:
            return f"PYCV_CUDA_HOST=1, but pycv._simt is missing: {BUILD_HOST}"
        if problem.device != "cpu":
            return f"device {problem.device}: with PYCV_CUDA_HOST=1 the CUDA kernels run on CPU tensors"
    elif problem.device != "cuda":
        return f"device {problem.device}: the CUDA kernels run on a GPU, on CPU tensors only with PYCV_CUDA_HOST=1"
    elif reason := unusable():
        return reason
    return _limits.dtype_or_layout(problem, _DTYPES, "CUDA")


def unusable() -> str | None:
    """Why no CUDA kernel can run on torch's current GPU, in words; None if they can."""
    if _cuda is None:
        return f"the CUDA kernels are not built ({missing})"
    if _cuda.device_count() == 0:
        return f"no CUDA device ({_cuda.device_error() or 'none is visible'})"
    if not has_code_for(_cuda.architectures, present := capability()):
        device, version = torch.cuda.current_device(), "{}.{}".format(*present)
        return f"GPU {device} has capability {version}, the CUDA kernels are built for {_cuda.architectures}"
    return None


def capability() -> tuple[int, int]:
    """Of torch's current GPU."""
    return _cuda.capability(torch.cuda.current_device())


@cache
def has_code_for(architectures: str, capability: tuple[int, int]) -> bool:
    """Whether a build for ``7.5;8.0+PTX;9.0a`` runs on a device: binaries on the same major version and up, PTX on
    whatever is newer, what ends in ``a`` on nothing but its own, in ``f`` on the same major version."""
    for text in architectures.split(";"):
        match = re.match(r"(\d+)\.(\d+)([af]?)(\+PTX)?$", text)
        if match is None:
            continue
        own = (int(match[1]), int(match[2]))
        alone = match[3] == "a"
        if own == capability or (not alone and own <= capability and (own[0] == capability[0] or match[4])):
            return True
    return False


def _version(architecture: str) -> tuple[int, int]:
    """(8, 0) of ``8.0+PTX``."""
    major, minor = re.findall(r"\d+", architecture)[:2]
    return int(major), int(minor)


def state(kernel: Kernel) -> list[str]:
    """How far a kernel of this backend has come in this installation: host-executed, compiled for which GPUs."""
    name = (re.sub(r"[123]d$", "", kernel.op), kernel.full_algorithm)
    compiled = f"compiled for {_cuda.architectures}" if _cuda is not None else ""
    builds = (("host-executed", host_module()), (compiled, _cuda))
    return [word for word, module in builds if module is not None and name in module.kernels()]


# ------------------------------------------------------------------------------------------------------- plans


def _planned(planner: str, algorithm: str, *arguments: Any) -> Any:
    """A plan as the ops expect it: of the host, where there are no streams, that of the module itself."""
    plan = getattr(_module(), planner)(algorithm, *arguments)
    return plan if on_host() else _StreamedPlan(plan)


def _module() -> Any:
    """The kernels that run here."""
    return host_module() if on_host() else _cuda


class _StreamedPlan:
    """A plan of pycv._cuda that runs on torch's current stream of the device that its pointers are on."""

    def __init__(self, plan: Any):
        self.workspace_bytes = getattr(plan, "workspace_bytes", 0)
        self.prepared_weight_bytes = getattr(plan, "prepared_weight_bytes", 0)
        self._plan = plan
        self._launch = getattr(plan, "launch", None)
        self._launch_masked = getattr(plan, "launch_masked", None)

    def launch(self, *addresses: int) -> None:
        with _device_of(*addresses) as device:
            self._launch(*addresses, _raw_stream(device))  # type: ignore[misc]

    def launch_masked(self, *addresses: int) -> None:
        with _device_of(*addresses) as device:
            self._launch_masked(*addresses, _raw_stream(device))  # type: ignore[misc]

    def run(self, *arguments: Any, **named: Any) -> None:
        addresses = (value for value in (*arguments, *named.values()) if type(value) is int)  # not alpha, eps ...
        with _device_of(*addresses) as device:
            self._plan.run(*arguments, **named, stream=_raw_stream(device))

    def prepare_weight(self, weight: int, prepared: int) -> None:
        with _device_of(weight) as device:
            self._plan.prepare_weight(weight, prepared, _raw_stream(device))


def _raw_stream(device: int) -> int:
    return torch._C._cuda_getCurrentRawStream(device)


class _device_of:
    """The device of the first pointer that is not null, made current for a block.

    Empty tensors have null pointers. Nothing is asked or set where there is only one device.
    """

    __slots__ = ("_addresses", "_guard")

    def __init__(self, *addresses: int):
        self._addresses = addresses
        self._guard: Any = None

    def __enter__(self) -> int:
        if _device_count() == 1:
            return 0
        current = torch.cuda.current_device()
        device = _cuda.device_of(next(filter(None, self._addresses), 0))
        if device in (-1, current):  # -1: there is none
            return current
        self._guard = torch.cuda.device(device)
        self._guard.__enter__()
        return device

    def __exit__(self, *exception) -> None:
        if self._guard is not None:
            self._guard.__exit__(*exception)


@cache
def _device_count() -> int:
    return _cuda.device_count()


def _plan_conv(algorithm: str):
    def plan(p: ConvProblem, threads: int, workspace_limit: int, tile: str = ""):
        return _planned("conv_plan", algorithm, *_fields.conv(p), workspace_limit, tile)

    return plan


def _plan_gemm(algorithm: str):
    def plan(p: GemmProblem, threads: int, workspace_limit: int, tile: str = ""):
        return _planned("gemm_plan", algorithm, *_fields.gemm(p), workspace_limit, tile)

    return plan


_USUAL_LIMIT = 2**28  # of the workspace, in bytes: where settings say nothing


# What a kernel offers to be measured. The limit of the workspace decides no more than which is the first.


def _tiles_conv(algorithm: str):
    def tiles(p: ConvProblem) -> list[str]:
        return _module().conv_tiles(algorithm, *_fields.conv(p), _USUAL_LIMIT)

    return tiles


def _tiles_gemm(algorithm: str):
    def tiles(p: GemmProblem) -> list[str]:
        return _module().gemm_tiles(algorithm, *_fields.gemm(p), _USUAL_LIMIT)

    return tiles


def _plan_pool(algorithm: str):
    def plan(p: PoolProblem, threads: int, workspace_limit: int):
        return _planned("pool_plan", algorithm, *_fields.pool(p))

    return plan


def _plan_norm(algorithm: str):
    def plan(p: NormProblem, threads: int, workspace_limit: int):
        return _planned("norm_plan", algorithm, *_fields.norm(p))

    return plan


def _plan_pointwise(algorithm: str):
    def plan(p: PointwiseProblem, threads: int, workspace_limit: int):
        return _planned("pointwise_plan", algorithm, *_fields.pointwise(p))

    return plan


# ----------------------------------------------------------------------------------------------------- entries


def _entries(ops, passes, algorithms, plan, supports=_supports, numeric_class="strict"):
    return [
        Kernel(op, pass_, "cuda", algorithm, supports, plan(algorithm), numeric_class)
        for op in ops
        for pass_ in passes
        for algorithm in algorithms
    ]


def _pool(p: PoolProblem) -> str | None:
    if prod(p.size) >= 2**31:
        return f"{prod(p.size)} positions in a plane: the pooling kernels count them in 31 bits"
    return _supports(p)


def _local_response_norm(p: NormProblem) -> str | None:
    if p.window > 32:
        return f"window {p.window}: shared memory has room for windows of up to 32 channels"
    return _supports(p)


def _conv(p: ConvProblem) -> str | None:
    """What holds for every convolution kernel."""
    return _limits.long_axis(p) or _supports(p)


def _without_prologue(p: ConvProblem) -> str | None:
    if p.prologue:
        return f"prologue {'+'.join(p.prologue)}: of the CUDA kernels mma_sync, implicit_gemm and direct have one"
    return _conv(p)


def _direct_conv(p: ConvProblem) -> str | None:
    return _limits.many_channels(p) or _conv(p)


def _im2col(p: ConvProblem) -> str | None:
    if p.pass_ == "grad_weight" and p.weight.outer:
        return f"layout w={p.weight}: im2col writes dense filters"
    return _without_prologue(p)


def _winograd(p: ConvProblem) -> str | None:
    if set(p.stride) != {1} or set(p.dilation) != {1}:
        steps = ("x".join(map(str, axes)) for axes in (p.stride, p.dilation))
        return "stride {}, dilation {}: winograd is for 1".format(*steps)
    if set(p.filter) != {3}:
        return f"filter {'x'.join(map(str, p.filter))}: these tiles are for 3x3"
    return _without_prologue(p)


def _winograd_entries() -> list[Kernel]:
    """F(4x4, 3x3) and F(2x2, 3x3), in order of preference."""
    return [
        Kernel(
            "conv2d", pass_, "cuda", "winograd", _winograd, _plan_conv(f"winograd/{tile}"),
            numeric_class="default", variant=tile,
        )
        for pass_ in PASSES
        for tile in ("f4", "f2")
    ]  # fmt: skip


def _fft(p: ConvProblem) -> str | None:
    """What no window reads would be transformed along with what they do read."""
    extents = [d * (f - 1) + 1 for f, d in zip(p.filter, p.dilation, strict=True)]
    if not _fits_shared_memory(extents, p.dtype):
        return f"filter of extent {'x'.join(map(str, extents))}: no tile for it fits into shared memory"
    if (reason := _without_prologue(p)) is not None:
        return reason
    if not _geometry.all_read(p):
        return "fft would mix in the elements that the windows leave out in between"
    return None


def _fits_shared_memory(extents: list[int], dtype: str) -> bool:
    """Whether the smallest tile of powers of two does (csrc/cuda/fft_tile.h): a complex number for every two elements,
    some room, and the roots."""
    height, width = (1 << (extent - 1).bit_length() for extent in (1, *extents)[-2:])
    width = max(width, 2)
    return (max(height // 2, 1) * (width + 3) + max(height, width)) * (16 if dtype == "f64" else 8) <= 48 * 1024


_MMA_DTYPES = {"": ("f16", "bf16"), "3xtf32": ("f32",), "tf32": ("f32",)}
_MMA_CLASSES = {"": "strict", "3xtf32": "default", "tf32": "fast"}


def _mma_sync(variant: str, supports):
    """What a variant of mma_sync takes of the problems that ``supports`` lets through."""

    def answer(problem) -> str | None:
        if (reason := supports(problem)) is not None:
            return reason
        if problem.dtype not in (dtypes := _MMA_DTYPES[variant]):
            return f"dtype {problem.dtype}: {'/'.join(filter(None, ('mma_sync', variant)))} takes {', '.join(dtypes)}"
        return _before(8, 0)

    return answer


def _before(major: int, minor: int) -> str | None:
    """Why what this capability brought cannot run here. Host execution has all of it."""
    if on_host():
        return None
    if (present := capability()) < (major, minor):
        return "capability {}.{}: it needs {}.{} or newer".format(*present, major, minor)
    able = [text for text in _cuda.architectures.split(";") if _version(text) >= (major, minor)]
    if not has_code_for(";".join(able), present):  # the code that loads would be of an older one
        return f"the CUDA kernels are built for {_cuda.architectures}: it needs {major}.{minor} or newer"
    return None


def _wgmma(variant: str):
    """What the last of Hopper's GEMMs takes, however matrices lie."""

    def answer(p: GemmProblem) -> str | None:
        if (reason := _supports(p)) is not None:
            return reason
        if p.dtype not in (dtypes := _MMA_DTYPES[variant]):
            return f"dtype {p.dtype}: {'/'.join(filter(None, ('wgmma', variant)))} takes {', '.join(dtypes)}"
        if max(p.m, p.n, p.k) >= 2**31:
            return f"{p.m} x {p.n} x {p.k}: wgmma's copies count rows and columns in 31 bits"
        return _exactly(9, 0)

    return answer


def _earlier_wgmma(variant: str):
    """What the steps before it take: rows that begin at multiples of 16 bytes."""

    def answer(p: GemmProblem) -> str | None:
        if (reason := _wgmma(variant)(p)) is not None:
            return reason
        for name, rows, columns in (("a", p.m, p.k), ("b", p.k, p.n), ("out", p.m, p.n)):
            along = "" if p.dtype != "f32" else {"a": "row", "b": "col"}.get(name, "")
            if not _rows_aligned(getattr(p, name), p.batch, rows, columns, _ELEMENTS[p.dtype], along):
                whose = f"rows of {name} (layout {getattr(p, name)})"
                return f"{whose} do not begin at multiples of 16 bytes{' along k' if along else ''}"
        return None

    return answer


_ELEMENTS = {"f16": 8, "bf16": 8, "f32": 4}  # of 16 bytes


def _rows_aligned(matrix: Matrix, batch: int, rows: int, columns: int, step: int, along: str) -> bool:
    """Whether rows, or without ``along`` columns, are contiguous and begin every multiple of ``step`` elements. Strides
    along an axis of one element say nothing."""
    of_batch, row, column = matrix.strides(rows, columns)
    if batch > 1 and of_batch % step != 0:
        return False
    by_rows = (columns == 1 or column == 1) and (rows == 1 or (row > 0 and row % step == 0))
    by_columns = (rows == 1 or row == 1) and (columns == 1 or (column > 0 and column % step == 0))
    return (by_rows and along != "col") or (by_columns and along != "row")


def _conv_wgmma(variant: str):
    """What the convolutions of Hopper take: windows that im2col copies can walk through."""

    def answer(p: ConvProblem) -> str | None:
        if (reason := _without_prologue(p)) is not None:
            return reason
        if p.dtype not in (dtypes := _MMA_DTYPES[variant]):
            return f"dtype {p.dtype}: {'/'.join(filter(None, ('wgmma', variant)))} takes {', '.join(dtypes)}"
        if p.groups != 1:
            return f"groups {p.groups}: wgmma is for one"
        if p.pass_ == "grad_input" and (phases := prod(map(min, p.stride, p.size))) > _MOST_PHASES:
            return f"stride {'x'.join(map(str, p.stride))}: wgmma computes {_MOST_PHASES} phases at most, not {phases}"
        gathered = p.pass_ == "grad_weight" and variant == "tf32"  # by loads of elements, not by im2col copies
        tensors = [("input", p.input, p.c, p.size), ("output", p.output, p.k, p.output_size)]
        if p.residual is not None:
            tensors.append(("residual", p.residual, p.k if p.pass_ == "forward" else p.c, p.computed_size))
        for name, layout, channels, size in tensors:
            if not _dense_pixels(layout, p.n, channels, size, 1 if gathered else _ELEMENTS[p.dtype]):
                where = "one after the other" if gathered else "at multiples of 16 bytes"
                return f"{name} (layout {layout}, {channels} channels): wgmma takes nhwc, pixels {where}"
        if (positions := p.n * max(prod(p.size), prod(p.output_size))) >= 2**31:
            return f"{positions} positions: wgmma counts them in 31 bits"
        return (None if gathered else _windows(p)) or _exactly(9, 0)

    return answer


_MOST_PHASES = 9  # of strided grad_input: kMostPhases in csrc/cuda/conv_wgmma_phases.h


def _dense_pixels(layout: Layout, n: int, channels: int, size: Sizes, step: int) -> bool:
    """Whether images lie one after the other, with pixels that begin every multiple of ``step`` elements."""
    if layout.name != "nhwc":
        return False
    batch, _, *spatial = layout.strides(channels, size)
    return spatial[-1] % step == 0 and (n == 1 or batch == spatial[-1] * prod(size))


def _windows(p: ConvProblem) -> str | None:
    """What of the filter is beyond the limits of im2col copies."""
    axes = zip(p.size, p.output_size, p.filter, p.stride, p.padding, p.dilation, strict=True)
    for size, out, filter_, stride, padding, dilation in axes:
        if p.pass_ == "grad_input":
            windows = list(_phase_windows(size, out, filter_, stride, padding, dilation))
        else:
            windows = [((filter_ - 1) * dilation, stride, -padding, (out - 1) * stride + 1 - size - padding)]
        for reach, step, *corners in windows:
            if reach > 255 or step > 8 or not all(-128 <= corner <= 127 for corner in corners):
                return (
                    f"filter {filter_}, stride {stride}, padding {padding}, dilation {dilation}: wgmma's windows reach "
                    "no further than 255, begin no more than 128 beyond the image, and step by at most 8"
                )
    return None


def _phase_windows(
    size: int, out: int, filter_: int, stride: int, padding: int, dilation: int
) -> Iterator[tuple[int, int, int, int]]:
    """Of the phases of an axis that meet a filter position: reach, step and corners of their windows in the output."""
    for phase in range(min(stride, size)):
        steps = [phase + padding - r * dilation for r in range(filter_)]
        if met := [step // stride for step in steps if step % stride == 0]:
            yield max(met) - min(met), 1, min(met), min(met) + -(-(size - phase) // stride) - out


def _exactly(major: int, minor: int) -> str | None:
    """Why what only this capability has cannot run here. Host execution has all of it."""
    if on_host():
        return None
    if (present := capability()) != (major, minor):
        return "capability {}.{}: it is for {}.{} alone".format(*present, major, minor)
    if f"{major}.{minor}a" not in _cuda.architectures.split(";"):
        return f"the CUDA kernels are built for {_cuda.architectures}: it needs {major}.{minor}a"
    return None


def _full_algorithm(algorithm: str, variant: str) -> str:
    return f"{algorithm}/{variant}" if variant else algorithm


def _wgmma_entries(ops, passes, algorithms, variants, plan, supports, tiles=None) -> list[Kernel]:
    return [
        Kernel(
            op, pass_, "cuda", algorithm, supports(variant), plan(name := _full_algorithm(algorithm, variant)),
            _MMA_CLASSES[variant], variant=variant, tiles=tiles and tiles(name),
        )
        for op in ops
        for pass_ in passes
        for algorithm in algorithms
        for variant in variants
    ]  # fmt: skip


def _mma_entries(ops, passes, variants, plan, supports, tiles=None) -> list[Kernel]:
    return [
        Kernel(
            op, pass_, "cuda", "mma_sync", _mma_sync(variant, supports),
            plan(name := _full_algorithm("mma_sync", variant)), _MMA_CLASSES[variant],
            variant=variant, tiles=tiles and tiles(name),
        )
        for op in ops
        for pass_ in passes
        for variant in variants
    ]  # fmt: skip


_RANKS = ("1d", "2d", "3d")
_CONVS = [f"conv{rank}" for rank in _RANKS]
_GATHERS = ("forward", "grad_input")
_POOLS = [f"{kind}_pool{rank}" for kind in ("max", "avg", "adaptive_max", "adaptive_avg") for rank in _RANKS]

_LAST_WGMMA, _EARLIER_WGMMA = ("wgmma_3_persistent",), ("wgmma_2_specialized", "wgmma_1_simple")

# The ladder of GEMMs before its last step, which is the one to use.
_EARLIER_GEMMS = (
    "simt_7_double_buffered", "simt_6_vectorised", "simt_5_register_2d", "simt_4_register_1d", "simt_3_shared",
    "simt_2_coalesced", "simt_1_naive",
)  # fmt: skip


def _earlier_gemm(p: GemmProblem) -> str | None:
    if p.dtype in ("f16", "bf16"):
        return f"dtype {p.dtype}: this step of the ladder is for f32 and f64, the last one takes it"
    return _supports(p)


KERNELS: list[Kernel] = [
    *_entries(_POOLS, _GATHERS, ("direct",), _plan_pool, _pool),
    *_entries(["batch_norm"], _GATHERS, ("direct",), _plan_norm),
    *_entries(["local_response_norm"], _GATHERS, ("direct",), _plan_norm, _local_response_norm),
    *_entries(["channel_sum"], ("forward",), ("direct",), _plan_norm),
    *_wgmma_entries(["gemm"], ("forward",), _LAST_WGMMA, ("",), _plan_gemm, _wgmma, _tiles_gemm),
    *_mma_entries(["gemm"], ("forward",), ("",), _plan_gemm, _supports, _tiles_gemm),
    *_entries(["gemm"], ("forward",), ("simt_8_warp_tiled",), _plan_gemm),
    *_mma_entries(["gemm"], ("forward",), ("3xtf32",), _plan_gemm, _supports, _tiles_gemm),
    *_wgmma_entries(["gemm"], ("forward",), _LAST_WGMMA, ("tf32",), _plan_gemm, _wgmma, _tiles_gemm),
    *_mma_entries(["gemm"], ("forward",), ("tf32",), _plan_gemm, _supports, _tiles_gemm),
    *_wgmma_entries(["gemm"], ("forward",), _EARLIER_WGMMA, ("", "tf32"), _plan_gemm, _earlier_wgmma),
    *_entries(["gemm"], ("forward",), _EARLIER_GEMMS, _plan_gemm, _earlier_gemm),
    *_entries(_CONVS, PASSES, ("direct",), _plan_conv, _direct_conv),
    *_wgmma_entries(_CONVS[:2], PASSES, ("wgmma",), ("",), _plan_conv, _conv_wgmma, _tiles_conv),
    *_mma_entries(_CONVS, PASSES, ("",), _plan_conv, _conv, _tiles_conv),
    *_entries(_CONVS, PASSES, ("implicit_gemm",), _plan_conv, _conv),
    *_mma_entries(_CONVS, PASSES, ("3xtf32",), _plan_conv, _conv, _tiles_conv),
    *_wgmma_entries(_CONVS[:2], PASSES, ("wgmma",), ("tf32",), _plan_conv, _conv_wgmma, _tiles_conv),
    *_mma_entries(_CONVS, PASSES, ("tf32",), _plan_conv, _conv, _tiles_conv),
    *_winograd_entries(),
    *_entries(["conv1d", "conv2d"], PASSES, ("fft",), _plan_conv, _fft, "default"),
    *_entries(_CONVS, PASSES, ("im2col",), _plan_conv, _im2col),
    *_entries(["relu"], _GATHERS, ("direct",), _plan_pointwise),
]
