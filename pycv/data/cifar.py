"""CIFAR-10 and CIFAR-100: 60,000 colour images of 32×32 pixels, in their binary and their Python version.

Binary: records of one label byte (CIFAR-100: coarse, fine) and 3072 pixel bytes, all red ones first, row by row.
Python: pickled dictionaries of an array (N, 3072) in the same order and a list of labels, read by an unpickler that
knows nothing but arrays. Either is read from its folder or straight from the downloaded archive, of which nothing is
unpacked to disk. Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
"""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import archive, checksums
from .dataset import ArrayImages
from .errors import DataError
from .registry import check_path, check_split, register

SIDE = 32
PIXELS = 3 * SIDE * SIDE
LABELS = ("fine", "coarse")


@dataclass(frozen=True)
class Version:
    """How one version of one of the two is laid out."""

    folder: str
    archive: str
    splits: dict[str, tuple[str, ...]]  # the files of each
    names: dict[str, str]  # of the classes: the file that has them, by the kind of labels
    binary: bool
    label_kinds: tuple[str, ...]  # in a binary record, in order

    def record(self) -> int:
        return len(self.label_kinds) + PIXELS


_FIVE = tuple(f"data_batch_{number}" for number in range(1, 6))
CIFAR10 = (
    Version(
        "cifar-10-batches-bin", "cifar-10-binary.tar.gz",
        {"train": tuple(f"{name}.bin" for name in _FIVE), "test": ("test_batch.bin",)},
        {"fine": "batches.meta.txt"}, True, ("fine",),
    ),
    Version(
        "cifar-10-batches-py", "cifar-10-python.tar.gz",
        {"train": _FIVE, "test": ("test_batch",)},
        {"fine": "batches.meta"}, False, ("fine",),
    ),
)  # fmt: skip
CIFAR100 = (
    Version(
        "cifar-100-binary", "cifar-100-binary.tar.gz",
        {"train": ("train.bin",), "test": ("test.bin",)},
        {"fine": "fine_label_names.txt", "coarse": "coarse_label_names.txt"}, True, ("coarse", "fine"),
    ),
    Version(
        "cifar-100-python", "cifar-100-python.tar.gz",
        {"train": ("train",), "test": ("test",)},
        {"fine": "meta", "coarse": "meta"}, False, ("coarse", "fine"),
    ),
)  # fmt: skip
CLASSES = {"fine": 100, "coarse": 20}


@register("cifar10")
def cifar10(
    path: str | Path | None, split: str | None = None, verify: bool = True, allow_empty: bool = False
) -> ArrayImages:
    """CIFAR-10, splits ``train`` and ``test``.

    Parameters
    ----------
    path
        The downloaded archive, the folder that was in it, or the folder where either lies.
    verify
        Compare with the published checksums: those of the archives and of the Python version's files.

    Raises
    ------
    FileNotFoundError
        If none of these, or a file of the split, is there.
    DataError
        If a file is truncated, damaged, not the published one, or a pickle holds more than arrays.
    """
    return _open(path, split, CIFAR10, checksums.CIFAR10 if verify else {}, "fine", 10, allow_empty)


@register("cifar100")
def cifar100(
    path: str | Path | None,
    split: str | None = None,
    labels: str = "fine",
    verify: bool = True,
    allow_empty: bool = False,
) -> ArrayImages:
    """As :func:`cifar10`; ``labels`` are ``fine`` (100 classes) or ``coarse`` (20)."""
    if labels not in LABELS:
        raise ValueError(f"labels={labels!r}: expected {' or '.join(map(repr, LABELS))}")
    return _open(path, split, CIFAR100, checksums.CIFAR100 if verify else {}, labels, CLASSES[labels], allow_empty)


def _open(
    path: str | Path | None,
    split: str | None,
    versions: tuple[Version, ...],
    published: dict[str, str],
    kind: str,
    classes: int,
    allow_empty: bool,
) -> ArrayImages:
    place, version = _find(check_path(path, f"{versions[0].archive} or its contents"), versions)
    files = version.splits[check_split(split, tuple(version.splits))]
    contents = _contents(place, {*files, version.names[kind]}, published)
    missing = [name for name in files if name not in contents]
    if missing:
        raise FileNotFoundError(f"{place}: no file {missing[0]!r} in it")
    read = _read_binary if version.binary else _read_pickle
    parts = [read(contents[name], f"{place}/{name}", version, kind) for name in files]
    images = np.concatenate([images for images, _ in parts])
    labels = np.concatenate([labels for _, labels in parts])
    names = _class_names(contents.get(version.names[kind]), f"{place}/{version.names[kind]}", version, kind, classes)
    channels_last = np.ascontiguousarray(images.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1))
    return ArrayImages(channels_last, labels, names, f"{place}/{files[0]}…", allow_empty)


