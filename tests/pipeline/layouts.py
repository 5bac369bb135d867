"""Writes small datasets as their authors lay them out, and what a reader should see."""

from __future__ import annotations

import gzip
import io
import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image


def pixels(count: int, *shape: int, seed: int = 0) -> np.ndarray:
    """uint8 (count, *shape), random."""
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


# ---------------------------------------------------------------------------------------------- MNIST


def idx(array: np.ndarray) -> bytes:
    """An IDX file: magic number, sizes, values."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_mnist(folder: Path, images: np.ndarray, labels: np.ndarray, prefix: str = "train", zipped: bool = True):
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in (("images-idx3", images), ("labels-idx1", labels)):
        data = idx(array.astype(np.uint8))
        (folder / f"{prefix}-{name}-ubyte{'.gz' * zipped}").write_bytes(gzip.compress(data) if zipped else data)


# ---------------------------------------------------------------------------------------------- CIFAR

CIFAR10_NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def planes(images: np.ndarray) -> np.ndarray:
    """(N, 32, 32, 3) as CIFAR has it: (N, 3072), all red values first."""
    return images.transpose(0, 3, 1, 2).reshape(len(images), -1)


def cifar_binary(images: np.ndarray, *labels: np.ndarray) -> bytes:
    """Records of label bytes and pixels."""
    columns = [label.astype(np.uint8)[:, None] for label in labels]
    return np.concatenate([*columns, planes(images)], 1).tobytes()


def cifar10_files(images: np.ndarray, labels: np.ndarray, binary: bool) -> dict[str, bytes]:
    """The folder's files, the training images in five batches; all of them are the test images as well."""
    batches = [*np.array_split(np.arange(len(images)), 5), np.arange(len(images))]
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    if binary:
        files = {
            f"{name}.bin": cifar_binary(images[part], labels[part]) for name, part in zip(names, batches, strict=True)
        }
        return {**files, "batches.meta.txt": ("\n".join(CIFAR10_NAMES) + "\n\n").encode()}
    files = {
        name: python2_pickle({b"labels": labels[part].tolist(), b"data": planes(images[part]), b"batch_label": b"x"})
        for name, part in zip(names, batches, strict=True)
    }
    meta = {b"label_names": [name.encode() for name in CIFAR10_NAMES], b"num_vis": 3072}
    return {**files, "batches.meta": python2_pickle(meta)}


def cifar100_files(images: np.ndarray, fine: np.ndarray, coarse: np.ndarray, binary: bool) -> dict[str, bytes]:
    names = {kind: [f"{kind} {number}" for number in range(count)] for kind, count in (("fine", 100), ("coarse", 20))}
    if binary:
        data = cifar_binary(images, coarse, fine)
        listed = {
            f"{kind}_label_names.txt": "\n".join(name.replace(" ", "_") for name in names[kind]).encode()
            for kind in names
        }
        return {"train.bin": data, "test.bin": data, **listed}
    entries = {b"fine_labels": fine.tolist(), b"coarse_labels": coarse.tolist(), b"data": planes(images)}
    listed = {
        f"{kind}_label_names".encode(): [name.replace(" ", "_").encode() for name in names[kind]] for kind in names
    }
    return {"train": python2_pickle(entries), "test": python2_pickle(entries), "meta": python2_pickle(listed)}


def python2_pickle(value: object) -> bytes:
    """A pickle as Python 2 wrote it: byte strings are plain strings (SHORT_BINSTRING, BINSTRING), arrays carry theirs
    so, and numpy's module has its old name."""
    return _Python2(value).getvalue()


class _Python2(io.BytesIO):
    def __init__(self, value: object) -> None:
        super().__init__()
        self.write(b"\x80\x02")
        self.save(value)
        self.write(b".")

    def save(self, value: object) -> None:
        if isinstance(value, bytes):
            short = len(value) < 256
            self.write((b"U" + bytes([len(value)]) if short else b"T" + struct.pack("<i", len(value))) + value)
        elif isinstance(value, int):
            self.write(b"J" + struct.pack("<i", value))
        elif isinstance(value, list):
            self.write(b"](")
            for item in value:
                self.save(item)
            self.write(b"e")
        elif isinstance(value, dict):
            self.write(b"}(")
            for key, item in value.items():
                self.save(key)
                self.save(item)
            self.write(b"u")
        elif isinstance(value, np.ndarray):
            self.write(b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01bt R".replace(b" ", b""))
            self.write(b"(K\x01(")
            for size in value.shape:
                self.save(size)
            self.write(
                b"tcnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
            )
            self.save(value.tobytes())
            self.write(b"tb")
        else:
            raise TypeError(value)


def python3_pickle(value: object) -> bytes:
    """The same from a newer Python, in Python 2's protocol."""
    return pickle.dumps(value, protocol=2)


# ---------------------------------------------------------------------------------------------- files and archives


def encoded(image: np.ndarray, format: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, format)
    return file.getvalue()


def write_files(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def write_tar(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode, format=tarfile.USTAR_FORMAT) as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def write_folder(root: Path, images: np.ndarray, labels: np.ndarray, classes: list[str]) -> Path:
    """One folder per class, PNG."""
    return write_files(
        root,
        {f"{classes[label]}/{number:04}.png": encoded(images[number]) for number, label in enumerate(labels)},
    )


def write_shards(folder: Path, images: np.ndarray, labels: np.ndarray, per_shard: int, prefix: str = "train") -> Path:
    for shard, begin in enumerate(range(0, len(images), per_shard)):
        files = {}
        for number in range(begin, min(begin + per_shard, len(images))):
            files[f"{number:05}.cls"] = str(labels[number]).encode()
            files[f"{number:05}.png"] = encoded(images[number])
        write_tar(folder / f"{prefix}-{shard:04}.tar", files)
    return folder
