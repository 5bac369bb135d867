"""Every architecture, at reduced size, does what any torch network does: it trains, compiles, exports, and so on."""

import operator

import pytest
import torch
from torch.nn.functional import cross_entropy

import pycv
from pycv import models
from pycv.models.inception import InceptionAux
from tests.backend import BACKEND, INTERPRETED
from tests.seed import sliced

from .golden import fill
from .test_golden import SHEET

# The smallest images are 40×40, but where the architecture wants more.
SIZES = {
    "alexnet": 64, "alexnet_original": 227, "alexnet_ungrouped": 227, "zfnet": 224, "inception_v3": 80, "vit_b_16": 48,
    "lenet5": 32, "lenet5_original": 32, "perceptron": 28, "mlp": 28, "maxout_mlp": 28,
}  # fmt: skip
REDUCED = {
    "inception_v3": {"aux_logits": False},  # the auxiliary classifier takes no image below 299×299
    "vit_b_16": {"image_size": 48, "num_layers": 2},
}
# The others take seconds each, for their weights or their layers.
LIGHT = [name for name, figures in SHEET.items() if figures.parameters < 30e6 and figures.tensors < 380]


def drawn(count: int, shift: int, tensors: int = 380) -> list:
    """So many of the light models of up to ``tensors``, others for another ``shift``; the rest runs in full only."""
    names = [name for name in LIGHT[shift:] + LIGHT[:shift] if SHEET[name].tensors <= tensors]
    rest = [pytest.param(name, marks=pytest.mark.full) for name in SHEET if name not in names]
    return sliced(names, count) + rest


def reduced(name: str, batch: int = 2) -> tuple[torch.nn.Module, torch.Tensor]:
    """In eval mode and with weights that leave no output at zero, and a batch of images."""
    model = models.create(name, **REDUCED.get(name, {})).eval()
    fill(model.state_dict())
    size = SIZES.get(name, 40)
    return model, torch.randn(batch, models.image_shape(name)[0], size, size)


