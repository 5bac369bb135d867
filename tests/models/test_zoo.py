"""VGG and ResNet: that they behave as any torch network does, and the arguments of their constructors."""

import copy
import io

import pytest
import torch

import pycv
from pycv import models
from pycv.models import resnet, vgg

from .golden import calibrate, entries

DESCENDANTS = ("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d", "wide_resnet50_2", "wide_resnet101_2")


def on_meta(name: str, **kwargs) -> torch.nn.Module:
    with torch.device("meta"):
        return models.create(name, **kwargs)


@pytest.mark.parametrize("name", DESCENDANTS)
def test_keys_of_descendants(name):
    like = "resnet50" if "50" in name else "resnet101"
    assert list(on_meta(name).state_dict()) == list(entries()[like]["state_dict"])


def test_shape_of_grouped_convolutions():
    assert on_meta("resnext50_32x4d").layer1[0].conv2.weight.shape == (128, 4, 3, 3)
    assert on_meta("resnext101_64x4d").layer4[0].conv2.weight.shape == (2048, 32, 3, 3)
    assert on_meta("wide_resnet50_2").layer1[0].conv2.weight.shape == (128, 128, 3, 3)


# --------------------------------------------------------------------------------------------- small networks


def small_vgg(**kwargs) -> vgg.VGG:
    """VGG's classifier alone has 120 million weights: fewer channels and a narrow classifier behave alike."""
    with torch.device("meta"):
        model = vgg.VGG(vgg.make_layers((8, "M", 16, "M", 16, 512, "M"), batch_norm=True), **kwargs)
        for index, (inputs, outputs) in {0: (512 * 49, 32), 3: (32, 32), 6: (32, 10)}.items():
            model.classifier[index] = vgg.nn.Linear(inputs, outputs)
    model.to_empty(device="cpu")
    for layer in model.modules():
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
    return model


def small_resnet(**kwargs) -> resnet.ResNet:
    return resnet.ResNet(resnet.Bottleneck, (1, 1, 1, 1), num_classes=10, **kwargs)


@pytest.fixture
def plain_torch(monkeypatch):
    """Networks built inside this have torch.nn's layers."""
    for module in (vgg, resnet):
        monkeypatch.setattr(module, "nn", torch.nn)


NETWORKS = {
    "resnet18": lambda: resnet.resnet18(num_classes=10),
    "bottleneck": small_resnet,
    "resnext": lambda: small_resnet(groups=32, width_per_group=4),
    "dilated": lambda: small_resnet(replace_stride_with_dilation=(False, True, True)),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("channels_last", [False, True])
def test_patch_gives_the_same_as_plain_torch_and_undo_gives_it_back(name, channels_last, plain_torch):
    model, x = NETWORKS[name](), torch.randn(2, 3, 43, 57)
    if channels_last:
        model, x = model.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    calibrate(model, x)
    with torch.no_grad():
        expected = model(x)
        scale = expected.abs().max().item()
        assert scale > 1e-2
        handle = pycv.patch(model)
        assert not handle.left and not handle.functional
        assert all(type(m).__module__.startswith(("pycv", "torch.nn.modules.container")) for m in model.modules())
        with pycv.use(backend="cpu"):
            torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-4 * scale)
        handle.undo()
        assert torch.equal(model(x), expected)


