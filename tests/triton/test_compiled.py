"""What Triton makes of the kernels for GPUs that are not there: everything compiles, products are those of tensor
cores, and nothing spills registers to memory."""

import pytest

from pycv.kernels import triton as backend
from pycv.problem import parse

from ..seed import SEED
from . import ahead

pytestmark = pytest.mark.skipif(backend.interpreted(), reason="TRITON_INTERPRET=1: nothing is compiled")

ARCHITECTURES = (80, 90)
# Sizes of networks, for which tiles are as large as they get. Which of them multiply on tensor cores: all but those of
# f32 without rounding; those of fft in f32 are 3xTF32.
PRODUCTS = (
    ("gemm.forward m2048n2048k2048 bf16 res=row cuda bias+residual+relu", "tiled"),
    ("gemm.forward m4096n4096k4096 bf16 cuda", "persistent"),
    ("gemm.forward m2048n2048k2048 f16 a=col b=col cuda bias", "persistent"),
    ("gemm.forward m2048n2048k2048 f32 cuda bias", "tiled"),
    ("gemm.forward m2048n2048k2048 f32 cuda bias", "tiled/3xtf32"),
    ("gemm.forward m2048n2048k2048 f32 b=col cuda", "tiled/tf32"),
    ("gemm.forward m512n512k512 f64 cuda", "tiled"),
    ("conv2d.forward n32c64h56w56 k64r3s3 p1 f16 nhwc cuda bias+relu", "implicit_gemm"),
    ("conv2d.forward n32c64h56w56 k64r31s31 p15 f32 nchw cuda bias+relu", "fft"),
    ("conv2d.forward n32c256h28w28 k256r3s3 p1 bf16 nchw cuda", "implicit_gemm"),
    ("conv2d.forward n32c256h28w28 k256r3s3 p1 f32 nchw cuda", "implicit_gemm"),
    ("conv2d.forward n32c256h28w28 k256r3s3 p1 f32 nhwc cuda", "implicit_gemm/3xtf32"),
    ("conv2d.forward n32c256h28w28 k256r3s3 p1 f32 nchw cuda", "implicit_gemm/tf32"),
    ("conv2d.forward n32c3h224w224 k64r7s7 u2 p3 bf16 nhwc cuda", "implicit_gemm"),
    ("conv2d.grad_weight n32c64h56w56 k64r31s31 p15 f64 nhwc cuda", "fft"),
    ("conv2d.grad_input n32c128h56w56 k128r3s3 u2 p1 bf16 nhwc cuda", "implicit_gemm"),
    ("conv2d.grad_input n32c128h56w56 k128r3s3 u2 p1 f32 nchw cuda bias", "implicit_gemm/tf32"),
    ("conv2d.grad_input n32c128h56w56 k128r3s3 p1 f32 nhwc cuda bias", "implicit_gemm/3xtf32"),
    ("conv2d.grad_weight n32c128h56w56 k128r3s3 p1 bf16 nhwc cuda", "implicit_gemm"),
    ("conv2d.grad_weight n32c128h56w56 k128r3s3 p1 bf16 nchw cuda", "implicit_gemm"),
    ("conv2d.grad_weight n32c128h56w56 k128r3s3 p1 f32 nchw cuda", "implicit_gemm/3xtf32"),
    ("conv3d.grad_weight n8c32d16h28w28 k32t3r3s3 p1 f32 nchw cuda", "implicit_gemm/tf32"),
    ("conv1d.grad_input n32c64w4096 k64s1500 p750 g64 f32 nchw cuda", "fft"),
    ("conv2d.forward n4c64h56w56 k64r3s3 p1 f16 nhwc cuda bias", "im2col"),
    ("conv2d.grad_input n4c64h56w56 k64r3s3 u2 p1 bf16 nchw cuda bias", "im2col"),
    ("conv2d.grad_weight n4c64h56w56 k64r3s3 p1 f32 nhwc cuda", "im2col"),
    ("conv2d.grad_weight n4c64h56w56 k64r3s3 p1 f16 nchw cuda", "im2col"),
    ("conv2d.forward n32c64h56w56 k64r31s31 p15 bf16 nhwc cuda bias+relu", "fft"),
    ("conv2d.grad_weight n32c64h56w56 k64r31s31 p15 f16 nchw cuda", "fft"),
)
OTHERS = tuple(
    (text, "direct")
    for text in (
        "conv2d.forward n32c128h56w56 k128r3s3 p1 g128 bf16 nhwc cuda",
        "conv2d.forward n32c128h56w56 k128r3s3 p1 g128 f32 nchw cuda bias",
        "conv2d.forward n32c3h224w224 k64r3s3 p1 f32 nchw cuda",
        "conv2d.grad_input n32c128h56w56 k128r3s3 u2 p1 g128 f32 nchw cuda",
        "conv2d.grad_weight n32c128h56w56 k128r3s3 p1 g128 f32 nchw cuda",
        "conv2d.grad_weight n2c1152h7w7 k1152r3s3 p1 g1152 f32 nchw cuda",
        "max_pool2d.forward n32c64h112w112 r3s3 u2 p1 bf16 nhwc cuda offsets",
        "max_pool2d.grad_input n32c64h112w112 r3s3 u2 p1 bf16 nchw cuda offsets",
        "avg_pool2d.forward n32c64h112w112 r3s3 u2 p1 f32 nchw cuda exclude_pad",
        "avg_pool2d.grad_input n32c64h112w112 r3s3 u2 p1 f32 nchw cuda",
        "adaptive_avg_pool2d.forward n32c64h112w112 o7 f32 nchw cuda",
        "adaptive_avg_pool2d.grad_input n32c64h112w112 o7 bf16 nhwc cuda",
        "adaptive_max_pool2d.forward n32c64h112w112 o7 f32 nchw cuda indices",
        "adaptive_max_pool2d.grad_input n32c64h112w112 o7 f32 nchw cuda indices",
        "batch_norm.forward n32c64h56w56 bf16 nhwc cuda training+relu",
        "batch_norm.grad_input n32c64h56w56 f32 nchw cuda training+relu",
        "batch_norm.forward n32c64h56w56 f32 nchw cuda",
        "batch_norm.forward n2c2048h4w4 f32 nchw cuda training",
        "local_response_norm.forward n32c64h56w56 l5 f32 nchw cuda",
        "local_response_norm.grad_input n32c64h56w56 l5 f64 nchw cuda",
        "channel_sum.forward n32c64h56w56 bf16 nchw cuda",
        "relu.forward e1000000 bf16 cuda",
        "relu.grad_input e1000000 f64 cuda",
    )
)
EVERY = (*PRODUCTS, *OTHERS)


