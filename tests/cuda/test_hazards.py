"""Problems in which the threads, stages and blocks of every CUDA kernel meet, for the race and address checks.

``python -m tests.simt races`` and ``addresses`` run this file under a sanitizer, which makes kernels a hundred times
slower. So the problems are small, but have several blocks with ragged edges, more steps along k than a kernel has
stages, and more tiles than blocks that stay; each runs with workspace for splits and with little. Orders of threads and
moments of asynchronous copies are drawn.
"""

import random
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pycv import registry
from pycv.kernels import Kernel, cuda
from pycv.problem import PASSES

from .. import compare, draw, raw
from ..backend import by_host, parse
from ..seed import SEED, sliced
from .execution import kernels, schedule

# Each for all kernels that take it, or for those whose names begin with one of the words after the bar; with {} for all
# passes that the op has.
LINES = """
gemm.forward m140n68k72 f32 b=col cpu bias
gemm.forward m140n72k136 f16 res=row cpu bias+residual+relu
gemm.forward b2m70n66k20 f64 a=col out=col cpu relu | simt
gemm.forward m200n264k168 f32 b=col cpu bias | wgmma
gemm.forward b2m136n200k328 bf16 a=col cpu | wgmma
gemm.forward m36n40k1001 f16 cpu | wgmma_3
gemm.forward m200n264k73 f32 cpu | wgmma_3
gemm.forward m70n20k520 f32 cpu bias+relu | simt_8 mma
gemm.forward m140n136k24 f32 a=col cpu | simt_8 mma

conv2d.{} n2c20h7w11 k36r3s3 p1 f32 nchw cpu
conv2d.{} n2c20h7w11 k36r3s3 p1 f32 nhwc cpu
conv2d.{} n2c72h9w9 k72r3s3 p1 bf16 nhwc cpu | wgmma mma winograd implicit
conv2d.{} n2c40h9w8 k24r3s3 u2 p1 f16 nhwc cpu | wgmma mma direct im2col
conv2d.{} n2c36h9w8 k24r3s3 u2 p1 f32 nhwc cpu | wgmma fft implicit
conv2d.{} n1c6h15w13 k10r5s4 u2x1 p2 g2 f64 nchw cpu
conv2d.{} n2c40h10w9 k40r3s3 p1 g40 f32 nhwc cpu | direct
conv2d.{} n2c6h40w41 k6r3s3 p1 g6 f32 nchw cpu | direct
conv2d.forward n2c3h11w70 k40r5s5 u2 p2 f32 nchw cpu bias+relu | direct
conv2d.forward n1c2h12w90 k33r11s13 u2x3 p5 f16 nhwc cpu | direct
conv2d.{} n1c40h9w5 k70r3s3 p1 f32 nchw cpu | implicit mma winograd
conv2d.forward n2c64h9w8 k264r1s1 f16 nhwc res=nhwc cpu bias+residual+relu | wgmma mma
conv2d.forward n2c72h9w8 k72r3s3 p1 bf16 nhwc cpu bias+relu pre=scale+relu | mma implicit
conv2d.forward n1c40h9w5 k70r3s3 u2 p1 f32 nchw cpu pre=scale | mma implicit
conv2d.forward n2c40h10w9 k40r3s3 p1 g40 f32 nhwc cpu pre=scale+relu | direct
conv2d.grad_input n2c136h9w8 k40r3s3 u2 p1 bf16 nhwc res=nhwc cpu bias+residual | wgmma mma
conv2d.grad_weight n1c2h75w75 k3r3s3 p1 f32 nchw cpu | winograd fft implicit mma
conv2d.forward n2c10h7w11 k20r3s3 p1 f16 nhwc res=nchw cpu bias+residual+relu | direct implicit im2col winograd
conv1d.{} n3c16w50 k24s5 p2 f32 nhwc cpu
conv1d.{} n3c4w60 k6s5 p2 f32 nchw cpu | direct
conv1d.{} n3c16w50 k24s5 u2 p2 f16 nhwc cpu | wgmma mma
conv3d.{} n1c9d3h5w6 k20t2r3s3 p0x1x1 f32 nchw cpu
conv3d.{} n1c4d5h6w7 k6t2r3s3 p0x1x1 f32 nhwc cpu | direct
conv3d.{} n1c16d3h5w6 k24t2r3s3 p0x1x1 bf16 nhwc cpu | mma

max_pool1d.{} n2c3w340 s4 o113 u3 f32 nchw cpu indices
max_pool2d.{} n2c16h10w17 r3s3 o5x9 u2 p1 f16 nhwc cpu indices
max_pool2d.{} n3c12h10w64 r3s3 o5x32 u2 p1 f32 nchw cpu offsets
max_pool2d.{} n2c16h10w34 r3s3 o10x34 p1 bf16 nchw cpu indices
avg_pool2d.{} n3c12h10w64 r3s3 o5x32 u2 p1 f32 nchw cpu exclude_pad
max_pool2d.{} n1c5h26w29 r7s7 o4x5 u7x6 p3 f32 nchw cpu indices
max_pool3d.{} n2c5d5h6w7 t3r2s3 o3x5x4 u2x1x2 p1x0x1 f64 nchw cpu indices
avg_pool1d.{} n2c3w400 s8 o199 u2 p2 f32 nchw cpu
avg_pool2d.{} n2c16h10w17 r3s3 o5x9 u2 p1 bf16 nhwc cpu
avg_pool2d.{} n1c5h26w29 r7s7 o4x5 u7x6 p3 f32 nchw cpu
avg_pool3d.{} n2c5d5h6w7 t3r2s3 o3x5x4 u2x1x2 p1x0x1 f32 nhwc cpu
adaptive_max_pool1d.{} n2c5w300 o150 f32 nchw cpu indices
adaptive_max_pool2d.{} n2c18h7w9 o5x4 f32 nhwc cpu indices
adaptive_max_pool3d.{} n2c5d5h6w7 o3x4x5 f32 nchw cpu indices
adaptive_avg_pool1d.{} n2c5w300 o150 f32 nchw cpu
adaptive_avg_pool2d.{} n2c18h7w9 o1x1 f32 nchw cpu
adaptive_avg_pool3d.{} n2c5d5h6w7 o3x4x5 f32 nhwc cpu

batch_norm.{} n3c70h9w8 f32 nhwc res=nhwc cpu training+residual+relu
batch_norm.{} n3c3h47w45 f32 nchw cpu training
batch_norm.{} n2c16h9w8 bf16 nchw cpu training+relu
batch_norm.{} n2c264h5w2 f64 nhwc cpu
local_response_norm.{} n2c70h6w7 l5 f32 nchw cpu
local_response_norm.{} n2c40h6w7 l4 f64 nhwc cpu
channel_sum.forward n3c70h9w8 f32 nhwc>nchw cpu
channel_sum.forward n2c16h47w45 f16 nchw cpu
relu.{} e4099 f32 cpu
relu.{} e4104 bf16 cpu
relu.{} e4099 f32 cpu mask
relu.{} e1101 f64 cpu mask
"""
LIMITS = (2**28, 2**16)  # of the workspace: with splits, and in pieces
DRAWN = 10


