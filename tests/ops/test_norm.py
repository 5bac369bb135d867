"""batch_norm, local_response_norm and channel_sum against torch and float64."""

from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.testing._internal.common_methods_invocations import op_db

import pycv
from pycv import functional as PF
from pycv import registry
from pycv.ops.channel_sum import channel_sum

from ..backend import BACKEND, DEVICE
from ..seed import sliced
from .agreement import gradients_hold

OPS = {op.name.removeprefix("nn.functional."): op for op in op_db}
DTYPES = (torch.float32, torch.float64)


def copies(values):
    return [v.detach().clone().requires_grad_(v.requires_grad) if isinstance(v, torch.Tensor) else v for v in values]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ["batch_norm", "local_response_norm"])
def test_samples(name, dtype):
    samples = list(OPS[name].sample_inputs(DEVICE, dtype, requires_grad=True))
    assert len(samples) >= 10
    for sample in samples:
        names = list(sample.kwargs)
        given = [copies([sample.input, *sample.args, *sample.kwargs.values()]) for _ in range(2)]
        results = []
        for function, values in zip((getattr(F, name), getattr(PF, name)), given, strict=True):
            split = len(values) - len(names)
            with pycv.use(backend=BACKEND), registry.record() as calls:
                y = function(*values[:split], **dict(zip(names, values[split:], strict=True)))
                leaves = [v for v in values if isinstance(v, torch.Tensor) and v.requires_grad]
                torch.manual_seed(0)
                grads = torch.autograd.grad(y, leaves, torch.randn_like(y), allow_unused=True)
            results.append((y, grads, [v for v in values if isinstance(v, torch.Tensor)]))  # running statistics too
        if y.numel():
            assert {call.choice.kernel.backend for call in calls} == {BACKEND}, sample
            assert {call.choice.problem.pass_ for call in calls} == {"forward", "grad_input"}, sample
        torch.testing.assert_close(results[1], results[0], check_stride=True)


CASES = [(2, 5, 19, 37), (3, 33, 9, 8), (1, 70, 7, 7), (8, 3, 1, 1)]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("shape", CASES, ids=str)
def test_batch_norm_is_close_to_float64(shape, channels_last, training):
    """With a mean a thousand times the deviation, where float32 knows x - mean to 6e-5."""
    x = torch.randn(shape) + 1000
    x = x.to(memory_format=torch.channels_last) if channels_last else x
    c = shape[1]
    weight, bias, mean, var = torch.randn(c), torch.randn(c), 1000 + torch.randn(c), torch.rand(c) + 0.5
    leaves = [t.clone().requires_grad_() for t in (x, weight, bias)]
    exact = [t.double().requires_grad_() for t in (x, weight, bias)]
    running, running64 = [mean.clone(), var.clone()], [mean.double(), var.double()]
    y64 = F.batch_norm(exact[0], *running64, exact[1], exact[2], training)
    with pycv.use(backend=BACKEND):
        y = PF.batch_norm(leaves[0], *running, leaves[1], leaves[2], training)
        grad_output = torch.randn_like(y)
        grads = torch.autograd.grad(y, leaves, grad_output)
    grads64 = torch.autograd.grad(y64, exact, grad_output.double())
    for got, wanted in zip((y, *grads, *running), (y64, *grads64, *running64), strict=True):
        scale = wanted.abs().max().item() + 1
        assert (got.double() - wanted).abs().max().item() <= 1e-3 * scale
    assert y.stride() == x.stride() or not channels_last


