"""The NumPy reference agrees with torch in float64: an independent implementation, on problems drawn at random."""

import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pycv.kernels import reference
from pycv.problem import ConvProblem, GemmProblem, NormProblem, PoolProblem

from .. import draw

PROBLEMS = 60  # drawn per operation


def drawn(op, count=PROBLEMS):
    """Problems with data, the same on every run."""
    for i in range(count):
        source = draw.Generator(f"{op}.{i}")
        problem = replace(draw.problem(source, (op,), 20_000), dtype="f64")
        rng = np.random.default_rng(zlib.crc32(str(problem).encode()))
        kind = source.pick(draw.KINDS)
        yield problem, kind, *draw.data(problem, kind, rng)


def tensors(arrays):
    return {name: torch.from_numpy(values.copy()) for name, values in arrays.items()}


def assert_same(problem, computed, expected):
    for name, values in expected.items():
        torch.testing.assert_close(
            torch.from_numpy(np.ascontiguousarray(computed[name])), values, rtol=1e-9, atol=1e-9, equal_nan=True,
            msg=lambda text, name=name: f"{problem}: {name}: {text}",
        )  # fmt: skip


def epilogue(x, problem, t):
    if "bias" in problem.epilogue:
        x = x + t["bias"].reshape(-1, *[1] * (x.dim() - 2))
    if "residual" in problem.epilogue:
        x = x + t["residual"]
    return torch.relu(x) if "relu" in problem.epilogue else x


def prologue(x, problem, t):
    if "scale" in problem.prologue:
        scale, shift = (t[name].reshape(-1, *[1] * (x.dim() - 2)) for name in ("input_scale", "input_shift"))
        x = x * scale + shift
    return torch.relu(x) if "relu" in problem.prologue else x


def torch_conv(problem: ConvProblem, t):
    """Padded by hand to exactly what the last window reads, so that any explicit output size can be had."""
    function = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[len(problem.size)]
    pads = []
    for axis in range(len(problem.size)):
        reach = (problem.output_size[axis] - 1) * problem.stride[axis]
        reach += problem.dilation[axis] * (problem.filter[axis] - 1) + 1
        pads = [problem.padding[axis], reach - problem.size[axis] - problem.padding[axis], *pads]
    x = t.get("input", torch.ones(problem.n, problem.c, *problem.size, dtype=torch.float64)).requires_grad_()
    if problem.pass_ == "forward":
        x = prologue(x, problem, t)
    group = problem.c // problem.groups
    w = t.get("weight", torch.ones(problem.k, group, *problem.filter, dtype=torch.float64)).requires_grad_()
    y = function(F.pad(x, pads), w, None, problem.stride, 0, problem.dilation, problem.groups)
    if problem.pass_ == "forward":
        return {"output": epilogue(y, problem, t).detach()}
    name, of = ("input", x) if problem.pass_ == "grad_input" else ("weight", w)
    return {name: epilogue(torch.autograd.grad(y, of, t["output"])[0], problem, t).detach()}


def test_conv():
    for problem, kind, arrays, _ in drawn("conv", 200):
        if kind == "nonfinite" or 0 in (problem.c, problem.k, problem.n):
            continue  # where torch multiplies a padding zero with infinity it makes NaN; empty ones are tested below
        assert_same(problem, reference.run(problem, arrays), torch_conv(problem, tensors(arrays)))


def test_conv_nonfinite_input_without_padding():
    x = np.ones((1, 2, 4, 4))
    x[0, 0, 1, 2], x[0, 1, 3, 3] = np.inf, np.nan
    w = np.ones((3, 2, 3, 3))
    problem = ConvProblem("conv2d", "forward", 1, 2, (4, 4), 3, (3, 3), (2, 2), (1, 1), (0, 0), (1, 1))
    expected = F.conv2d(torch.from_numpy(x), torch.from_numpy(w))
    assert_same(problem, reference.run(problem, {"input": x, "weight": w}), {"output": expected})


@pytest.mark.parametrize("n, c, k", [(0, 2, 3), (2, 0, 3), (2, 3, 0)])
def test_conv_of_nothing_is_zero(n, c, k):
    for pass_ in ("forward", "grad_input", "grad_weight"):
        problem = ConvProblem("conv1d", pass_, n, c, (5,), k, (3,), (3,), (1,), (0,), (1,))
        arrays = {"input": np.ones((n, c, 5)), "weight": np.ones((k, c, 3)), "output": np.ones((n, k, 3))}
        (values,) = reference.run(problem, arrays).values()
        alone = values.size and {"forward": c, "grad_input": k, "grad_weight": n}[pass_] == 0
        assert not alone or not values.any()