@pytest.mark.parametrize("build", [small_vgg, small_resnet, NETWORKS["resnet18"]])
def test_gradients_are_those_of_plain_torch(build, plain_torch):
    x, labels = torch.randn(4, 3, 40, 40, dtype=torch.float64), torch.arange(4)
    plain = build(dropout=0.0).double() if build is small_vgg else build().double()
    model = copy.deepcopy(plain)
    pycv.patch(model)
    with pycv.use(backend="cpu"):
        torch.nn.functional.cross_entropy(model(x), labels).backward()
    torch.nn.functional.cross_entropy(plain(x), labels).backward()
    for (key, got), wanted in zip(model.named_parameters(), plain.parameters(), strict=True):
        assert wanted.grad.abs().max() > 0, key
        torch.testing.assert_close(got.grad, wanted.grad, rtol=1e-6, atol=1e-12)
    for got, wanted in zip(model.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("size", [(1, 1), (7, 50), (33, 65)], ids=str)
@pytest.mark.parametrize("batch", [0, 1, 3])
def test_resnet_takes_any_size(batch, size):
    model = small_resnet().eval()
    with torch.no_grad():
        assert model(torch.randn(batch, 3, *size)).shape == (batch, 10)


def test_vgg_takes_any_size_that_leaves_a_pixel():
    model = small_vgg().eval()
    with torch.no_grad():
        for size in ((8, 8), (9, 31), (56, 60)):
            assert model(torch.randn(2, 3, *size)).shape == (2, 10)
        with pytest.raises(RuntimeError):
            model(torch.randn(2, 3, 7, 16))


@pytest.mark.parametrize("build", [small_vgg, small_resnet, *list(NETWORKS.values())[:1]])
def test_state_dict_round_trip_is_bit_identical(build):
    first, second = build(), build()
    x = torch.randn(2, 3, 35, 35)
    calibrate(first, x)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    second.eval()
    with torch.no_grad():
        expected = first(x)
        assert torch.equal(second(x), expected)
        assert torch.equal(copy.deepcopy(first)(x), expected)


# ------------------------------------------------------------------------------------------------- arguments


def test_num_classes():
    assert on_meta("resnet50", num_classes=17).fc.weight.shape == (17, 2048)
    assert on_meta("vgg16", num_classes=17).classifier[6].weight.shape == (17, 4096)


def test_vgg_initialisation():
    model = vgg.VGG(vgg.make_layers((64, "M", 512)))
    deviation = model.features[3].weight.std().item()
    assert deviation == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.02)  # fan-out
    assert model.classifier[6].weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert not any(p.any() for key, p in model.named_parameters() if key.endswith("bias"))
    own = vgg.VGG(vgg.make_layers((64, "M", 512)), init_weights=False, dropout=0.25)
    assert own.features[0].bias.any() and [own.classifier[i].p for i in (2, 5)] == [0.25, 0.25]


def test_resnet_initialisation():
    model = small_resnet()
    deviation = model.layer3[0].conv2.weight.std().item()
    assert deviation == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.02)
    assert all(m.weight.eq(1).all() for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d))
    zeroed = small_resnet(zero_init_residual=True)
    assert not zeroed.layer1[0].bn3.weight.any() and zeroed.layer1[0].bn2.weight.all()
    basic = resnet.resnet18(zero_init_residual=True)
    assert not basic.layer4[1].bn2.weight.any() and basic.layer4[1].bn1.weight.all()


def test_dilation_in_place_of_stride():
    x = torch.randn(1, 3, 64, 64)
    strided, dilated = small_resnet().eval(), small_resnet(replace_stride_with_dilation=(False, True, True)).eval()

    def features(model):
        x_ = model.maxpool(model.relu(model.bn1(model.conv1(x))))
        return model.layer4(model.layer3(model.layer2(model.layer1(x_)))).shape

    with torch.no_grad():
        assert features(strided) == (1, 2048, 2, 2) and features(dilated) == (1, 2048, 8, 8)
    two = resnet.ResNet(resnet.Bottleneck, (1, 1, 1, 2), replace_stride_with_dilation=(False, True, True))
    dilations = [block.conv2.dilation[0] for stage in (two.layer2, two.layer3, two.layer4) for block in stage]
    assert dilations == [1, 1, 2, 4]  # a stage's first block has the dilation before it


def test_another_normalisation():
    model = small_resnet(norm_layer=lambda channels: torch.nn.GroupNorm(8, channels), zero_init_residual=True)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in model.modules())
    assert model(torch.randn(1, 3, 32, 32)).shape == (1, 10)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: small_resnet(replace_stride_with_dilation=(True,)), ValueError, r"with_dilation=\(True,\)"),
        (lambda: resnet.BasicBlock(8, 8, groups=2), ValueError, "groups=2"),
        (lambda: resnet.BasicBlock(8, 8, base_width=32), ValueError, "base_width=32"),
        (lambda: resnet.BasicBlock(8, 8, dilation=2), NotImplementedError, "dilation=2"),
        (lambda: resnet.resnet18(classes=5), TypeError, "classes"),
        (lambda: vgg.vgg11(classes=5), TypeError, "classes"),
    ],
)
def test_bad_arguments(build, error, message):
    with torch.device("meta"), pytest.raises(error, match=message):
        build()
