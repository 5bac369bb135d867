"""Receptive fields: by arithmetic, against the gradient that really reaches the input, and along a whole network."""

import random

import pytest
import torch
from torch import nn as torch_nn
from torch.nn import functional as F

from pycv import models, nn
from pycv.models import ReceptiveField, receptive_field
from pycv.models.trace import WHOLE, Trace

# What the convolutions and poolings of VGG-16 see.
VGG16 = [3, 5, 6, 10, 14, 16, 24, 32, 40, 44, 60, 76, 92, 100, 132, 164, 196, 212]


def test_stacks_of_3x3_see_5x5_and_7x7():
    assert receptive_field([(3,)] * 2).size == 5
    assert receptive_field([(3,)] * 3) == ReceptiveField(7, 1, 0)
    assert receptive_field([]) == ReceptiveField(1, 1, 0)


def test_stride_padding_and_dilation():
    stem = receptive_field([(7, 2, 3), (3, 2, 1)])  # of ResNet
    assert stem == ReceptiveField(size=11, jump=4, start=-5)
    assert stem.seen_by(0) == range(-5, 6) and stem.seen_by(2) == range(3, 14)
    assert receptive_field([(3, 1, 0, 2)]).size == receptive_field([(5,)]).size == 5


@pytest.mark.parametrize("window", [(0,), (3, 0), (3, 1, -1), (3, 1, 0, 0)])
def test_impossible_windows(window):
    with pytest.raises(ValueError, match="expected at least"):
        receptive_field([window])


def test_joined_paths():
    """An inception module's 1×1 and 5×5 paths; two paths that do not move alike have no joint field."""
    assert ReceptiveField(1, 4, 0).union(ReceptiveField(17, 4, -8)) == ReceptiveField(17, 4, -8)
    assert ReceptiveField(2, 1, 3).union(ReceptiveField(2, 1, 0)) == ReceptiveField(5, 1, 0)
    with pytest.raises(ValueError, match="by 1 and by 2"):
        ReceptiveField().union(ReceptiveField(3, 2, 0))


def test_against_the_gradient_along_one_axis():
    """Chains of random windows: the input elements with a gradient are those that seen_by names. Four windows of
    stride 3 see up to 241."""
    checked = 0
    while checked < 40:
        windows = [(random.randint(1, 4), random.randint(1, 3), random.randint(0, 2), random.randint(1, 2))
                   for _ in range(random.randint(1, 4))]  # fmt: skip
        field, x = receptive_field(windows), torch.ones(1, 1, 600, dtype=torch.float64, requires_grad=True)
        y = x
        for kernel, stride, padding, dilation in windows:
            y = F.conv1d(y, torch.ones(1, 1, kernel, dtype=torch.float64), None, stride, padding, dilation)
        inside = [i for i in range(y.shape[2]) if field.seen_by(i)[0] >= 0 and field.seen_by(i)[-1] < 600]
        for output in inside[:1] + inside[-1:]:
            (gradient,) = torch.autograd.grad(y[0, 0, output], x, retain_graph=True)
            seen = gradient[0, 0].nonzero().flatten()
            assert (seen[0], seen[-1]) == (field.seen_by(output)[0], field.seen_by(output)[-1])
            checked += 1


# -------------------------------------------------------------------------------------------- whole networks


class Branches(torch_nn.Module):
    """What networks are made of: four paths, one of them of two axes unlike, a residual sum, functional calls."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.one = nn.Conv2d(8, 2, 1)
        self.wide = torch_nn.Sequential(nn.Conv2d(8, 2, (1, 7), padding=(0, 3)), nn.Conv2d(2, 2, 3, padding="same"))
        self.pooled = torch_nn.Sequential(nn.AvgPool2d(3, 1, 1), nn.Conv2d(8, 2, 1))
        self.norm = nn.BatchNorm2d(8)
        self.last = nn.Conv2d(8, 4, 3, padding=2, dilation=2, groups=2)

    def forward(self, x):
        x = F.relu(self.stem(x), inplace=True)
        paths = [self.one(x), self.wide(x), self.pooled(x), F.avg_pool2d(F.pad(x[:, 2:4], (1, 1, 2, 0)), 3, 1, (0, 0))]
        paths[3] = F.pad(paths[3], (0, 0, 0, 0))
        y = self.norm(torch.cat(paths, 1))
        y += x.view(-1, 2, 4, *x.shape[2:]).transpose(1, 2).reshape(x.shape)  # channels shuffled
        return self.last(F.hardswish(y) * 0.5)


def positive(model: torch_nn.Module) -> torch_nn.Module:
    """With positive weights no gradient cancels or dies."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.rand_like(parameter) + 0.1)
    return model.double().eval()


def traced(model, x):
    with torch.no_grad(), Trace(x) as trace:
        y = model(x)
    return trace.field(y)


