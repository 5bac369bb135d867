"""The Fourier transforms of Triton: how axes are cut, how much workspace that takes, how far a NaN spreads."""

from itertools import product

import pytest
import torch

from pycv.problem import parse

from . import ahead
from .test_backend import in_a_new_process

PASSES = ("forward", "grad_input", "grad_weight")


@pytest.mark.parametrize("pass_", PASSES)
def test_little_workspace(pass_):
    for text in ("n4c32h40w40 k48r7s7 p3 f32", "n1c16h30w31 k8r9s9 g4 f64", "n2c3h90w5 k64r5s5 p2 f32 nhwc"):
        problem = parse(f"conv2d.{pass_} {text} cpu")
        (kernel,) = ahead.kernels(problem, "fft")
        for limit in (2**21, 2**23):
            assert kernel.plan(problem, 1, limit).workspace_bytes <= limit


def test_what_windows_read():
    from pycv.kernels.triton.conv_fft_plans import _Axis

    for size, filter, stride, padding, dilation in product((1, 2, 7), (1, 2, 4), (1, 2, 3), (0, 1, 5), (1, 2)):
        for out in (0, 1, 3, 6):
            met = [
                (i, o)
                for o in range(out)
                for r in range(filter)
                if 0 <= (i := o * stride - padding + r * dilation) < size
            ]
            read, windows = zip(*met, strict=True) if met else ((-1,), (-1,))
            expected = (min(read), max(read) + 1, min(windows), max(windows) + 1) if met else (0, 0, 0, 0)
            axis = _Axis("forward", 16, size, filter, out, stride, padding, dilation)
            assert axis.in_use() == expected, (size, filter, stride, padding, dilation, out)


def test_plans_do_not_follow_torchs_default_device():
    problem = parse("conv2d.forward n1c2h9w9 k3r3s3 p1 f32 nchw cpu")
    (kernel,) = ahead.kernels(problem, "fft")
    with torch.device("meta"):
        kernel.plan(problem, 1, 2**28)


@pytest.mark.full
@pytest.mark.parametrize("text", ["conv2d.forward n2c2h9w70 k2r3s5 p1 f32 relu", "conv1d.forward n2c2w700 k2s9 f32"])
def test_non_finite_values_stay_in_their_tiles(text):
    in_a_new_process(
        "import numpy as np, pycv\n"
        "from pycv.kernels import reference\n"
        "from pycv.problem import parse\n"
        "from tests import raw\n"
        "from tests.cpu.test_winograd import arrays_of\n"
        "from tests.triton.ahead import kernels\n"
        f"problem = parse({text + ' nchw cpu'!r})\n"
        "(kernel,) = kernels(problem, 'fft')\n"
        "for value in (np.inf, -np.inf, np.nan):\n"
        "    arrays = arrays_of(problem, seed=0)\n"
        "    arrays['input'][0, 1, ..., 3] = value\n"
        "    finite = np.isfinite(raw.run(problem, kernel, arrays, {})['output'])\n"
        "    direct = np.isfinite(reference.run(problem, arrays)['output'])\n"
        "    assert not finite[~direct].any()\n"
        "    assert finite[1].all() and finite[0, ..., -9:].all()\n",
        TRITON_INTERPRET="1",
    )
