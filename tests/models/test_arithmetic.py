"""Worked examples with definite answers, and torch as a second opinion."""

import itertools

import pytest
import torch
from torch import nn as torch_nn

from pycv import models, nn


def test_multilayer_perceptron():
    mlp = torch_nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 1))
    assert models.parameter_count(mlp) == 41
    assert models.macs(mlp, torch.zeros(1, 3)) == 32
    assert models.parameter_count(nn.Linear(28 * 28, 28 * 28, bias=False)) == 614_656


@pytest.mark.parametrize(
    ("channels", "size", "filters", "kernel", "parameters", "side"), [(3, 6, 10, 3, 280, 4), (3, 32, 6, 5, 456, 28)]
)
def test_filters(channels, size, filters, kernel, parameters, side):
    conv, x = nn.Conv2d(channels, filters, kernel), torch.zeros(1, channels, size, size)
    assert models.parameter_count(conv) == parameters
    assert conv(x).shape == (1, filters, side, side)
    assert models.output_size(size, kernel) == side
    assert models.macs(conv, x) == side * side * filters * kernel * kernel * channels


def test_weights_shared_and_local():
    assert models.parameter_count(nn.Conv2d(10, 20, 5, bias=False)) == 5_000
    assert models.parameter_count(nn.Conv1d(1, 1, 3)) == 4
    assert models.parameter_count(nn.Linear(6, 4)) == 28
    assert models.parameter_count(nn.MaxPool2d(2)) == models.parameter_count(nn.AvgPool2d(2)) == 0


def test_stacks_of_3x3_against_larger_filters():
    """Two see 5×5 for 18 C² weights instead of 25 C², three see 7×7 for 27 C² instead of 49 C²."""
    channels = 4
    for depth, side, stacked, single in ((2, 5, 18, 25), (3, 7, 27, 49)):
        stack = torch_nn.Sequential(*(nn.Conv2d(channels, channels, 3, bias=False) for _ in range(depth)))
        assert stack(torch.zeros(1, channels, side, side)).shape[2:] == (1, 1)
        assert models.parameter_count(stack) == stacked * channels**2
        assert models.parameter_count(nn.Conv2d(channels, channels, side, bias=False)) == single * channels**2


def test_shared_and_frozen_parameters():
    layer = nn.Linear(4, 4)
    twice = torch_nn.Sequential(layer, layer)
    assert models.parameter_count(twice) == 20
    assert models.macs(twice, torch.zeros(1, 4)) == 32
    layer.bias.requires_grad_(False)
    assert models.parameter_count(twice) == 16
    assert models.parameter_count(twice, trainable_only=False) == 20


def test_macs_of_grouped_transposed_and_batched():
    x = torch.zeros(2, 4, 5, 6)
    assert models.macs(nn.Conv2d(4, 8, 3, groups=2), x) == 2 * 8 * 3 * 4 * 2 * 9
    assert models.macs(nn.ConvTranspose2d(4, 8, 3, stride=2, groups=2), x) == 2 * 4 * 30 * 4 * 9


def test_macs_leaves_the_model_as_it_was():
    model = torch_nn.Sequential(nn.Linear(2, 2), torch_nn.Dropout())
    model[1].eval()
    models.macs(model, torch.zeros(1, 2))
    assert [m.training for m in model.modules()] == [True, True, False]
    assert not any(m._forward_hooks for m in model.modules())
    with pytest.raises(RuntimeError):
        models.macs(model, torch.zeros(1, 3))
    assert model.training and not any(m._forward_hooks for m in model.modules())


def test_output_sizes_match_torch():
    x = {size: torch.zeros(1, 1, size) for size in range(1, 12)}
    checked = 0
    for size, kernel, stride, ceil_mode in itertools.product(x, range(1, 6), range(1, 5), (False, True)):
        for padding, dilation in itertools.product(range(kernel // 2 + 1), (1, 2)):
            pool = torch_nn.MaxPool1d(kernel, stride, padding, dilation, ceil_mode=ceil_mode)
            try:
                expected = pool(x[size]).shape[2]
            except RuntimeError:
                with pytest.raises(ValueError, match="larger than the padded input"):
                    models.output_size(size, kernel, stride, padding, dilation, ceil_mode)
                continue
            assert models.output_size(size, kernel, stride, padding, dilation, ceil_mode) == expected
            checked += 1
    assert checked > 1000


@pytest.mark.parametrize("argument", ["size", "kernel", "stride", "padding", "dilation"])
def test_output_size_names_the_bad_argument(argument):
    arguments = {"size": 8, "kernel": 3, "stride": 1, "padding": 0, "dilation": 1, argument: -1}
    with pytest.raises(ValueError, match=f"{argument}=-1"):
        models.output_size(**arguments)
