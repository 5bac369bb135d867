"""Every architecture against its published figures, and against the outputs of the usual implementations."""

import collections
from typing import NamedTuple

import pytest
import torch

import pycv
from pycv import models, registry
from tests.seed import sliced

from .golden import entries, fill, golden_input


class Figures(NamedTuple):
    """Parameters, multiply-accumulates on an image of the default size (or unknown), tensors of the state_dict."""

    parameters: int
    macs: int | None
    tensors: int


SHEET = {
    "lenet5_original": Figures(60_000, None, 17),
    "lenet5": Figures(61_706, 416_520, 10),
    "perceptron": Figures(7_850, 7_840, 2),
    "mlp": Figures(266_610, 266_200, 6),
    "maxout_mlp": Figures(1_233_610, 1_231_200, 6),
    "alexnet_original": Figures(60_965_224, 724_406_816, 16),
    "alexnet_ungrouped": Figures(62_378_344, 1_135_256_096, 16),
    "alexnet": Figures(61_100_840, 714_188_480, 16),
    "zfnet": Figures(62_357_608, 1_168_032_896, 16),
    "vgg11": Figures(132_863_336, 7_609_090_048, 22),
    "vgg11_bn": Figures(132_868_840, 7_609_090_048, 62),
    "vgg13": Figures(133_047_848, 11_308_466_176, 26),
    "vgg13_bn": Figures(133_053_736, 11_308_466_176, 76),
    "vgg16": Figures(138_357_544, 15_470_264_320, 32),
    "vgg16_bn": Figures(138_365_992, 15_470_264_320, 97),
    "vgg19": Figures(143_667_240, 19_632_062_464, 38),
    "vgg19_bn": Figures(143_678_248, 19_632_062_464, 118),
    "googlenet": Figures(13_004_888, 1_498_376_192, 364),
    "inception_v3": Figures(27_161_264, 5_713_216_096, 580),
    "resnet18": Figures(11_689_512, 1_814_073_344, 122),
    "resnet34": Figures(21_797_672, 3_663_761_408, 218),
    "resnet50": Figures(25_557_032, 4_089_184_256, 320),
    "resnet101": Figures(44_549_160, 7_801_405_440, 626),
    "resnet152": Figures(60_192_808, 11_513_626_624, 932),
    "resnet20": Figures(269_722, 40_551_040, 116),
    "resnext50_32x4d": Figures(25_028_904, None, 320),
    "resnext101_32x8d": Figures(88_791_336, None, 626),
    "resnext101_64x4d": Figures(83_455_272, None, 626),
    "wide_resnet50_2": Figures(68_883_240, None, 320),
    "wide_resnet101_2": Figures(126_886_696, None, 626),
    "densenet121": Figures(7_978_856, 2_834_161_664, 727),
    "densenet169": Figures(14_149_480, 3_359_843_328, 1015),
    "densenet201": Figures(20_013_928, 4_291_365_888, 1207),
    "mobilenet_v1": Figures(4_231_976, 568_740_352, 164),
    "mobilenet_v2": Figures(3_504_872, 300_774_272, 314),
    "mobilenet_v3_small": Figures(2_542_856, 56_510_400, 244),
    "mobilenet_v3_large": Figures(5_483_032, 216_589_760, 312),
    "shufflenet_v1_g3": Figures(1_864_728, 137_460_672, 295),
    "shufflenet_v1_g8": Figures(2_433_768, 138_365_952, 295),
    "shufflenet_v2_x0_5": Figures(1_366_792, 40_476_448, 338),
    "shufflenet_v2_x1_0": Figures(2_278_604, 144_907_992, 338),
    "shufflenet_v2_x1_5": Figures(3_503_624, 295_759_392, 338),
    "shufflenet_v2_x2_0": Figures(7_393_996, 583_253_464, 338),
    "squeezenet1_0": Figures(1_248_424, 818_924_576, 52),
    "squeezenet1_1": Figures(1_235_496, 349_151_936, 52),
    "xception": Figures(22_855_952, 8_357_403_496, 276),
    "efficientnet_b0": Figures(5_288_548, 385_814_752, 360),
    "darknet53": Figures(41_609_928, 9_285_115_904, 314),
    "vit_b_16": Figures(86_567_656, 16_848_500_736, 152),
}


