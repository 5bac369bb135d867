"""Architectures built from pycv's layers, one file per family, and the arithmetic that describes them."""

from .arithmetic import macs, output_size, parameter_count
from .lenet import LeNet5, LeNet5Original, lenet5, lenet5_original
from .registry import create, list_models
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
from .vgg import VGG, vgg11, vgg11_bn, vgg13, vgg13_bn, vgg16, vgg16_bn, vgg19, vgg19_bn

__all__ = [
    "VGG",
    "LeNet5",
    "LeNet5Original",
    "ResNet",
    "create",
    "lenet5",
    "lenet5_original",
    "list_models",
    "macs",
    "output_size",
    "parameter_count",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "resnext101_64x4d",
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
