"""Prepared weights: what a kernel packs or transforms a weight into, kept by the layer between inference calls.

A layer keeps a prepared weight only in eval mode, with grad mode off, for a plain leaf ``Parameter`` on the CPU or a
GPU. An entry is valid while the weight is the same object, at the same address, with the same ``_version``, shape and
strides, for the same plan; the entry holds the weight's storage, so that its address cannot be given to another tensor
meanwhile.

On a GPU an entry also belongs to the stream that prepared it: another one might run ahead of it. While a CUDA graph is
captured nothing is kept and nothing that was kept is used: the graph prepares the weight on every replay, so that it
follows a weight that changes in place. The benchmark, whose weights do not change, asks for the opposite
(:func:`used_by_graphs`).

Writes that torch does not count (through ``p.data``, a NumPy view, another tensor on the same memory) leave all of
that as it was. They are looked for in the weight's bytes: all of them up to ``FULL_CHECK_BYTES``, beyond that
``SAMPLES`` elements spread evenly over output channels, input channels and filter taps. What this guarantees:

- a write that torch counts, a swap of ``p.data`` and a replaced parameter are always noticed;
- an uncounted write to a weight of at most ``FULL_CHECK_BYTES`` bytes is always noticed;
- an uncounted write that changes every element of a larger weight (``mul_``, ``copy_``, an EMA swap) is noticed;
- an uncounted write that changes a part of a larger weight can be missed: call :func:`pycv.invalidate` after it;
- an uncounted write to a weight on a GPU is missed, since looking would wait for the device: the same.

``train()``, ``to()`` and whatever else goes through ``_apply``, ``load_state_dict``, pickle and deepcopy drop all
entries. Inference tensors have no ``_version``; for them nothing is kept.
"""

from __future__ import annotations

import ctypes
import math
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import Parameter

from .. import settings
from ..registry import Choice
from . import enable
from .tracing import Scriptable

_function_modes = torch._C._len_torch_function_stack
_is_compiling = torch.compiler.is_compiling
_is_grad_enabled = torch.is_grad_enabled

FULL_CHECK_BYTES = 4096
SAMPLES = 32
MAX_PLANS = 4  # a layer keeps this many plans' weights: inputs of a few sizes, not of every size

_stores: weakref.WeakSet[PreparedWeights] = weakref.WeakSet()
_lock = threading.Lock()


_used_by_graphs = False


@contextmanager
def used_by_graphs() -> Iterator[None]:
    """Graphs that are captured meanwhile, in whatever thread, use what is kept. They are right for as long as it is:
    the weight must not change, and its layer must not drop it."""
    global _used_by_graphs
    _used_by_graphs = True
    try:
        yield
    finally:
        _used_by_graphs = False


def kept_bytes() -> int:
    """Bytes of prepared weights that all layers of the process keep; ``weight_cache_limit`` bounds them."""
    with _lock:
        return _kept_bytes()


def _kept_bytes() -> int:
    return sum(store.nbytes for store in _stores)


class PreparedWeights:
    """The prepared weights of one layer, by plan. Reading takes no lock; any thread may clear at any time."""

    def __init__(self) -> None:
        self._entries: dict[int, _Entry] = {}

    @property
    def nbytes(self) -> int:
        return sum(entry.buffer.numel() for entry in tuple(self._entries.values()))

    def get(self, weight: Tensor, choice: Choice) -> Tensor | None:
        """The prepared ``weight`` for ``choice.plan`` as uint8, or None if it must not or cannot be kept."""
        entry = self._entries.get(id(choice))
        if entry is not None and entry.valid(weight):
            return None if weight.is_cuda and _is_capturing() and not _used_by_graphs else entry.buffer
        if choice.plan.prepared_weight_bytes == 0 or not _keepable(weight):
            return None
        return self._keep(weight, choice)

    def clear(self) -> None:
        self._entries = {}

    def _keep(self, weight: Tensor, choice: Choice) -> Tensor | None:
        size = choice.plan.prepared_weight_bytes
        with _lock:
            current = {key: entry for key, entry in self._entries.items() if key != id(choice) and entry.valid(weight)}
            while len(current) >= MAX_PLANS:
                del current[next(iter(current))]
            self._entries = current
            _stores.add(self)
            if _kept_bytes() + size > settings.current().weight_cache_limit:
                return None
            entry = _Entry(weight, choice)
            self._entries = {**current, id(choice): entry}
        return entry.buffer

    def __deepcopy__(self, memo: dict) -> PreparedWeights:
        return PreparedWeights()

    def __reduce__(self):
        return PreparedWeights, ()


def _keepable(weight: Tensor) -> bool:
    return (
        type(weight) is Parameter
        and weight.is_leaf
        and (weight.is_cpu or (weight.is_cuda and not _is_capturing()))
        and not weight.is_inference()
        and weight.numel() > 0
        and (weight.is_contiguous() or torch.ops.aten.is_non_overlapping_and_dense(weight))
    )


