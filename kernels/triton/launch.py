"""Launches of kernels on addresses: what a plan keeps of a kernel, and what runs it.

Triton takes tensors, or anything that has an address and a dtype. Its interpreter takes tensors only, and one launch at
a time.
"""

from __future__ import annotations

import ctypes
import struct
import threading
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple

import torch
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from . import interpreted

DTYPES = {
    "f32": torch.float32, "f64": torch.float64, "f16": torch.float16, "bf16": torch.bfloat16, "i64": torch.int64,
}  # fmt: skip
_interpreting = threading.Lock()


def sum_type(dtype: str) -> Any:
    """What sums of a dtype are kept in, in Triton's words."""
    return tl.float64 if dtype == "f64" else tl.float32


def sum_dtype(dtype: str) -> str:
    return "f64" if dtype == "f64" else "f32"


def bits(value: float) -> int:
    """Those of a double, as :func:`language.number` takes them."""
    return struct.unpack("q", struct.pack("d", value))[0]


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def power_of_2(value: int, low: int = 1, high: int = 2**30) -> int:
    """The next one, within bounds that are powers of 2 themselves."""
    return min(high, max(low, 1 << max(0, value - 1).bit_length()))


class _Address:
    """What Triton's launcher asks of a tensor."""

    __slots__ = ("_address", "dtype")

    def __init__(self, address: int, dtype: torch.dtype) -> None:
        self._address, self.dtype = address, dtype

    def data_ptr(self) -> int:
        return self._address


_EMPTY = -1
_nothing = ctypes.create_string_buffer(64)


def present(address: int) -> int:
    """The address of an operand that is always there: torch gives 0 for an empty one, of which nothing is read."""
    return address or _EMPTY


def _pointer(address: int, dtype: str) -> Any:
    if not address:
        return None
    kind = DTYPES[dtype]
    if address == _EMPTY:
        address = ctypes.addressof(_nothing) if interpreted() else 0
    if not interpreted():
        return _Address(address, kind)
    return torch.frombuffer((ctypes.c_char * kind.itemsize).from_address(address), dtype=kind, count=1)


class Block(NamedTuple):
    """A matrix that is read block by block through a tensor descriptor: rows of contiguous elements."""

    dtype: str
    shape: tuple[int, int]
    row: int  # how many elements lie between rows
    block: tuple[int, int]

    def descriptor(self, address: int) -> Any:
        shape, block = list(self.shape), list(self.block)
        return TensorDescriptor(_pointer(address, self.dtype), shape, [self.row, 1], block)


def _argument(address: int, kind: str | Block) -> Any:
    return kind.descriptor(address) if isinstance(kind, Block) else _pointer(address, kind)


class Launch:
    """A kernel with its grid and all arguments but addresses. Called with an address by the name of each pointer: 0
    where there is none."""

    def __init__(self, kernel: Any, programs: int, pointers: Mapping[str, str | Block], **arguments: Any) -> None:
        """``pointers``: their dtypes (or blocks) by name. ``arguments``: numbers and compile-time constants of the
        kernel, and Triton's own, num_warps and num_stages."""
        self._kernel, self._grid = kernel, (programs,)
        self._pointers, self._arguments = pointers, arguments

    def __call__(self, numbers: dict[str, Any] | None = None, /, **addresses: int) -> None:
        """``numbers`` replace those that the launch was made with."""
        if self._grid[0] == 0:
            return
        arguments = self._arguments | (numbers or {})
        for name, kind in self._pointers.items():
            arguments[name] = _argument(addresses.get(name, 0), kind)
        if interpreted():
            with _interpreting:
                self._kernel[self._grid](**arguments)
        else:
            with _device_of(next((address for address in addresses.values() if address > 0), 0)):
                self._kernel[self._grid](**arguments)

    def compiled(self, absent: frozenset[str] | set[str] = frozenset(), numbers: dict[str, Any] | None = None) -> Any:
        """The kernel as it is compiled for aligned addresses, all but the ``absent`` ones, and for ``numbers`` as in a
        call, on the device that Triton's driver names."""
        pointers = {name: _argument(0 if name in absent else 4096, kind) for name, kind in self._pointers.items()}
        return self._kernel.run(**self._arguments | (numbers or {}), **pointers, grid=self._grid, warmup=True)


# ------------------------------------------------------------------------------------------------------ devices


class _device_of:
    """The device of an address, made current for a block. Nothing is asked or set where there is only one."""

    __slots__ = ("_address", "_guard")

    def __init__(self, address: int) -> None:
        self._address = address
        self._guard: Any = None

    def __enter__(self) -> None:
        if _device_count() > 1 and self._address:
            self._guard = torch.cuda.device(_ordinal()(self._address))
            self._guard.__enter__()

    def __exit__(self, *exception) -> None:
        if self._guard is not None:
            self._guard.__exit__(*exception)


@cache
def _device_count() -> int:
    return torch.cuda.device_count()


@cache
def _ordinal() -> Callable[[int], int]:
    """What tells the device of an address: the driver."""
    driver = ctypes.CDLL("libcuda.so.1")
    device_ordinal = 9  # CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL

    def ordinal(address: int) -> int:
        found = ctypes.c_int(-1)
        status = driver.cuPointerGetAttribute(ctypes.byref(found), device_ordinal, ctypes.c_uint64(address))
        return found.value if status == 0 else torch.cuda.current_device()

    return ordinal
