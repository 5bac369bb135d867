"""Facts of the papers that neither counts nor golden outputs hold, arguments of the constructors, and bad ones."""

import copy
import pickle
import re

import pytest
import torch

from pycv import models
from tests.seed import sliced

from .golden import fill
from .test_golden import SHEET, on_meta


@pytest.mark.parametrize("name", sliced([name for name in SHEET if name != "lenet5_original"], 10))
def test_num_classes(name):
    """The last tensor of the state_dict is the last layer's, and only the heads change."""
    shapes = {key: value.shape for key, value in on_meta(name).state_dict().items()}
    changed = {key for key, value in on_meta(name, num_classes=7).state_dict().items() if value.shape != shapes[key]}
    auxiliary = {key for key in changed if key.startswith(("aux", "AuxLogits"))}
    assert len(changed - auxiliary) <= 2 and len(auxiliary) in (0, 2, 4)
    assert list(shapes)[-1] in changed


def test_resnets_for_small_pictures():
    """He et al., section 4.2: {16, 32, 64} maps of size {32, 16, 8}; 6n + 2 layers; shortcuts without parameters."""
    model = models.create("resnet20").eval()
    found = models.features(model, torch.randn(1, 3, 32, 32), ["layer1", "layer2", "layer3"])
    assert [tuple(maps.shape[1:]) for maps in found.values()] == [(16, 32, 32), (32, 16, 16), (64, 8, 8)]
    assert sum(isinstance(layer, (torch.nn.Conv2d, torch.nn.Linear)) for layer in model.modules()) == 20
    x = torch.randn(2, 16, 7, 5)
    y = model.layer2[0].downsample(x)
    assert torch.equal(y[:, :16], x[:, :, ::2, ::2]) and y.shape == (2, 32, 4, 3) and not y[:, 16:].any()
    small = models.create("resnet20", blocks=1, in_channels=1, width=8, num_classes=5)
    assert small(torch.randn(2, 1, 9, 16)).shape == (2, 5)


def map_sizes(model: torch.nn.Module, x: torch.Tensor) -> dict[str, int]:
    """Height of what each layer of ``model.features`` gives."""
    sizes = {}
    for name, layer in model.features.named_children():
        layer.register_forward_hook(lambda module, args, y, name=name: sizes.update({name: y.shape[2]}))
    model(x)
    return sizes


def test_maps_of_alexnet_and_zfnet():
    """227 → 55 → 27 → 27 → 13 → 13 → 13 → 13 → 6; 224 → 110 → 55 → 26 → 13 → … → 6."""
    layers = ("conv1", "pool1", "conv2", "pool2", "conv3", "conv4", "conv5", "pool5")
    sizes = map_sizes(on_meta("alexnet_original"), torch.zeros(1, 3, 227, 227, device="meta"))
    assert [sizes[layer] for layer in layers] == [55, 27, 27, 13, 13, 13, 13, 6]
    sizes = map_sizes(on_meta("zfnet"), torch.zeros(1, 3, 224, 224, device="meta"))
    assert [sizes[layer] for layer in layers] == [110, 55, 26, 13, 13, 13, 13, 6]


def test_alexnet_as_published():
    """Parameters and multiply-accumulates layer by layer, the order of layers, and the formula of section 3.3."""
    model = on_meta("alexnet_original")
    parameters = {name: models.parameter_count(layer) for name, layer in model.features.named_children()}
    assert {name: count for name, count in parameters.items() if count} == {
        "conv1": 34_944, "conv2": 307_456, "conv3": 885_120, "conv4": 663_936, "conv5": 442_624
    }  # fmt: skip
    assert models.parameter_count(on_meta("alexnet_ungrouped").features.conv4) == 1_327_488
    assert list(model.features._modules)[:8] == ["conv1", "relu1", "norm1", "pool1", "conv2", "relu2", "norm2", "pool2"]

    activity = torch.rand(1, 9, 2, 3, dtype=torch.float64) * 100
    expected = torch.empty_like(activity)
    for i in range(9):
        neighbours = activity[:, max(0, i - 2) : i + 3].square().sum(1)
        expected[:, i] = activity[:, i] / (2 + 1e-4 * neighbours) ** 0.75
    torch.testing.assert_close(model.features.norm1(activity), expected)


def test_initialisation_of_alexnet():
    model = models.AlexNetOriginal(num_classes=10)
    ones = {key for key, value in model.named_parameters() if key.endswith("bias") and value.eq(1).all()}
    assert ones == {f"{layer}.bias" for layer in (
        "features.conv2", "features.conv4", "features.conv5", "classifier.fc6", "classifier.fc7"
    )}  # fmt: skip
    assert not model.features.conv1.bias.any() and not model.classifier.fc8.bias.any()
    assert model.features.conv3.weight.std().item() == pytest.approx(0.01, rel=0.01)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_initialisation_of_inception(name):
    model = models.create(name)
    layer, std = (model.conv3, 0.01) if name == "googlenet" else (model.Mixed_6a.branch3x3, 0.1)
    assert layer.conv.weight.abs().max() <= 2 * std
    assert layer.conv.weight.std().item() == pytest.approx(0.88 * std, rel=0.01)  # of a normal one cut at two