def _find(path: Path, versions: tuple[Version, ...]) -> tuple[Path, Version]:
    """The folder or archive that the path means, and its version."""
    for version in versions:
        if path.is_file():
            if path.name == version.archive:
                return path, version
            continue
        for place in (path / version.folder, path / version.archive):
            if place.exists():
                return place, version
        if any((path / name).is_file() for name in version.splits["train"] + version.splits["test"]):
            return path, version
    known = ", ".join(f"{version.archive}, {version.folder}" for version in versions)
    raise FileNotFoundError(f"path={str(path)!r}: neither is nor holds any of {known}")


def _contents(place: Path, names: set[str], published: dict[str, str]) -> dict[str, bytes]:
    """The files of these names, those that are there."""
    if place.is_file():
        checksums.verify(place, published)
        return archive.read(place, names)
    files = [place / name for name in sorted(names) if (place / name).is_file()]
    for file in files:
        checksums.verify(file, published)
    return {file.name: file.read_bytes() for file in files}


def _read_binary(data: bytes, name: str, version: Version, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (N, 3072) and (N,)."""
    if not data or len(data) % version.record():
        raise DataError(f"{name}: truncated: {len(data)} bytes are no whole number of records of {version.record()}")
    records = np.frombuffer(data, np.uint8).reshape(-1, version.record())
    return records[:, len(version.label_kinds) :], records[:, version.label_kinds.index(kind)]


def _read_pickle(data: bytes, name: str, version: Version, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (N, 3072) and int64 (N,)."""
    entries = _unpickled(data, name)
    images = entries.get("data")
    if not (isinstance(images, np.ndarray) and images.dtype == np.uint8 and images.shape[1:] == (PIXELS,)):
        raise DataError(f"{name}: its 'data' is no uint8 array (N, {PIXELS})")
    key = "labels" if len(version.label_kinds) == 1 else f"{kind}_labels"
    labels = entries.get(key)
    if not (isinstance(labels, list) and len(labels) == len(images) and all(map(_is_label, labels))):
        raise DataError(f"{name}: its {key!r} is no list of {len(images)} whole numbers of at most 31 bits")
    return images, np.array(labels, np.int64)


def _is_label(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 31


def _class_names(data: bytes | None, name: str, version: Version, kind: str, classes: int) -> list[str]:
    """From the file that has them; numbers where that is missing."""
    if data is None:
        return [str(number) for number in range(classes)]
    if version.binary:
        names = data.decode("ascii", "replace").split()
    else:
        listed = _unpickled(data, name).get("label_names" if len(version.label_kinds) == 1 else f"{kind}_label_names")
        names = [_text(entry) for entry in listed] if isinstance(listed, list) else []
    if len(names) != classes:
        raise DataError(f"{name}: {len(names)} names of {classes} classes")
    return names


def _unpickled(data: bytes, name: str) -> dict[str, Any]:
    """The dictionary of a pickle, with text for keys."""
    try:
        entries = _ArraysOnly(io.BytesIO(data), encoding="bytes").load()
    except Exception as error:  # damaged pickles raise errors of every class
        raise DataError(f"{name}: {error or type(error).__name__}") from error
    if not isinstance(entries, dict):
        raise DataError(f"{name}: holds a {type(entries).__name__}, not a dictionary")
    return {_text(key): value for key, value in entries.items()}


def _text(value: Any) -> str:
    return value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)


class _NoCall:
    """Stands for numpy.ndarray in a pickle, which only names it."""


def _empty_array(*named: Any) -> np.ndarray:
    """What pickle makes before it sets shape, dtype and contents."""
    return np.empty(0, np.uint8)


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    """How Python 3 writes bytes into the pickles that Python 2 can read."""
    if encoding not in ("latin1", b"latin1"):
        raise pickle.UnpicklingError(f"encoding {encoding!r} is not allowed")
    return text.encode("latin1")


_KNOWN = {
    ("numpy.core.multiarray", "_reconstruct"): _empty_array,
    ("numpy._core.multiarray", "_reconstruct"): _empty_array,
    ("numpy", "ndarray"): _NoCall,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _latin1,
}


class _ArraysOnly(pickle.Unpickler):
    """Knows what arrays are made of and nothing else: no name in the pickle can call anything."""

    def find_class(self, module: str, name: str) -> Any:
        known = _KNOWN.get((module, name))
        if known is None:
            raise pickle.UnpicklingError(f"the pickle names {module}.{name}, which no array needs")
        return known
