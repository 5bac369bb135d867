"""The problem sets of networks, written from the models: ``python -m pycv.bench.layers [--check] [MODEL...]``.

One forward pass in eval mode on the meta device, where nothing is computed, is watched by a TorchFunctionMode; every
convolution, pooling, normalisation, product and ReLU becomes a problem, named after its layer. Equal problems are one,
with a count. batch_norm appears as training runs it: at inference it is folded away. The images are of the model's own
size.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import chain, count
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .. import models
from ..problem import ConvProblem, GemmProblem, Matrix, NormProblem, PointwiseProblem, PoolProblem, Problem
from .problems import SETS, Case

BATCHES = {"lenet5": 64, "resnet50": 8}  # of what the demo and the README measure; 1 of all others


def cases(name: str, batch: int | None = None) -> dict[Case, int]:
    """The distinct layers of a model in the order in which they run, and how often each occurs.

    Raises ValueError for a model that does not exist.
    """
    channels, *size = models.image_shape(name)
    with torch.device("meta"):
        model, x = models.create(name).eval(), torch.empty(batch or BATCHES.get(name, 1), channels, *size)
    with torch.no_grad(), _Watch(model) as watch:
        model(x)
    counts: dict[Problem, int] = {}
    names: dict[Problem, str] = {}
    for layer, problem in watch.found:
        counts[problem] = counts.get(problem, 0) + 1
        names.setdefault(problem, layer)
    taken: set[str] = set()
    found = {}
    for problem, layer in names.items():
        own = next(name for name in _numbered(layer) if name not in taken)
        taken.add(own)
        found[Case(own, problem)] = counts[problem]
    return found


def _numbered(name: str) -> Iterator[str]:
    """A layer that ran on several sizes: relu, relu_2, relu_3."""
    return chain([name], (f"{name}_{number}" for number in count(2)))


def text(name: str) -> str:
    """The problem set of a model, as its file has it."""
    found = cases(name)
    images = f"batch {BATCHES.get(name, 1)}, {'x'.join(map(str, models.image_shape(name)[1:]))} images"
    lines = [
        f"# Every distinct layer of {name}, {images}; in brackets how often it runs.",
        "# Written from the model by `python -m pycv.bench.layers`.",
    ]
    widest = max((len(case.name) for case in found), default=0) + 1
    left = [f"{case.name + ':':<{widest}} {case.problem}" for case in found]
    width = max(map(len, left), default=0)
    lines += [f"{line:<{width}}  # ({times})" for line, times in zip(left, found.values(), strict=True)]
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------------------------------------------- watching


class _Watch(TorchFunctionMode):
    """``found``: the name of the layer and the problem of every call that pycv has kernels for, while it is active."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.found: list[tuple[str, Problem]] = []
        self._model = model
        self._inside: list[tuple[str, bool]] = []  # module path, and whether it has no modules within

    def __enter__(self):
        self._hooks = ExitStack()
        for path, module in self._model.named_modules():
            leaf = next(module.children(), None) is None
            enter, leave = self._pair((path, leaf))
            self._hooks.callback(module.register_forward_pre_hook(enter).remove)
            self._hooks.callback(module.register_forward_hook(leave).remove)
        return super().__enter__()

    def __exit__(self, *error) -> None:
        self._hooks.close()
        super().__exit__(*error)

    def _pair(self, place: tuple[str, bool]) -> tuple[Callable, Callable]:
        def enter(*_):
            self._inside.append(place)

        def leave(*_):
            self._inside.pop()

        return enter, leave

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "").rstrip("_")
        if name in _PROBLEMS:
            parameters, make = _PROBLEMS[name]
            output = result[0] if isinstance(result, tuple) else result
            problem = make(name, dict(zip(parameters, args, strict=False)) | (kwargs or {}), output)
            if problem is not None:
                path, leaf = self._inside[-1]
                self.found.append((path if leaf else f"{path}.{name}".lstrip("."), problem))
        return result


def _axes(value: Any, rank: int) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, Sequence) else (value,)
    return tuple(int(v) for v in values) * (rank if len(values) == 1 else 1)