def test_branches_against_the_gradient():
    model, x = positive(Branches()), torch.rand(1, 3, 61, 61, dtype=torch.float64, requires_grad=True)
    field, y = traced(model, x), model(x)
    assert [axis.jump for axis in field] == [2, 2] and field[0] != field[1]
    row, column = 16, 15
    (gradient,) = torch.autograd.grad(y[0, :, row, column].sum(), x)
    rows, columns = (gradient[0].sum(0).sum(axis).nonzero().flatten() for axis in (1, 0))
    assert (rows[0], rows[-1]) == (field[0].seen_by(row)[0], field[0].seen_by(row)[-1])
    assert (columns[0], columns[-1]) == (field[1].seen_by(column)[0], field[1].seen_by(column)[-1])


def test_every_second_position_against_the_gradient():
    """As the shortcuts of ResNet-20 take them; an index that is no slice leaves no image."""
    convolution, x = positive(nn.Conv2d(1, 2, 3)), torch.rand(1, 1, 30, 30, dtype=torch.float64, requires_grad=True)

    def model(x):
        return F.pad(convolution(x)[:, :, 1::2, :-1:3], (0, 0, 0, 0, 0, 4))

    fields, y = traced(model, x), model(x)
    (gradient,) = torch.autograd.grad(y[0, :, 5, 6].sum(), x)
    for axis, field, output in ((1, fields[0], 5), (0, fields[1], 6)):
        seen = gradient[0, 0].sum(axis).nonzero().flatten()
        assert (seen[0], seen[-1]) == (field.seen_by(output)[0], field.seen_by(output)[-1])
    assert traced(lambda x: convolution(x)[:, :, [0, 2]], x) is None


@pytest.mark.parametrize("block", [models.resnet.BasicBlock, models.resnet.Bottleneck], ids=lambda b: b.__name__)
def test_residual_stages_against_the_gradient(block):
    model = positive(models.ResNet(block, (1, 2, 1, 1), num_classes=2))
    stem = (model.conv1, model.bn1, model.relu, nn.AvgPool2d(3, 2, 1))
    stages = torch_nn.Sequential(*stem, model.layer1, model.layer2)
    x = torch.rand(1, 3, 160, 8, dtype=torch.float64, requires_grad=True)
    field, y = traced(stages, x)[0], stages(x)
    output = y.shape[2] // 2
    (gradient,) = torch.autograd.grad(y[0, :, output].sum(), x)
    rows = gradient[0].sum((0, 2)).nonzero().flatten()
    assert (rows[0], rows[-1]) == (field.seen_by(output)[0], field.seen_by(output)[-1])


def test_vgg16():
    with torch.device("meta"):
        rows = models.summary(models.vgg16(), 224)
    fields = [row.field for row in rows if row.window and row.field != WHOLE]
    assert [height.size for height, _ in fields] == VGG16
    assert fields[-1][0] == receptive_field(([(3, 1, 1)] * 2 + [(2, 2)]) * 2 + ([(3, 1, 1)] * 3 + [(2, 2)]) * 3)


@pytest.mark.parametrize(
    ("name", "size"), [("alexnet_original", 195), ("vgg16", 212), ("mobilenet_v1", 315), ("inception_v3", 1311)]
)
def test_published_sizes(name, size):
    """Of the last feature map: Araujo et al., the table of their section on modern networks."""
    with torch.device("meta"):
        rows = models.summary(models.create(name), models.image_shape(name))
    assert max(axis.size for row in rows if isinstance(row.field, tuple) for axis in row.field) == size


def tokens(x):
    return x.flatten(2).transpose(1, 2)


def attend(x):
    return torch.softmax(tokens(x) @ x.flatten(2), 2)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x: F.linear(tokens(x), torch.zeros(3, 4)), (ReceptiveField(),) * 2),
        (torch_nn.Sequential(torch_nn.Flatten(), torch_nn.LazyLinear(3)), WHOLE),
        (nn.AdaptiveAvgPool2d(1), WHOLE),
        (nn.AdaptiveAvgPool2d(4), (ReceptiveField(2, 2, 0),) * 2),
        (nn.AdaptiveAvgPool2d(3), None),
        (lambda x: x.mean((2, 3)), WHOLE),
        (lambda x: x.mean(1, keepdim=True), (ReceptiveField(),) * 2),
        (lambda x: x * x.amax((2, 3), keepdim=True), WHOLE),
        (lambda x: F.interpolate(x, scale_factor=2), None),
        (lambda x: F.conv2d(F.interpolate(x, scale_factor=2), torch.zeros(1, 4, 3, 3)), None),
        (lambda x: x + F.interpolate(x[..., ::2, ::2], scale_factor=2), None),
        (nn.ConvTranspose2d(4, 2, 3), None),
        (torch_nn.GroupNorm(2, 4), WHOLE),
        (torch_nn.LayerNorm((4, 8, 8)), WHOLE),
        (lambda x: torch_nn.LayerNorm(4)(tokens(x)), (ReceptiveField(),) * 2),
        (nn.LocalResponseNorm(3), (ReceptiveField(),) * 2),
        (nn.MaxPool2d(3, 2, 1), (ReceptiveField(3, 2, -1),) * 2),
        (attend, WHOLE),
        (lambda x: F.scaled_dot_product_attention(x, x, x), WHOLE),
        (lambda x: torch.zeros(2), None),
    ],
)  # fmt: skip
def test_what_widens_a_field_and_what_loses_it(function, expected):
    assert traced(function, torch.zeros(1, 4, 8, 8)) == expected