@pytest.mark.parametrize(
    ("training", "affine", "layout"), sliced(product((True, False), (True, False), ("nchw", "nhwc", "permuted")), 4)
)
def test_batch_norm_gradients_of_gradients(training, affine, layout):
    x = torch.randn(3, 4, 5, 6, dtype=torch.float64)
    x = {"nchw": x, "nhwc": x.to(memory_format=torch.channels_last), "permuted": x.view(3, 4, 6, 5).mT}[layout]
    x.requires_grad_()
    parameters = [torch.randn(4, dtype=torch.float64, requires_grad=True) for _ in range(2)] if affine else []
    mean, var = torch.randn(4, dtype=torch.float64), torch.rand(4, dtype=torch.float64) + 0.5

    def function(x, *parameters):
        return PF.batch_norm(x, mean.clone(), var.clone(), *parameters, training=training)

    assert gradients_hold(function, (x, *parameters))


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_third_derivative(training):
    """The grad_output of the first gradient depends on the input: its path may count once only."""
    x, weight = (torch.randn(s, dtype=torch.float64, requires_grad=True) for s in ((3, 2, 4), (2,)))
    mean, var = torch.randn(2, dtype=torch.float64), torch.rand(2, dtype=torch.float64) + 0.5

    def formula(x, mean, var, weight, bias, training):
        if training:
            var, mean = torch.var_mean(x, (0, 2), correction=0)
        return (x - mean[:, None]) / (var[:, None] + 1e-5).sqrt() * weight[:, None]

    def third(batch_norm):
        y = batch_norm(x, mean.clone(), var.clone(), weight, None, training)
        first = torch.autograd.grad(y.pow(3).sum(), (x, weight), create_graph=True)
        second = torch.autograd.grad(sum(g.pow(2).sum() for g in first), (x, weight), create_graph=True)
        return torch.autograd.grad(sum(g.square().log1p().sum() for g in second), (x, weight))

    torch.testing.assert_close(third(PF.batch_norm), third(formula), rtol=1e-6, atol=1e-6)


def test_batch_norm_counts_what_it_changes():
    mean, var = torch.zeros(3), torch.ones(3)
    versions = mean._version, var._version
    PF.batch_norm(torch.randn(4, 3, 5), mean, var, training=True)
    assert (mean._version, var._version) > versions and mean.abs().sum() > 0
    before = mean.clone()
    PF.batch_norm(torch.randn(4, 3, 5), mean, var)
    assert torch.equal(mean, before)


@pytest.mark.parametrize(
    "arguments",
    [
        dict(x=(1, 3), training=True),
        dict(x=(2, 3, 4), mean=2),
        dict(x=(2, 3, 4), mean=None),
        dict(x=(2, 3, 4), weight=4),
        dict(x=(5,)),
        dict(x=(2, 3, 4), training=True, eps=0.0),
        dict(x=(2, 3, 4), training=True, eps=-1.0),
        dict(x=(2, 3, 4), eps=-1.0),
    ],
    ids=str,
)
def test_batch_norm_refuses_what_torch_refuses_and_changes_nothing(arguments):
    mean = None if arguments.get("mean", 3) is None else torch.zeros(arguments.get("mean", 3))
    var = torch.ones(3)
    weight = torch.randn(arguments["weight"]) if "weight" in arguments else None
    raised = []
    for function in (F.batch_norm, PF.batch_norm):
        with pytest.raises(Exception) as error:
            x, options = torch.randn(arguments["x"]), {"eps": arguments.get("eps", 1e-5)}
            function(x, mean, var, weight, training=arguments.get("training", False), **options)
        raised.append(error.type)
    assert raised[0] is raised[1]
    assert torch.equal(var, torch.ones(3)) and (mean is None or not mean.any())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("which", ["x", "mean", "var", "weight", "mean requires grad", "var requires grad"])
def test_batch_norm_refuses_what_autograd_cannot_take_and_changes_nothing(which, training):
    """Inference tensors outside of inference mode, and statistics that require a gradient."""
    tensors = {"x": torch.randn(4, 3, 5), "mean": torch.zeros(3), "var": torch.ones(3), "weight": torch.ones(3)}
    name, _, requires_grad = which.partition(" ")
    if requires_grad:
        tensors[name].requires_grad_()
    else:
        with torch.inference_mode():
            tensors[name] = tensors[name].clone()
    x, mean, var, weight = tensors.values()
    for function in (F.batch_norm, PF.batch_norm):
        with pytest.raises(RuntimeError, match="not differentiable" if requires_grad else "Inference tensors"):
            function(x, mean, var, weight, torch.zeros(3, requires_grad=True), training=training)
        assert not mean.any() and (var == 1).all()
    with torch.no_grad():
        PF.batch_norm(x, mean, var, weight, training=training)
    assert mean.any() == training


def test_batch_norm_in_eval_keeps_the_statistics_that_it_used():
    """Training that moves them before backward changes nothing."""
    x, mean, var = torch.randn(4, 3, 5, requires_grad=True), torch.zeros(3), torch.full((3,), 2.0)
    expected = torch.autograd.grad(PF.batch_norm(x, mean, var).sum(), x)
    y = PF.batch_norm(x, mean, var)
    PF.batch_norm(torch.randn(4, 3, 5), mean, var, training=True)
    torch.testing.assert_close(torch.autograd.grad(y.sum(), x), expected, rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(2, 7, 5, 6), (1, 40, 9), (2, 3, 2, 3, 4), (1, 6, 2, 2, 2, 2)], ids=str)
