"""The CUDA kernels by host execution: pycv._simt, compiled by tests/conftest.py, runs them on this CPU.

With PYCV_TEST_DEVICE=cuda they run on the GPU instead.
"""
