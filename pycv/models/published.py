"""The weight files that torchvision publishes for ImageNet-1k: the one table of their names, which hold their hashes.

Each is the first set of weights of its model (IMAGENET1K_V1), whose accuracy docs/models.md lists. What follows the
last hyphen of a name is how the SHA-256 of the file begins.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from . import download

BASE_URL = "https://download.pytorch.org/models/"

FILES = {
    "alexnet": "alexnet-owt-7be5be79.pth",
    "densenet121": "densenet121-a639ec97.pth",
    "densenet169": "densenet169-b2777c0a.pth",
    "densenet201": "densenet201-c1103571.pth",
    "efficientnet_b0": "efficientnet_b0_rwightman-7f5810bc.pth",
    "googlenet": "googlenet-1378be20.pth",
    "inception_v3": "inception_v3_google-0cc3c7bd.pth",
    "mobilenet_v2": "mobilenet_v2-b0353104.pth",
    "mobilenet_v3_large": "mobilenet_v3_large-8738ca79.pth",
    "mobilenet_v3_small": "mobilenet_v3_small-047dcff4.pth",
    "resnet18": "resnet18-f37072fd.pth",
    "resnet34": "resnet34-b627a593.pth",
    "resnet50": "resnet50-0676ba61.pth",
    "resnet101": "resnet101-63fe2227.pth",
    "resnet152": "resnet152-394f9c45.pth",
    "resnext50_32x4d": "resnext50_32x4d-7cdf4587.pth",
    "resnext101_32x8d": "resnext101_32x8d-8ba56ff5.pth",
    "resnext101_64x4d": "resnext101_64x4d-173b62eb.pth",
    "shufflenet_v2_x0_5": "shufflenetv2_x0.5-f707e7126e.pth",
    "shufflenet_v2_x1_0": "shufflenetv2_x1-5666bf0f80.pth",
    "shufflenet_v2_x1_5": "shufflenetv2_x1_5-3c479a10.pth",
    "shufflenet_v2_x2_0": "shufflenetv2_x2_0-8be3c8ee.pth",
    "squeezenet1_0": "squeezenet1_0-b66bff10.pth",
    "squeezenet1_1": "squeezenet1_1-b8a52dc0.pth",
    "vgg11": "vgg11-8a719046.pth",
    "vgg11_bn": "vgg11_bn-6002323d.pth",
    "vgg13": "vgg13-19584684.pth",
    "vgg13_bn": "vgg13_bn-abd245e5.pth",
    "vgg16": "vgg16-397923af.pth",
    "vgg16_bn": "vgg16_bn-6c64b313.pth",
    "vgg19": "vgg19-dcbb9e9d.pth",
    "vgg19_bn": "vgg19_bn-c79401a0.pth",
    "vit_b_16": "vit_b_16-c867db91.pth",
    "wide_resnet50_2": "wide_resnet50_2-95faca4d.pth",
    "wide_resnet101_2": "wide_resnet101_2-32ee1156.pth",
}

# What a model must be built with to go with its file: these two were trained on images from -1 to 1.
ARGUMENTS: dict[str, dict[str, Any]] = {
    "googlenet": {"transform_input": True},
    "inception_v3": {"transform_input": True},
}


def fetch(name: str) -> Path:
    """The published file of a model, from torch.hub's directory or else downloaded to there.

    Raises
    ------
    ValueError
        If torchvision publishes no weights for this model; or as :func:`pycv.models.download.fetch`.
    ConnectionError
        As :func:`pycv.models.download.fetch`.
    """
    if name not in FILES:
        raise ValueError(f"weights='imagenet': torchvision publishes no file for {name}, only for {', '.join(FILES)}")
    file = FILES[name]
    return download.fetch(BASE_URL + file, Path(torch.hub.get_dir()) / "checkpoints" / file, sha256_of(file))


def sha256_of(file: str) -> str:
    """How the hash of a published file begins, as its name says."""
    match = re.fullmatch(r".+-([0-9a-f]{8,})\.pth", file)
    assert match is not None, file
    return match[1]
