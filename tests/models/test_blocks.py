"""What the families are built from, each against its definition."""

import pytest
import torch
from torch.nn import functional as torch_functional

from pycv.models import blocks
from pycv.models.efficientnet import StochasticDepth
from pycv.models.perceptron import Maxout
from pycv.models.shufflenet_v1 import ShuffleUnit
from pycv.models.vision_transformer import SelfAttention


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (3, 2), (5, 2)])
def test_conv_norm_activation(kernel, stride):
    block = blocks.ConvNormActivation(4, 8, kernel, stride, groups=2, activation=torch.nn.SiLU).eval()
    x = torch.randn(2, 4, 9, 12)
    expected = torch_functional.conv2d(x, block[0].weight, stride=stride, padding=kernel // 2, groups=2)
    expected = torch_functional.silu(expected / (1 + block[1].eps) ** 0.5)
    torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-5)
    assert len(blocks.ConvNormActivation(4, 8, activation=None)) == 2


def test_squeeze_excitation():
    block, x = blocks.SqueezeExcitation(6, 2, torch.nn.SiLU, torch.nn.Hardsigmoid), torch.randn(3, 6, 4, 5)
    hidden = torch_functional.silu(x.mean((2, 3)) @ block.fc1.weight[:, :, 0, 0].T + block.fc1.bias)
    gate = torch_functional.hardsigmoid(hidden @ block.fc2.weight[:, :, 0, 0].T + block.fc2.bias)
    torch.testing.assert_close(block(x), x * gate[:, :, None, None])


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_channel_shuffle(groups):
    x = torch.arange(12.0).reshape(1, 12, 1, 1).expand(2, 12, 3, 4)
    order = [group * (12 // groups) + index for index in range(12 // groups) for group in range(groups)]
    for memory_format in (torch.contiguous_format, torch.channels_last):
        y = blocks.channel_shuffle(x.contiguous(memory_format=memory_format), groups)
        assert y[1, :, 2, 3].tolist() == order
        assert y.is_contiguous(memory_format=memory_format)
        back = blocks.channel_shuffle(y, 12 // groups)
        assert torch.equal(back, x)


def test_shuffle_of_the_first_shufflenet():
    """New group g has the channels g, g + groups, ...: one in ``groups`` of every old group."""
    unit = ShuffleUnit(24, 24, 1, 3, True).eval()
    with torch.no_grad():
        unit.branch_main_1 = torch.nn.Identity()
        seen = []
        unit.branch_main_2.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
        unit.branch_main_2[0] = torch.nn.Identity()
        unit.branch_main_2[1] = torch.nn.Identity()
        unit(torch.arange(24.0).reshape(1, 24, 1, 1))
    assert seen[0].flatten().tolist() == [g + 3 * i for g in range(3) for i in range(8)]


def test_make_divisible():
    assert [blocks.make_divisible(v) for v in (1, 8, 11, 12, 16, 18, 32 * 0.35, 96 * 1.4)] == [
        8, 8, 16, 16, 16, 24, 16, 136
    ]  # fmt: skip
    for channels in range(1, 300):
        rounded = blocks.make_divisible(channels)
        assert rounded % 8 == 0 and rounded >= 0.9 * channels and abs(rounded - channels) <= 8


def test_statistics_of_imagenet_become_a_range():
    pixels = torch.rand(2, 3, 4, 5)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normalised = (pixels - mean[:, None, None]) / std[:, None, None]
    torch.testing.assert_close(blocks.from_imagenet_statistics(normalised), 2 * pixels - 1)


def test_stochastic_depth():
    layer, x = StochasticDepth(0.25), torch.randn(4000, 1, 2, 2)
    y = layer(x)
    zeroed = (y == 0).all(3).all(2).squeeze(1)
    assert zeroed.float().mean().item() == pytest.approx(0.25, abs=0.04)
    torch.testing.assert_close(y[~zeroed], x[~zeroed] / 0.75)
    assert layer.eval()(x) is x and StochasticDepth(0.0)(x) is x
    assert not StochasticDepth(1.0)(x).any()
    assert repr(layer) == "StochasticDepth(p=0.25)"


@pytest.mark.parametrize("batch", [0, 1, 5])
def test_maxout(batch):
    layer, x = Maxout(7, 4, 3), torch.randn(batch, 7)
    expected = (x @ layer.linear.weight.T + layer.linear.bias).reshape(batch, 4, 3).amax(2)
    torch.testing.assert_close(layer(x), expected)


def test_self_attention_is_torchs():
    """torch.nn.MultiheadAttention has the same keys, and the same weights give the same."""
    ours, theirs = SelfAttention(12, 3, 0.0).double(), torch.nn.MultiheadAttention(12, 3, batch_first=True).double()
    torch.nn.init.normal_(ours.in_proj_bias)
    torch.nn.init.normal_(ours.out_proj.bias)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x, x, x, need_weights=False)[0])
    assert ours.own_macs(x) == 2 * 5 * 12 * 36
