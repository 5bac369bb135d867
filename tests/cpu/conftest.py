import pytest
import torch


@pytest.fixture(autouse=True, scope="module")
def _reference_on_one_thread():
    """The plans get their thread count as an argument; many tiny float64 operations are faster without a team."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
