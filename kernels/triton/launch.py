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
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from . import interpreted

DTYPES = {
    "f32": torch.float32, "f64": torch.float64, "f16": torch.float16, "bf16": torch.bfloat16, "i64": torch.int64,
    "uint8": torch.uint8,
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


def _seen(address: int) -> int:
    """All that compiled code depends on of a pointer: whether there is one, and whether it is a multiple of 16."""
    return 0 if not address else 1 if address == _EMPTY or address % 16 == 0 else 2


_NONE: Mapping[str, int] = MappingProxyType({})


class Launch:
    """A kernel with its grid and all arguments but addresses. Called with an address by the name of each pointer: 0
    where there is none.

    The first launch is Triton's: it looks at every argument, compiles, and says what it compiled. That is kept; later
    launches fill in addresses and go there directly, in a quarter of the host's time or less.
    """

    def __init__(self, kernel: Any, programs: int, pointers: Mapping[str, str | Block], **arguments: Any) -> None:
        """``pointers``: their dtypes (or blocks) by name. ``arguments``: numbers and compile-time constants of the
        kernel, and Triton's own, num_warps and num_stages."""
        self._kernel, self._grid = kernel, (programs,)
        self._pointers, self._arguments = pointers, arguments
        self._places = {name: place for place, name in enumerate(kernel.arg_names)}
        self._values = [arguments.get(name) for name in self._places]
        self._ready: dict[tuple[int, ...], Callable[..., None]] = {}

    def __call__(self, numbers: Mapping[str, int] = _NONE, /, **addresses: int) -> None:
        """``numbers`` replace those that the launch was made with: compile-time constants if they are bools, else what
        Triton does not specialise on (do_not_specialize), below 2**31 unless declared to be wide."""
        if self._grid[0] == 0:
            return
        if interpreted():
            with _interpreting:
                self._kernel[self._grid](**self._named(numbers, addresses))
            return
        with _device_of(next((address for address in addresses.values() if address > 0), 0)) as device:
            constants = [number for number in numbers.values() if isinstance(number, bool)]
            key = (device, *constants, *[_seen(addresses.get(name, 0)) for name in self._pointers])
            ready = self._ready.get(key)
            if ready is None:
                compiled = self._kernel[self._grid](**self._named(numbers, addresses))
                self._ready[key] = compiled[(*self._grid, 1, 1)]
            else:
                ready(*self._ordered(numbers, addresses))

    def _named(self, numbers: Mapping[str, int], addresses: Mapping[str, int]) -> dict[str, Any]:
        """The arguments as Triton takes them to find out what to compile."""
        pointers = {name: _argument(addresses.get(name, 0), kind) for name, kind in self._pointers.items()}
        return {**self._arguments, **numbers, **pointers}

    def _ordered(self, numbers: Mapping[str, int], addresses: Mapping[str, int]) -> list[Any]:
        """The arguments as a compiled kernel takes them."""
        values, places = self._values.copy(), self._places
        for name, number in numbers.items():
            values[places[name]] = number
        for name, address in addresses.items():
            kind = self._pointers[name]
            if isinstance(kind, Block):
                values[places[name]] = kind.descriptor(address)
            elif address:
                values[places[name]] = 0 if address == _EMPTY else address
        return values

    def compiled(self, absent: frozenset[str] | set[str] = frozenset(), numbers: Mapping[str, int] = _NONE) -> Any:
        """The kernel as it is compiled for aligned addresses, all but the ``absent`` ones, and for ``numbers`` as in a
        call, on the device that Triton's driver names."""
        arguments = self._named(numbers, dict.fromkeys(self._pointers.keys() - absent, 4096))
        return self._kernel.run(**arguments, grid=self._grid, warmup=True)


# ------------------------------------------------------------------------------------------------------ devices


class _device_of:
    """The device of an address, made current for a block; 0 where there is only one: nothing is asked or set."""

    __slots__ = ("_address", "_guard")

    def __init__(self, address: int) -> None:
        self._address = address
        self._guard: Any = None

    def __enter__(self) -> int:
        if _device_count() <= 1:
            return 0
        device = _ordinal()(self._address) if self._address else torch.cuda.current_device()
        self._guard = torch.cuda.device(device)
        self._guard.__enter__()
        return device

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
