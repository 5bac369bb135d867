"""Both LeNet-5: the published figures, computed from the modules themselves."""

import pytest
import torch
from torch.nn import functional as torch_functional

import pycv
from pycv import models
from pycv.models import lenet


def connections_by_layer(model: torch.nn.Module, x: torch.Tensor) -> dict[str, int]:
    """Each unit's inputs and its bias, summed over the units of each layer, as the paper counts them."""
    found: dict[str, int] = {}

    def fan_in(module: torch.nn.Module) -> int | None:
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
            return module.weight[0].numel() + 1
        if isinstance(module, lenet.Subsampling):
            return 4 + 1
        if isinstance(module, lenet.RadialBasis):
            return module.codes.shape[1]
        return None

    def hook_of(name: str, inputs: int):
        def hook(module, args, output):
            found[name] = found.get(name, 0) + output[0].numel() * inputs

        return hook

    for name, module in model.named_modules():
        inputs = fan_in(module)
        if inputs is not None:
            module.register_forward_hook(hook_of(name.split(".")[0], inputs))
    model(x)
    return found


def parameters_by_layer(model: torch.nn.Module) -> dict[str, int]:
    return {name: models.parameter_count(layer) for name, layer in model.named_children()}


def test_modern_figures():
    model = models.lenet5()
    assert models.parameter_count(model) == 61_706
    assert models.macs(model, torch.zeros(1, 1, 32, 32)) == 416_520
    assert parameters_by_layer(model) == {
        "c1": 156, "s2": 0, "c3": 2_416, "s4": 0, "c5": 48_120, "f6": 10_164, "output": 850, "relu": 0
    }  # fmt: skip


def test_modern_on_28x28():
    model = models.lenet5(num_classes=7, padding=2)
    assert models.macs(model, torch.zeros(1, 1, 28, 28)) == 416_520 - 84 * 3
    assert model(torch.zeros(5, 1, 28, 28)).shape == (5, 7)


def test_original_figures():
    model = models.create("lenet5_original", num_classes=10)  # as every recipe builds its model
    assert models.parameter_count(model) == 60_000
    assert parameters_by_layer(model) == {
        "c1": 156, "s2": 12, "c3": 1_516, "s4": 32, "c5": 48_120, "f6": 10_164, "output": 0
    }  # fmt: skip
    connections = connections_by_layer(model, torch.zeros(1, 1, 32, 32))
    assert connections == {
        "c1": 122_304, "s2": 5_880, "c3": 151_600, "s4": 2_000, "c5": 48_120, "f6": 10_164, "output": 840
    }  # fmt: skip
    assert sum(connections.values()) == 340_908


def test_original_subsampling_and_partial_table():
    """Against dense torch ops: the sum of four times a coefficient; a masked convolution over all six maps."""
    torch.manual_seed(0)
    subsampling = lenet.Subsampling(3)
    torch.nn.init.normal_(subsampling.coefficient)
    torch.nn.init.normal_(subsampling.bias)
    x = torch.randn(2, 3, 6, 8)
    four = x[..., ::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, ::2] + x[..., 1::2, 1::2]
    torch.testing.assert_close(subsampling(x), four * subsampling.coefficient + subsampling.bias)

    partial = lenet.PartialConvolution()
    dense, kernels = torch.zeros(16, 6, 5, 5), []
    for layer in (partial.of_three, partial.of_four, partial.of_six):
        kernels += list(layer.weight)
    for unit, (seen, kernel) in enumerate(zip(partial.TABLE, kernels, strict=True)):
        dense[unit, list(seen)] = kernel.detach()
    bias = torch.cat([partial.of_three.bias, partial.of_four.bias, partial.of_six.bias])
    x = torch.randn(2, 6, 14, 14)
    torch.testing.assert_close(partial(x), torch_functional.conv2d(x, dense, bias), rtol=1e-4, atol=1e-5)
    seen_by = [sum(channel in seen for seen in partial.TABLE) for channel in range(6)]
    assert seen_by == [10] * 6  # table I: every map of S2 feeds ten maps of C3


def test_original_output_codes():
    codes = lenet.digit_codes()
    assert codes.shape == (10, 84)
    assert set(codes.unique().tolist()) == {-1.0, 1.0}
    differing = (codes[:, None] != codes[None]).sum(2) + 84 * torch.eye(10, dtype=torch.long)
    assert differing.min() >= 4  # pixels
    output = lenet.RadialBasis()(codes)
    assert torch.equal(output.argmax(1), torch.arange(10))
    assert torch.equal(output.diagonal(), torch.zeros(10))
    torch.testing.assert_close(lenet.squash(torch.tensor([-1.0, 1.0])), torch.tensor([-1.0, 1.0]), rtol=1e-4, atol=0)


@pytest.mark.parametrize("name", models.list_models("lenet*"))
def test_trains_on_pycv_kernels_alone(name):
    """A few steps on one batch bring the loss down, with no kernel but pycv's allowed."""
    torch.manual_seed(0)
    model, x, labels = models.create(name), torch.randn(10, 1, 32, 32), torch.arange(10)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    losses = []
    with pycv.use(backend="cpu"):
        for _ in range(15):
            loss = torch_functional.cross_entropy(model(x), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("name", models.list_models("lenet*"))
def test_state_dict_round_trip(name):
    torch.manual_seed(0)
    first, second = models.create(name), models.create(name)
    x = torch.randn(2, 1, 32, 32)
    assert not torch.equal(first(x), second(x))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(x), second(x))
