"""Every registered model with its figures, computed on the meta device: no weights are made and nothing is computed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

from .arithmetic import macs, parameter_count
from .registry import create, image_shape, list_models


@dataclass(frozen=True)
class Listed:
    """One model as it is built by default, and the image size of its MACs."""

    name: str
    image: tuple[int, int, int]  # channels, height, width
    parameters: int
    macs: int


class Catalogue(list[Listed]):
    """Models in alphabetical order; ``str(...)`` is a table."""

    def rows(self) -> list[dict[str, Any]]:
        """One dict per model, of plain types."""
        return [asdict(model) | {"image": list(model.image)} for model in self]

    def __str__(self) -> str:
        lines = [("model", "image", "parameters", "MACs")]
        lines += [(m.name, image_text(m.image), f"{m.parameters:,}", f"{m.macs:,}") for m in self]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = [f"{n:<{widths[0]}}  {i:<{widths[1]}}  {p:>{widths[2]}}  {m:>{widths[3]}}" for n, i, p, m in lines]
        return "\n".join([text[0], "-" * len(text[0]), *text[1:]])

    __repr__ = __str__


def catalogue(pattern: str = "*") -> Catalogue:
    """The models whose names match a shell pattern."""
    return Catalogue(_listed(name) for name in list_models(pattern))


def image_text(image: tuple[int, ...]) -> str:
    return "×".join(map(str, image))


def _listed(name: str) -> Listed:
    """Parameters are those that train: of LeNet-5 as published without its fixed codes."""
    image = image_shape(name)
    with torch.device("meta"):
        model = create(name)
    return Listed(name, image, parameter_count(model), macs(model, torch.empty(1, *image, device="meta")))
