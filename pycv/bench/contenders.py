"""Who takes part: a contender turns a problem and its data into a call to be timed.

A call is what a user of the library would get, allocation and dispatch included, so that a ratio is the ratio they
will see. ``forward``: the layer in eval mode without gradient (``nn.Conv2d``, ``nn.Linear``: pycv's prepare their
weight once) or, where there is no layer or an epilogue is fused, the function. ``grad_input`` and ``grad_weight``:
``torch.autograd.grad`` of the function's output with respect to that one tensor, its graph built once.

Every contender computes the same from the same values. ``torch:nchw``, ``torch:nhwc`` and whatever ends in ``@nchw`` or
``@nhwc`` lay the tensors out their way beforehand, all others take the problem's layouts. ``onednn:nchw`` and
``onednn:nhwc`` are oneDNN with a weight that was reordered once, which torch's eager mode does on every call;
``onednn:matmul``, ``mkl:matmul`` and ``numpy:matmul`` (OpenBLAS, as a rule) multiply matrices. ``torch:compiled`` is
the forward pass of torch in the problem's layout through torch.compile, which fuses what follows a convolution;
``torch:max-autotune`` lets Inductor search besides, ``torch:triton-templates`` among its own Triton templates alone.
"""

from __future__ import annotations

import contextvars
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import cycle
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from .. import registry, settings
from ..problem import ConvProblem, GemmProblem, Layout, NormProblem, PointwiseProblem, PoolProblem, Problem, output_size
from ..timing import rest
from .data import Data, arranged

Call = Callable[[], Tensor]


class Unavailable(Exception):
    """This contender cannot run this problem; the message says why. It is reported, not an error."""


@dataclass(frozen=True)
class Contender:
    """A name and ``prepare(problem, data)``, which returns the call to be timed or raises :class:`Unavailable`.

    Where ``data`` has a tensor ``weights`` (copies, k, c, ...), the call takes another copy of the weight each time.
    """

    name: str
    prepare: Callable[[Problem, Data], Call]


DEFAULT = ("pycv", "torch:nchw", "torch:nhwc")


def names() -> list[str]:
    """All contenders: ``pycv`` (whatever it chooses), a backend of it, each of its kernels as ``backend:algorithm`` or
    ``backend:algorithm/variant`` (any of them followed by ``@nchw`` or ``@nhwc``), torch, and other libraries."""
    return list(descriptions())


def descriptions() -> dict[str, str]:
    """All contenders, and in words what each is."""
    own = [kernel for kernel in registry.kernels() if kernel.backend != "torch"]
    found = {"pycv": "whatever pycv chooses"}
    found |= {kernel.backend: f"whatever pycv chooses among its {kernel.backend} kernels" for kernel in own}
    for kernel in own:
        found.setdefault(f"{kernel.backend}:{kernel.algorithm}", "every variant of this algorithm: the best one runs")
        found[kernel.name] = f"pycv's kernel, numeric class {kernel.numeric_class}"
    found |= {f"torch:{layout}": f"torch, tensors in {layout}" for layout in _LAYOUTS}
    return found | {name: words for name, (_, words) in _DIRECT.items()}


def contender(name: str) -> Contender:
    """The contender of that name. Raises ValueError listing :func:`names` for an unknown one."""
    plain, at, layout = name.partition("@")
    if plain not in names() or (at and (layout not in _LAYOUTS or plain.split(":")[0] not in _OWN)):
        raise ValueError(f"contender {name!r}: expected one of {', '.join(names())}")
    backend, _, algorithm = plain.partition(":")
    if plain in _DIRECT:
        return Contender(name, _DIRECT[plain][0])
    if backend == "torch":
        return Contender(name, partial(_torch, algorithm))
    chosen = {"backend": backend} if backend != "pycv" else {}
    return Contender(name, partial(_pycv, chosen | ({"algorithm": algorithm} if algorithm else {}), layout))


_LAYOUTS = ("nchw", "nhwc")
_OWN = ("pycv", *(backend for backend in settings.BACKENDS if backend != "torch"))


def in_layout(problem: Problem, layout: str) -> Problem:
    """The same problem with all its images in one layout. Raises Unavailable where there is no image."""
    own = Layout(layout)
    if isinstance(problem, ConvProblem):
        residual = own if "residual" in problem.epilogue else None
        return replace(problem, input=own, output=own, weight=own, residual=residual)
    if isinstance(problem, (PoolProblem, NormProblem)):
        return replace(problem, input=own, output=own)
    if layout != "nchw":
        raise Unavailable(f"{problem.op} has no image layout: see nchw")
    return problem


def _torch(layout: str, problem: Problem, data: Data) -> Call:
    problem = in_layout(problem, layout)
    return _each_weight(problem, data, partial(call, torch.nn, torch.nn.functional, problem))


