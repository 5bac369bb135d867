"""The Triton kernels against the reference, in Triton's interpreter: a few problems drawn by the seed; more of every
family in the full run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ..seed import SEED
from .test_backend import in_a_new_process

ROOT = Path(__file__).resolve().parents[2]
FAMILIES = [
    ("conv",),
    ("gemm", "relu"),
    ("max_pool", "adaptive_max_pool", "avg_pool", "adaptive_avg_pool"),
    ("batch_norm", "local_response_norm", "channel_sum"),
]

# One per kernel: small, with every edge.
CASES = {
    "relu": "relu.forward e2100 bf16 cpu",
    "relu_gradient": "relu.grad_input e70 f32 cpu",
    "gemm": "gemm.forward b2m37n35k19 f32 a=col b=row/37/800 out=any/2/80/3000 res=row cpu bias+residual+relu",
    "persistent": "gemm.forward m70n72k40 f16 b=col/48/3456 res=row cpu bias+residual",
    "persistent_columns": "gemm.forward m48n64k19 bf16 a=col cpu relu",
    "gemm_rounded": "gemm.forward m9n9k9000 bf16 cpu",
    "gemm_bf16": "gemm.forward m5n18k40 bf16 b=col cpu bias",
    "conv": "conv2d.forward n2c5h7w9 k18r3s2 u2x1 p1 d1x2 f32 nchw cpu bias+relu",
    "conv_nhwc": "conv2d.forward n1c33h6w5 k6r3s3 p1 f16 nhwc cpu residual res=nchw",
    "conv_strided": "conv2d.grad_input n1c6h8w9 k8r3s3 u2x3 p1 g2 f32 nchw cpu",
    "conv_volume": "conv3d.grad_weight n2c3d3h4w5 k4t2r3s2 u1x2x1 p1x1x0 f32 nhwc cpu",
    "conv_parts": "conv1d.grad_weight n3c4w120 k5s3 p1 f32 nchw cpu",
    "conv_images": "conv2d.grad_weight n5c4h7w9 k6r3s3 p1 g2 bf16 nhwc cpu",
    "conv_depthwise": "conv2d.grad_weight n2c6h5w7 k12r3s3 u2 p1 g6 f32 nhwc cpu",
    "conv_fft": "conv2d.forward n1c4h15w9 k6r5s3 u2 p2 g2 f32 nchw cpu bias+residual+relu res=nhwc",
    "conv_fft_strided": "conv2d.grad_input n1c2h18w9 k3r5s3 u3x2 p1 f64 nhwc cpu",
    "conv_fft_tiles": "conv2d.grad_weight n2c2h35w8 k4r7s2 p3x0 g2 f32 nchw cpu",
    "conv_fft_bf16": "conv2d.forward n2c3h15w9 k4r5s3 p2 bf16 nhwc cpu bias+relu",
    "conv_fft_f16_gradient": "conv2d.grad_weight n2c2h15w9 k4r5s3 u2 p2 f16 nchw cpu",
    "conv_fft_line": "conv1d.forward n1c2w300 k2s90 p40 f32 nchw cpu relu",
    "max_pool": "max_pool2d.forward n2c3h7w8 r3s3 u2 p1 f32 nchw cpu indices",
    "max_pool_gradient": "max_pool2d.grad_input n1c5h7w8 r3s2 u2x1 p1 d1x2 f32 nhwc cpu indices",
    "max_pool_offsets": "max_pool3d.forward n1c2d4h5w6 t2r3s2 u1x2x1 p1 f32 nhwc cpu offsets",
    "max_pool_offsets_gradient": "max_pool3d.grad_input n1c3d5h6w9 t2r3s2 u1x2x1 p1x1x0 d1x1x3 f32 nchw cpu offsets",
    "avg_pool": "avg_pool2d.forward n2c3h7w8 r3s3 u2 p1 f32 nchw cpu exclude_pad",
    "avg_pool_gradient": "avg_pool3d.grad_input n1c2d4h5w6 t2r3s3 u1x2x2 p1 f32 nchw cpu",
    "adaptive": "adaptive_avg_pool2d.forward n1c3h7w10 o3x4 f32 nhwc cpu",
    "adaptive_gradient": "adaptive_max_pool2d.grad_input n1c3h7w5 o3x6 f32 nchw cpu indices",
    "batch_norm": "batch_norm.forward n3c5h4w5 f32 nhwc cpu training+residual+relu res=nhwc",
    "batch_norm_parts": "batch_norm.forward n2c2h60w70 f32 nchw cpu training",
    "batch_norm_gradient": "batch_norm.grad_input n3c5h4w5 f32 nchw cpu training+relu",
    "local_response_norm": "local_response_norm.forward n2c9h3w4 l4 f32 nchw cpu",
    "local_response_norm_gradient": "local_response_norm.grad_input n2c9h3w4 l4 f32 nhwc cpu",
    "channel_sum": "channel_sum.forward n2c3h60w70 f32 nchw cpu",
    "channel_sum_channels": "channel_sum.forward n2c530h2w3 f32 nchw cpu",
}


# Channels that are multiplied by tiles, frequency by frequency.
SLOW_CASES = {"conv_fft_dense": "conv1d.forward n2c17w20 k5s7 p3 f32 nchw cpu"}


def interpret(*arguments):
    command = [sys.executable, "-W", "ignore", "-m", "tests.triton.interpreted", *arguments]
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr


def test_some_problems():
    """In one process: importing takes longer than most of them do."""
    interpret("--drawn", "4", list(CASES.values())[SEED % len(CASES)])


def test_powers_of_what_is_not_positive():
    """Bases of local_response_norm below 0 and of 0, where a kernel that goes by logarithms makes NaN: as torch's."""
    in_a_new_process(
        "import itertools, numpy as np, pycv\n"
        "from pycv.problem import parse\n"
        "from tests import compare, draw, raw\n"
        "from tests.triton.ahead import kernels\n"
        "rng = np.random.default_rng(0)\n"
        "for pass_, kind in itertools.product(('forward', 'grad_input'), ('normal', 'integers')):\n"
        "    problem = parse(f'local_response_norm.{pass_} n1c9h2w3 l5 f32 nchw cpu')\n"
        "    (kernel,) = kernels(problem, 'direct')\n"
        "    for alpha, beta, k in itertools.product((0.5, -4.7), (0.75, 1.0, 2.0, -1.0, 0.0), (1.0, 0.0)):\n"
        "        arrays, _ = draw.data(problem, kind, rng)\n"
        "        scalars = {'alpha': alpha, 'beta': beta, 'k': k}\n"
        "        compare.assert_close(problem, raw.run(problem, kernel, arrays, scalars), arrays, **scalars)\n",
        TRITON_INTERPRET="1",
    )


@pytest.mark.full
@pytest.mark.parametrize("ops", FAMILIES, ids="+".join)
def test_families(ops):
    interpret("--drawn", "60", "--op", *ops)


@pytest.mark.full
@pytest.mark.parametrize("name", CASES | SLOW_CASES)
def test_case(name):
    interpret((CASES | SLOW_CASES)[name])
