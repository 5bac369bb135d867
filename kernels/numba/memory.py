"""Tensors as flat NumPy arrays over the addresses that a plan is run with, and where their elements lie."""

from __future__ import annotations

import ctypes
from math import prod
from typing import Any

import numpy as np

from pycv.problem import Layout, Sizes

DTYPES: dict[str, Any] = {"f32": np.float32, "f64": np.float64, "i64": np.int64, "uint8": np.uint8}


def spatial(values: Sizes, fill: int) -> Sizes:
    """One, two or three axes as (depth, height, width)."""
    return (fill,) * (3 - len(values)) + tuple(values)


def strides_of(layout: Layout, c: int, size: Sizes) -> Sizes:
    """Those of (n, c, depth, height, width), in elements: 0 along an axis that the problem does not have."""
    n, channel, *axes = layout.strides(c, size)
    return (n, channel, *spatial(tuple(axes), 0))


def is_row(size: Sizes, strides: Sizes) -> bool:
    """Whether the positions of an image follow each other, the last stride apart."""
    return all(
        e == 1 or s == strides[-1] * prod(size[i + 1 :]) for i, (e, s) in enumerate(zip(size, strides, strict=True))
    )


def extent(shape: Sizes, strides: Sizes) -> int:
    """How many elements lie from the first to the last of a tensor."""
    return 0 if 0 in shape else 1 + sum((e - 1) * s for e, s in zip(shape, strides, strict=True))


class View:
    """Makes an array of ``count`` elements out of an address; out of 0 an array of none. Nothing is copied."""

    __slots__ = ("_count", "_dtype", "_empty", "_memory")

    def __init__(self, count: int, dtype: str) -> None:
        self._dtype = np.dtype(DTYPES[dtype])
        self._count = (count,)
        self._memory = ctypes.c_char * (count * self._dtype.itemsize)
        self._empty = np.empty(0, self._dtype)

    def __call__(self, address: int = 0) -> np.ndarray:
        if not address:
            return self._empty
        return np.ndarray(self._count, self._dtype, self._memory.from_address(address))
