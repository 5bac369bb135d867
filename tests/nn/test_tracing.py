"""What captures graphs takes pycv's layers as it takes torch.nn's."""

import copy

import pytest
import torch
import torch.nn as nn

import pycv

X = torch.randn(2, 3, 8, 8)


@pytest.fixture
def models():
    """The same network on pycv and on torch."""
    torch.manual_seed(0)
    theirs = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.ReLU(),
        nn.ConvTranspose2d(8, 4, 3),
        nn.BatchNorm2d(4),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"),
        nn.Flatten(),
        nn.Linear(64, 5),
    ).eval()
    ours = copy.deepcopy(theirs)
    pycv.patch(ours)
    return ours, theirs


def _close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_fx_keeps_layers_with_parameters_whole(models):
    ours, theirs = models
    graph = torch.fx.symbolic_trace(ours.train())
    called = [node.target for node in graph.graph.nodes if node.op == "call_module"]
    assert [name for name in called if name in "02357"] == ["0", "2", "3", "5", "7"]
    assert graph.get_submodule("0") is ours[0]
    assert ours[3].num_batches_tracked == 0
    _close(graph.eval()(X), theirs(X))


def test_export_and_jit_trace_hold_torchs_ops_alone(models):
    ours, theirs = models
    with torch.no_grad():
        exported = torch.export.export(ours, (X,))
        targets = {str(node.target) for node in exported.graph.nodes if node.op == "call_function"}
        assert targets and all(target.startswith("aten.") for target in targets)
        _close(exported.module()(X), theirs(X))
        traced = torch.jit.trace(ours, X)
        assert "pycv::" not in str(traced.inlined_graph)
        _close(traced(X), theirs(X))


@pytest.mark.parametrize("functional", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_compiles_without_graph_breaks(models, functional, training):
    ours, theirs = models
    pycv.patch(ours, functional=functional)
    ours.train(training), theirs.train(training)
    torch._dynamo.reset()
    with torch.set_grad_enabled(training):
        mine = torch.compile(ours, fullgraph=True, backend="aot_eager")(X)
        expected = theirs(X)
    _close(mine, expected)
    if training:
        mine.sum().backward()
        expected.sum().backward()
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-4)


def test_vmap_over_stacked_weights(models):
    ours, theirs = models
    parameters, buffers = torch.func.stack_module_state([ours, ours])

    def run(parameters, buffers):
        return torch.func.functional_call(ours, (parameters, buffers), (X,))

    with torch.no_grad():
        _close(torch.vmap(run)(parameters, buffers), torch.stack([theirs(X)] * 2))


def test_fake_and_meta_tensors(models):
    ours, _ = models
    with torch.no_grad():
        assert copy.deepcopy(ours).to("meta")(X.to("meta")).shape == (2, 5)
        with torch._subclasses.FakeTensorMode(allow_non_fake_inputs=True):
            assert ours(torch.empty(2, 3, 8, 8)).shape == (2, 5)


def test_autocast(models):
    ours, theirs = models
    with torch.autocast("cpu"), torch.no_grad():
        mine, expected = ours(X), theirs(X)
    assert mine.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(mine, expected, rtol=0.05, atol=0.05)


def test_onnx_needs_no_pycv(models, tmp_path):
    import onnx
    from onnx.reference import ReferenceEvaluator

    ours, theirs = models
    path = tmp_path / "model.onnx"
    torch.onnx.export(ours, (X,), path, dynamo=True, verbose=False)
    model = onnx.load(path)
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
    (result,) = ReferenceEvaluator(model).run(None, {model.graph.input[0].name: X.numpy()})
    _close(torch.from_numpy(result), theirs(X).detach())


@pytest.mark.parametrize(
    ("rank", "arguments"),
    [
        (2, (2, None, 0, False)),
        (2, (3, 2, 1, True)),
        (2, ((3, 2), (2, 3), (1, 0), True)),
        (2, (2, 3, 1, True)),
        (3, ((2, 3, 2), 2, 1, True)),
    ],
)
def test_onnx_divides_by_the_divisor_asked_for(rank, arguments, tmp_path):
    """Which torch's exporter drops where the op has one."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    layer = getattr(pycv.nn, f"AvgPool{rank}d")(*arguments, divisor_override=5)
    x, path = torch.randn(2, 3, *(8, 9, 7)[:rank]), tmp_path / "model.onnx"
    torch.onnx.export(layer, (x,), path, dynamo=True, verbose=False)
    model = onnx.load(path)
    (result,) = ReferenceEvaluator(model).run(None, {model.graph.input[0].name: x.numpy()})
    expected = getattr(torch.nn.functional, f"avg_pool{rank}d")(x, *arguments, divisor_override=5)
    torch.testing.assert_close(torch.from_numpy(result), expected)
    torch.testing.assert_close(torch.export.export(layer, (x,)).module()(x), expected)
