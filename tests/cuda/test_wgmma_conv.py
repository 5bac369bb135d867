"""Convolution on Hopper's tensor cores: rows and images that tiles cross, edges, steps, and what is refused."""

from types import SimpleNamespace

import pytest
import torch

from pycv import functional, registry, use
from pycv.kernels import cuda
from pycv.problem import PASSES
from pycv.problem import parse as parse_as_it_is

from ..backend import parse
from .execution import ALL_ORDERS, ORDERS, assert_right, kernels, on_hopper

pytestmark = on_hopper

GATHERS = ("forward", "grad_input")


def right(text: str, algorithm: str = "wgmma", **how) -> None:
    assert_right(f"{text} cpu", algorithm, **{"kinds": ["integers"], "orders": ["forward"], **how})


@pytest.mark.parametrize("order", ALL_ORDERS)
@pytest.mark.parametrize("pass_", GATHERS)
def test_tiles_across_rows_and_images(pass_, order):
    """Two tiles and a half of positions over three images, 72 channels on each side: a block and a short one."""
    epilogue = "bias+relu" if pass_ == "forward" else ""
    right(f"conv2d.{pass_} n3c72h9w11 k72r3s3 p1 bf16 nhwc {epilogue}", orders=[order])


@pytest.mark.parametrize("pass_", GATHERS)
@pytest.mark.parametrize(
    "text",
    [
        "n2c16h7w10 k24r2s3 p0x1", "n1c8h12w13 k16r3s3 p2x3 d2x3", "n5c24h5w5 k8r1s1", "n2c8h6w6 k136r5s1 p2x0",
        "n1c8h4w4 k8r4s4 p5",
    ],
)  # fmt: skip
def test_windows(text, pass_):
    right(f"conv2d.{pass_} {text} f16 nhwc", kinds=["normal"])


@pytest.mark.parametrize(
    "text", ["n2c16h11w14 k24r3s3 u2 p1", "n2c8h17w19 k16r5s4 u3x4 p2x0 d1x2", "n1c8h9w9 k8r1s1 u2"]
)
def test_steps_of_windows(text):
    right(f"conv2d.forward {text} bf16 nhwc", kinds=["normal"])


@pytest.mark.parametrize("order", ORDERS)
def test_phases_across_rows_and_images(order):
    """More tiles than blocks, of four phases that meet one, two and four filter positions."""
    right("conv2d.grad_input n3c72h17w13 k72r3s3 u2 p1 bf16 nhwc", orders=[order])


@pytest.mark.parametrize(
    "text",
    [
        "n2c16h9w8 k24r1s1 u2",  # three phases of four meet no filter position
        "n2c16h12w10 k16r2s2 u2", "n1c24h13w11 k8r5s3 u2x1 p2x1", "n1c8h13w11 k16r5s3 u1x2 p2x1",
        "n2c8h17w19 k16r5s4 u3x2 p2x0 d1x2", "n1c8h12w13 k16r3s3 u3 p2 d2", "n1c8h12w13 k16r3s3 u2 p2 d2",
        "n1c8h6w7 k8r3s3 u2 p3", "n1c136h7w9 k8r3s3 u3 p1",
        "n2c8h1w9 k8r1s3 u3x2 p0x1", "n2c8h2w1 k8r3s1 u3 p1x0",  # sizes below the stride
        "n0c8h6w7 k8r3s3 u2 p1",
    ],
)  # fmt: skip
def test_phases(text):
    right(f"conv2d.grad_input {text} f16 nhwc", kinds=["normal"])


def test_phases_of_one_dimension():
    right("conv1d.grad_input n3c16w70 k24s5 u2 p2 d3 bf16 nhwc", kinds=["normal"])
    right("conv1d.grad_input n2c8w41 k8s11 u9 p4 bf16 nhwc", kinds=["normal"])


def test_windows_of_a_phase_reach_as_far_as_its_own_filter_positions():
    right("conv1d.grad_input n1c8w500 k8s3 u2 d126 bf16 nhwc", kinds=["normal"])