def test_gemm():
    for problem, _, arrays, scalars in drawn("gemm"):
        assert isinstance(problem, GemmProblem)
        t = tensors(arrays)
        residual = t.get("residual", torch.zeros(problem.batch, problem.m, problem.n, dtype=torch.float64))
        beta = scalars["beta"] if "residual" in problem.epilogue else 0
        out = torch.baddbmm(residual, t["a"], t["b"], alpha=scalars["alpha"], beta=beta)
        if "bias" in problem.epilogue:
            out = out + t["bias"]
        if "relu" in problem.epilogue:
            out = torch.relu(out)
        assert_same(problem, reference.run(problem, arrays, **scalars), {"out": out})


def torch_pool(problem: PoolProblem, x):
    rank = problem.op[-2]
    if problem.op.startswith("adaptive_max"):
        return getattr(F, f"adaptive_max_pool{rank}d")(x, problem.output_size, return_indices=True)
    if problem.op.startswith("adaptive"):
        return getattr(F, f"adaptive_avg_pool{rank}d")(x, problem.output_size), None
    ceil = any(o > n for o, n in zip(problem.output_size, floor_size(problem), strict=True))
    if problem.op.startswith("max"):
        function = getattr(F, f"max_pool{rank}d")
        return function(
            x, problem.filter, problem.stride, problem.padding, problem.dilation, ceil_mode=ceil, return_indices=True
        )
    function, options = getattr(F, f"avg_pool{rank}d"), {}
    if rank != "1":
        options = {"divisor_override": problem.divisor or None}
    window = (problem.filter, problem.stride, problem.padding)
    return function(x, *window, ceil, problem.count_include_pad, **options), None