@pytest.mark.parametrize("size", [1, 2, 5])
def test_local_response_norm(shape, size):
    x = torch.randn(shape, dtype=torch.float64)
    for given in (x, x.transpose(0, -1).contiguous().transpose(0, -1)):
        leaves = [given.detach().requires_grad_(), given.detach().requires_grad_()]
        with pycv.use(backend=BACKEND):
            y = PF.local_response_norm(leaves[0], size, 0.3, 0.6, 0.8)
            grad_output = torch.randn_like(y)
            (gradient,) = torch.autograd.grad(y, leaves[0], grad_output)
        expected = F.local_response_norm(leaves[1].contiguous(), size, 0.3, 0.6, 0.8)
        torch.testing.assert_close(y, expected)
        torch.testing.assert_close(gradient, torch.autograd.grad(expected, leaves[1], grad_output)[0])


def test_local_response_norm_gradients_of_gradients():
    x = torch.randn(2, 5, 3, 2, dtype=torch.float64, requires_grad=True)
    for size in (2, 3):
        assert gradients_hold(lambda x, size=size: PF.local_response_norm(x, size, 0.3, 0.6, 0.8), (x,))


@pytest.mark.parametrize("name", ["alpha", "beta", "k"])
def test_local_response_norm_has_gradients_in_scalars_that_are_tensors(name):
    x, scalar = torch.randn(2, 5, 3), torch.tensor(0.5, requires_grad=True)
    sums = [function(x, 3, **{name: scalar}).sum() for function in (PF.local_response_norm, F.local_response_norm)]
    torch.testing.assert_close(*(torch.autograd.grad(s, scalar) for s in sums))