def test_phases_with_epilogue_and_wide_pixels():
    right("conv2d.grad_input n2c20h7w9 k20r3s3 u2 p1 f16 nhwc/1512/24>nhwc/640/32 res=nhwc/2016/32 bias+residual+relu")


@pytest.mark.parametrize("steps", ["", "u2"])
@pytest.mark.parametrize("pass_", GATHERS)
def test_tf32(pass_, steps):
    right(f"conv2d.{pass_} n2c36h8w9 k20r3s3 {steps} p1 f32 nhwc", "wgmma/tf32", kinds=["normal"])


@pytest.mark.parametrize("pass_", GATHERS)
def test_one_dimension(pass_):
    right(f"conv1d.{pass_} n3c16w70 k24s5 p2 d2 bf16 nhwc", kinds=["normal"])


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    "text",
    ["n3c72h9w11 k72r3s3 p1", "n2c16h7w10 k136r2s3 p0x1 u2x1", "n1c8h12w13 k16r3s3 p2x3 d2x3", "n5c24h5w5 k8r1s1"],
)
def test_grad_weight(text, order):
    """Several positions of the filter to a tile, parts of the positions, rows that begin within a step."""
    right(f"conv2d.grad_weight {text} bf16 nhwc", orders=[order])


def test_grad_weight_within_the_workspace():
    """As many parts as fit; the weight in either layout; one dimension."""
    for limit in (0, 2 * 8 * 9 * 64 * 4, 2**28):
        right("conv2d.grad_weight n4c24h9w9 k8r3s3 p1 f16 nhwc w=nhwc", kinds=["normal"], workspace_limit=limit)
    right("conv1d.grad_weight n3c16w70 k24s5 p2 d2 f16 nhwc", kinds=["normal"])


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    "text",
    [
        "n3c72h9w11 k72r3s3 p1",  # several tiles, of rows and columns that they do not fill
        "n2c16h7w10 k136r2s3 p0x1 u2x1", "n1c5h12w13 k9r3s3 p2x3 d2x3", "n5c3h11w9 k24r7s5 u2 p3", "n1c1h5w5 k1r1s1",
    ],
)  # fmt: skip
def test_grad_weight_of_tf32(text, order):
    """Transposed on the way: any number of channels, positions that begin and end within a step."""
    right(f"conv2d.grad_weight {text} f32 nhwc", "wgmma/tf32", orders=[order])


