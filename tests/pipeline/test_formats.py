"""Every format, written in its real layout: each pixel and label comes back, by whatever way one names it."""

from __future__ import annotations

import builtins
import hashlib
import importlib.util
import io

import numpy as np
import pytest
from PIL import Image

from pycv import data
from pycv.data import checksums
from pycv.data.errors import DataError

from . import layouts

LABELS10 = np.arange(20) % 10


def seen(dataset: data.ImageDataset) -> np.ndarray:
    return np.stack([np.asarray(dataset[index][0]) for index in range(len(dataset))])


def test_registry():
    names = data.list_datasets()
    assert names == sorted(names) and {"digits", "mnist", "cifar10", "cifar100", "imagenet", "shards"} <= set(names)
    with pytest.raises(ValueError, match=r"name='cifar': no such dataset; did you mean cifar10"):
        data.create("cifar")


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10", "cifar100", "folder", "imagenet", "shards"])
def test_missing_paths_are_named(name, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        data.create(name, tmp_path / "nowhere")
    with pytest.raises(ValueError, match="path=None"):
        data.create(name)
    with pytest.raises((FileNotFoundError, DataError), match=str(tmp_path)):
        data.create(name, tmp_path)  # empty


@pytest.mark.parametrize("name", ["digits", "synthetic"])
def test_what_needs_no_path_takes_none(name, tmp_path):
    with pytest.raises(ValueError, match=f"path='{tmp_path}': {name} needs none"):
        data.create(name, tmp_path)
    with pytest.raises(ValueError, match="split='valid'"):
        data.create(name, split="valid")


def test_digits():
    digits = data.create("digits")
    assert len(digits) == 1797 and digits.classes == tuple("0123456789")
    image, label = digits[0]
    assert (image.mode, image.size, label) == ("L", (8, 8), 0)
    assert np.asarray(image)[0].tolist() == [round(ink * 255 / 16) for ink in (0, 0, 5, 13, 9, 1, 0, 0)]


def test_digits_do_not_import_scikit_learn(monkeypatch):
    """Its OpenMP runtime would be a second one in the process."""
    importing = builtins.__import__

    def refusing(name, *args, **kwargs):
        assert not name.startswith("sklearn")
        return importing(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refusing)
    with pytest.raises(AssertionError):
        import sklearn  # noqa: F401
    assert len(data.create("digits")) == 1797


def test_digits_without_scikit_learn(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'pip install "pycv\[train\]"'):
        data.create("digits")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(("name", "place"), [("mnist", "."), ("mnist", "MNIST/raw"), ("fashion_mnist", "raw")])
def test_mnist(name, place, zipped, tmp_path):
    images = layouts.pixels(20, 28, 28)
    layouts.write_mnist(tmp_path / place, images, LABELS10, zipped=zipped)
    layouts.write_mnist(tmp_path / place, images[::-1], LABELS10[::-1], "t10k", zipped)
    train, test = (data.create(name, tmp_path, split, verify=False) for split in ("train", "test"))
    assert np.array_equal(seen(train), images) and np.array_equal(seen(test), images[::-1])
    assert np.array_equal(train.labels, LABELS10) and test.labels.dtype == np.int64
    assert train.classes[9] == ("9" if name == "mnist" else "Ankle boot")
    if not zipped:  # only of the gzipped files are there published sums
        assert len(data.create(name, tmp_path)) == 20


def test_mnist_checksums(tmp_path, monkeypatch):
    layouts.write_mnist(tmp_path, layouts.pixels(20, 28, 28), LABELS10)
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz: MD5 .* not the published f68b3c2d"):
        data.create("mnist", tmp_path)
    own = {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in tmp_path.iterdir()}
    monkeypatch.setattr(checksums, "MNIST", own)
    assert len(data.create("mnist", tmp_path)) == 20


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("way", ["folder", "parent", "archive", "parent of archive"])
def test_cifar10(binary, way, tmp_path):
    images = layouts.pixels(20, 32, 32, 3)
    files = layouts.cifar10_files(images, LABELS10, binary)
    folder, archive = (
        ("cifar-10-batches-bin", "cifar-10-binary.tar.gz")
        if binary
        else ("cifar-10-batches-py", "cifar-10-python.tar.gz")
    )
    if "archive" in way:
        layouts.write_tar(tmp_path / archive, {f"{folder}/{name}": file for name, file in files.items()}, "w:gz")
    else:
        layouts.write_files(tmp_path / folder, files)
    path = {"folder": tmp_path / folder, "archive": tmp_path / archive}.get(way, tmp_path)
    before = sorted(tmp_path.rglob("*"))
    train, test = (data.create("cifar10", path, split, verify=False) for split in ("train", "test"))
    for dataset in (train, test):
        assert np.array_equal(seen(dataset), images) and np.array_equal(dataset.labels, LABELS10)
        assert dataset.classes == tuple(layouts.CIFAR10_NAMES)
    assert train[3][0].mode == "RGB"
    assert sorted(tmp_path.rglob("*")) == before  # nothing is unpacked


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("kind", ["fine", "coarse"])
def test_cifar100(binary, kind, tmp_path):
    images, fine = layouts.pixels(100, 32, 32, 3), np.random.default_rng(1).permutation(100)
    coarse = fine // 5
    folder = "cifar-100-binary" if binary else "cifar-100-python"
    layouts.write_files(tmp_path / folder, layouts.cifar100_files(images, fine, coarse, binary))
    dataset = data.create("cifar100", tmp_path, "test", labels=kind, verify=False)
    assert np.array_equal(seen(dataset), images)
    assert np.array_equal(dataset.labels, fine if kind == "fine" else coarse)
    assert dataset.classes[7] == f"{kind}_7" and len(dataset.classes) == (100 if kind == "fine" else 20)


def test_cifar_pickles_of_newer_pythons(tmp_path):
    images = layouts.pixels(20, 32, 32, 3)
    batch = layouts.python3_pickle({"data": layouts.planes(images), "labels": LABELS10.tolist()})
    layouts.write_files(tmp_path, {"test_batch": batch})
    dataset = data.create("cifar10", tmp_path, "test", verify=False)
    assert np.array_equal(seen(dataset), images)
    assert dataset.classes == tuple("0123456789")  # without batches.meta


def test_cifar_checksums(tmp_path):
    layouts.write_files(tmp_path, layouts.cifar10_files(layouts.pixels(20, 32, 32, 3), LABELS10, False))
    with pytest.raises(DataError, match=r"batches\.meta: MD5 .* not the published 5ff9c542"):
        data.create("cifar10", tmp_path)
    layouts.write_tar(tmp_path / "cifar-10-binary.tar.gz", {"data_batch_1.bin": b""}, "w:gz")
    with pytest.raises(DataError, match=r"cifar-10-binary\.tar\.gz: MD5 .* c32a1d4a"):
        data.create("cifar10", tmp_path / "cifar-10-binary.tar.gz")


CLASSES = ["n01440764", "n01443537", "n02102040"]


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_folders(mode, tmp_path):
    images = layouts.pixels(6, 5, 7, 3) if mode == "RGB" else layouts.pixels(6, 5, 7)
    labels = np.array([2, 0, 1, 0, 2, 2])
    layouts.write_folder(tmp_path / "train", images, labels, CLASSES)
    layouts.write_folder(tmp_path / "validation", images[:1], labels[:1], CLASSES)
    (tmp_path / "train" / CLASSES[0] / "notes.txt").write_text("no image")
    (tmp_path / "train" / ".cache").mkdir()
    order = np.argsort(labels, kind="stable")
    for path, split in ((tmp_path, None), (tmp_path, "train"), (tmp_path / "train", None)):
        dataset = data.create("imagenet", path, split, mode=mode)
        assert dataset.classes == tuple(CLASSES)
        assert np.array_equal(dataset.labels, labels[order]) and np.array_equal(seen(dataset), images[order])
    assert dataset.name(0).endswith(f"{CLASSES[0]}/0001.png")
    few = data.create("folder", tmp_path, "val", allow_empty=True)
    assert few.labels.tolist() == [2]  # numbered as in train
    with pytest.raises(DataError, match=f"no sample of class '{CLASSES[0]}', '{CLASSES[1]}'"):
        data.create("folder", tmp_path, "val")
    with pytest.raises(FileNotFoundError, match="test: no such folder"):
        data.create("folder", tmp_path, "test")
    (tmp_path / "validation" / "unheard").mkdir()
    with pytest.raises(DataError, match=r"unheard: a class that .*train lacks"):
        data.create("folder", tmp_path, "val")


def test_folder_with_an_empty_class(tmp_path):
    layouts.write_folder(tmp_path, layouts.pixels(2, 5, 7, 3), np.array([0, 0]), ["cat", "dog"])
    (tmp_path / "dog").mkdir()
    with pytest.raises(DataError, match="no sample of class 'dog'"):
        data.create("folder", tmp_path)


def test_every_kind_of_image_file(tmp_path):
    """Palettes, transparency, CMYK, 16 bits and JPEGs named PNG come out as 8 bits RGB."""
    (tmp_path / "a").mkdir()
    colours = np.full((4, 4, 3), (200, 100, 50), np.uint8)
    flat = Image.fromarray(colours)
    flat.quantize(2).save(tmp_path / "a" / "palette.gif")
    flat.convert("RGBA").save(tmp_path / "a" / "alpha.webp", lossless=True)
    flat.convert("CMYK").save(tmp_path / "a" / "cmyk.jpg", quality=100)
    file = io.BytesIO()
    flat.save(file, "JPEG", quality=100)
    (tmp_path / "a" / "named.png").write_bytes(file.getvalue())
    Image.fromarray(np.full((4, 4), 0x64FF, np.uint16)).save(tmp_path / "a" / "sixteen.png")
    dataset = data.create("folder", tmp_path)
    for index in range(5):
        image, name = dataset.image(index), dataset.name(index)
        expected = np.full((4, 4, 3), 0x64) if "sixteen" in name else colours
        assert image.mode == "RGB" and np.abs(np.asarray(image).astype(int) - expected).max() <= 3, name


def test_shards(tmp_path):
    images, labels = layouts.pixels(11, 6, 4, 3), np.arange(11) % 3
    layouts.write_shards(tmp_path / "one", images, labels, 4)
    layouts.write_shards(tmp_path / "two" / "train", images, labels, 4, "shard")
    for path, split in ((tmp_path / "one", None), (tmp_path / "one", "train"), (tmp_path / "two", "train")):
        dataset = data.create("shards", path, split)
        assert np.array_equal(seen(dataset), images) and np.array_equal(dataset.labels, labels)
        assert dataset.classes == ("0", "1", "2")
    assert dataset.name(5).endswith("train/shard-0001.tar:00005")
    assert len(data.create("shards", tmp_path / "one" / "train-0002.tar", allow_empty=True)) == 3
    (tmp_path / "one" / "classes.txt").write_text("cat\ndog\n")
    with pytest.raises(DataError, match=r"train-0000\.tar:00002: label 2 is out of range for 2 classes \(3 such"):
        data.create("shards", tmp_path / "one")


def test_shards_of_no_split_are_those_to_train_on(tmp_path):
    images, labels = layouts.pixels(6, 6, 4, 3), np.arange(6) % 3
    for folder, prefix in ((".", "{}"), ("folders/{}", "shard")):
        for split in ("train", "val"):
            layouts.write_shards(tmp_path / folder.format(split), images, labels, 6, prefix.format(split))
    for path in (tmp_path, tmp_path / "folders"):
        assert data.create("shards", path).name(0) == data.create("shards", path, "train").name(0)
        assert len(data.create("shards", path)) == 6


def test_synthetic():
    train, again, test = (
        data.create("synthetic", split=split, samples=30, size=16) for split in (None, "train", "test")
    )
    assert np.array_equal(seen(train), seen(again)) and not np.array_equal(seen(train), seen(test))
    assert not np.array_equal(seen(train), seen(data.create("synthetic", samples=30, size=16, seed=1)))
    assert train.labels.tolist() == [*range(10)] * 3
    assert data.create("synthetic", samples=3, mode="L")[0][0].mode == "L"
    with pytest.raises(ValueError, match="classes=0"):
        data.create("synthetic", classes=0)


def test_array_images_are_checked():
    images = layouts.pixels(4, 3, 3)
    with pytest.raises(DataError, match=r"array\[2\]: label 5 is out of range for 2 classes"):
        data.ArrayImages(images, np.array([0, 1, 5, 0]), ["a", "b"])
    with pytest.raises(DataError, match="no sample of class 'c'"):
        data.ArrayImages(images, np.array([0, 1, 1, 0]), ["a", "b", "c"])
    with pytest.raises(DataError, match="4 images but 3 labels"):
        data.ArrayImages(images, np.array([0, 1, 1]), ["a", "b"])
    with pytest.raises(DataError, match="no sample"):
        data.ArrayImages(images[:0], np.array([]), ["a"])
    with pytest.raises(ValueError, match=r"images: expected uint8 .* got float64 \(4, 3, 3\)"):
        data.ArrayImages(images / 1.0, np.array([0, 1, 1, 0]), ["a", "b"])
    with pytest.raises(ValueError, match="indices: 4 is not an index of a dataset of 4"):
        data.Subset(data.ArrayImages(images, np.array([0, 1, 1, 0]), ["a", "b"]), [0, 4])
