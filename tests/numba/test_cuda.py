"""The CUDA teaching pieces in Numba's simulator, which one has to ask for before Numba is imported: in a process."""

import os
import subprocess
import sys

SETUP = """
import numpy as np, torch, torch.nn.functional as F
rng = np.random.default_rng(0)
def normal(*shape): return rng.standard_normal(shape).astype(np.float32)
def same(a, b): np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
"""

PIECES = {
    "relu": """
from pycv.kernels.numba.cuda_relu import launch
x = normal(70)
x[3] = np.nan
y = np.full_like(x, np.nan)
launch(x, y)
same(y, torch.relu(torch.from_numpy(x)))
""",
    "conv_direct": """
from pycv.kernels.numba.cuda_conv_direct import launch
for stride, padding, size in ((1, 1, 5), (2, 0, 7)):
    x, weight = normal(2, 2, size, size + 1), normal(3, 2, 3, 3)
    expected = F.conv2d(torch.from_numpy(x), torch.from_numpy(weight), None, stride, padding).numpy()
    y = np.full_like(expected, np.nan)
    launch(x, weight, y, stride, padding)
    same(y, expected)
""",
    "gemm_tiled": """
from pycv.kernels.numba.cuda_gemm_tiled import launch
for m, n, k in ((9, 7, 11), (8, 8, 8)):
    a, b, c = normal(m, k), normal(k, n), np.full((m, n), np.nan, np.float32)
    launch(a, b, c)
    same(c, a @ b)
""",
    "max_pool": """
from pycv.kernels.numba.cuda_max_pool import launch
x = rng.integers(-2, 3, (2, 5, 7)).astype(np.float32)
x[0, 2, 2], x[1] = np.nan, -np.inf
expected, where = F.max_pool2d(torch.from_numpy(x), 3, 2, 1, return_indices=True)
y, indices = np.full(expected.shape, 9, np.float32), np.full(expected.shape, -1)
launch(x, y, indices, 3, 2, 1)
same(y, expected)
np.testing.assert_array_equal(indices, where)
""",
}


def test_the_pieces():
    """One process for all: importing takes longer than they do."""
    code = SETUP + "".join(f"print({piece!r}, flush=True){PIECES[piece]}" for piece in PIECES)
    environment = os.environ | {"NUMBA_ENABLE_CUDASIM": "1"}
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0 and result.stdout.split() == list(PIECES), result.stdout + result.stderr