def _is_capturing() -> bool:
    return torch.cuda.is_current_stream_capturing()


def _stream_of(weight: Tensor) -> int | None:
    """The stream on which kernels run now that read a weight; None on the CPU."""
    return torch._C._cuda_getCurrentRawStream(weight.device.index) if weight.is_cuda else None


class _Entry:
    """One prepared weight and what it was made from. Holds the choice: its id is the key and must not be reused."""

    __slots__ = ("address", "buffer", "choice", "sample", "shape", "storage", "stream", "strides", "version",
                 "watched", "weight")  # fmt: skip

    def __init__(self, weight: Tensor, choice: Choice):
        self.choice = choice
        self.weight = weight  # itself: another one might get the id of a dead one, and a weakref forbids swap_tensors
        self.version = weight._version
        self.shape, self.strides = weight.shape, weight.stride()
        self.storage = weight.untyped_storage()
        self.address = weight.data_ptr()
        self.stream = _stream_of(weight)
        self.watched = _watched_elements(weight)
        self.sample = self.watched.tobytes()  # before preparing: a write meanwhile must not look like the old state
        self.buffer = torch.empty(choice.plan.prepared_weight_bytes, dtype=torch.uint8, device=weight.device)
        choice.plan.prepare_weight(self.address, self.buffer.data_ptr())

    def valid(self, weight: Tensor) -> bool:
        """The weight is the one this was made from, as far as can be seen. Only a live address is read."""
        return (
            weight is self.weight
            and weight.data_ptr() == self.address
            and weight._version == self.version
            and weight.shape == self.shape
            and weight.stride() == self.strides
            and (self.stream is None or self.stream == _stream_of(weight))
            and self.watched.tobytes() == self.sample
        )


def _watched_elements(weight: Tensor) -> np.ndarray:
    """The elements whose bytes are compared, as a view of the weight's memory; none of it where that is a GPU's.

    A NumPy array made by torch would mark the storage as not resizable for ever; this one takes the bare address.
    """
    count, itemsize = weight.numel(), weight.element_size()
    if weight.is_cuda:
        return np.empty(0, np.uint8)
    memory = (ctypes.c_ubyte * (count * itemsize)).from_address(weight.data_ptr())
    elements = np.frombuffer(memoryview(memory), dtype=np.dtype(f"u{itemsize}"))
    if elements.nbytes <= FULL_CHECK_BYTES:
        return elements
    return elements[:: _sample_step(count, count // weight.shape[0])]


def _sample_step(count: int, row: int) -> int:
    """A step that takes about SAMPLES elements, or up to three times as many, out of rows of ``row`` elements.

    From one row to the next it moves on by the golden section of a row, and it is prime to the number of elements,
    hence to every extent: so the samples walk through all channels and taps instead of meeting the same ones each time.
    """
    step = count // SAMPLES
    if step > row:
        step -= step % row + int(0.382 * row)
    while math.gcd(step, count) != 1:
        step -= 1
    return step


class WeightedLayer(Scriptable):
    """What layers with a prepared weight add to their torch.nn class: holding it, and dropping it in time."""

    _prepared_weights: PreparedWeights | None = None

    def _run(self, op: Callable[..., Tensor], *arguments: Any) -> Tensor:
        """op(*arguments), with the prepared weights where they may be kept.

        Inference under ``pycv.enable()`` takes the mode off: on the way through torch's function they would be lost.
        """
        if self.training or _is_grad_enabled() or _is_compiling():
            return op(*arguments)
        if _function_modes() and enable.on_top():
            with enable.suspended():
                return self._run(op, *arguments)
        store = self._prepared_weights
        if store is None:
            store = self.__dict__.setdefault("_prepared_weights", PreparedWeights())
        return op(*arguments, prepared=store)

    def _drop_prepared_weights(self) -> None:
        self.__dict__.pop("_prepared_weights", None)

    def train(self, mode: bool = True):
        if mode:
            self._drop_prepared_weights()
        return super().train(mode)

    def _apply(self, fn, recurse=True):
        self._drop_prepared_weights()
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, *arguments, **keywords):
        self._drop_prepared_weights()
        return super()._load_from_state_dict(*arguments, **keywords)

    def __getstate__(self):
        state = super().__getstate__()
        state.pop("_prepared_weights", None)
        return state


def invalidate(model: torch.nn.Module) -> None:
    """Drop every prepared weight of a model's layers.

    Needed only after a write that neither torch nor the sampled comparison can see: one that changes a few elements of
    a large weight through ``p.data``, a NumPy view or another tensor on the same memory. Raises TypeError if ``model``
    is not a torch.nn.Module.
    """
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model={type(model).__name__!r}: expected a torch.nn.Module")
    for module in model.modules():
        if isinstance(module, WeightedLayer):
            module._drop_prepared_weights()
