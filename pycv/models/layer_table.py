"""The table of a network that lectures show: output size, activation memory, parameters, MACs and receptive field.

The model runs once on the meta device, where tensors have shapes and no values: nothing is computed, and neither the
model nor its parameters change.

How activations are counted: the input, and the output of every layer that makes new values, each once, as a forward
pass without recycling keeps them. A layer that works in place, passes on what it was given, or pools windows of one
element (VGG's adaptive pooling at 224×224) adds nothing. So VGG-16's ReLUs, which are in place, share the memory of
their convolutions, and its total for one image is 15,237,608 values. What is made between layers (sums out of place,
concatenations) belongs to no layer and is not counted; gradients and workspaces are not either.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .trace import Field, Trace, tensors


@dataclass(frozen=True)
class Row:
    """One layer each time it ran, for the whole batch; parameters where they were first used."""

    name: str
    kind: str  # its class
    window: str  # "3×3/2": filter or pooling window, stride; "" if it has none
    output: tuple[int, ...]  # without the batch
    values: int  # of activation memory
    bytes: int
    parameters: int
    macs: int
    field: Field  # of one output: per axis, WHOLE, or None where it is not known

    @property
    def sees(self) -> str:
        """The size of the receptive field: "7", "7×1" where the axes differ, "whole", or "?"."""
        if not isinstance(self.field, tuple):
            return self.field or "?"
        sizes = [axis.size for axis in self.field]
        return _times(sizes[:1] if len(set(sizes)) == 1 else sizes)


class Summary(list[Row]):
    """The layers in the order in which they ran, the input first; ``str(...)`` is the table.

    The table leaves out layers that add neither activations nor parameters nor MACs: activations in place, dropout.
    """

    def __init__(self, rows: Sequence[Row], batch: int, unused: dict[str, int]) -> None:
        super().__init__(rows)
        self.batch = batch
        self.unused = unused  # parameters of the layers that did not run: auxiliary heads in eval mode

    @property
    def totals(self) -> dict[str, int]:
        """Of the batch; ``parameters`` includes those of layers that did not run."""
        columns = ("values", "bytes", "parameters", "macs")
        totals = {column: sum(getattr(row, column) for row in self) for column in columns}
        totals["parameters"] += sum(self.unused.values())
        return totals

    def to_json(self) -> dict[str, Any]:
        """Plain types: ``batch``, ``layers``, ``unused``, ``totals``."""
        return {
            "batch": self.batch,
            "layers": [_plain(row) for row in self],
            "unused": self.unused,
            "totals": self.totals,
        }

    def __str__(self) -> str:
        header = ("layer", "kind", "output", "values", "MB", "parameters", "MACs", "sees")
        rows = [row for row in self if row.values or row.parameters or row.macs]
        lines = [header, *(_cells(row) for row in rows)]
        lines.append(("total", "", "", *_numbers(*self.totals.values()), ""))
        widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
        text = ["  ".join(_aligned(line, widths)).rstrip() for line in lines]
        rule = "-" * max(map(len, text))
        table = [text[0], rule, *text[1:-1], rule, text[-1]]
        if self.unused:
            names = ", ".join(f"{name} ({count:,} parameters)" for name, count in self.unused.items())
            table.append(f"did not run, in the total of the parameters: {names}")
        return "\n".join(table)

    __repr__ = __str__


def summary(model: nn.Module, input_size: int | Sequence[int], batch: int = 1) -> Summary:
    """What each layer of a model does to inputs of this size, in eval mode.

    A layer is a module without children, attention, or a module with parameters of its own whose children have none.

    Parameters
    ----------
    model : any module that takes one tensor and runs on the meta device; it is left as it was.
    input_size : channels, height and width, without the batch; or the side of a square colour image.
    batch : how many of them.

    Raises
    ------
    ValueError
        If a size is not positive.
    """
    size = (3, input_size, input_size) if isinstance(input_size, int) else tuple(input_size)
    if batch < 1 or not size or min(size) < 1:
        raise ValueError(f"input_size={size}, batch={batch}: expected positive sizes")
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.get_default_dtype())
    x = torch.empty(batch, *size, dtype=dtype, device="meta")
    trace = Trace(x)
    rows = [Row("input", "", "", size, x.numel(), x.numel() * x.element_size(), 0, 0, trace.field(x))]
    recorder = _Recorder(model, trace, rows)
    with _as_it_was(model), recorder.hooked(), torch.no_grad():
        model.eval()
        on_meta = {name: t.to("meta") for name, t in (*model.named_parameters(), *model.named_buffers())}
        with trace:
            torch.func.functional_call(model, on_meta, (x,))
    return Summary(rows, batch, recorder.unused())


class _Recorder:
    """Hooks on the layers of a model, which append a row each time one has run."""

    def __init__(self, model: nn.Module, trace: Trace, rows: list[Row]) -> None:
        self.model, self.trace, self.rows = model, trace, rows
        self.layers = dict(_layers(model))
        # Of shared parameters, by identity: functional_call replaces them while the model runs.
        self.parameters = {name: {id(p): p.numel() for p in m.parameters()} for name, m in self.layers.items()}
        self.counted: set[int] = set()
        self.macs_before: dict[str, int] = {}
        self.rows_before: dict[str, int] = {}

    @contextmanager
    def hooked(self) -> Iterator[None]:
        handles = []
        for name, layer in self.layers.items():
            handles.append(layer.register_forward_pre_hook(self._before(name)))
            handles.append(layer.register_forward_hook(self._after(name), with_kwargs=True))
        for name, module in self.model.named_modules():
            if name not in self.layers and not any(module is layer for layer in self.layers.values()):
                self.parameters[name] = {id(p): p.numel() for p in module.parameters(recurse=False)}
                handles.append(module.register_forward_pre_hook(self._before(name)))
                handles.append(module.register_forward_hook(self._beside(name)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def unused(self) -> dict[str, int]:
        """Parameters that no row has, by the module below the root that holds them."""
        left: dict[str, int] = {}
        for name, parameters in self.parameters.items():
            new = {key: count for key, count in parameters.items() if key not in self.counted}
            self.counted |= set(new)
            if new:
                root = name.partition(".")[0]
                left[root] = left.get(root, 0) + sum(new.values())
        return left

    def _before(self, name: str):
        def hook(module: nn.Module, args: tuple) -> None:
            self.macs_before[name], self.rows_before[name] = self.trace.macs, len(self.rows)

        return hook

    def _after(self, name: str):
        def hook(module: nn.Module, args: tuple, kwargs: dict, result: Any) -> None:
            with torch._C.DisableTorchFunction():
                given, made = list(tensors((args, kwargs))), list(tensors(result))
                new = [] if _passes_on(module, given, made) else [y for y in made if not _shares_memory(y, given)]
                values, size = sum(y.numel() for y in new), sum(y.numel() * y.element_size() for y in new)
                output = tuple(made[0].shape[1:]) if made else ()
                macs = self.trace.macs - self.macs_before[name]
                field = self.trace.field(made[0]) if made else None
                kind = type(module).__name__
                row = (name or "(model)", kind, _window(module), output, values, size, self._new(name), macs, field)
                self.rows.append(Row(*row))

        return hook

    def _beside(self, name: str):
        """A row for what a module does with parameters of its own, beside its layers: projections, ViT's positions."""

        def hook(module: nn.Module, args: tuple, result: Any) -> None:
            before, rows = self.macs_before[name], self.rows_before[name]
            macs = self.trace.macs - before - sum(row.macs for row in self.rows[rows:])
            parameters = self._new(name)
            if parameters or macs:
                made = next(tensors(result), None)
                output, field = ((), None) if made is None else (tuple(made.shape[1:]), self.trace.field(made))
                kind = type(module).__name__
                self.rows.append(Row(name or "(model)", kind, "", output, 0, 0, parameters, macs, field))

        return hook

    def _new(self, name: str) -> int:
        """The number of its parameters that no row has yet."""
        new = {key: count for key, count in self.parameters[name].items() if key not in self.counted}
        self.counted |= set(new)
        return sum(new.values())