def test_initialisation_of_others():
    squeeze = models.squeezenet1_1()
    assert squeeze.classifier[1].weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert not any(value.any() for key, value in squeeze.named_parameters() if key.endswith("bias"))
    efficient = models.efficientnet_b0(num_classes=100)
    assert 0.099 < efficient.classifier[1].weight.max() <= 0.1
    vit = models.vit_b_16(num_layers=1, hidden_dim=48, num_heads=4, mlp_dim=96, representation_size=24)
    assert not any(value.any() for value in vit.heads.head.parameters())
    assert vit.encoder.pos_embedding.std().item() == pytest.approx(0.02, rel=0.05)
    assert list(vit.heads._modules) == ["pre_logits", "act", "head"]


@pytest.mark.parametrize(
    ("name", "fields"),
    [("googlenet", ["logits", "aux_logits2", "aux_logits1"]), ("inception_v3", ["logits", "aux_logits"])],
)
def test_auxiliary_classifiers_run_in_training_only(name, fields):
    x = torch.zeros(2, *models.image_shape(name), device="meta")
    model = on_meta(name, num_classes=5)
    outputs = model(x)
    assert list(outputs._fields) == fields and all(logits.shape == (2, 5) for logits in outputs)
    assert model.eval()(x).shape == (2, 5)
    assert on_meta(name, num_classes=5, aux_logits=False)(x).shape == (2, 5)


def test_auxiliary_classifiers_of_googlenet_see_4a_and_4d():
    """The deeper one comes first."""
    torch.manual_seed(0)
    model, seen = models.googlenet(num_classes=5, dropout_aux=0.0), {}
    for name in ("inception4a", "inception4d"):
        model.get_submodule(name).register_forward_hook(lambda module, args, y, name=name: seen.update({name: y}))
    outputs = model(torch.randn(2, 3, 64, 64))
    torch.testing.assert_close(outputs.aux_logits2, model.aux2(seen["inception4d"]))
    torch.testing.assert_close(outputs.aux_logits1, model.aux1(seen["inception4a"]))


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_transformed_input(name):
    """The first convolution sees pixels of -1..1 in place of those normalised by ImageNet's statistics."""
    pixels, mean = torch.rand(1, 3, 80, 80), torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    x, seen = (pixels - mean) / torch.tensor([0.229, 0.224, 0.225])[:, None, None], []
    for transform_input in (False, True):
        model = models.create(name, transform_input=transform_input, init_weights=False).eval()
        next(model.children()).register_forward_pre_hook(lambda module, args: seen.append(args[0]))
        model(x)
    assert torch.equal(seen[0], x)
    torch.testing.assert_close(seen[1], 2 * pixels - 1)


# Sides of the smallest images, as the docstrings say.
SMALLEST = {
    "alexnet": 63, "googlenet": 15, "squeezenet1_0": 21, "squeezenet1_1": 17, "densenet121": 29, "inception_v3": 75,
    "xception": 7, "mobilenet_v1": 1, "mobilenet_v2": 1, "mobilenet_v3_small": 1, "shufflenet_v1_g3": 1,
    "shufflenet_v2_x0_5": 1, "efficientnet_b0": 1, "darknet53": 1,
}  # fmt: skip


@pytest.mark.parametrize(("name", "size"), sliced(SMALLEST.items(), 4))
def test_smallest_images(name, size):
    model = on_meta(name).eval()
    assert model(torch.zeros(2, 3, size, size + 5, device="meta")).shape == (2, 1000)
    with pytest.raises(RuntimeError):
        model(torch.zeros(2, 3, size + 5, size - 1, device="meta"))


@pytest.mark.parametrize("name", sliced(["mobilenet_v1", "mobilenet_v2", "mobilenet_v3_large", "efficientnet_b0"], 1))
def test_width_multiplier(name):
    halved = on_meta(name, width_mult=0.5)
    convolutions = [m for m in halved.modules() if isinstance(m, torch.nn.Conv2d) and m.kernel_size == (1, 1)]
    assert all(m.out_channels % 8 == 0 for m in convolutions if m.bias is None)
    assert 0.2 < models.parameter_count(halved) / SHEET[name].parameters < 0.6
    x = torch.zeros(1, 3, 64, 64, device="meta")
    assert 0.2 < models.macs(halved, x) / models.macs(on_meta(name), x) < 0.4


