"""Architectures built from pycv's layers, one file per family; what describes them; their weights; transfer."""

from .alexnet import AlexNet, AlexNetOriginal, alexnet, alexnet_original, alexnet_ungrouped
from .arithmetic import ReceptiveField, macs, output_size, parameter_count, receptive_field
from .darknet import DarkNet, darknet53
from .densenet import DenseNet, densenet121, densenet169, densenet201
from .efficientnet import EfficientNet, efficientnet_b0
from .googlenet import GoogLeNet, GoogLeNetOutputs, googlenet
from .inception import Inception3, InceptionOutputs, inception_v3
from .layer_table import Summary, summary
from .lenet import LeNet5, LeNet5Original, lenet5, lenet5_original
from .mobilenet_v1 import MobileNetV1, mobilenet_v1
from .mobilenet_v2 import MobileNetV2, mobilenet_v2
from .mobilenet_v3 import MobileNetV3, mobilenet_v3_large, mobilenet_v3_small
from .perceptron import MLP, MaxoutMLP, Perceptron, maxout_mlp, mlp, perceptron
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
from .resnet_cifar import CifarResNet, resnet20
from .shufflenet_v1 import ShuffleNetV1, shufflenet_v1_g3, shufflenet_v1_g8
from .shufflenet_v2 import ShuffleNetV2, shufflenet_v2_x0_5, shufflenet_v2_x1_0, shufflenet_v2_x1_5, shufflenet_v2_x2_0
from .squeezenet import SqueezeNet, squeezenet1_0, squeezenet1_1
from .transfer import embed, features, freeze, replace_head, unfreeze
from .vgg import VGG, vgg11, vgg11_bn, vgg13, vgg13_bn, vgg16, vgg16_bn, vgg19, vgg19_bn
from .vision_transformer import SelfAttention, VisionTransformer, vit_b_16
from .weights import load_weights
from .xception import Xception, xception
from .zfnet import ZFNet, zfnet

__all__ = [
    "MLP",
    "VGG",
    "AlexNet",
    "AlexNetOriginal",
    "CifarResNet",
    "DarkNet",
    "DenseNet",
    "EfficientNet",
    "GoogLeNet",
    "GoogLeNetOutputs",
    "Inception3",
    "InceptionOutputs",
    "LeNet5",
    "LeNet5Original",
    "MaxoutMLP",
    "MobileNetV1",
    "MobileNetV2",
    "MobileNetV3",
    "Perceptron",
    "ReceptiveField",
    "ResNet",
    "SelfAttention",
    "ShuffleNetV1",
    "ShuffleNetV2",
    "SqueezeNet",
    "Summary",
    "VisionTransformer",
    "Xception",
    "ZFNet",
    "alexnet",
    "alexnet_original",
    "alexnet_ungrouped",
    "create",
    "darknet53",
    "densenet121",
    "densenet169",
    "densenet201",
    "efficientnet_b0",
    "embed",
    "features",
    "freeze",
    "googlenet",
    "image_shape",
    "inception_v3",
    "lenet5",
    "lenet5_original",
    "list_models",
    "load_weights",
    "macs",
    "maxout_mlp",
    "mlp",
    "mobilenet_v1",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "mobilenet_v3_small",
    "output_size",
    "parameter_count",
    "perceptron",
    "receptive_field",
    "replace_head",
    "resnet18",
    "resnet20",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "resnext101_64x4d",
    "shufflenet_v1_g3",
    "shufflenet_v1_g8",
    "shufflenet_v2_x0_5",
    "shufflenet_v2_x1_0",
    "shufflenet_v2_x1_5",
    "shufflenet_v2_x2_0",
    "squeezenet1_0",
    "squeezenet1_1",
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
    "vit_b_16",
    "wide_resnet50_2",
    "wide_resnet101_2",
    "xception",
    "zfnet",
]
