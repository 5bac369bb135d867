"""MNIST and Fashion-MNIST: 70,000 grey images of 28×28 pixels in ten classes, as IDX files, gzipped or plain.

IDX: two zero bytes, the type (8: unsigned bytes), the number of axes; the length of each axis as a big-endian 32-bit
number; the values, last axis fastest. Sources: LeCun et al., Proceedings of the IEEE 86(11), 1998; Xiao et al.,
"Fashion-MNIST", 2017.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from . import checksums
from .dataset import ArrayImages
from .errors import DataError
from .registry import check_path, check_split, register

UNSIGNED_BYTES = 8
LARGEST = 1 << 32  # bytes that a header may announce
PREFIXES = {"train": "train", "test": "t10k"}
FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


@register("mnist")
def mnist(
    path: str | Path | None, split: str | None = None, verify: bool = True, allow_empty: bool = False
) -> ArrayImages:
    """MNIST from a folder with its four files (or ``MNIST/raw`` in it); splits ``train`` and ``test``.

    ``verify`` compares gzipped files with their published checksums (there are none of the plain ones).

    Raises
    ------
    FileNotFoundError
        If the folder or a file is not there.
    DataError
        If a file is truncated, too long, damaged, no IDX file, or not the published one.
    """
    published = checksums.MNIST if verify else {}
    return _open(path, split, "MNIST", [str(digit) for digit in range(10)], published, allow_empty)


@register("fashion_mnist")
def fashion_mnist(
    path: str | Path | None, split: str | None = None, verify: bool = True, allow_empty: bool = False
) -> ArrayImages:
    """As :func:`mnist`; the folder may also hold the files in ``FashionMNIST/raw``."""
    published = checksums.FASHION_MNIST if verify else {}
    return _open(path, split, "FashionMNIST", list(FASHION), published, allow_empty)


def _open(
    path: str | Path | None,
    split: str | None,
    folder: str,
    classes: list[str],
    published: dict[str, str],
    allow_empty: bool,
) -> ArrayImages:
    root = check_path(path, f"the folder with the IDX files of {folder}")
    prefix = PREFIXES[check_split(split, tuple(PREFIXES))]
    files = [_find(root, folder, f"{prefix}-{kind}", axes) for kind, axes in (("images", 3), ("labels", 1))]
    for file in files:
        checksums.verify(file, published)
    images, labels = read_idx(files[0], 3), read_idx(files[1], 1)
    return ArrayImages(images, labels, classes, str(files[0]), allow_empty)


def _find(root: Path, folder: str, stem: str, axes: int) -> Path:
    names = [f"{stem}{mark}idx{axes}-ubyte{end}" for mark in "-." for end in (".gz", "")]
    for place in (root, root / "raw", root / folder / "raw"):
        for name in names:
            if (place / name).is_file():
                return place / name
    raise FileNotFoundError(f"{root / names[0]}: no such file, nor {names[1]}, nor in raw or {folder}/raw")


def read_idx(path: Path, axes: int) -> np.ndarray:
    """The uint8 array of an IDX file, gzipped if its name ends in ``.gz``, which must have so many axes.

    Raises
    ------
    DataError
        If it has not, holds another type, or is truncated, too long or damaged.
    """
    try:
        with open(path, "rb") as file:
            return _parsed(gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file, path, axes)
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise DataError(f"{path}: {error}") from error


def _parsed(file: BinaryIO | gzip.GzipFile, path: Path, axes: int) -> np.ndarray:
    header = file.read(4 + 4 * axes)
    if len(header) < 4 + 4 * axes:
        raise DataError(f"{path}: truncated: {len(header)} bytes are too few for a header")
    if header[:4] != bytes((0, 0, UNSIGNED_BYTES, axes)):
        raise DataError(f"{path}: begins with {header[:4].hex()}, not as an IDX file of bytes with {axes} axes does")
    shape = struct.unpack(f">{axes}I", header[4:])
    size = math.prod(shape)
    if size > LARGEST:
        raise DataError(f"{path}: announces an array {shape}, {size} bytes")
    values = file.read(size)
    if len(values) < size:
        raise DataError(f"{path}: truncated: {len(values)} of {size} bytes of an array {shape}")
    if file.read(1):
        raise DataError(f"{path}: more bytes than its array {shape} has")
    return np.frombuffer(values, np.uint8).reshape(shape)
