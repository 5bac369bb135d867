"""Whose kernels the op tests force: the CPU's, or with PYCV_CUDA_HOST=1 the CUDA ones, executed by the CPU."""

from pycv.kernels import cuda

BACKEND = "cuda" if cuda.on_host() else "cpu"