def _pycv(chosen: dict[str, str], layout: str, problem: Problem, data: Data) -> Call:
    from .. import functional, nn

    wanted = chosen.get("algorithm")
    if wanted and wanted not in registry.algorithms()[f"{problem.op}.{problem.pass_}"]:
        raise Unavailable(f"{problem.op}.{problem.pass_} has no algorithm {wanted}")
    with settings.use(**chosen, **_class_of(f"{chosen.get('backend')}:{wanted}", problem)):
        context = contextvars.copy_context()
    problem = in_layout(problem, layout) if layout else problem
    try:
        made = context.run(_each_weight, problem, data, partial(call, nn, functional, problem))
        context.run(made)
    except registry.UnsupportedError as error:
        # Without the problem, so that tables tell once what holds for several.
        raise Unavailable(str(error).removeprefix(f"no kernel for {problem}: ")) from None
    return partial(context.run, made)


def _class_of(name: str, problem: Problem) -> dict[str, str]:
    """Who names a kernel of class fast has asked for that class, unless ``pycv.use(precision=...)`` says otherwise."""
    named = [kernel for kernel in registry.kernels(problem.op, problem.pass_) if kernel.name == name]
    classes = {kernel.numeric_class for kernel in named if kernel.supports(problem) is None}
    classes = classes or {kernel.numeric_class for kernel in named}
    return {"precision": "fast"} if classes == {"fast"} and settings.current().precision is None else {}


def _each_weight(problem: Problem, data: Data, make: Callable[[Data], Call]) -> Call:
    """``make(tensors)``, for every copy of the weight in turn where the data has several."""
    data = dict(data)
    weights = data.pop("weights", None)
    tensors = arranged(problem, data)
    if weights is None:
        return make(tensors)
    calls = [make(tensors | {"weight": arranged(problem, {"weight": weight})["weight"]}) for weight in weights]
    turns = cycle(calls)
    return lambda: next(turns)()


def _prepacked(layout: str, problem: Problem, data: Data) -> Call:
    if not isinstance(problem, ConvProblem) or problem.pass_ != "forward" or problem.op != "conv2d":
        raise Unavailable("oneDNN with a prepacked weight: forward convolutions of images")
    if "residual" in problem.epilogue or problem.prologue or problem.dtype != "f32":
        raise Unavailable("oneDNN with a prepacked weight: f32, bias and relu")
    problem = in_layout(problem, layout)
    return _each_weight(problem, data, partial(_prepacked_call, problem))


def _prepacked_call(problem: Any, data: Data) -> Call:
    x, window = data["input"], (problem.padding, problem.stride, problem.dilation, problem.groups)
    weight = torch.ops.mkldnn._reorder_convolution_weight(data["weight"], *map(_listed, window), list(x.shape))
    activation = "relu" if "relu" in problem.epilogue else "none"
    run = torch.ops.mkldnn._convolution_pointwise
    return partial(run, x, weight, data.get("bias"), *map(_listed, window), activation, [], "")


def _listed(value):
    return value if isinstance(value, int) else list(value)


def _onednn_matmul(problem: Problem, data: Data) -> Call:
    a, b, bias = _plain_product(problem, data)
    return partial(torch.ops.mkldnn._linear_pointwise, a, b.t(), bias, "none", [], "")


def _mkl_matmul(problem: Problem, data: Data) -> Call:
    """torch.mm with oneDNN switched off, which leaves the BLAS that torch was built with."""
    if not torch.backends.mkl.is_available():
        raise Unavailable("this torch was built without MKL")
    a, b, bias = _plain_product(problem, data)

    def run() -> Tensor:
        with torch.backends.mkldnn.flags(enabled=False):
            return torch.mm(a, b) if bias is None else torch.addmm(bias, a, b)

    return run


def _numpy_matmul(problem: Problem, data: Data) -> Call:
    a, b, bias = _plain_product(problem, data)
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        raise Unavailable(
            "NumPy takes as many threads as it likes: pip install threadpoolctl, which limits it"
        ) from None
    threadpool_limits(torch.get_num_threads(), "blas")
    x, y, z = a.numpy(), b.numpy(), None if bias is None else bias.numpy()
    if z is None:
        return _OwnThreads(lambda: torch.from_numpy(x @ y))
    return _OwnThreads(lambda: torch.from_numpy(x @ y + z))


_WAKING_SECONDS = 0.01


@dataclass(frozen=True)
class _OwnThreads:
    """A call into a library that does not share the threads of all others (see timing.py)."""

    run: Call

    def __call__(self) -> Tensor:
        return self.run()

    @contextmanager
    def alone(self) -> Iterator[None]:
        rest()
        yield
        rest()
        work = torch.zeros(2**16)  # for two of torch's threads; those that slept start on each other's processors
        deadline = time.perf_counter() + _WAKING_SECONDS
        while time.perf_counter() < deadline:
            work.add_(1)