SHARED_MEMORY = {80: 163 * 2**10, 90: 227 * 2**10}  # bytes of a block
ALL_REGISTERS = 255
# ptxas takes a few registers away from a kernel where that lets one more block run at a time: no want of them.
TAKEN_AWAY = 32  # bytes


def assert_compiles_well(text, algorithm, capability, folder):
    (kernel,) = ahead.kernels(problem := parse(text), algorithm)
    if algorithm == "persistent" and capability < 90:
        return  # refused there
    for binary in compiled(problem, kernel, capability):
        assert ahead.spilled(binary, capability, folder)[0] == 0, binary.metadata.name


def compiled(problem, kernel, capability):
    """All that a kernel launches: within shared memory, products on tensor cores."""
    with ahead.pretending(capability):
        binaries = ahead.compiled(problem, kernel)
    code = "".join(binary.asm["ptx"] for binary in binaries)
    algorithm = kernel.full_algorithm
    on_tensor_cores = algorithm != "direct" and (problem.dtype != "f32" or algorithm == "fft" or "tf32" in algorithm)
    assert ("mma.sync" in code or "wgmma.mma_async" in code) == on_tensor_cores
    if algorithm == "persistent" and capability >= 90:  # blocks of operands and result, by its first launch
        described = binaries[0].asm["ptx"]
        assert "cp.async.bulk.tensor.2d.global.shared" in described and "st.global" not in described
        assert "cp.async.bulk.tensor.2d.shared" in described
    assert max(binary.metadata.shared for binary in binaries) <= SHARED_MEMORY[capability]
    return binaries


