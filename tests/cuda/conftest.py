import pytest
import torch

from pycv.kernels import cuda

from ..backend import BY_HOST, DEVICE


@pytest.fixture(autouse=True)
def _on_host(monkeypatch):
    """Without a GPU, the entries of the CUDA kernels take CPU tensors. The reference computes on one thread: its arrays
    are tiny."""
    if DEVICE == "cpu":
        monkeypatch.setenv("PYCV_CUDA_HOST", "1")
    host, threads = cuda.host_module() if BY_HOST else None, torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    if host is not None:
        host.configure("forward", "lazy")
