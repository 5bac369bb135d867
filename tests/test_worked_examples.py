"""Worked examples with definite answers, through the layers and functions that a user calls."""

import pytest
import torch
from torch import tensor

from pycv import functional as PF
from pycv import nn

X = tensor([[3, 3, 2, 1, 0], [0, 0, 1, 3, 1], [3, 1, 2, 2, 3], [2, 0, 0, 2, 2], [2, 0, 0, 0, 1]])
W = tensor([[0, 1, 2], [2, 2, 0], [0, 1, 2]])


def convolve(image, filter, **arguments):
    y = PF.conv2d(image.float()[None, None], filter.float()[None, None], **arguments)
    return y[0, 0].int().tolist()


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def test_what_is_called_convolution_is_cross_correlation():
    assert convolve(X, W) == [[12, 12, 17], [10, 17, 19], [9, 6, 14]]


def test_true_convolution_flips_the_filter():
    assert convolve(X, W.flip(0, 1)) == [[18, 20, 19], [10, 9, 17], [11, 8, 14]]


def test_stride_two():
    assert convolve(X, W, stride=2) == [[12, 17], [9, 14]]
    assert convolve(X, W, stride=2, padding=1) == [[6, 17, 3], [8, 17, 13], [6, 4, 4]]


def test_binary_image():
    image = tensor([[1, 1, 1, 0, 0], [0, 1, 1, 1, 0], [0, 0, 1, 1, 1], [0, 0, 1, 1, 0], [0, 1, 1, 0, 0]])
    filter = tensor([[1, 0, 1], [0, 1, 0], [1, 0, 1]])
    assert convolve(image, filter) == [[4, 3, 4], [2, 4, 3], [2, 3, 4]]


def test_max_pool():
    x = tensor([[1.0, 1, 2, 4], [5, 6, 7, 8], [3, 2, 1, 0], [1, 2, 3, 4]])
    assert PF.max_pool2d(x[None, None], 2, 2)[0, 0].int().tolist() == [[6, 8], [3, 4]]


@pytest.mark.parametrize(
    "filters, side, channels, image, out, count",
    [(10, 3, 3, 6, 4, 280), (6, 5, 3, 32, 28, 456), (20, 5, 10, 9, 5, 5020)],
)
def test_sizes_and_parameters_of_a_convolution(filters, side, channels, image, out, count):
    layer = nn.Conv2d(channels, filters, side)
    assert layer(torch.zeros(1, channels, image, image)).shape == (1, filters, out, out)
    assert parameters(layer) == count


def test_pooling_has_no_parameters():
    assert parameters(nn.MaxPool2d(2)) == parameters(nn.AvgPool2d(2)) == 0


def test_parameters_of_a_multilayer_perceptron():
    layers = torch.nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 1))
    assert sum(layer.weight.numel() for layer in layers) == 32
    assert sum(layer.bias.numel() for layer in layers) == 9
    assert parameters(layers) == 41


def test_a_hidden_layer_as_large_as_the_image():
    """28 x 28 pixels, fully connected to as many units: 28 ** 4 weights; a convolution from 10 to 20 channels: 5000."""
    assert nn.Linear(28 * 28, 28 * 28, bias=False).weight.numel() == 28**4 == 614_656
    assert nn.Conv2d(10, 20, 5, bias=False).weight.numel() == 5_000


def test_local_and_shared_in_one_dimension():
    """Six inputs, four outputs: a shared filter of three has 4 parameters, a full connection 28."""
    shared = nn.Conv1d(1, 1, 3)
    assert shared(torch.zeros(1, 1, 6)).shape == (1, 1, 4)
    assert parameters(shared) == 4
    assert parameters(nn.Linear(6, 4)) == 28


@pytest.mark.parametrize("layers, field, weights", [(2, 5, 18), (3, 7, 27)])
def test_stacked_small_filters_see_as_far_as_a_large_one(layers, field, weights):
    """The inputs that one output depends on: 3 x 3 filters in a row see 5 x 5, then 7 x 7, with fewer weights."""
    x = torch.zeros(1, 1, 11, 11, requires_grad=True)
    y = x
    for _ in range(layers):
        y = PF.conv2d(y, torch.ones(1, 1, 3, 3), padding=1)
    (seen,) = torch.autograd.grad(y[0, 0, 5, 5], x)
    rows, columns = seen[0, 0].nonzero(as_tuple=True)
    assert (rows.max() - rows.min() + 1, columns.max() - columns.min() + 1) == (field, field)
    channels = 8
    stack = torch.nn.Sequential(*(nn.Conv2d(channels, channels, 3, bias=False) for _ in range(layers)))
    assert parameters(stack) == weights * channels**2 < parameters(nn.Conv2d(channels, channels, field, bias=False))
    assert parameters(nn.Conv2d(channels, channels, field, bias=False)) == field**2 * channels**2
