"""Every architecture by name: ``list_models("lenet*")``, ``create("lenet5", num_classes=26)``."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import TypeVar

from torch.nn import Module

Builder = TypeVar("Builder", bound=Callable[..., Module])

_builders: dict[str, Callable[..., Module]] = {}


def register(builder: Builder) -> Builder:
    """Decorator: enters a function that builds a model under the function's own name."""
    name = builder.__name__
    if name in _builders:
        raise ValueError(f"a model named {name!r} is registered already")
    _builders[name] = builder
    return builder


def list_models(pattern: str = "*") -> list[str]:
    """The names of all models that match a shell pattern (case counts), in alphabetical order."""
    return sorted(name for name in _builders if fnmatchcase(name, pattern))


def create(name: str, **kwargs) -> Module:
    """Build a model by its name; keyword arguments go to the function of that name.

    Raises
    ------
    ValueError
        If no model has this name; the message lists the nearest ones.
    """
    builder = _builders.get(name)
    if builder is None:
        near = difflib.get_close_matches(str(name), _builders) or list_models()
        raise ValueError(f"name={name!r}: no such model; did you mean {' or '.join(near)}?")
    return builder(**kwargs)