def cases() -> list[str]:
    """Every line with every pass."""
    found = []
    for line in filter(None, LINES.splitlines()):
        passes = PASSES if line.startswith("conv") else PASSES[:2]
        found += [line.format(pass_) for pass_ in passes] if "{}" in line else [line]
    return found


def runs(case: str) -> Iterator[tuple[str, Kernel, int]]:
    """Problem, kernel, limit of the workspace: once where the limit changes nothing."""
    text, _, names = case.partition(" | ")
    problem = parse(text)
    words = tuple(names.split())
    for kernel in kernels(problem):
        assert kernel.plan is not None
        needs: dict[int, int] = {}
        for limit in LIMITS:
            needs.setdefault(getattr(kernel.plan(problem, 1, limit), "workspace_bytes", 0), limit)
        if kernel.full_algorithm.startswith(words or ("",)):
            yield from ((text, kernel, limit) for limit in needs.values())


def run(text: str, kernel: Kernel, limit: int) -> None:
    """Raises AssertionError where the result is wrong; a sanitizer says for itself what it finds."""
    problem = parse(text)
    arrays, scalars = draw.data(problem, "normal", np.random.default_rng(SEED))
    drawn = random.Random(f"{SEED} {text} {kernel.name} {limit}")
    schedule(drawn.choice(("forward", "reverse", f"random:{SEED}")), drawn.choice(("eager", "lazy")))
    computed = raw.run(problem, kernel, arrays, scalars, 1, limit, offset=0)
    read, numeric_class = compare.as_read(kernel, problem, arrays)
    compare.assert_close(problem, computed, read, False, numeric_class, **scalars)


@pytest.mark.parametrize("case", sliced(cases(), DRAWN))
def test_problem(case):
    for text, kernel, limit in runs(case):
        run(text, kernel, limit)


def test_every_kernel_has_a_problem():
    covered = {kernel for case in cases() for _, kernel, _ in runs(case)}
    assert [k for k in registry.kernels() if k.backend == "cuda" and k not in covered] == []


@by_host
@pytest.mark.full
def test_every_kernel_function_has_several_blocks():
    """Of every __global__ function in csrc/cuda, in some launch."""
    for case in cases():
        for text, kernel, limit in runs(case):
            run(text, kernel, limit)
    host = cuda.host_module()
    assert host is not None
    blocks: dict[str, int] = {}
    for name, count in host.launched().items():
        name = re.sub("<.*", "", name).rpartition("::")[2]
        blocks[name] = max(count, blocks.get(name, 0))
    assert sorted(functions() - {name for name, count in blocks.items() if count > 1}) == []


def functions() -> set[str]:
    bounds = r"(?:__launch_bounds__\((?:[^()]|\([^()]*\))*\)\s+)?"
    sources = Path(__file__).parents[2].glob("csrc/cuda/*.[ch]*")
    return {name for path in sources for name in re.findall(rf"__global__ void\s+{bounds}(\w+)\(", path.read_text())}