@pytest.mark.parametrize("capability", ARCHITECTURES)
def test_some(capability, tmp_path):
    for count, cases in ((2, PRODUCTS), (1, OTHERS)):
        for i in range(count):
            assert_compiles_well(*cases[(SEED // 2 + i) % len(cases)], capability, tmp_path)


@pytest.mark.full
@pytest.mark.parametrize("capability", ARCHITECTURES)
@pytest.mark.parametrize(("text", "algorithm"), EVERY)
def test_every_kernel(text, algorithm, capability, tmp_path):
    assert_compiles_well(text, algorithm, capability, tmp_path)


# Where tiles are large, many or few; operands contiguous, scattered, found by divisions.
TILED = (
    ("gemm.forward m4096n4096k4096 bf16 cuda bias", "tiled"),
    ("gemm.forward m1000n1000k1000 f16 a=col res=row cuda residual", "tiled"),
    ("gemm.forward b8m197n64k197 bf16 b=col cuda", "tiled"),
    ("gemm.forward m4096n4096k4096 f32 cuda bias", "tiled"),
    ("gemm.forward m4096n4096k4096 f32 cuda bias", "tiled/3xtf32"),
    ("gemm.forward m4096n512k4096 f32 b=col cuda", "tiled/tf32"),
    ("gemm.forward m2048n2048k2048 f64 cuda", "tiled"),
    ("gemm.forward m4096n4096k4096 bf16 cuda bias+relu", "persistent"),
    ("gemm.forward m2048n1000k2048 f16 a=col b=col cuda bias", "persistent"),
    ("conv2d.forward n32c256h28w28 k256r3s3 p1 bf16 nhwc cuda bias+relu", "implicit_gemm"),
    ("conv2d.forward n128c64h56w56 k64r3s3 p1 f16 nhwc cuda", "implicit_gemm"),
    ("conv2d.forward n32c256h28w28 k256r3s3 p1 bf16 nchw cuda", "implicit_gemm"),
    ("conv2d.forward n32c3h224w224 k64r7s7 u2 p3 bf16 nhwc cuda", "implicit_gemm"),
    ("conv2d.forward n32c256h28w28 k256r3s3 p1 f32 nchw cuda", "implicit_gemm"),
    ("conv2d.forward n32c256h28w28 k256r3s3 p1 f32 nhwc cuda", "implicit_gemm/3xtf32"),
    ("conv2d.forward n32c256h28w28 k256r3s3 p1 f32 nchw cuda", "implicit_gemm/3xtf32"),
    ("conv2d.forward n32c256h28w28 k256r3s3 p1 f64 nchw cuda", "implicit_gemm"),
    ("conv3d.forward n8c64d16h28w28 k32t3r3s3 p1 u2 bf16 nchw cuda", "implicit_gemm"),
    ("conv2d.grad_input n32c128h56w56 k128r3s3 u2 p1 bf16 nchw cuda", "implicit_gemm"),
    ("conv2d.grad_input n32c16h56w56 k128r3s3 u2 p1 bf16 nhwc cuda", "implicit_gemm"),
    ("conv2d.grad_input n32c128h56w56 k128r3s3 u2 p1 f32 nchw cuda", "implicit_gemm/tf32"),
    ("conv2d.grad_input n32c128h56w56 k128r3s3 u2 p1 f32 nchw cuda", "implicit_gemm/3xtf32"),
    ("conv3d.grad_input n8c32d16h28w28 k64t3r3s3 p1 u2 bf16 nchw cuda", "implicit_gemm"),
    ("conv3d.grad_input n8c32d16h28w28 k64t3r3s3 p1 u2 f32 nchw cuda", "implicit_gemm"),
    ("conv2d.grad_weight n32c256h56w56 k256r3s3 p1 bf16 nhwc cuda", "implicit_gemm"),
    ("conv2d.grad_weight n32c128h56w56 k128r3s3 p1 g32 bf16 nchw cuda", "implicit_gemm"),
    ("conv2d.grad_weight n32c256h56w56 k256r3s3 p1 f32 nchw cuda", "implicit_gemm/tf32"),
    ("conv2d.grad_weight n32c256h56w56 k256r3s3 p1 f32 nchw cuda", "implicit_gemm/3xtf32"),
    ("conv2d.grad_weight n32c256h56w56 k256r3s3 p1 f64 nchw cuda", "implicit_gemm"),
    ("conv2d.forward n32c128h56w56 k128r3s3 p1 g128 bf16 nhwc cuda", "direct"),
    ("conv2d.grad_input n32c128h56w56 k128r3s3 u2 p1 g128 f32 nchw cuda", "direct"),
    ("conv2d.grad_weight n32c128h56w56 k128r3s3 p1 g128 f64 nhwc cuda", "direct"),
    ("max_pool2d.forward n32c64h112w112 r3s3 u2 p1 bf16 nhwc cuda offsets", "direct"),
    ("max_pool3d.grad_input n8c32d16h56w56 t3r3s3 u2 p1 f64 nchw cuda offsets", "direct"),
    ("avg_pool2d.grad_input n32c64h112w112 r3s3 u2 p1 f64 nchw cuda", "direct"),
)


def assert_tile_compiles_well(problem, kernel, capability, folder):
    for binary in compiled(problem, kernel, capability):
        spilled, registers = ahead.spilled(binary, capability, folder)
        assert spilled <= (TAKEN_AWAY if registers < ALL_REGISTERS else 0), (kernel.name, spilled, registers)


def tiles(text, algorithm, capability):
    """A problem, and a kernel with each of its tiles; none where it is refused."""
    (kernel,) = ahead.kernels(problem := parse(text), algorithm)
    if algorithm == "persistent" and capability < 90:
        return problem, []
    with ahead.pretending(capability):
        return problem, kernel.in_tiles(problem)


@pytest.mark.parametrize("capability", ARCHITECTURES)
def test_a_tile(capability, tmp_path):
    problem, found = tiles(*TILED[SEED % len(TILED)], capability)
    if found:
        assert_tile_compiles_well(problem, found[SEED // len(TILED) % len(found)], capability, tmp_path)


@pytest.mark.full
@pytest.mark.parametrize("capability", ARCHITECTURES)
@pytest.mark.parametrize(("text", "algorithm"), TILED)
def test_every_tile(text, algorithm, capability, tmp_path):
    problem, found = tiles(text, algorithm, capability)
    for kernel in found:
        assert_tile_compiles_well(problem, kernel, capability, tmp_path)


def test_one_compilation_gathers_every_image_and_group():
    """They change from launch to launch: 1, multiples of 16 and others would be compiled apart, nine kernels in all."""
    (kernel,) = ahead.kernels(problem := parse("conv2d.grad_weight n33c64h8w8 k64r3s3 p1 g32 f32 nchw cuda"), "im2col")
    gather = kernel.plan(problem, 1, 2**28).launches[0]
    with ahead.pretending(80):
        binaries = {
            gather.compiled(numbers={"first_image": i, "group": g}) for i, g in ((0, 0), (1, 0), (5, 1), (16, 7))
        }
    assert len(binaries) == 1


def test_every_entry_is_compiled():
    """An op, pass, algorithm or variant that the lists above forget shows here; ranks share their kernels."""
    from pycv import registry

    there = {(k.op.rstrip("123d"), k.pass_, k.full_algorithm) for k in registry.kernels() if k.backend == "triton"}
    problems = [(parse(text), algorithm) for text, algorithm in EVERY]
    listed = {(problem.op.rstrip("123d"), problem.pass_, algorithm) for problem, algorithm in problems}
    assert there <= listed, there - listed
