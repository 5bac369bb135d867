"""Workspace: nobody shares it while it is held, it comes back, and not too much of it stays."""

import threading
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

import pycv
from pycv import functional
from pycv.ops import _workspace
from pycv.ops._workspace import ALIGNMENT, IDLE_BYTES, SCRATCH_BYTES, workspace

from ..backend import for_cpu

pytestmark = for_cpu
LARGE = SCRATCH_BYTES + 1
X = torch.empty(0)


@pytest.fixture(autouse=True)
def nothing_idle():
    _workspace._idle.clear()
    yield
    _workspace._idle.clear()


def idle_bytes():
    return sum(memory.nbytes for memory in _workspace._idle)


@pytest.mark.parametrize("size", [0, 1, SCRATCH_BYTES, LARGE, 10**7 + 3])
def test_aligned_and_large_enough(size):
    for _ in range(3):
        holder, address = workspace(size, X)
        memory = getattr(holder, "memory", holder)
        assert address % ALIGNMENT == 0
        assert memory.data_ptr() <= address and address + size <= memory.data_ptr() + memory.nbytes
        del holder, memory


def test_what_is_held_is_nobody_elses():
    held = [workspace(LARGE + i, X) for i in range(4)]
    starts = sorted(address for _, address in held)
    assert all(second - first >= LARGE for first, second in pairwise(starts))


def test_the_same_memory_again():
    holder, address = workspace(3 * LARGE, X)
    del holder
    for size in (LARGE, 3 * LARGE, 2 * LARGE):
        holder, again = workspace(size, X)
        assert again == address
        del holder


def test_what_is_too_small_gives_way():
    holder, _ = workspace(LARGE, X)
    del holder
    holder, _ = workspace(2 * LARGE, X)
    assert not _workspace._idle
    del holder
    assert 2 * LARGE <= idle_bytes() < 3 * LARGE


def test_bounded():
    """Virtual memory only: nothing is written."""
    holders = [workspace(IDLE_BYTES // 3, X)[0] for _ in range(5)]
    assert idle_bytes() == 0
    while holders:
        del holders[0]
        assert idle_bytes() <= IDLE_BYTES
    assert len(_workspace._idle) == 2
    holder, _ = workspace(IDLE_BYTES + 1, X)
    assert len(_workspace._idle) == 2  # no use for them there
    del holder
    assert idle_bytes() <= IDLE_BYTES and len(_workspace._idle) == 2


def test_comes_back_after_an_error():
    def fails():
        _holder, _ = workspace(LARGE, X)
        raise ValueError

    with pytest.raises(ValueError):
        fails()
    assert len(_workspace._idle) == 1


def test_threads():
    """Each writes its own mark all over what it got and finds nothing else there."""
    wrong = []

    def use(mark: int) -> None:
        for i in range(200):
            holder, _ = workspace(LARGE + 1000 * (i % 7), X)
            holder.memory.fill_(mark)
            if not (holder.memory == mark).all():
                wrong.append(mark)
            del holder

    threads = [threading.Thread(target=use, args=(mark,)) for mark in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert 1 <= len(_workspace._idle) <= 4


def test_convolutions_share_it():
    """Two problems with weights prepared on each call, one after the other in the same memory, full of NaN at first."""
    cases = [(torch.randn(1, 40, 20, 20), torch.randn(48, 40, r, r)) for r in (3, 7, 5)]
    memory = torch.full((2**24,), torch.nan)
    _workspace._idle.append(memory.view(torch.uint8))
    for _ in range(2):
        for x, w in cases:
            with pycv.use(backend="cpu", algorithm="fft"):
                y = functional.conv2d(x, w)
            torch.testing.assert_close(y.double(), F.conv2d(x.double(), w.double()), atol=2e-3, rtol=1e-3)
            assert [idle.data_ptr() for idle in _workspace._idle] == [memory.data_ptr()]
