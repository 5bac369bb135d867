"""WebDataset shards: plain tar files whose neighbouring members ``KEY.jpg`` and ``KEY.cls`` are one sample.

A first pass over the headers notes where every image lies; from then on any sample is one read. The webdataset library
is not used: it streams, so that order and share of the samples depend on the numbers of workers and processes, an
epoch cannot be taken up in the middle, and the last samples are repeated or lost (its indexed twin, wids, is no longer
part of it). Here shards are a dataset like the others, with a length, labels and splits. Files that its writers make
are read.
"""

from __future__ import annotations

import os
import tarfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from .archive import check_end
from .dataset import ImageDataset
from .decode import EXTENSIONS, MAX_PIXELS, check_mode, decode
from .errors import CorruptImage, DataError
from .registry import check_path, register

LABEL = "cls"
LONGEST_LABEL = 32  # bytes
MOST_CLASSES = 1 << 20  # that are numbers; of more samples than that, as many as these


@dataclass(frozen=True)
class Entry:
    """Where a sample lies in its shard."""

    key: str
    offset: int
    size: int
    label: int


class Shards(ImageDataset):
    """The samples of several shards, shard after shard. Takes about 100 bytes of memory for each."""

    def __init__(
        self,
        shards: list[Path],
        classes: list[str] | None = None,
        mode: str = "RGB",
        max_pixels: int = MAX_PIXELS,
        on_corrupt: str = "refuse",
        allow_empty: bool = False,
    ) -> None:
        self.shards, self.mode, self.max_pixels = shards, check_mode(mode), max_pixels
        # As arrays, shard by shard, not as millions of objects: each worker would come to copy those as it counts
        # references to them.
        tables = [_table(scan(path, on_corrupt)) for path in shards]
        self._shard = np.repeat(np.arange(len(shards)), [len(keys) for keys, _ in tables])
        self._key = np.concatenate([keys for keys, _ in tables])
        self._offset, self._size, labels = np.concatenate([numbers for _, numbers in tables], 1)
        if classes is None:
            if labels.max(initial=-1) >= max(MOST_CLASSES, len(labels)):
                first = int(labels.argmax())
                raise DataError(
                    f"{self.name(first)}: label {labels[first]} of {len(labels)} samples without classes.txt"
                )
            classes = [str(number) for number in range(labels.max(initial=-1) + 1)]
        super().__init__(labels, classes, allow_empty)

    def image(self, index: int) -> Image.Image:
        with open(self.shards[self._shard[index]], "rb") as file:
            file.seek(self._offset[index])
            data = file.read(self._size[index])
        if len(data) < self._size[index]:
            raise CorruptImage(f"{self.name(index)}: the shard has become shorter")
        return decode(data, self.name(index), self.mode, self.max_pixels)

    def name(self, index: int) -> str:
        return f"{self.shards[self._shard[index]]}:{os.fsdecode(bytes(self._key[index]))}"


@register("shards")
def shards(
    path: str | Path | None,
    split: str | None = None,
    mode: str = "RGB",
    max_pixels: int = MAX_PIXELS,
    on_corrupt: str = "refuse",
    allow_empty: bool = False,
) -> Shards:
    """WebDataset shards.

    Parameters
    ----------
    path
        One shard, or a folder of them. If the folder has a ``classes.txt``, that names the classes, one per line; else
        they are numbers, as many as are used.
    split
        The shards ``SPLIT/*.tar`` or ``SPLIT-*.tar`` in the folder; None: those of ``train`` if there are any, else all
        that lie in it.
    on_corrupt
        ``refuse``: a truncated or damaged shard raises DataError. ``skip``: what comes before the damage is used, with
        a warning. (Damaged images in sound shards are the loader's to skip.)
    mode, max_pixels, allow_empty
        As for image folders.

    Raises
    ------
    FileNotFoundError
        If the path is not there or has no shard of this split.
    DataError
        If a shard is damaged, compressed, or holds links or devices; a sample has no label, or one out of range.
    """
    root = check_path(path, "a WebDataset shard or a folder of them")
    if on_corrupt not in ("refuse", "skip"):
        raise ValueError(f"on_corrupt={on_corrupt!r}: expected 'refuse' or 'skip'")
    names = root / "classes.txt"
    classes = names.read_text().splitlines() if names.is_file() else None
    return Shards(_find(root, split), classes, mode, max_pixels, on_corrupt, allow_empty)


