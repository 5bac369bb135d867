"""Who takes part: a contender turns a problem and its data into a call to be timed.

A call is what a user of the library would get, allocation and dispatch included, so that a ratio is the ratio they
will see. ``forward``: the layer in eval mode without gradient (``nn.Conv2d``, ``nn.Linear``: pycv's prepare their
weight once) or, where there is no layer or an epilogue is fused, the function. ``grad_input`` and ``grad_weight``:
``torch.autograd.grad`` of the function's output with respect to that one tensor, its graph built once.

Every contender computes the same from the same values; ``torch:nchw`` and ``torch:nhwc`` lay the tensors out their way
beforehand, all others take the problem's layouts.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from types import ModuleType

import torch
from torch import Tensor

from .. import registry, settings
from ..problem import ConvProblem, GemmProblem, Layout, NormProblem, PointwiseProblem, PoolProblem, Problem, output_size
from .data import Data, arranged

Call = Callable[[], Tensor]


class Unavailable(Exception):
    """This contender cannot run this problem; the message says why. It is reported, not an error."""


@dataclass(frozen=True)
class Contender:
    """A name and ``prepare(problem, data)``, which returns the call to be timed or raises :class:`Unavailable`."""

    name: str
    prepare: Callable[[Problem, Data], Call]


DEFAULT = ("pycv", "torch:nchw", "torch:nhwc")


def names() -> list[str]:
    """All contenders: ``pycv`` (whatever it chooses), each of its kernels as ``backend:algorithm``, and torch."""
    kernels = {kernel.name: None for kernel in registry.kernels() if kernel.backend != "torch"}
    return ["pycv", *kernels, "torch:nchw", "torch:nhwc"]


def contender(name: str) -> Contender:
    """The contender of that name. Raises ValueError listing :func:`names` for an unknown one."""
    if name not in names():
        raise ValueError(f"contender {name!r}: expected one of {', '.join(names())}")
    backend, _, algorithm = name.partition(":")
    if backend == "torch":
        return Contender(name, partial(_torch, algorithm))
    return Contender(name, partial(_pycv, {"backend": backend, "algorithm": algorithm} if algorithm else {}))


def _torch(layout: str, problem: Problem, data: Data) -> Call:
    own = Layout(layout)
    if isinstance(problem, ConvProblem):
        residual = own if "residual" in problem.epilogue else None
        problem = replace(problem, input=own, output=own, weight=own, residual=residual)
    elif isinstance(problem, (PoolProblem, NormProblem)):
        problem = replace(problem, input=own, output=own)
    elif layout != "nchw":
        raise Unavailable(f"{problem.op} has no image layout: see torch:nchw")
    return call(torch.nn, torch.nn.functional, problem, arranged(problem, data))


def _pycv(chosen: dict[str, str], problem: Problem, data: Data) -> Call:
    from .. import functional, nn

    wanted = chosen.get("algorithm")
    if wanted and wanted not in registry.algorithms()[f"{problem.op}.{problem.pass_}"]:
        raise Unavailable(f"{problem.op}.{problem.pass_} has no algorithm {wanted}")
    with settings.use(**chosen):
        context = contextvars.copy_context()
    try:
        made = context.run(call, nn, functional, problem, arranged(problem, data))
        context.run(made)
    except registry.UnsupportedError as error:
        raise Unavailable(str(error)) from None
    return partial(context.run, made)


# -------------------------------------------------------------------------- one problem as a call of a library


def call(nn: ModuleType, functional: ModuleType, problem: Problem, data: Data) -> Call:
    """The call of a library (``torch.nn`` and ``torch.nn.functional``, or pycv's twins) that solves the problem."""
    if getattr(problem, "output", Layout()).outer:
        raise Unavailable("the functions allocate their output: they cannot write into a slice")
    forward = _FORWARD[type(problem)](nn, functional, problem, data)
    if problem.pass_ == "forward" or forward.solves_pass:
        return forward.run
    return _gradient(forward.run, data["input" if problem.pass_ == "grad_input" else "weight"], data["grad_output"])


def _gradient(forward: Call, target: Tensor, grad_output: Tensor) -> Call:
    target.requires_grad_()
    with torch.enable_grad():
        output = forward()
    if isinstance(output, tuple):  # pooling with indices
        output = output[0]
    if output.shape != grad_output.shape:
        raise Unavailable(f"the forward pass gives {tuple(output.shape)}, the problem says {tuple(grad_output.shape)}")
    return lambda: torch.autograd.grad(output, target, grad_output, retain_graph=True)[0]


@dataclass(frozen=True)
class _Forward:
    run: Callable
    solves_pass: bool = False  # it computes the problem's own pass, although that is not `forward`


def _conv(nn: ModuleType, functional: ModuleType, p: ConvProblem, data: Data) -> _Forward:
    x, weight, bias, residual = data["input"], data["weight"], data.get("bias"), data.get("residual")
    window = (p.stride, p.padding, p.dilation, p.groups)
    transposed = p.pass_ == "grad_input" and p.epilogue
    if p.pass_ != "forward" and not transposed:
        return _Forward(lambda: getattr(functional, p.op)(x, weight, None, *window))
    if transposed:
        smallest = tuple(
            (o - 1) * u - 2 * q + d * (f - 1) + 1
            for o, u, q, d, f in zip(p.output_size, p.stride, p.padding, p.dilation, p.filter, strict=True)
        )
        extra = tuple(i - s for i, s in zip(p.size, smallest, strict=True))
        transpose = getattr(functional, p.op.replace("conv", "conv_transpose"))
        grad_output = data["grad_output"]
        run = partial(transpose, grad_output, weight, bias, p.stride, p.padding, extra, p.groups, p.dilation)
        return _Forward(_epilogue(run, p.epilogue, residual), solves_pass=True)
    if p.output_size != output_size(p.size, p.filter, p.stride, p.padding, p.dilation):
        raise Unavailable("a forward convolution derives its output size")
    if _is_fused(functional, p.epilogue):
        activation = "relu" if "relu" in p.epilogue else None
        function = getattr(functional, p.op)
        return _Forward(lambda: function(x, weight, bias, *window, residual=residual, activation=activation))
    layer = getattr(nn, p.op.capitalize())(
        p.c, p.k, p.filter, p.stride, p.padding, p.dilation, p.groups, bias is not None, device="meta"
    )
    return _Forward(_epilogue(partial(_with_parameters(layer, weight, bias), x), p.epilogue, residual))


def _gemm(nn: ModuleType, functional: ModuleType, p: GemmProblem, data: Data) -> _Forward:
    a, b, bias, residual = data["a"], data["b"], data.get("bias"), data.get("residual")
    if p.out.kind != "row" or p.out.outer:
        raise Unavailable("the functions allocate their output, rows contiguous")
    if p.batch > 1 or p.b.kind != "col":
        if _is_fused(functional, p.epilogue) or "bias" in p.epilogue:
            raise Unavailable("only linear (one batch, b=col) has an epilogue")
        matmul = torch.matmul if functional is torch.nn.functional else functional.matmul
        return _Forward(partial(matmul, a, b) if p.batch > 1 else partial(matmul, a[0], b[0]))
    x, weight, residual = a[0], b[0].t(), None if residual is None else residual[0]
    if _is_fused(functional, p.epilogue):
        activation = "relu" if "relu" in p.epilogue else None
        return _Forward(lambda: functional.linear(x, weight, bias, residual=residual, activation=activation))
    layer = nn.Linear(p.k, p.n, bias is not None, device="meta")
    return _Forward(_epilogue(partial(_with_parameters(layer, weight, bias), x), p.epilogue, residual))


def _is_fused(functional: ModuleType, epilogue: tuple[str, ...]) -> bool:
    """The epilogue has more than a bias, and this library can fuse it."""
    return functional is not torch.nn.functional and bool({"residual", "relu"} & set(epilogue))


def _epilogue(run: Callable, epilogue: tuple[str, ...], residual: Tensor | None) -> Callable:
    """What a user of a library without fused epilogues writes."""
    if residual is None and "relu" not in epilogue:
        return run

    def with_epilogue() -> Tensor:
        y = run()
        y = y if residual is None else y.add_(residual)
        return y.relu_() if "relu" in epilogue else y

    return with_epilogue


def _with_parameters(layer: torch.nn.Module, weight: Tensor, bias: Tensor | None) -> torch.nn.Module:
    layer.weight = torch.nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        layer.bias = torch.nn.Parameter(bias, requires_grad=False)
    return layer.eval()


def _pool(nn: ModuleType, functional: ModuleType, p: PoolProblem, data: Data) -> _Forward:
    x, function = data["input"], getattr(functional, p.op)
    if p.op.startswith("adaptive"):
        return _Forward(partial(function, x, p.output_size, *([p.indices] if "max" in p.op else [])))
    ceil_mode = p.output_size != output_size(p.size, p.filter, p.stride, p.padding, p.dilation)
    if p.op.startswith("max"):
        return _Forward(partial(function, x, p.filter, p.stride, p.padding, p.dilation, ceil_mode, p.indices))
    divisor = [] if p.op == "avg_pool1d" else [p.divisor or None]
    return _Forward(partial(function, x, p.filter, p.stride, p.padding, ceil_mode, p.count_include_pad, *divisor))


def _norm(nn: ModuleType, functional: ModuleType, p: NormProblem, data: Data) -> _Forward:
    x = data["input"]
    if p.op == "local_response_norm":
        return _Forward(partial(functional.local_response_norm, x, p.window))
    if p.op != "batch_norm":
        raise Unavailable(f"{p.op} is a part of other functions, not one by itself")
    statistics = (data["running_mean"], data["running_var"], data["weight"], data["bias"])
    return _Forward(partial(functional.batch_norm, x, *statistics, p.training))


def _pointwise(nn: ModuleType, functional: ModuleType, p: PointwiseProblem, data: Data) -> _Forward:
    return _Forward(partial(getattr(functional, p.op), data["input"]))


_FORWARD: dict[type, Callable[..., _Forward]] = {
    ConvProblem: _conv, GemmProblem: _gemm, PoolProblem: _pool, NormProblem: _norm, PointwiseProblem: _pointwise,
}  # fmt: skip
