"""Tests of the Numba kernels beyond the op tests, which ``PYCV_TEST_BACKEND=numba pytest tests/ops`` runs on them."""