def floor_size(problem: PoolProblem):
    axes = zip(problem.size, problem.filter, problem.stride, problem.padding, problem.dilation, strict=True)
    return [(i + 2 * p - d * (f - 1) - 1) // u + 1 for i, f, u, p, d in axes]


def refused(problem: PoolProblem) -> bool:
    """avg_pool3d wants an input no smaller than the window, whatever the padding."""
    return problem.op == "avg_pool3d" and any(i < f for i, f in zip(problem.size, problem.filter, strict=True))


def comparable(problem: PoolProblem, output_size) -> bool:
    """torch has one ceil_mode for all axes and no divisor_override in 1d; the reference has any."""
    return tuple(output_size) == problem.output_size and not (problem.op == "avg_pool1d" and problem.divisor)


def begins(problem: PoolProblem):
    """Of the window of every output along each axis, shaped as the indices."""
    grid = np.meshgrid(*map(np.arange, problem.output_size), indexing="ij")
    return [o * u - p for o, u, p in zip(grid, problem.stride, problem.padding, strict=True)]


def offsets_of(problem: PoolProblem, indices):
    places = zip(np.unravel_index(indices.numpy(), problem.size), begins(problem), problem.dilation, strict=True)
    return np.ravel_multi_index([(i - begin) // d for i, begin, d in places], problem.filter)


def indices_of(problem: PoolProblem, offsets):
    elements = zip(np.unravel_index(offsets, problem.filter), begins(problem), problem.dilation, strict=True)
    return np.ravel_multi_index([begin + d * r for r, begin, d in elements], problem.size)


@pytest.mark.parametrize("op", ["max_pool", "avg_pool", "adaptive_max_pool", "adaptive_avg_pool"])
def test_pool(op):
    compared = 0
    for problem, _, arrays, _ in drawn(op, 2 * PROBLEMS):
        if problem.n == 0 or refused(problem):
            continue
        t = tensors(arrays)
        x = t["input"] if problem.pass_ == "forward" else torch.zeros(problem.n, problem.c, *problem.size).double()
        y, indices = torch_pool(problem, x.requires_grad_())
        if not comparable(problem, y.shape[2:]):
            continue
        compared += 1
        if problem.pass_ == "forward":
            expected = {"output": y.detach()}
            if problem.indices:
                by_offset = problem.indices == "offset"
                expected["indices"] = torch.tensor(offsets_of(problem, indices)) if by_offset else indices
        elif indices is not None:
            flat = torch.zeros(problem.n, problem.c, x[0, 0].numel()).double()
            places = arrays["indices"]
            if problem.indices == "offset":
                places = indices_of(problem, places)
            flat.scatter_add_(2, torch.tensor(places).flatten(2), t["output"].flatten(2))
            expected = {"input": flat.reshape(x.shape)}
        else:
            expected = {"input": torch.autograd.grad(y, x, t["output"])[0]}
        assert_same(problem, reference.run(problem, arrays), expected)
    assert compared > PROBLEMS


def test_batch_norm():
    for problem, _, arrays, scalars in drawn("batch_norm", 2 * PROBLEMS):
        assert isinstance(problem, NormProblem)
        if problem.n == 0:
            continue
        t = tensors(arrays)
        x = t["input"].requires_grad_()
        weight = t.get("weight", torch.ones(problem.c).double()).requires_grad_()
        bias = t.get("bias", torch.zeros(problem.c).double()).requires_grad_()
        running = [t.get(name) for name in ("running_mean", "running_var")]
        if any(r is None for r in running):  # torch takes both or neither
            running = [None, None]
        y = F.batch_norm(x, *running, weight, bias, problem.training, scalars["momentum"], scalars["eps"])
        computed = reference.run(problem, arrays, **scalars)
        if problem.pass_ == "forward":
            expected = {"output": epilogue(y.detach(), problem, t)}
            if problem.training and running[0] is not None:
                expected |= {"running_mean": running[0], "running_var": running[1]}
        else:
            grad = t["grad_output"]
            if "relu" in problem.epilogue:
                grad = torch.ops.aten.threshold_backward(grad, t["forward_output"], 0)
            grads = torch.autograd.grad(y, (x, weight, bias), grad)
            expected = dict(zip(("output", "grad_weight", "grad_bias"), grads, strict=True))
            if "residual" in problem.epilogue:
                expected["grad_residual"] = grad
        assert_same(problem, computed, expected)


def test_local_response_norm():
    for problem, _, arrays, scalars in drawn("local_response_norm"):
        if problem.n == 0 or not problem.size:
            continue  # torch wants a spatial axis
        t = tensors(arrays)
        x = t["input"].requires_grad_()
        y = F.local_response_norm(x, problem.window, scalars["alpha"], scalars["beta"], scalars["k"])
        if problem.pass_ == "forward":
            expected = {"output": y.detach()}
        else:
            expected = {"output": torch.autograd.grad(y, x, t["grad_output"])[0]}
        assert_same(problem, reference.run(problem, arrays, **scalars), expected)


def test_channel_sum_and_relu():
    for problem, _, arrays, _ in drawn("channel_sum"):
        x = tensors(arrays)["input"]
        assert_same(problem, reference.run(problem, arrays), {"output": x.transpose(0, 1).flatten(1).sum(1)})
    for problem, _, arrays, _ in drawn("relu"):
        t = tensors(arrays)
        if problem.pass_ == "forward":
            y = torch.relu(t["input"])
            # whether the gradient passes, by torch's own
            bits = torch.ops.aten.threshold_backward(torch.ones_like(y), y, 0).to(torch.uint8)
            expected = {"output": y} | ({"mask": packed(bits)} if problem.mask else {})
        elif problem.mask:
            bits = t["mask"].repeat_interleave(8) >> torch.arange(8).repeat(len(t["mask"])) & 1
            expected = {"output": torch.where(bits[: problem.count] == 1, t["grad_output"], 0.0)}
        else:
            expected = {"output": torch.ops.aten.threshold_backward(t["grad_output"], t["input"], 0)}
        assert_same(problem, reference.run(problem, arrays), expected)


def packed(bits):
    """Eight to a byte, the first in the lowest place."""
    groups = torch.nn.functional.pad(bits, (0, -len(bits) % 8)).view(-1, 8)
    return sum(groups[:, place] << place for place in range(8)).to(torch.uint8)


def test_max_pool_index_rules():
    """First of equal maxima, last NaN, first of an all -inf window, counted from the input's corner."""
    inf, nan = np.inf, np.nan
    x = np.array([[1, 1, 0, 0], [1, 0, 0, 2], [-inf, -inf, nan, 5], [-inf, -inf, 7, nan]])
    problem = PoolProblem(
        "max_pool2d", "forward", 1, 1, (4, 4), (2, 2), (2, 2), (2, 2), (0, 0), (1, 1), "f64", indices="int64"
    )
    computed = reference.run(problem, {"input": x[None, None]})
    np.testing.assert_array_equal(computed["output"][0, 0], [[1, 2], [-inf, nan]])
    np.testing.assert_array_equal(computed["indices"][0, 0], [[0, 7], [8, 15]])
