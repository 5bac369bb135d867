"""A forward pass, watched: what part of the input each tensor depends on, and how many multiply-accumulates it took.

Every torch function that the model calls is seen (a TorchFunctionMode), so that branches, sums, concatenations and
functional calls need nothing from the model. A convolution or pooling widens the receptive field by its window; joined
paths see what either sees; what works element by element, or only moves elements, leaves it as it is; global pooling,
fully connected layers and attention see the whole input. Of anything else the receptive field is unknown, and said to
be. Nothing here needs the values: a trace on the meta device costs microseconds per call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from math import prod
from typing import Any, Literal

from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from .arithmetic import ReceptiveField

WHOLE: Literal["whole"] = "whole"
# Per spatial axis; WHOLE: every element may depend on the whole input; None: not known.
Field = tuple[ReceptiveField, ...] | Literal["whole"] | None

_CONV = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_MAX_POOL = ("input", "kernel_size", "stride", "padding", "dilation")
_AVG_POOL = ("input", "kernel_size", "stride", "padding")
_LP_POOL = ("input", "norm_type", "kernel_size", "stride")
_ADAPTIVE_POOL = ("input", "output_size")
_REDUCTION = ("input", "dim")
_PAD = ("input", "pad")
_LAYER_NORM = ("input", "normalized_shape")
_ATTENTION = ("query", "key", "value", "embed_dim_to_check")

_MOVING = (
    "flatten", "unflatten", "reshape", "view", "permute", "transpose", "movedim", "swapaxes", "squeeze", "unsqueeze",
    "chunk", "split", "tensor_split", "unbind", "contiguous", "clone", "expand", "to", "channel_shuffle",
)  # fmt: skip


class Trace(TorchFunctionMode):
    """Watches what is computed from ``x`` (N, C, *spatial) inside a ``with`` block.

    ``macs`` counts the multiply-accumulates of convolutions, linear layers and the projections of attention so far.
    """

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.macs = 0
        self._fields = WeakIdKeyDictionary()
        self._fields[x] = (ReceptiveField(),) * max(0, x.dim() - 2)

    def field(self, tensor: Tensor) -> Field:
        """What one element of a tensor sees of ``x``; None of a tensor that was not computed from it."""
        return self._fields.get(tensor)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = getattr(func, "__name__", "").strip("_")
        sources = [tensor for tensor in tensors((args, kwargs)) if tensor in self._fields]
        changed = list(tensors(args[0] if name == "setitem" else result))
        if sources and changed:
            rule, parameters = _rule_of(name)
            arguments = dict(zip(parameters, args, strict=False)) | kwargs
            self.macs += _macs(name, arguments, changed[0])
            fields = [self._fields[tensor] for tensor in sources]
            field = rule(_Call(reduce(_union, fields), len(sources), sources[0], changed[0], arguments))
            for tensor in changed:
                self._fields[tensor] = field
        return result


class _Call:
    """One call as a rule sees it: the joint field of its inputs, the first input and output, arguments by name."""

    def __init__(self, field: Field, sources: int, x: Tensor, y: Tensor, arguments: dict[str, Any]) -> None:
        self.field, self.sources, self.x, self.y, self.arguments = field, sources, x, y, arguments
        self.axes = len(field) if isinstance(field, tuple) else 0

    def per_axis(self, name: str, default: Any) -> tuple:
        """An argument that is one number or one per spatial axis."""
        value = self.arguments.get(name)
        value = default if value is None or value == [] or value == () else value
        values = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
        return values * self.axes if len(values) == 1 else values


# ------------------------------------------------------------------------------------------------------- rules


def _conv(call: _Call) -> Field:
    return _windows(call, tuple(call.arguments["weight"].shape[2:]), 1)


def _pool(call: _Call) -> Field:
    kernel = call.per_axis("kernel_size", 1)
    return _windows(call, kernel, kernel)


def _windows(call: _Call, kernel: tuple[int, ...], stride: int | tuple[int, ...]) -> Field:
    if not isinstance(call.field, tuple) or len(kernel) != call.axes:
        return None if isinstance(call.field, tuple) else call.field
    dilation = call.per_axis("dilation", 1)
    padding: Sequence[int] = call.per_axis("padding", 0)
    if padding[:1] == ("same",):
        padding = [d * (k - 1) // 2 for d, k in zip(dilation, kernel, strict=True)]
    elif padding[:1] == ("valid",):
        padding = [0] * call.axes
    windows = zip(kernel, call.per_axis("stride", stride), padding, dilation, strict=True)
    return tuple(axis.through(*window) for axis, window in zip(call.field, windows, strict=True))


def _adaptive_pool(call: _Call) -> Field:
    """Windows of one size where the sizes divide, as always where there is one output per axis."""
    before, after = tuple(call.x.shape[-call.axes :]), tuple(call.y.shape[-call.axes :])
    if all(size == 1 for size in call.y.shape[2:]):
        return WHOLE
    if not isinstance(call.field, tuple):
        return call.field
    if any(not out or size % out for size, out in zip(before, after, strict=True)):
        return None
    steps = [size // out for size, out in zip(before, after, strict=True)]
    return tuple(axis.through(step, step) for axis, step in zip(call.field, steps, strict=True))


def _linear(call: _Call) -> Field:
    """Fully connected to every position, or, of more axes than (N, C), to the channels along the last one."""
    return WHOLE if call.x.dim() <= 2 else call.field


def _matmul(call: _Call) -> Field:
    """Two tensors that both come from the input: each of one's positions looks at all of the other's."""
    return WHOLE if call.sources > 1 else _linear(call)


def _reduction(call: _Call) -> Field:
    over = call.arguments.get("dim")
    over = [over] if isinstance(over, int) else over
    channels = over is not None and all(axis in (1, 1 - call.x.dim()) for axis in over)
    return call.field if channels or call.x.shape == call.y.shape else WHOLE


def _pad(call: _Call) -> Field:
    """``pad`` counts from the last axis; a positive one moves the first output to before the input."""
    if not isinstance(call.field, tuple):
        return call.field
    lower = list(call.arguments["pad"])[::2]
    lower = (lower + [0] * call.axes)[: call.axes][::-1]
    moved = zip(call.field, lower, strict=True)
    return tuple(ReceptiveField(axis.size, axis.jump, axis.start - pad * axis.jump) for axis, pad in moved)


def _slices(call: _Call) -> Field:
    """Of an image every so many positions, from a first one on; any other index keeps the positions, or who knows."""
    index = call.arguments["index"]
    index = index if isinstance(index, tuple) else (index,)
    slices = [one for one in index if isinstance(one, slice)]
    if not isinstance(call.field, tuple) or call.x.dim() != 2 + call.axes or len(slices) < len(index):
        return _other(call)
    slices += [slice(None)] * (call.x.dim() - len(slices))
    spans = [one.indices(size) for one, size in zip(slices, call.x.shape, strict=True)][2:]
    moved = zip(call.field, spans, strict=True)
    return tuple(
        ReceptiveField(axis.size, axis.jump * step, axis.start + first * axis.jump) for axis, (first, _, step) in moved
    )


def _layer_norm(call: _Call) -> Field:
    return call.field if len(call.arguments["normalized_shape"]) == 1 else WHOLE


def _moving(call: _Call) -> Field:
    return call.field


def _whole(call: _Call) -> Field:
    return WHOLE


def _other(call: _Call) -> Field:
    """Whatever keeps the positions works at each of them: activations, sums, concatenation of channels, softmax."""
    if not isinstance(call.field, tuple):
        return call.field
    image = call.x.dim() == 2 + call.axes
    return call.field if not image or call.x.shape[2:] == call.y.shape[2:] else None


_RULES: dict[str, tuple[Callable[[_Call], Field], tuple[str, ...]]] = {
    **{f"conv{rank}d": (_conv, _CONV) for rank in (1, 2, 3)},
    **{f"conv_transpose{rank}d": (lambda call: None, _CONV) for rank in (1, 2, 3)},
    **{f"max_pool{rank}d{tail}": (_pool, _MAX_POOL) for rank in (1, 2, 3) for tail in ("", "_with_indices")},
    **{f"avg_pool{rank}d": (_pool, _AVG_POOL) for rank in (1, 2, 3)},
    **{f"lp_pool{rank}d": (_pool, _LP_POOL) for rank in (1, 2, 3)},
    **{
        f"adaptive_{kind}_pool{rank}d{tail}": (_adaptive_pool, _ADAPTIVE_POOL)
        for kind in ("avg", "max")
        for rank in (1, 2, 3)
        for tail in ("", "_with_indices")
    },
    **{name: (_reduction, _REDUCTION) for name in ("mean", "sum", "amax", "amin", "max", "min", "prod", "std", "var")},
    **{name: (_matmul, ("input",)) for name in ("matmul", "bmm", "mm", "einsum", "baddbmm", "addmm")},
    **{name: (_whole, ("input",)) for name in ("group_norm", "instance_norm", "scaled_dot_product_attention")},
    **{name: (_moving, ("input",)) for name in _MOVING},
    "multi_head_attention_forward": (_whole, _ATTENTION),
    "linear": (_linear, ("input", "weight")),
    "layer_norm": (_layer_norm, _LAYER_NORM),
    "pad": (_pad, _PAD),
    "getitem": (_slices, ("input", "index")),
}


def _rule_of(name: str) -> tuple[Callable[[_Call], Field], tuple[str, ...]]:
    return _RULES.get(name, (_other, ("input",)))


def _union(first: Field, second: Field) -> Field:
    if first is None or second is None:
        return None
    if isinstance(first, str) or isinstance(second, str) or len(first) != len(second):
        return WHOLE
    try:
        return tuple(a.union(b) for a, b in zip(first, second, strict=True))
    except ValueError:  # they move by different steps
        return None


def _macs(name: str, arguments: dict[str, Any], y: Tensor) -> int:
    """A convolution and a linear layer gather every output, a transposed convolution spreads every input."""
    if name == "multi_head_attention_forward":  # the four projections, all to and from the width of the embedding
        elements = [arguments[tensor].numel() for tensor in ("query", "key", "value", "query")]
        return sum(elements) * arguments["embed_dim_to_check"]
    if not name.startswith(("conv", "linear")) or "weight" not in arguments:
        return 0
    weight = arguments["weight"]
    return (arguments["input"] if "transpose" in name else y).numel() * prod(weight.shape[1:])


def tensors(value: Any) -> Iterator[Tensor]:
    """Those in nested tuples, lists and dicts."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from tensors(tuple(value.values()))
    elif isinstance(value, (tuple, list)):
        for element in value:
            yield from tensors(element)
