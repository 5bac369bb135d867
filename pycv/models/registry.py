"""Every architecture by name: ``list_models("lenet*")``, ``create("vgg16", num_classes=10, weights="imagenet")``."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple, TypeVar, overload

from torch.nn import Module

from . import published
from .transfer import require_classes
from .weights import load_weights

Builder = TypeVar("Builder", bound=Callable[..., Module])


class Entry(NamedTuple):
    """A function that builds a model, and the image that its default arguments are made for."""

    builder: Callable[..., Module]
    image_shape: tuple[int, int, int]


_entries: dict[str, Entry] = {}


@overload
def register(builder: Builder, /) -> Builder: ...


@overload
def register(*, size: int = 224, channels: int = 3) -> Callable[[Builder], Builder]: ...


def register(builder=None, /, *, size=224, channels=3):
    """Decorator, bare or with arguments: enters a function that builds a model under the function's own name.

    ``size`` and ``channels`` are those of the images that the model takes by default, (N, channels, size, size).
    """

    def enter(builder: Builder) -> Builder:
        name = builder.__name__
        if name in _entries:
            raise ValueError(f"a model named {name!r} is registered already")
        _entries[name] = Entry(builder, (channels, size, size))
        return builder

    return enter if builder is None else enter(builder)


def list_models(pattern: str = "*") -> list[str]:
    """The names of all models that match a shell pattern (case counts), in alphabetical order."""
    return sorted(name for name in _entries if fnmatchcase(name, pattern))


def create(name: str, *, weights: str | Path | None = None, **kwargs) -> Module:
    """Build a model by its name; keyword arguments go to the function of that name.

    Parameters
    ----------
    weights : a file to load (``.pth``, ``.safetensors``; see :func:`load_weights`), or ``"imagenet"`` for the one that
        torchvision publishes, which is downloaded where it is not there yet. With another ``num_classes`` than the
        file's the head is not loaded, and a warning says so.

    Raises
    ------
    ValueError
        If no model has this name (the message lists the nearest ones), or ``num_classes`` is not positive. And as
        :func:`load_weights`.
    TypeError
        If ``num_classes`` is no whole number, or the function has no such argument.
    ConnectionError
        If published weights cannot be downloaded.
    """
    builder = _entry(name).builder
    if "num_classes" in kwargs:
        require_classes(kwargs["num_classes"])
    if weights is None:
        return builder(**kwargs)
    if weights == "imagenet":
        weights = published.fetch(name)
        kwargs = published.ARGUMENTS.get(name, {}) | kwargs
    elif str(weights).lower().startswith("imagenet") and not Path(weights).exists():
        raise ValueError(f"weights={str(weights)!r}: there is no such file; published weights are 'imagenet'")
    return load_weights(builder(**kwargs), weights)


def image_shape(name: str) -> tuple[int, int, int]:
    """Channels, height and width of the images that a model of this name takes by default.

    Raises
    ------
    ValueError
        As :func:`create`.
    """
    return _entry(name).image_shape


def _entry(name: str) -> Entry:
    entry = _entries.get(name)
    if entry is None:
        near = difflib.get_close_matches(str(name), _entries) or list_models()
        raise ValueError(f"name={name!r}: no such model; did you mean {' or '.join(near)}?")
    return entry
