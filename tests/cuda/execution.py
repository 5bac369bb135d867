"""Runs problems on the CUDA kernels of this process and compares them with the reference.

The texts of the tests say cpu: PYCV_TEST_DEVICE=cuda runs them on the GPU, once where the host has several orders.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from itertools import product

import numpy as np
import pytest
import torch

from pycv import registry
from pycv.kernels import Kernel, cuda
from pycv.problem import Problem

from .. import compare, draw, raw
from ..backend import BY_HOST, parse

# In which threads run between two waits, and when asynchronous copies happen: lazy in order, else eager, unless said.
ORDERS = ("forward", "reverse") if BY_HOST else ("the device's",)
ALL_ORDERS = [" ".join(each) for each in product(("forward", "reverse", "random:1"), ("eager", "lazy"))]
ALL_ORDERS = ALL_ORDERS if BY_HOST else list(ORDERS)

on_hopper = pytest.mark.skipif(
    not BY_HOST and torch.cuda.get_device_capability() != (9, 0), reason="for GPUs of capability 9.0 alone"
)


def schedule(order: str, asynchronous: str = "lazy") -> None:
    """How the host executes kernels from now on. A device has its own mind."""
    if BY_HOST:
        cuda.host_module().configure(order, asynchronous)


def launched() -> set[str]:
    """The names of the __global__ functions that have run since this was last asked."""
    return {re.sub("<.*", "", name).rpartition("::")[2] for name in cuda.host_module().launched()}


def kernels(problem: Problem, algorithm: str | None = None) -> list[Kernel]:
    """The CUDA kernels that support a problem, or those of an algorithm, or the one of a variant of it."""
    entries = registry.kernels(problem.op, problem.pass_)
    named = [k for k in entries if k.backend == "cuda" and algorithm in (None, k.algorithm, k.full_algorithm)]
    return [kernel for kernel in named if kernel.supports(problem) is None]


def assert_right(
    text: str,
    algorithm: str | None = None,
    kinds: Iterable[str] = ("integers", "normal"),
    orders: Iterable[str] = ORDERS,
    workspace_limit: int = 2**28,
    offset: int = 0,
    seed: int = 0,
    tile: str = "",
    **scalars: float,
) -> None:
    """Runs a problem on the kernels that support it (at least one must), with every kind of data and thread order.

    Outputs start as NaN, tensors lie ``offset`` elements off an aligned address, between guards (tests/raw.py).
    ``tile``: of those that autotune may take, this one. ``scalars`` replace what is drawn for alpha and so on. Raises
    AssertionError naming the worst element.
    """
    problem = parse(text)
    chosen = kernels(problem, algorithm)
    if tile:
        chosen = [each for kernel in chosen for each in kernel.in_tiles(problem) if each.tile == tile]
    assert chosen, f"no CUDA kernel takes {text}{tile and f' in tiles of {tile}'}"
    for kind in kinds:
        rng = np.random.default_rng((seed, zlib.crc32(text.encode())))
        arrays, drawn = draw.data(problem, kind, rng)
        drawn |= {name: value for name, value in scalars.items() if name in drawn}
        exact = draw.is_exact(problem, kind)
        for kernel in chosen:
            for order in orders if BY_HOST else ORDERS:
                how, _, when = order.partition(" ")
                schedule(how, when or ("lazy" if how == "forward" else "eager"))
                computed = raw.run(problem, kernel, arrays, drawn, 1, workspace_limit, offset)
                read, numeric_class = compare.as_read(kernel, problem, arrays)
                strict = exact and numeric_class == "strict"
                compare.assert_close(problem, computed, read, strict, numeric_class, **drawn)
