"""Every dataset by name: ``create("cifar10", path, split="test")``."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path

from .dataset import ImageDataset

Opener = Callable[..., ImageDataset]

_openers: dict[str, Opener] = {}


def register(name: str) -> Callable[[Opener], Opener]:
    """Decorator: enters what opens a dataset, ``opener(path, split, **options)``."""
    if name in _openers:
        raise ValueError(f"a dataset named {name!r} is registered already")

    def enter(opener: Opener) -> Opener:
        _openers[name] = opener
        return opener

    return enter


def list_datasets() -> list[str]:
    """The names of all datasets, in alphabetical order."""
    return sorted(_openers)


def create(name: str, path: str | Path | None = None, split: str | None = None, **options) -> ImageDataset:
    """Open a dataset by its name.

    Parameters
    ----------
    path
        The folder or archive; ``digits`` and ``synthetic`` have none.
    split
        The part as its authors made it, ``train`` if left out; see the dataset's own function for its names and
        options.

    Raises
    ------
    ValueError
        If no dataset has this name (the message lists the nearest ones), or it has no such split.
    FileNotFoundError
        If the path, or a file that should be in it, is not there.
    DataError
        If what is there is not what it should be.
    """
    opener = _openers.get(name)
    if opener is None:
        near = difflib.get_close_matches(str(name), _openers) or list_datasets()
        raise ValueError(f"name={name!r}: no such dataset; did you mean {' or '.join(near)}?")
    return opener(path, split, **options)


def check_split(split: str | None, splits: tuple[str, ...]) -> str:
    """The split itself, the first if it is None; ValueError if it is not one of these."""
    if split is None:
        return splits[0]
    if split not in splits:
        raise ValueError(f"split={split!r}: expected {' or '.join(map(repr, splits))}")
    return split


def check_path(path: str | Path | None, what: str) -> Path:
    """The path, which must be there; the messages say what was to be found."""
    if path is None:
        raise ValueError(f"path=None: expected the path of {what}")
    if not Path(path).exists():
        raise FileNotFoundError(f"path={str(path)!r}: no such file or folder; expected {what}")
    return Path(path)


def check_no_path(path: str | Path | None, name: str) -> None:
    """ValueError if there is one."""
    if path is not None:
        raise ValueError(f"path={str(path)!r}: {name} needs none")