def test_grad_weight_of_tf32_wherever_tensors_lie():
    """Within the workspace, in either layout, off alignment, of wider pixels, beyond what im2col copies reach."""
    for limit in (0, 2 * 8 * 216 * 4, 2**28):
        right(
            "conv2d.grad_weight n4c24h9w9 k8r3s3 p1 f32 nhwc w=nhwc",
            "wgmma/tf32",
            kinds=["normal"],
            workspace_limit=limit,
        )
    right("conv1d.grad_weight n3c15w70 k23s5 p2 d2 f32 nhwc", "wgmma/tf32", kinds=["normal"], offset=1)
    right("conv2d.grad_weight n2c23h6w7 k15r3s3 p1 f32 nhwc/1218/29>nhwc/714/17", "wgmma/tf32", kinds=["normal"])
    right("conv1d.grad_weight n1c8w999 k8s3 u9 p150 d130 f32 nhwc", "wgmma/tf32", kinds=["normal"])
    right("conv2d.grad_weight n1c200h5w5 k9r1s1 f32 nhwc", "wgmma/tf32", kinds=["nonfinite"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_layers_of_16_bits_reach_these_kernels(dtype):
    """In every pass, without a copy of what is nhwc already."""
    x = torch.randn(2, 24, 6, 7, dtype=dtype).contiguous(memory_format=torch.channels_last).requires_grad_()
    w = torch.randn(32, 24, 3, 3, dtype=dtype, requires_grad=True)
    with use(backend="cuda"), registry.record() as calls:
        y = functional.conv2d(x, w, padding=1)
        y.backward(torch.ones_like(y).contiguous(memory_format=torch.channels_last))
    ran = {call.choice.problem.pass_: call.choice.kernel.algorithm for call in calls}
    assert ran == dict.fromkeys(PASSES, "wgmma") and y.is_contiguous(memory_format=torch.channels_last)
    expected = torch.nn.functional.conv2d(x.double(), w.double(), padding=1)
    assert (y - expected).abs().max() <= 2**-6 * expected.abs().max()


def test_residual_and_wide_pixels():
    """Pixels that are parts of wider ones."""
    right("conv2d.forward n2c24h6w7 k16r3s3 p1 f16 nhwc/1344/32>nhwc/1008/24 res=nhwc bias+residual+relu")


@pytest.mark.full
@pytest.mark.parametrize("channels", [128, 256])
def test_wider_tiles(channels):
    right(f"conv2d.forward n2c8h91w92 k{channels}r1s1 bf16 nhwc")
    right(f"conv2d.grad_input n2c{channels}h91w92 k8r1s1 u2 bf16 nhwc")


def test_addresses_off_alignment():
    for pass_ in PASSES:
        for steps in ("", "u2"):
            right(f"conv2d.{pass_} n2c16h7w7 k8r3s3 {steps} p1 bf16 nhwc", offset=1)


# ------------------------------------------------------------------------------------------------ what is refused


def reason(text: str) -> str | None:
    problem = parse(f"{text} cpu")
    named = [k for k in registry.kernels(problem.op, problem.pass_) if k.full_algorithm == "wgmma"]
    return named[0].supports(problem)


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("conv2d.forward n1c8h9w9 k8r3s3 bf16", "input (layout nchw, 8 channels): wgmma takes nhwc"),
        ("conv2d.forward n1c3h9w9 k8r3s3 bf16 nhwc", "input (layout nhwc, 3 channels): wgmma takes nhwc"),
        ("conv2d.forward n1c8h9w9 k12r3s3 bf16 nhwc", "output (layout nhwc, 12 channels): wgmma takes nhwc"),
        ("conv2d.forward n1c16h9w9 k16r3s3 g2 bf16 nhwc", "groups 2: wgmma is for one"),
        ("conv2d.grad_input n1c8h9w9 k8r3s3 u4x3 bf16 nhwc", "stride 4x3: wgmma computes 9 phases at most, not 12"),
        ("conv1d.grad_input n1c8w999 k8s3 u2 d130 bf16 nhwc", "filter 3, stride 2, padding 0, dilation 130: wgmma's"),
        ("conv2d.forward n1c8h99w99 k8r3s3 u9 bf16 nhwc", "filter 3, stride 9, padding 0, dilation 1: wgmma's windows"),
        ("conv1d.forward n1c8w999 k8s3 d130 bf16 nhwc", "filter 3, stride 1, padding 0, dilation 130: wgmma's windows"),
        ("conv1d.forward n1c8w99 k8s3 p129 bf16 nhwc", "filter 3, stride 1, padding 129, dilation 1: wgmma's windows"),
    ],
)  # fmt: skip
def test_refused_in_words(text, start):
    answer = reason(text)
    assert answer is not None and answer.startswith(start)


@pytest.mark.parametrize(("capability", "refused"), [((8, 0), True), ((9, 0), False), ((10, 0), True)])
def test_on_hopper_alone(monkeypatch, capability, refused):
    monkeypatch.setenv("PYCV_CUDA_HOST", "0")
    monkeypatch.setattr(cuda, "unusable", lambda: None)
    monkeypatch.setattr(cuda, "capability", lambda: capability)
    monkeypatch.setattr(cuda, "_cuda", SimpleNamespace(architectures="7.5;8.0+PTX;9.0a", kernels=tuple))
    answer = kernels(parse_as_it_is("conv2d.forward n1c8h9w9 k8r3s3 f16 nhwc cuda"), "wgmma")
    assert len(answer) == (not refused)