def _conv(op: str, arguments: dict[str, Any], y: Tensor) -> ConvProblem:
    x, weight, rank = arguments["input"], arguments["weight"], int(op[-2])
    stride, padding, dilation = (
        _axes(arguments.get(name, default), rank) for name, default in (("stride", 1), ("padding", 0), ("dilation", 1))
    )
    return ConvProblem(
        op, "forward", x.shape[0], x.shape[1], tuple(x.shape[2:]), y.shape[1], tuple(weight.shape[2:]),
        tuple(y.shape[2:]), stride, padding, dilation, arguments.get("groups", 1),
        epilogue=("bias",) if arguments.get("bias") is not None else (),
    )  # fmt: skip


def _linear(op: str, arguments: dict[str, Any], y: Tensor) -> GemmProblem:
    outputs, inputs = arguments["weight"].shape
    bias = arguments.get("bias") is not None
    rows = arguments["input"].numel() // inputs
    return GemmProblem(rows, outputs, inputs, b=Matrix("col"), epilogue=("bias",) if bias else ())


def _pool(op: str, arguments: dict[str, Any], y: Tensor) -> PoolProblem | None:
    x, rank = arguments["input"], int(op[-2])
    if x.dim() != rank + 2:
        return None
    if op.startswith("adaptive"):
        return PoolProblem(op, "forward", x.shape[0], x.shape[1], tuple(x.shape[2:]), tuple(y.shape[2:]))
    filter = _axes(arguments["kernel_size"], rank)
    stride = _axes(arguments.get("stride") or filter, rank)
    padding, dilation = (
        _axes(arguments.get(name, default), rank) for name, default in (("padding", 0), ("dilation", 1))
    )
    return PoolProblem(
        op, "forward", x.shape[0], x.shape[1], tuple(x.shape[2:]), tuple(y.shape[2:]),
        filter, stride, padding, dilation,
        indices="int64" if arguments.get("return_indices", False) else "",
        count_include_pad=arguments.get("count_include_pad", True),
        divisor=arguments.get("divisor_override") or 0,
    )  # fmt: skip


def _norm(op: str, arguments: dict[str, Any], y: Tensor) -> NormProblem | None:
    n, c, *size = arguments["input"].shape
    window = arguments["size"] if op == "local_response_norm" else 0
    training = op == "batch_norm" and y.numel() > c  # of one value per channel there is no variance
    return NormProblem(op, "forward", n, c, tuple(size), training=training, window=window)


def _relu(op: str, arguments: dict[str, Any], y: Tensor) -> PointwiseProblem:
    return PointwiseProblem("relu", "forward", y.numel())


_CONV = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_MAX_POOL = ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
_AVG_POOL = ("input", "kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
_Rule = tuple[tuple[str, ...], Callable[[str, dict[str, Any], Tensor], Problem | None]]
_PROBLEMS: dict[str, _Rule] = {
    **{f"conv{rank}d": (_CONV, _conv) for rank in (1, 2, 3)},
    **{f"max_pool{rank}d": (_MAX_POOL, _pool) for rank in (1, 2, 3)},
    **{f"avg_pool{rank}d": (_AVG_POOL, _pool) for rank in (1, 2, 3)},
    **{f"adaptive_{kind}_pool{rank}d": (("input",), _pool) for kind in ("avg", "max") for rank in (1, 2, 3)},
    "batch_norm": (("input",), _norm),
    "local_response_norm": (("input", "size"), _norm),
    "linear": (("input", "weight", "bias"), _linear),
    "relu": (("input",), _relu),
}


# ------------------------------------------------------------------------------------------------------- command


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the sets of these models (all of them if none is named); with --check only says which are not current."""
    parser = argparse.ArgumentParser("python -m pycv.bench.layers", description=main.__doc__)
    parser.add_argument("model", nargs="*", help="default: every model")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a file is not current")
    options = parser.parse_args(arguments)
    stale = []
    for name in options.model or models.list_models():
        path = SETS / f"{name}.txt"
        new = text(name)
        if path.exists() and path.read_text() == new:
            continue
        stale.append(name)
        if not options.check:
            path.write_text(new)
    print(f"{'not current' if options.check else 'written'}: {', '.join(stale) or 'none'}")
    return 1 if options.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
