"""Whose kernels the op tests force: the CPU's, those that PYCV_TEST_BACKEND names (``numba``, or ``triton`` with
TRITON_INTERPRET=1), or with PYCV_CUDA_HOST=1 the CUDA ones, executed by the CPU."""

import os

from pycv.kernels import cuda

BACKEND = "cuda" if cuda.on_host() else os.environ.get("PYCV_TEST_BACKEND", "cpu")
FOR_GPUS = BACKEND in ("cuda", "triton")  # written for GPUs: they take the storage types of 16 bits, too
