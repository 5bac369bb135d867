"""Kernels that have the choice among tiles: what they offer for a problem, and what runs then."""

from __future__ import annotations

import numpy as np
import pytest

from pycv.kernels import cuda

from .. import draw, raw
from ..backend import parse
from .execution import kernels


def kernel_of(text: str, algorithm: str):
    """A kernel; where this GPU has it not, nothing to test."""
    found = kernels(parse(text), algorithm)
    if not found:
        pytest.skip(f"{algorithm}: not on this GPU")
    return found[0]


def offered(text: str, algorithm: str) -> list[str]:
    return [kernel.tile for kernel in kernel_of(text, algorithm).in_tiles(parse(text))]


def ran_in(text: str, algorithm: str, count: int) -> list[set[str]]:
    """The functions, shapes of tiles among their names, that run by the rule and in the tiles offered, the first few of
    these."""
    kernel, problem, host = kernel_of(text, algorithm), parse(text), cuda.host_module()
    assert host is not None
    arrays, scalars = draw.data(problem, "integers", np.random.default_rng(0))
    ran = []
    for each in (kernel, *kernel.in_tiles(problem))[:count]:
        host.launched()
        raw.run(problem, each, arrays, scalars, offset=0)
        ran.append(set(host.launched()))
    return ran