def _find(root: Path, split: str | None) -> list[Path]:
    if root.is_file():
        return [root]
    patterns = [f"{split or 'train'}/*.tar", f"{split or 'train'}-*.tar"]
    if split is None:
        patterns.append("*.tar")  # those of no split; beside train, those of val and test are not to be trained on
    for pattern in patterns:
        if found := sorted(root.glob(pattern)):
            return found
    raise FileNotFoundError(f"path={str(root)!r}: no shard {' or '.join(patterns)} in it")


def scan(path: Path, on_corrupt: str = "refuse") -> list[Entry]:
    """The samples of a shard, in order; reads the headers and labels and passes over the images.

    Raises
    ------
    DataError
        As :func:`shards` says.
    """
    entries: list[Entry] = []
    try:
        with tarfile.open(path, "r:") as tar:  # "r:": compressed data could not be read from the middle
            parts: dict[str, tarfile.TarInfo] = {}
            current = ""
            for member in tar:
                if member.isdir():
                    continue
                if not member.isreg():
                    raise DataError(f"{path}: member {member.name!r} is no plain file")
                key, extension = _key(member.name)
                if key != current and parts:
                    entries.append(_entry(tar, path, current, parts))
                    parts = {}
                current = key
                parts[extension] = member
            check_end(tar)
            if parts:
                entries.append(_entry(tar, path, current, parts))
    except (tarfile.TarError, EOFError) as error:
        damage = DataError(f"{path}: {error}; shards are plain, whole tar files")
        if on_corrupt == "refuse":
            raise damage from error
        warnings.warn(f"{damage}; its first {len(entries)} samples are used", stacklevel=2)
    return entries


def _table(entries: list[Entry]) -> tuple[np.ndarray, np.ndarray]:
    """Keys, bytes (N,), and offsets, sizes and labels, int64 (3, N)."""
    keys = np.array([os.fsencode(entry.key) for entry in entries], np.bytes_)
    numbers = [(entry.offset, entry.size, entry.label) for entry in entries]
    return keys, np.array(numbers, np.int64).reshape(-1, 3).T


def _key(name: str) -> tuple[str, str]:
    """The key and the extension: the name is cut at the first dot after the last slash."""
    folder, slash, file = name.rpartition("/")
    stem, _, extension = file.partition(".")
    return folder + slash + stem, extension.lower()


def _entry(tar: tarfile.TarFile, path: Path, key: str, parts: dict[str, tarfile.TarInfo]) -> Entry:
    image = next((part for extension, part in parts.items() if f".{extension}" in EXTENSIONS), None)
    if image is None:
        raise DataError(f"{path}:{key}: no image among {', '.join(sorted(parts))}")
    return Entry(key, image.offset_data, image.size, _label(tar, path, key, parts))


def _label(tar: tarfile.TarFile, path: Path, key: str, parts: dict[str, tarfile.TarInfo]) -> int:
    member = parts.get(LABEL)
    if member is None:
        raise DataError(f"{path}:{key}: no label ({key}.{LABEL}) among {', '.join(sorted(parts))}")
    file = tar.extractfile(member)
    assert file is not None
    text = file.read(LONGEST_LABEL)
    try:
        label = int(text)
    except ValueError as error:
        raise DataError(f"{path}:{key}: label {text!r} is no whole number") from error
    if not 0 <= label < 1 << 31:
        raise DataError(f"{path}:{key}: label {label} is out of range")
    return label