def assert_near(result: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    assert result.shape == expected.shape
    assert (result - expected).norm() <= tolerance * expected.norm() and expected.norm() > 0


def gradients(model: torch.nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of the classification loss in training mode, every classifier's; batch normalisation's buffers are left alone."""
    torch.manual_seed(0)  # the same dropout
    model.train().zero_grad(set_to_none=True)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    outputs = model(x)
    labels = torch.arange(len(x))
    loss = sum(cross_entropy(y, labels) for y in ((outputs,) if isinstance(outputs, torch.Tensor) else outputs))
    loss.backward()
    for name, buffer in model.named_buffers():
        buffer.copy_(before[name])
    return {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.fixture
def few_programs(monkeypatch):
    """Triton's interpreter takes its time for operations, not for elements: one large multiprocessor does it all."""
    if INTERPRETED:
        from pycv.kernels.triton import tiles

        monkeypatch.setattr(tiles, "PROCESSORS", 1)
        monkeypatch.setattr(tiles, "ELEMENTS", 1 << 16)
        for largest in (tiles.LARGEST, tiles.SCATTERED):
            monkeypatch.setitem(largest, "f64", (512, 512, 1024))


@pytest.mark.usefixtures("few_programs")
@pytest.mark.parametrize("name", drawn(2, 0, tensors=200))
def test_gradients_are_those_of_torchs_kernels(name):
    model, x = reduced(name, batch=4)
    assert_gradients_of_torch(model.double(), x.double())


@pytest.mark.usefixtures("few_programs")
def test_gradients_of_inceptions_auxiliary_classifier():
    """Alone, on the maps that it sees in images of 299×299; the network above is built without it."""
    model = InceptionAux(24, 10).double()
    fill(model.state_dict())
    assert_gradients_of_torch(model, torch.randn(4, 24, 17, 17, dtype=torch.float64))


def assert_gradients_of_torch(model: torch.nn.Module, x: torch.Tensor) -> None:
    """In float64, with no kernel but pycv's allowed."""
    with pycv.use(backend="torch"):
        expected = gradients(model, x)
    with pycv.use(backend=BACKEND):
        result = gradients(model, x)
    assert all(gradient.any() for gradient in expected.values())
    assert_all_near(result, expected)


def assert_all_near(result: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """Each within 1e-8 of its norm, or of a millionth of all together's: some are zero but for rounding, such as that
    of a bias before batch normalisation."""
    total = torch.stack([gradient.norm() for gradient in expected.values()]).norm()
    for key, gradient in expected.items():
        error, scale = (result[key] - gradient).norm(), gradient.norm() + 1e-6 * total
        assert error <= 1e-8 * scale, f"{key}: {error / scale:.1e}"


@pytest.mark.parametrize("name", drawn(1, 5, tensors=200))
def test_compiles_without_graph_breaks(name):
    """In float64, where no rounding decides on which side of a kink an activation lies."""
    model, x = reduced(name)
    model, x = model.double(), x.double()
    torch._dynamo.reset()
    y = torch.compile(model, fullgraph=True, backend="aot_eager")(x)
    y.square().mean().backward()
    result = {key: parameter.grad for key, parameter in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    expected = model(x)
    expected.square().mean().backward()
    assert_near(y, expected, 1e-10)
    for key, parameter in model.named_parameters():
        if parameter.grad is None:
            assert result[key] is None and key.startswith("aux")  # classifiers that rest in eval mode
        else:
            assert_near(result[key], parameter.grad, 1e-8)


@pytest.mark.full
@pytest.mark.parametrize("name", ["alexnet", "googlenet", "inception_v3", "mobilenet_v3_small", "resnet18", "vit_b_16"])
def test_compiles_in_training(name):
    """With dropout, statistics of the batch, and the classifiers that have outputs of their own then."""
    if name == "inception_v3":
        model, x = models.create(name), torch.randn(2, 3, 299, 299)
        fill(model.state_dict())
    else:
        model, x = reduced(name)
    model, x = model.double(), x.double()
    expected = gradients(model, x)
    torch._dynamo.reset()
    result = gradients(torch.compile(model, fullgraph=True, backend="aot_eager"), x)
    assert_all_near({key.removeprefix("_orig_mod."): gradient for key, gradient in result.items()}, expected)


@pytest.mark.parametrize("name", drawn(1, 11))
def test_exports_to_torchs_ops_alone(name):
    model, x = reduced(name)
    with torch.no_grad():
        exported = torch.export.export(model, (x,))
        targets = {node.target for node in exported.graph.nodes if node.op == "call_function"} - {operator.getitem}
        assert targets and all(str(target).startswith("aten.") for target in targets)
        assert_near(exported.module()(x), model(x), 1e-4)  # float32, other kernels in each of a hundred layers


@pytest.mark.parametrize("name", drawn(1, 17))
def test_autocast(name):
    model, x = reduced(name)
    with torch.no_grad():
        expected = model(x)
        with torch.autocast("cpu", torch.bfloat16):
            result = model(x)
    if name != "lenet5_original":  # whose distances to the codes, in float32, are the output
        assert result.dtype == torch.bfloat16
    assert_near(result.float(), expected, 0.25)  # of 8 bits; anything unlike it would be off by more than 1


@pytest.mark.parametrize("name", drawn(2, 23))
def test_channels_last_goes_through(name):
    """Every map in between is channels_last as well."""
    model, x = reduced(name)
    with torch.no_grad():
        expected = model(x)
        model, x = model.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
        seen = []
        for key, module in model.named_modules():
            module.register_forward_hook(lambda module, args, y, key=key: seen.append((key, y)))
        assert_near(model(x), expected, 1e-4)  # float32, other kernels
    for key, y in seen:
        if isinstance(y, torch.Tensor) and y.dim() == 4:
            assert y.is_contiguous(memory_format=torch.channels_last), key
