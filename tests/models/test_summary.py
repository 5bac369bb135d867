"""The layer table: the figures that lectures show, what it counts and what it leaves alone."""

import json

import pytest
import torch
from torch import nn as torch_nn

from pycv import models, nn
from pycv.models.catalogue import catalogue


def of(name: str, **kwargs) -> models.Summary:
    with torch.device("meta"):
        model = models.create(name)
    return models.summary(model, models.image_shape(name), **kwargs)


def test_vgg16_is_the_table_of_the_lectures():
    """15.2 million values, 60.95 MB in float32; a common slide says 24 million and 96 MB."""
    found = of("vgg16")
    assert found.totals == {
        "values": 15_237_608, "bytes": 60_950_432, "parameters": 138_357_544, "macs": 15_470_264_320
    }  # fmt: skip
    weights = sum(p.numel() for p in models.create("vgg16").parameters() if p.dim() > 1) if False else 138_344_128
    assert found.totals["parameters"] - weights == 13_416  # biases
    shown = {row.name: row for row in found if row.values}
    assert [row.values for row in shown.values()] == [
        150_528, 3_211_264, 3_211_264, 802_816, 1_605_632, 1_605_632, 401_408, 802_816, 802_816, 802_816, 200_704,
        401_408, 401_408, 401_408, 100_352, 100_352, 100_352, 100_352, 25_088, 4_096, 4_096, 1_000,
    ]  # fmt: skip
    assert shown["features.5"].output == (128, 112, 112) and shown["classifier.0"].sees == "whole"


def test_table_as_text():
    lines = str(of("vgg16")).splitlines()
    assert lines[0].split() == ["layer", "kind", "output", "values", "MB", "parameters", "MACs", "sees"]
    assert lines[2].split() == ["input", "3×224×224", "150,528", "0.60", "1"]
    assert lines[5].split() == ["features.4", "MaxPool2d", "2×2/2", "64×112×112", "802,816", "3.21", "6"]
    assert lines[-1].split() == ["total", "15,237,608", "60.95", "138,357,544", "15,470,264,320"]
    assert len(lines) == 2 + 22 + 2 and max(map(len, lines)) <= 100
    assert "5×5/2 d3 g2" in str(models.summary(nn.Conv2d(4, 4, 5, 2, dilation=3, groups=2), (4, 20, 20)))
    assert "3×1/2×1" in str(models.summary(nn.MaxPool2d((3, 1), (2, 1)), (4, 20, 20)))


QUICK = ("lenet5", "lenet5_original", "vgg11_bn", "vit_b_16", "squeezenet1_1")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in QUICK else pytest.mark.full) for n in models.list_models()]
)
def test_totals_are_those_of_the_library_functions(name):
    """And nothing in any of these networks is beyond the rules of the receptive field."""
    found = of(name)
    with torch.device("meta"):
        model = models.create(name)
    assert found.totals["parameters"] == models.parameter_count(model)
    assert found.totals["macs"] == models.macs(model, torch.empty(1, *models.image_shape(name), device="meta"))
    assert all(row.field is not None for row in found)
    assert sorted(found.unused) == {"googlenet": ["aux1", "aux2"], "inception_v3": ["AuxLogits"]}.get(name, [])


def test_batch_multiplies_all_but_parameters():
    one, eight = of("resnet18").totals, of("resnet18", batch=8).totals
    assert eight == {name: value * (1 if name == "parameters" else 8) for name, value in one.items()}


def test_what_shares_memory_is_counted_once():
    """In place, a view, dropout in eval mode, pooling of windows of one; but a new tensor wherever there is one."""
    layers = [nn.Conv2d(1, 2, 3), nn.ReLU(inplace=True), nn.ReLU(), torch_nn.Dropout(), nn.AdaptiveAvgPool2d(6),
              nn.AdaptiveAvgPool2d(3), torch_nn.Flatten(), nn.Linear(18, 5)]  # fmt: skip
    found = models.summary(torch_nn.Sequential(*layers), (1, 8, 8))
    assert [row.values for row in found] == [64, 72, 0, 72, 0, 0, 18, 0, 5]