def _layers(module: nn.Module, prefix: str = "", seen: set[nn.Module] | None = None) -> Iterator[tuple[str, nn.Module]]:
    seen = set() if seen is None else seen
    if module in seen:
        return
    seen.add(module)
    children = list(module.named_children())
    whole = module._parameters and not any(True for _, child in children for _ in child.parameters())
    if not children or whole or isinstance(module, nn.MultiheadAttention):
        yield prefix, module
        return
    for name, child in children:
        yield from _layers(child, f"{prefix}.{name}" if prefix else name, seen)


def _passes_on(module: nn.Module, given: list[Tensor], made: list[Tensor]) -> bool:
    """Pooling of windows of one element."""
    adaptive = type(module).__name__.startswith("Adaptive")
    return adaptive and bool(given and made) and given[0].shape == made[0].shape


def _shares_memory(y: Tensor, given: list[Tensor]) -> bool:
    return any(y.untyped_storage()._cdata == x.untyped_storage()._cdata for x in given)


@contextmanager
def _as_it_was(model: nn.Module) -> Iterator[None]:
    """Whatever happens inside, every module is in its mode again afterwards."""
    training = {module: module.training for module in model.modules()}
    try:
        yield
    finally:
        for module, mode in training.items():
            module.training = mode


# ------------------------------------------------------------------------------------------------------- text


