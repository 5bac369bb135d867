"""How many images a second one core decodes and augments, beside the same done by hand with Pillow.

    python -m benchmarks.input_pipeline [--seconds 10] [--json FILE]

Photographs are 500×375 JPEGs of noise at several scales, about as large as ImageNet's. "by hand" is the shortest loop
over Pillow's functions that does the same to an image, with Python's own random numbers and no seeds. The first table
is one process with one thread; the second is the loader with one worker for each core.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import PIL
import torch
from PIL import Image

from pycv import data
from pycv.bench import machine
from pycv.data.batch import Maker
from pycv.data.order import Place
from pycv.data.transforms import CutMix, Mixup, OneOf, RandAugment, presets
from pycv.timing import measure

PHOTOS, BATCH = 24, 8
MEAN, DEVIATION = (torch.tensor(values).view(3, 1, 1) for values in (presets.IMAGENET.mean, presets.IMAGENET.deviation))


def write_photos(folder: Path) -> None:
    """JPEGs in two classes: noise at several scales, which compresses about as photographs do."""
    generator = np.random.default_rng(0)
    for number in range(PHOTOS):
        layers = [generator.integers(0, 256, (375 >> shift, 500 >> shift, 3), np.uint8) for shift in (6, 4, 2)]
        sized = [Image.fromarray(layer).resize((500, 375), Image.Resampling.BICUBIC) for layer in layers]
        picture = Image.blend(Image.blend(sized[0], sized[1], 0.35), sized[2], 0.15)
        (folder / str(number % 2)).mkdir(exist_ok=True)
        picture.save(folder / str(number % 2) / f"{number}.jpg", quality=90)


def by_hand_imagenet(file: Path) -> torch.Tensor:
    """Random resized crop to 224, flip, tensor, normalise."""
    image = Image.open(file).convert("RGB")
    for _ in range(10):
        area = image.width * image.height * random.uniform(0.08, 1)
        ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        width, height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if width <= image.width and height <= image.height:
            break
    left, top = random.randint(0, max(0, image.width - width)), random.randint(0, max(0, image.height - height))
    image = image.crop((left, top, left + width, top + height)).resize((224, 224), Image.Resampling.BILINEAR)
    return _to_tensor(_flipped(image))


def by_hand_cifar(pixels: np.ndarray) -> torch.Tensor:
    """Random crop of the image padded by 4, flip, tensor, normalise."""
    left, top = random.randint(-4, 4), random.randint(-4, 4)
    return _to_tensor(_flipped(Image.fromarray(pixels).crop((left, top, left + 32, top + 32))))


def _flipped(image: Image.Image) -> Image.Image:
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if random.random() < 0.5 else image


def _to_tensor(image: Image.Image) -> torch.Tensor:
    tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div(255)
    return (tensor - MEAN) / DEVIATION


def of(dataset: data.ImageDataset, transform: Callable, mix: Callable | None = None) -> Callable[[], object]:
    """A call that makes one batch of a dataset, another one each time."""
    maker, epoch = Maker(dataset, transform, 0, mix=mix), iter(range(2**31))

    def call() -> object:
        number = next(epoch)
        return maker.batch([Place(number, i, (number * BATCH + i) % len(dataset)) for i in range(BATCH)])

    return call


def by_hand(function: Callable, sources: list) -> Callable[[], object]:
    """A call that makes one batch by hand."""
    return lambda: torch.stack([function(random.choice(sources)) for _ in range(BATCH)])


def per_core(photos: data.ImageDataset, cifar: data.ArrayImages, seconds: float) -> list[dict]:
    """Rows of images per second, one thread; of what Pillow does alone there is a second figure."""
    files = [photos.path(index) for index in range(len(photos))]  # type: ignore[attr-defined]
    mix = OneOf((Mixup(), CutMix()))
    augment = presets.imagenet_train(randaugment=RandAugment(), erasing=0.25)
    calls = {
        "ImageNet": of(photos, presets.imagenet_train()),
        "ImageNet by hand": by_hand(by_hand_imagenet, files),
        "ImageNet, RandAugment, erasing, mixup/CutMix": of(photos, augment, mix),
        "CIFAR": of(cifar, presets.cifar_train()),
        "CIFAR by hand": by_hand(by_hand_cifar, list(cifar.images)),
        "CIFAR, mixup/CutMix": of(cifar, presets.cifar_train(), mix),
    }
    timings = measure(calls, seconds)
    rates = {name: BATCH / timing.seconds for name, timing in timings.items()}
    return [
        {"pipeline": name, "images_per_second": rate, "by_hand": rates.get(f"{name} by hand")}
        for name, rate in rates.items()
        if not name.endswith("by hand")
    ]


def of_loader(photos: data.ImageDataset, workers: int, seconds: float) -> float:
    """Images per second of the loader, its start left out."""
    loader = data.TrainLoader(photos, BATCH, presets.imagenet_train(), workers=workers)
    list(loader)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        count += sum(len(batch.images) for batch in loader)
    return count / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.input_pipeline", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="how long to measure, roughly")
    parser.add_argument("--json", type=Path, help="where to write the result")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cores = len(os.sched_getaffinity(0))
    generator = np.random.default_rng(0)
    cifar = data.ArrayImages(
        generator.integers(0, 256, (500, 32, 32, 3), np.uint8), np.arange(500) % 10, [str(i) for i in range(10)]
    )
    with tempfile.TemporaryDirectory() as folder:
        write_photos(Path(folder))
        photos = data.create("folder", folder)
        size = np.mean([os.path.getsize(photos.name(index)) for index in range(len(photos))])
        rows = per_core(photos, cifar, arguments.seconds * 0.7)
        loaded = of_loader(photos, cores, arguments.seconds * 0.3)
    print(f"{'one core':<48}{'images/s':>10}{'by hand':>10}{'ratio':>8}")
    for row in rows:
        hand = row["by_hand"]
        beside = f"{hand:>10.0f}{row['images_per_second'] / hand:>8.2f}" if hand else ""
        print(f"{row['pipeline']:<48}{row['images_per_second']:>10.0f}{beside}")
    print(f"{f'ImageNet, loader, {cores} workers, per core':<48}{loaded / cores:>10.0f}")
    if arguments.json:
        record = {
            "rows": rows,
            "loader": {"workers": cores, "images_per_second_per_core": loaded / cores},
            "jpeg_bytes": float(size),
            "machine": machine.describe() | {"pillow": PIL.__version__},
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