def test_layers_that_run_twice_and_parameters_that_are_shared():
    layer = nn.Linear(4, 4)
    tied = nn.Linear(4, 4)
    tied.weight = layer.weight
    found = models.summary(torch_nn.Sequential(layer, layer, tied), (4,))
    assert [row.name for row in found] == ["input", "0", "0", "2"]
    assert [row.parameters for row in found] == [0, 20, 0, 4] and [row.macs for row in found] == [0, 16, 16, 16]


class Auxiliary(torch_nn.Module):
    """A head that runs in training only, attention, parameters beside the layers, a layer whose parts have none."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch_nn.Parameter(torch.ones(6))
        self.projection = torch_nn.Parameter(torch.ones(6, 6))
        self.body = nn.Conv2d(3, 6, 4, stride=4)
        self.attention = torch_nn.MultiheadAttention(6, 2, batch_first=True)
        self.subsampling = models.lenet.Subsampling(6)
        self.aux = torch_nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 3))
        self.fc = nn.Linear(6, 3)

    def forward(self, x):
        x = self.subsampling(self.body(x)).flatten(2).transpose(1, 2) * self.scale
        x = torch_nn.functional.linear(x, self.projection)
        x = self.attention(x, x, x, need_weights=False)[0]
        return (self.fc(x[:, 0]), self.aux(x[:, 0])) if self.training else self.fc(x[:, 0])


def test_attention_auxiliary_heads_and_parameters_of_no_layer():
    model = Auxiliary()
    found = models.summary(model, 16)
    rows = {row.name: row for row in found}
    assert rows["attention"].macs == 4 * 4 * 6 * 6 and rows["attention"].parameters == 4 * 36 + 24
    assert rows["attention"].sees == "whole" and rows["body"].sees == "4"
    assert rows["subsampling"].parameters == 12 and rows["subsampling"].sees == "8"
    assert rows["(model)"].parameters == 6 + 36 and rows["(model)"].macs == 4 * 6 * 6
    assert not any(name.startswith("aux") for name in rows)
    assert found.unused == {"aux": 6 * 5 + 5 + 5 * 3 + 3}
    assert found.totals["parameters"] == models.parameter_count(model)
    assert "did not run, in the total of the parameters: aux (53 parameters)" in str(found)


def test_json_is_plain_and_complete():
    model = torch_nn.Sequential(nn.Conv2d(3, 2, 3, stride=2), nn.AdaptiveAvgPool2d(1), nn.ConvTranspose2d(2, 2, 2))
    found = json.loads(json.dumps(models.summary(model, 9, batch=2).to_json()))
    assert found["batch"] == 2 and found["unused"] == {}
    assert found["layers"][1] == {
        "name": "0", "kind": "Conv2d", "window": "3×3/2", "output": [2, 4, 4], "values": 64, "bytes": 256,
        "parameters": 56, "macs": 2 * 16 * 2 * 27, "receptive_field": [{"size": 3, "jump": 2, "start": 0}] * 2,
    }  # fmt: skip
    assert [layer["receptive_field"] for layer in found["layers"][2:]] == ["whole", None]
    assert found["totals"]["values"] == 2 * (243 + 32 + 2 + 8)


def test_model_is_left_as_it_was():
    model = Auxiliary().double()
    model.aux.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert models.summary(model, 16)[1].bytes == 8 * 6 * 16
    with pytest.raises(RuntimeError):
        models.summary(model, 1)
    assert model.training and not model.aux.training and model.fc.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.device.type == "cpu" for p in model.parameters())


@pytest.mark.parametrize(("size", "batch"), [(0, 1), ((3, -1, 4), 1), ((), 1), (8, 0)])
def test_bad_sizes(size, batch):
    with pytest.raises(ValueError, match="expected positive sizes"):
        models.summary(nn.Conv2d(3, 3, 1), size, batch)


def test_catalogue():
    found = {model.name: model for model in (*catalogue("lenet5*"), *catalogue("resnet50"))}
    assert list(found) == ["lenet5", "lenet5_original", "resnet50"]
    assert (found["lenet5"].parameters, found["lenet5"].macs) == (61_706, 416_520)
    assert found["lenet5_original"].parameters == 60_000
    assert found["resnet50"].image == (3, 224, 224) and found["resnet50"].macs == 4_089_184_256
