"""Writes docs/models.md: ``python -m pycv.models.document [FILE]``.

Sizes and costs are computed from the models; papers and published accuracies are those of papers.json, where each model
has the key of its paper and, if weights were published, their accuracy and by whom.
"""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

import torch

from .arithmetic import parameter_count
from .catalogue import catalogue, image_text
from .layer_table import summary
from .registry import create, image_shape

PATH = Path("docs/models.md")

HEAD = """# Models

Written by `python -m pycv.models.document`: change what it computes or `pycv/models/papers.json`, not this file.

`pycv.models.create("vgg16", num_classes=10)` builds a model; with `weights="imagenet"` it has the weights that
torchvision publishes, where the table says so, with `weights="FILE"` those of a `.pth` or `.safetensors` file.
`pycv models` prints these figures, `pycv summary vgg16` those of every layer.

Parameters are those of the model as `create` builds it. MACs are the multiply-accumulates of convolutions and linear
layers for one image of the given size. Accuracy is that of the published weights on the validation set of ImageNet-1k,
top-1 in per cent where it does not say otherwise, as those who publish them give it: pycv has not measured it.

| model | image | parameters | MACs | accuracy | published by | paper |
| --- | --- | ---: | ---: | ---: | --- | --- |
"""


@cache
def _facts() -> dict[str, Any]:
    return json.loads(Path(__file__).with_name("papers.json").read_text(encoding="utf-8"))


def markdown() -> str:
    """The whole text."""
    facts = _facts()
    papers = [f"{number}. {paper}.\n" for number, paper in enumerate(facts["papers"].values(), 1)]
    return "".join([HEAD, *map(row, facts["models"]), TAIL.format(**_computed()), *papers])


def row(name: str) -> str:
    """One line of the table."""
    (model,) = catalogue(name)
    paper, *rest = _facts()["models"][name]
    accuracy, source = rest or ("-", "")
    number = list(_facts()["papers"]).index(paper) + 1
    figures = (image_text(model.image), f"{model.parameters:,}", f"{model.macs:,}", accuracy, source)
    return "| " + " | ".join((f"`{name}`", *figures, f"[{number}](#papers)")) + " |\n"


TAIL = """
`googlenet` and `inception_v3` without the auxiliary heads, which run in training only, have {googlenet:,} and
{inception:,} parameters.

## Figures in which lecture slides commonly err

- **AlexNet's fourth convolution, "1.3M parameters".** {ungrouped:,} is the count without groups. As published, in two
  groups, it has {grouped:,}.
- **VGG-16, "24M values × 4 bytes = 96 MB per image".** The listed activations sum to {values:,} values, {bytes:.2f} MB
  in float32: the image and the output of every convolution, pooling and linear layer, each once (the ReLUs work in
  place). Its {parameters:,} parameters are {weights:,} weights and {biases:,} biases.
- **GoogLeNet, "5M parameters".** As it is usually implemented it has {googlenet:,}, and {googlenet_aux:,} with both
  auxiliary heads.
- **The log-loss without its minus sign.** L = -Σ y log p falls as the probability of the right class rises.
- **ILSVRC-2012.** The runner-up's top-5 error was 26.2 %; AlexNet's was 18.2 % with one network, 15.4 % with seven.

## Papers

"""


def _computed() -> dict[str, Any]:
    """The figures that the text below the table names."""
    vgg16 = _on_meta("vgg16")
    weights = sum(p.numel() for p in vgg16.parameters() if p.dim() > 1)
    totals = summary(vgg16, image_shape("vgg16")).totals
    return {
        "googlenet": parameter_count(_on_meta("googlenet", aux_logits=False)),
        "googlenet_aux": parameter_count(_on_meta("googlenet")),
        "inception": parameter_count(_on_meta("inception_v3", aux_logits=False)),
        "grouped": _fourth_convolution("alexnet_original"),
        "ungrouped": _fourth_convolution("alexnet_ungrouped"),
        "values": totals["values"],
        "bytes": totals["bytes"] / 1e6,
        "parameters": totals["parameters"],
        "weights": weights,
        "biases": totals["parameters"] - weights,
    }


def _fourth_convolution(name: str) -> int:
    convolutions = [module for module in _on_meta(name).modules() if isinstance(module, torch.nn.Conv2d)]
    return parameter_count(convolutions[3])


def _on_meta(name: str, **kwargs) -> torch.nn.Module:
    with torch.device("meta"):
        return create(name, **kwargs)


def main(arguments: list[str]) -> None:
    path = Path(arguments[0]) if arguments else PATH
    path.write_text(markdown(), encoding="utf-8")
    print(f"{path}: {len(_facts()['models'])} models")


if __name__ == "__main__":
    main(sys.argv[1:])
