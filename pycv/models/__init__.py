"""Architectures built from pycv's layers, one file per family; what describes them; their weights; transfer."""

from .arithmetic import ReceptiveField, macs, output_size, parameter_count, receptive_field
from .layer_table import Summary, summary
from .lenet import LeNet5, LeNet5Original, lenet5, lenet5_original
from .registry import create, image_shape, list_models
from .resnet import (
    ResNet,
    resnet18,
    resnet34,
    resnet50,
    resnet101,
    resnet152,
    resnext50_32x4d,
    resnext101_32x8d,
    resnext101_64x4d,
    wide_resnet50_2,
    wide_resnet101_2,
)
from .transfer import embed, features, freeze, replace_head, unfreeze
from .vgg import VGG, vgg11, vgg11_bn, vgg13, vgg13_bn, vgg16, vgg16_bn, vgg19, vgg19_bn
from .weights import load_weights

__all__ = [
    "VGG",
    "LeNet5",
    "LeNet5Original",
    "ReceptiveField",
    "ResNet",
    "Summary",
    "create",
    "embed",
    "features",
    "freeze",
    "image_shape",
    "lenet5",
    "lenet5_original",
    "list_models",
    "load_weights",
    "macs",
    "output_size",
    "parameter_count",
    "receptive_field",
    "replace_head",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "resnext101_64x4d",
    "summary",
    "unfreeze",
    "vgg11",
    "vgg11_bn",
    "vgg13",
    "vgg13_bn",
    "vgg16",
    "vgg16_bn",
    "vgg19",
    "vgg19_bn",
    "wide_resnet50_2",
    "wide_resnet101_2",
]