def on_meta(name: str, **kwargs) -> torch.nn.Module:
    with torch.device("meta"):
        return models.create(name, **kwargs)


def test_all_are_there():
    assert models.list_models() == sorted(SHEET)
    assert set(entries()) < set(SHEET)


@pytest.mark.parametrize("name", SHEET)
def test_figures(name):
    """Keys are compared in their order, too: that of published files, and of an optimizer's state."""
    model, figures, golden = on_meta(name), SHEET[name], entries().get(name)
    assert models.parameter_count(model) == figures.parameters
    shapes = [(key, list(value.shape)) for key, value in model.state_dict().items()]
    assert len(shapes) == figures.tensors
    if figures.macs is not None:
        x = torch.zeros(1, *models.image_shape(name), device="meta")
        assert models.macs(model, x) == figures.macs
    if golden is not None:
        assert figures.parameters == golden["params"]
        assert models.image_shape(name) == (3, golden["input_size"], golden["input_size"])
        assert shapes == list(golden["state_dict"].items())


@pytest.mark.parametrize(("name", "parameters"), [("googlenet", 6_624_904), ("inception_v3", 23_834_568)])
def test_parameters_without_auxiliary_classifiers(name, parameters):
    assert models.parameter_count(on_meta(name, aux_logits=False)) == parameters


# pycv's layers, and the ops that they are to run.
OPS = {
    "Conv2d": "conv2d", "Linear": "gemm", "BatchNorm2d": "batch_norm", "ReLU": "relu", "MaxPool2d": "max_pool2d",
    "AvgPool2d": "avg_pool2d", "AdaptiveAvgPool2d": "adaptive_avg_pool2d", "LocalResponseNorm": "local_response_norm",
}  # fmt: skip


def count_layers(model: torch.nn.Module) -> collections.Counter[str]:
    """Filled by every forward pass: how often each op is asked for by pycv's layers."""
    asked: collections.Counter[str] = collections.Counter()
    for module in model.modules():
        if type(module).__module__.startswith("pycv.nn."):
            op = OPS[type(module).__name__]
            module.register_forward_hook(lambda *_, op=op: asked.update([op]))
        elif isinstance(module, models.SelfAttention):
            module.register_forward_hook(lambda *_: asked.update(["gemm"]))
    return asked


GOLDEN = [name for name, golden in entries().items() if "logits_norm" in golden]
LIGHT = [name for name in GOLDEN if SHEET[name].parameters < 30e6]  # the others' weights alone take seconds
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}


@pytest.mark.parametrize("name", sliced(LIGHT, 3))
def test_golden_output(name):
    """In both precisions, relative to the norm. The log holds that every layer of pycv's ran a CPU kernel of pycv's."""
    golden = entries()[name]
    expected = torch.tensor(golden["logits_first8"], dtype=torch.float64)
    norms = torch.tensor(golden["logits_norm"], dtype=torch.float64)
    model = on_meta(name).double().to_empty(device="cpu").eval()
    fill(model.state_dict())
    asked = count_layers(model)
    for dtype, tolerance in TOLERANCE.items():
        asked.clear()
        model.to(dtype)
        with torch.no_grad(), pycv.use(backend="cpu"), registry.record() as calls:
            logits = model(golden_input(golden["input_size"]).to(dtype)).double()
        assert ((logits[:, :8] - expected).abs().amax(1) / norms).max() < tolerance
        assert ((logits.norm(dim=1) - norms) / norms).abs().max() < tolerance
        ran = collections.Counter(call.choice.problem.op for call in calls)
        assert ran == asked and ran.total() > 0
        assert all(call.choice.kernel.backend == "cpu" and call.choice.plan is not None for call in calls)


@pytest.mark.full
@pytest.mark.parametrize("name", [name for name in GOLDEN if name not in LIGHT])
def test_golden_output_of_heavy_ones(name):
    test_golden_output(name)