def _plain_product(problem: Problem, data: Data) -> tuple[Tensor, Tensor, Tensor | None]:
    if not isinstance(problem, GemmProblem) or problem.batch > 1 or set(problem.epilogue) - {"bias"}:
        raise Unavailable("products of two matrices, with a bias at most")
    tensors = arranged(problem, data)
    return tensors["a"][0], tensors["b"][0], tensors.get("bias")


def _compiled(options: dict[str, Any], problem: Problem, data: Data) -> Call:
    if problem.pass_ != "forward":
        raise Unavailable("torch.compile of a forward pass")
    if options is _TRITON_TEMPLATES and not isinstance(problem, (ConvProblem, GemmProblem)):
        raise Unavailable("Inductor has Triton templates for convolutions and matrix products")

    def made(tensors: Data) -> Call:
        return torch.compile(call(torch.nn, torch.nn.functional, problem, tensors), dynamic=False, **options)

    try:
        run = _each_weight(problem, data, made)
        _forget_others(problem, torch.backends.cuda.matmul.allow_tf32)
        with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
            for _ in data.get("weights", (None,)):
                run()
    except Exception as error:  # of whatever Inductor stands on: no compiler, no Triton
        raise Unavailable(f"torch.compile: {type(error).__name__}") from None
    return run


@lru_cache(maxsize=1)
def _forget_others(problem: Problem, tf32: bool) -> None:
    """Drops what was compiled, unless it was for this problem in this precision.

    torch.compile keeps what it compiled by code object, of which all modules share one and all partials another, and
    runs the ninth variant of one uncompiled, without a word.
    """
    torch._dynamo.reset()


# torch.compile with what Inductor writes itself, nothing of the vendor's: its Triton templates, in every tile.
_TRITON_TEMPLATES = {
    "options": {"max_autotune": True, "max_autotune_gemm_backends": "TRITON", "max_autotune_conv_backends": "TRITON"}
}
# Contenders that no backend of pycv is: what prepares the call, and what it is.
_DIRECT: dict[str, tuple[Callable[[Problem, Data], Call], str]] = {
    "torch:compiled": (partial(_compiled, {}), "torch through torch.compile (Inductor)"),
    "torch:max-autotune": (partial(_compiled, {"mode": "max-autotune"}), "torch.compile, Inductor's max-autotune"),
    "torch:triton-templates": (
        partial(_compiled, _TRITON_TEMPLATES),
        "torch.compile, Inductor's Triton templates alone, autotuned: convolutions and products",
    ),
    "onednn:nchw": (partial(_prepacked, "nchw"), "oneDNN, weight reordered once, tensors in nchw"),
    "onednn:nhwc": (partial(_prepacked, "nhwc"), "oneDNN, weight reordered once, tensors in nhwc"),
    "onednn:matmul": (_onednn_matmul, "oneDNN's product of matrices"),
    "mkl:matmul": (_mkl_matmul, "torch.mm without oneDNN: MKL"),
    "numpy:matmul": (_numpy_matmul, "NumPy's product of matrices: OpenBLAS, as a rule"),
}


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
        return _Forward(partial(function, x, p.output_size, *([bool(p.indices)] if "max" in p.op else [])))
    ceil_mode = p.output_size != output_size(p.size, p.filter, p.stride, p.padding, p.dilation)
    if p.op.startswith("max"):
        run = partial(function, x, p.filter, p.stride, p.padding, p.dilation, ceil_mode, p.indices == "int64")
        return _Forward(partial(_for_gradient, x, run) if p.indices == "offset" and p.pass_ == "forward" else run)
    divisor = [] if p.op == "avg_pool1d" else [p.divisor or None]
    return _Forward(partial(function, x, p.filter, p.stride, p.padding, ceil_mode, p.count_include_pad, *divisor))


def _for_gradient(x: Tensor, run: Callable) -> Tensor:
    """With whatever a library keeps for the backward pass. The functions have no other way to ask for that."""
    with torch.enable_grad():
        x.requires_grad_()
        return run().detach()


def _norm(nn: ModuleType, functional: ModuleType, p: NormProblem, data: Data) -> _Forward:
    x = data["input"]
    if p.op == "local_response_norm":
        return _Forward(partial(functional.local_response_norm, x, p.window))
    if p.op != "batch_norm":
        raise Unavailable(f"{p.op} is a part of other functions, not one by itself")
    statistics = (data["running_mean"], data["running_var"], data["weight"], data["bias"])
    return _Forward(partial(functional.batch_norm, x, *statistics, p.training))


def _pointwise(nn: ModuleType, functional: ModuleType, p: PointwiseProblem, data: Data) -> _Forward:
    run = partial(getattr(functional, p.op), data["input"])
    return _Forward(partial(_for_gradient, data["input"], run) if p.mask and p.pass_ == "forward" else run)


_FORWARD: dict[type, Callable[..., _Forward]] = {
    ConvProblem: _conv, GemmProblem: _gemm, PoolProblem: _pool, NormProblem: _norm, PointwiseProblem: _pointwise,
}  # fmt: skip