def _window(module: nn.Module) -> str:
    """ "3×3", with a stride "3×3/2", and what else of a convolution differs from the default."""
    kernel = getattr(module, "kernel_size", None)
    if kernel is None:
        return ""
    rank = int(type(module).__name__[-2]) if type(module).__name__[-2:-1].isdigit() else 2
    each = {name: _per_axis(getattr(module, name, 1), rank) for name in ("kernel_size", "stride", "dilation")}
    text = _times(each["kernel_size"])
    if set(each["stride"]) != {1}:
        text += "/" + _times(each["stride"][:1] if len(set(each["stride"])) == 1 else each["stride"])
    if set(each["dilation"]) != {1}:
        text += f" d{_times(each['dilation'][:1])}"
    groups = getattr(module, "groups", 1)
    return text if groups == 1 else f"{text} g{groups}"


def _per_axis(value: Any, rank: int) -> tuple[int, ...]:
    return (value,) * rank if isinstance(value, int) else tuple(value)


def _times(sizes: Sequence[int]) -> str:
    return "×".join(map(str, sizes))


def _cells(row: Row) -> tuple[str, ...]:
    numbers = _numbers(row.values, row.bytes, row.parameters, row.macs)
    return (row.name, f"{row.kind} {row.window}".strip(), _times(row.output), *numbers, row.sees)


def _numbers(values: int, size: int, parameters: int, macs: int) -> tuple[str, ...]:
    exact = [f"{number:,}" if number else "" for number in (values, parameters, macs)]
    return exact[0], f"{size / 1e6:.2f}" if size else "", exact[1], exact[2]


def _aligned(line: Sequence[str], widths: Sequence[int]) -> list[str]:
    """Words to the left, numbers to the right."""
    return [
        cell.ljust(width) if column < 3 else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(line, widths, strict=True))
    ]


def _plain(row: Row) -> dict[str, Any]:
    field: Any = row.field
    if isinstance(field, tuple):
        field = [{"size": axis.size, "jump": axis.jump, "start": axis.start} for axis in field]
    return {
        "name": row.name, "kind": row.kind, "window": row.window, "output": list(row.output), "values": row.values,
        "bytes": row.bytes, "parameters": row.parameters, "macs": row.macs, "receptive_field": field,
    }  # fmt: skip
