"""Features, embeddings, freezing and other heads."""

import copy

import pytest
import torch
from torch import nn as torch_nn

from pycv import models, nn


class Residual(torch_nn.Module):
    """Whose outputs are overwritten in place behind the layer that made them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.bn = nn.BatchNorm2d(3)
        self.relu = nn.ReLU(inplace=True)
        self.never = nn.Linear(2, 2)
        self.fc = nn.Linear(3, 5)

    def forward(self, x):
        y = self.bn(self.conv(x))
        y += x
        return self.fc(self.relu(y).mean((2, 3)))


class Stages(torch_nn.Module):
    """Three stages with batch normalisation, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1 = torch_nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.layer2 = torch_nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.layer3 = torch_nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.fc = nn.Linear(4, 7)

    def forward(self, x):
        return self.fc(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))


def test_features_are_what_the_layers_gave():
    model, x = Residual().eval(), torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        found = models.features(model, x, ["relu", "conv", "bn"])
        conv = torch_nn.functional.conv2d(x, model.conv.weight, model.conv.bias, padding=1)
        normalised = model.bn(conv)
    assert list(found) == ["relu", "conv", "bn"]
    torch.testing.assert_close(found["conv"], conv)
    torch.testing.assert_close(found["bn"], normalised)
    torch.testing.assert_close(found["relu"], torch.relu(normalised + x))
    assert not any(m._forward_hooks for m in model.modules())


def test_features_have_gradients_and_whole_blocks_have_names():
    model = Stages()
    found = models.features(model, torch.randn(2, 3, 16, 16), ["layer1.0", "layer3"])
    assert found["layer1.0"].shape == (2, 4, 7, 7) and found["layer3"].shape == (2, 4, 3, 3)
    assert list(models.features(model, torch.randn(2, 3, 16, 16), "layer3")) == ["layer3"]
    found["layer3"].square().sum().backward()
    assert model.layer1[0].weight.grad.abs().sum() > 0 and model.fc.weight.grad is None


def test_features_of_layers_that_are_not_there_or_do_not_run():
    model, x = Residual(), torch.randn(2, 3, 8, 8)
    with pytest.raises(ValueError, match=r"layer 'covn': Residual has none of that name; near it: conv"):
        models.features(model, x, ["bn", "covn"])
    with pytest.raises(ValueError, match=r"\['never'\]: did not run"):
        models.features(model, x, ["bn", "never"])
    assert not any(m._forward_hooks for m in model.modules())


def test_embedding_is_the_input_of_the_last_layer():
    model, x = Stages().eval(), torch.randn(3, 3, 16, 16)
    with torch.no_grad():
        embedding = models.embed(model, x)
        assert embedding.shape == (3, 4)
        torch.testing.assert_close(model.fc(embedding), model(x))
        squeezenet = models.create("squeezenet1_1", num_classes=4).eval()
        x = torch.randn(2, 3, 40, 40)
        embedding = models.embed(squeezenet, x)
        assert embedding.shape == (2, 512)
        features = models.features(squeezenet, x, ["features"])["features"]
    torch.testing.assert_close(embedding, features.mean((2, 3)))
    assert not any(m._forward_pre_hooks for m in (*model.modules(), *squeezenet.modules()))


def step(model, x) -> None:
    model.train()
    model.zero_grad()
    torch_nn.functional.cross_entropy(model(x), torch.arange(len(x))).backward()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter -= 0.1 * parameter.grad


def changed(model, before) -> set[str]:
    return {key.split(".")[0] for key, value in model.state_dict().items() if not torch.equal(value, before[key])}


@pytest.mark.parametrize(
    ("until", "trained"),
    [("layer2", {"layer2", "layer3", "fc"}), (None, {"fc"}), ("layer1", None)],
    ids=["a stage", "all but the head", "nothing"],
)
def test_what_is_frozen_stays_as_it_is(until, trained):
    """Statistics of batch normalisation too, though the model is in train mode."""
    model, x = Stages(), torch.randn(4, 3, 16, 16)
    children = {name for name, child in model.named_children() if list(child.parameters())}
    frozen = models.freeze(model, until)
    assert {name.split(".")[0] for name in frozen} == children - (trained or children)
    copied = copy.deepcopy(model)
    for each in (model, copied):
        before = copy.deepcopy(each.state_dict())
        step(each, x)
        assert changed(each, before) == (trained or children)
    assert models.freeze(model, until) == frozen  # again: no second hook
    assert all(len(m._forward_pre_hooks) <= 1 for m in model.modules())
    models.unfreeze(model)
    assert all(p.requires_grad for p in model.parameters()) and all(m.training for m in model.modules())
    before = copy.deepcopy(model.state_dict())
    step(model, x)
    assert changed(model, before) == children


def test_freezing_keeps_every_head():
    with torch.device("meta"):
        model = models.create("googlenet")
    models.freeze(model)
    trained = {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"aux1", "aux2", "fc"}
    with pytest.raises(ValueError, match="near it: layer3"):
        models.freeze(Stages(), "layer33")


QUICK = ("googlenet", "squeezenet1_1", "vit_b_16", "mobilenet_v2", "maxout_mlp", "darknet53")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in QUICK else pytest.mark.full) for n in models.list_models()]
)
def test_every_model_has_a_head_that_can_be_replaced(name):
    with torch.device("meta"):
        model = models.create(name)
        if name == "lenet5_original":
            with pytest.raises(ValueError, match="ends in RadialBasis, not in a linear layer"):
                models.replace_head(model, 3)
            return
        expected = [(key, value.shape) for key, value in models.create(name, num_classes=3).state_dict().items()]
    assert models.replace_head(model, 3) is model
    assert [(key, value.shape) for key, value in model.state_dict().items()] == expected


def test_new_head_is_like_the_old_one():
    model = torch_nn.Sequential(nn.Conv2d(3, 4, 3), torch_nn.Conv2d(4, 6, 3, 2, 1, bias=False, groups=2)).double()
    models.replace_head(model, 8)
    assert type(model[1]) is torch_nn.Conv2d and model[1].weight.dtype == torch.float64 and model[1].bias is None
    assert (model[1].stride, model[1].padding, model[1].groups, model[1].out_channels) == ((2, 2), (1, 1), 2, 8)
    assert type(models.replace_head(Stages(), 3).fc) is nn.Linear


@pytest.mark.parametrize("num_classes", [0, -1])
def test_impossible_number_of_classes(num_classes):
    with pytest.raises(ValueError, match=f"num_classes={num_classes}"):
        models.replace_head(Stages(), num_classes)
    with pytest.raises(ValueError, match="ends in"):
        models.replace_head(torch_nn.Sequential(nn.ReLU()), 3)


@pytest.mark.parametrize("classes", ["3", 2.5, True, None])
def test_numbers_of_classes_that_are_none(classes):
    with pytest.raises(TypeError, match="expected a whole number"):
        models.replace_head(Stages(), classes)
    with pytest.raises(TypeError, match="expected a whole number"):
        models.create("lenet5", num_classes=classes)