def test_local_response_norm_compiles_as_one_graph():
    x = torch.randn(2, 7, 5, 4, dtype=torch.float64, requires_grad=True)
    compiled = torch.compile(PF.local_response_norm, fullgraph=True, backend="aot_eager")
    y, expected = compiled(x, 5), F.local_response_norm(x, 5)
    torch.testing.assert_close(y, expected)
    grad_output = torch.randn_like(y)
    gradients = [torch.autograd.grad(each, x, grad_output)[0] for each in (y, expected)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(
    "shape", [(2, 5, 19, 37), (4, 24, 19, 37), (3, 33, 9, 8), (4, 7), (70, 300), (0, 3, 2), (2, 0, 3)], ids=str
)
def test_channel_sum(shape):
    x = torch.randint(-9, 10, shape).float()
    for given in (x, x.to(memory_format=torch.channels_last) if x.dim() == 4 else x.mT.contiguous().mT):
        with pycv.use(backend=BACKEND):
            assert torch.equal(channel_sum(given), given.double().sum([0, *range(2, x.dim())]).float())


def test_channel_sum_loses_nothing_to_a_large_count():
    x = torch.full((1, 1, 1000, 4096), 0.1)
    assert channel_sum(x).item() == pytest.approx(np.float32(0.1) * 4096000.0, rel=1e-6)


def _composed(x, running_mean, running_var, weight, bias, training, residual, activation):
    y = F.batch_norm(x, running_mean, running_var, weight, bias, training)
    y = y if residual is None else y + residual
    return y if activation is None else F.relu(y)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("with_residual", [False, True])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_batch_norm_fused(training, activation, with_residual, memory_format):
    """Against the same in three ops: values, running statistics, every gradient (also where only some are asked)."""
    x, residual = (torch.randn(3, 19, 6, 7, dtype=torch.float64).to(memory_format=memory_format) for _ in range(2))
    weight, bias = torch.randn(19, dtype=torch.float64), torch.randn(19, dtype=torch.float64)
    grad_output = torch.randn(3, 19, 6, 7, dtype=torch.float64)
    for asked in ((0, 1, 2, 3), (0,), (3,), (1, 2)):
        results = []
        for function in (_composed, PF.batch_norm):
            leaves = [t.clone().requires_grad_(i in asked) for i, t in enumerate((x, weight, bias, residual))]
            mean, var = torch.full_like(bias, 0.3), torch.full_like(bias, 1.5)
            extra = {"residual": leaves[3] if with_residual else None, "activation": activation}
            with pycv.use(backend=BACKEND):
                y = function(leaves[0], mean, var, leaves[1], leaves[2], training, **extra)
                wanted = [t for i, t in enumerate(leaves) if i in asked and (i < 3 or with_residual)]
                grads = torch.autograd.grad(y, wanted, grad_output) if wanted else ()
            results.append((y, grads, mean, var))
        torch.testing.assert_close(results[1], results[0], check_stride=True)


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_fused_gradients_of_gradients(training):
    x, residual = (torch.randn(3, 2, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    parameters = [torch.randn(2, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    mean, var = torch.randn(2, dtype=torch.float64), torch.rand(2, dtype=torch.float64) + 0.5

    def function(x, residual, *parameters):
        return PF.batch_norm(
            x, mean.clone(), var.clone(), *parameters, training=training, residual=residual, activation="relu"
        )

    assert gradients_hold(function, (x, residual, *parameters))


@pytest.mark.parametrize("activation", ["tanh", ["relu"]], ids=str)
def test_batch_norm_names_an_unknown_activation(activation):
    with pytest.raises(ValueError, match=r"activation=.*expected None or 'relu'"):
        PF.batch_norm(torch.randn(4, 3, 5), torch.zeros(3), torch.ones(3), activation=activation)


def test_batch_norm_fused_lets_nan_through_relu():
    x = torch.tensor([[1.0], [2.0], [float("nan")]], requires_grad=True)
    y = PF.batch_norm(x, torch.zeros(1), torch.ones(1), activation="relu")
    assert y[2].isnan() and torch.autograd.grad(y.nansum(), x, retain_graph=True)[0][0] > 0
    (grad,) = torch.autograd.grad(y, x, torch.ones_like(y))
    expected = F.relu(F.batch_norm(x, torch.zeros(1), torch.ones(1)))
    assert torch.equal(grad, torch.autograd.grad(expected, x, torch.ones_like(y))[0])


def test_batch_norm_fused_refuses_and_takes_what_lies_otherwise():
    x, mean, var = torch.randn(2, 3, 4, 5), torch.zeros(3), torch.ones(3)
    with pytest.raises(ValueError, match="activation='tanh'"):
        PF.batch_norm(x, mean, var, activation="tanh")
    with pytest.raises(RuntimeError, match="residual"):
        PF.batch_norm(x, mean, var, residual=torch.randn(2, 3, 4, 1))
    with pytest.raises(RuntimeError, match=rf"expected residual on {DEVICE}(:0)?, but got meta"):
        PF.batch_norm(x, mean, var, residual=x.to("meta"))
    residual = torch.randn(2, 5, 4, 3).transpose(1, 3)
    for given in (x, x.to(memory_format=torch.channels_last), torch.randn(2, 9, 4, 5)[:, 2:5], x.mT.contiguous().mT):
        got = PF.batch_norm(given, mean, var, residual=residual, activation="relu")
        torch.testing.assert_close(got, _composed(given, mean, var, None, None, False, residual, "relu"))


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("shift", [0, 30, 1000])
def test_batch_norm_errors_stay_near_rounding(shift, channels_last):
    """However far the mean lies from 0: sums are measured from near it, and its rounding error is made good."""
    x = torch.randn(8, 32, 14, 14) + shift
    x = x.to(memory_format=torch.channels_last) if channels_last else x
    weight, bias, grad_output = torch.rand(32) + 0.5, torch.randn(32), torch.randn(8, 32, 14, 14)
    leaves = [t.clone().requires_grad_() for t in (x, weight, bias)]
    exact = [t.double().requires_grad_() for t in (x, weight, bias)]
    y = PF.batch_norm(leaves[0], None, None, *leaves[1:], True)
    y64 = F.batch_norm(exact[0], None, None, *exact[1:], True)
    grads = torch.autograd.grad(y, leaves, grad_output)
    grads64 = torch.autograd.grad(y64, exact, grad_output.double())
    for got, wanted in zip((y, *grads), (y64, *grads64), strict=True):
        assert (got.double() - wanted).abs().max().item() <= 1e-6 * wanted.abs().max().item()


def test_batch_norm_does_not_depend_on_the_number_of_threads():
    for memory_format in (torch.contiguous_format, torch.channels_last):
        x = torch.randn(4, 70, 40, 41).to(memory_format=memory_format)
        results = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            leaf = x.clone().requires_grad_()
            y = PF.batch_norm(leaf, None, None, training=True, activation="relu")
            results.append((y, *torch.autograd.grad(y.square().sum(), leaf)))
        for other in results[1:]:
            assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