def test_scaling_of_efficientnet():
    """B1 of table 2: 7.8 million parameters."""
    assert models.parameter_count(on_meta("efficientnet_b0", depth_mult=1.1)) == 7_794_184
    depths = [m.stochastic_depth.p for stage in on_meta("efficientnet_b0").features[1:8] for m in stage]
    assert depths == pytest.approx([0.2 * index / 16 for index in range(16)])


def dropouts(model: torch.nn.Module) -> set[float]:
    return {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)}


WITH_DROPOUT = [
    "alexnet", "alexnet_original", "zfnet", "squeezenet1_0", "inception_v3", "mobilenet_v1", "mobilenet_v2",
    "mobilenet_v3_small", "xception", "efficientnet_b0", "mlp",
]  # fmt: skip


@pytest.mark.parametrize("name", WITH_DROPOUT)
def test_dropout(name):
    assert dropouts(on_meta(name, dropout=0.125)) == {0.125}


def test_further_dropout():
    assert dropouts(on_meta("googlenet", dropout=0.25, dropout_aux=0.5)) == {0.25, 0.5}
    assert dropouts(on_meta("densenet121", drop_rate=0.25)) == {0.25}
    assert dropouts(on_meta("maxout_mlp", input_dropout=0.25, dropout=0.125)) == {0.25, 0.125}
    vit = on_meta("vit_b_16", num_layers=1, dropout=0.25, attention_dropout=0.125)
    assert dropouts(vit) == {0.25} and vit.encoder.layers[0].self_attention.dropout == 0.125


def test_perceptrons():
    assert models.parameter_count(models.mlp(in_features=3, hidden=(4, 4), num_classes=1)) == 41
    one_hidden = models.mlp(hidden=(784,))
    assert one_hidden.layers[0].weight.numel() == 28**4 == 614_656
    maxout = models.maxout_mlp(in_features=12, hidden=(6,), pieces=2, num_classes=3)
    assert [tuple(p.shape) for p in maxout.parameters()] == [(12, 12), (12,), (3, 6), (3,)]
    assert maxout(torch.randn(2, 3, 2, 2)).shape == (2, 3)


def small_densenet() -> models.DenseNet:
    return models.DenseNet(growth_rate=4, block_config=(2, 3), num_init_features=8)


def small_transformer() -> models.VisionTransformer:
    return models.vit_b_16(image_size=32, num_layers=2, hidden_dim=24, num_heads=2, mlp_dim=48)


def old_densenet(key: str) -> str:
    return re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", key)


def old_transformer(key: str) -> str:
    return key.replace(".mlp.0.", ".mlp.linear_1.").replace(".mlp.3.", ".mlp.linear_2.")


@pytest.mark.parametrize(
    ("build", "old"), [(small_densenet, old_densenet), (small_transformer, old_transformer)], ids=["densenet", "vit"]
)
def test_keys_of_older_files_load(build, old):
    """Alone, after a copy, after pickling, and inside another module; what is handed in stays as it is."""
    source = build()
    fill(source.state_dict())
    published = {old(key): value for key, value in source.state_dict().items()}
    keys = list(published)
    assert published.keys() != source.state_dict().keys()
    for target in (build(), copy.deepcopy(build()), pickle.loads(pickle.dumps(build()))):
        target.load_state_dict(published)
        assert all(torch.equal(a, b) for a, b in zip(target.parameters(), source.parameters(), strict=True))
    inside = torch.nn.Sequential(build())
    inside.load_state_dict({f"0.{key}": value for key, value in published.items()})
    assert all(torch.equal(a, b) for a, b in zip(inside.parameters(), source.parameters(), strict=True))
    assert list(published) == keys


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: models.SqueezeNet("1_2"), "version='1_2'"),
        (lambda: models.ShuffleNetV1(groups=5), "groups=5: expected one of 1, 2, 3, 4, 8"),
        (lambda: models.ShuffleNetV2((4, 8), (24, 48, 96, 192, 1024)), r"stages_repeats=\(4, 8\)"),
        (lambda: models.ShuffleNetV2((4, 8, 4), (24, 48)), r"stages_out_channels=\(24, 48\)"),
        (lambda: models.vit_b_16(image_size=225), "image_size=225: expected a multiple of patch_size=16"),
        (lambda: models.vit_b_16(num_heads=7), "hidden_dim=768: expected a multiple of num_heads=7"),
        (lambda: models.vit_b_16(num_layers=1)(torch.zeros(1, 3, 32, 224)), r"images of \(32, 224\)"),
    ],
)
def test_bad_arguments(build, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("name", SHEET)
def test_unknown_arguments(name):
    with torch.device("meta"), pytest.raises(TypeError, match="classes"):
        models.create(name, classes=5)
