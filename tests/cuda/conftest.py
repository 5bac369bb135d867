import pytest
import torch

from pycv.kernels import cuda


@pytest.fixture(autouse=True)
def _on_host(monkeypatch):
    """The entries of the CUDA kernels take CPU tensors. The reference computes on one thread: its arrays are tiny."""
    monkeypatch.setenv("PYCV_CUDA_HOST", "1")
    host, threads = cuda.host_module(), torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    host.configure("forward", "lazy")
