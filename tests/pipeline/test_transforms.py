"""Transforms: deterministic ones against plain NumPy, random ones by their statistics and by what must stay."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from pycv import data
from pycv.data import transforms
from pycv.data.transforms import (
    CentreCrop,
    ColourJitter,
    Compose,
    CutMix,
    Lighting,
    Mixup,
    Normalise,
    OneOf,
    RandAugment,
    RandomAffine,
    RandomCrop,
    RandomErasing,
    RandomFlip,
    RandomResizedCrop,
    RandomRotation,
    Resize,
    Sometimes,
    ToTensor,
    colour,
    geometry,
    mix,
    presets,
    randaugment,
)

from ..seed import SEED
from . import layouts

RGB, GREY = layouts.pixels(1, 17, 23, 3, seed=SEED)[0], layouts.pixels(1, 17, 23, seed=SEED + 1)[0]
BOTH = pytest.mark.parametrize("pixels", [RGB, GREY], ids=["RGB", "L"])


def generator(seed: int = SEED) -> np.random.Generator:
    return np.random.default_rng(seed)


def run(transform, pixels: np.ndarray, seed: int = SEED) -> np.ndarray:
    return np.asarray(transform(Image.fromarray(pixels), generator(seed)))


# ---------------------------------------------------------------------------------------------- geometry


def triangle(length: int, out: int) -> np.ndarray:
    """(out, length): weights of antialiased bilinear resizing, a triangle two pixels wide (the larger)."""
    scale = length / out
    support = max(scale, 1.0)
    centres = (np.arange(out) + 0.5) * scale
    weights = np.maximum(0, 1 - np.abs((np.arange(length) + 0.5 - centres[:, None]) / support))
    return weights / weights.sum(1, keepdims=True)


@BOTH
@pytest.mark.parametrize("size", [(5, 40), (34, 7), 9, 30])
def test_resize_is_an_antialiased_triangle(pixels, size):
    resized = run(Resize(size), pixels)
    height, width = size if isinstance(size, tuple) else (size, size * 23 // 17)
    assert resized.shape[:2] == (height, width)
    expected = np.einsum("hi,wj,ij...->hw...", triangle(17, height), triangle(23, width), pixels.astype(float))
    assert np.abs(resized - expected).max() <= 1.01  # each of Pillow's two passes rounds


@BOTH
def test_crops(pixels):
    assert np.array_equal(run(CentreCrop((5, 9)), pixels), pixels[6:11, 7:16])
    taller = np.pad(pixels, [(2, 1), (0, 0)] + [(0, 0)] * (pixels.ndim - 2))
    assert np.array_equal(run(CentreCrop((20, 23)), pixels), taller)
    whole = np.pad(pixels, [(4, 4), (4, 4)] + [(0, 0)] * (pixels.ndim - 2))
    windows = {whole[top : top + 17, left : left + 17].tobytes(): (top, left) for top in range(9) for left in range(15)}
    tops, lefts = zip(*(windows[run(RandomCrop(17, 4), pixels, seed).tobytes()] for seed in range(400)), strict=True)
    assert set(tops) == set(range(9)) and set(lefts) == set(range(15))
    with pytest.raises(ValueError, match=r"size=26: larger than a 17×23 image padded by 4"):
        run(RandomCrop(26, 4), pixels)


@BOTH
def test_flip(pixels):
    assert np.array_equal(run(RandomFlip(1.0), pixels), pixels[:, ::-1])
    assert np.array_equal(run(RandomFlip(0.0), pixels), pixels)
    flipped = sum(np.array_equal(run(RandomFlip(), pixels, seed), pixels[:, ::-1]) for seed in range(1000))
    assert 420 < flipped < 580  # five deviations


def sampled(pixels: np.ndarray, linear: np.ndarray, shift: np.ndarray, fill: int) -> np.ndarray:
    """The affine map of ``geometry.affine``, pixel by pixel."""
    height, width = pixels.shape[:2]
    centre = np.array([width, height]) / 2
    expected = np.full(pixels.shape, float(fill))
    for row in range(height):
        for column in range(width):
            x, y = linear @ (np.array([column, row]) + 0.5 - centre) + centre - shift
            if 0 <= x < width and 0 <= y < height:
                left, top = math.floor(x - 0.5), math.floor(y - 0.5)
                u, v = x - 0.5 - left, y - 0.5 - top
                columns = np.clip([left, left + 1], 0, width - 1)
                rows = np.clip([top, top + 1], 0, height - 1)
                expected[row, column] = np.einsum(
                    "i,j,ij...->...", [1 - v, v], [1 - u, u], pixels[np.ix_(rows, columns)].astype(float)
                )
    return expected


@BOTH
def test_affine_maps_are_bilinear(pixels):
    random = generator()
    for _ in range(4):
        linear, shift = np.eye(2) + random.uniform(-0.4, 0.4, (2, 2)), random.uniform(-5, 5, 2)
        got = np.asarray(geometry.affine(Image.fromarray(pixels), linear, shift, 7))
        assert np.abs(got - sampled(pixels, linear, shift, 7)).max() <= 1


def test_rotation_is_counter_clockwise():
    square = GREY[:17, :17]
    assert np.abs(np.asarray(geometry.rotate(Image.fromarray(square), 90)).astype(int) - np.rot90(square)).max() <= 1
    angles = [generator(seed).uniform(-30, 30) for seed in range(3)]
    for seed, angle in enumerate(angles):
        expected = np.asarray(geometry.rotate(Image.fromarray(RGB), angle, 9))
        assert np.array_equal(run(RandomRotation(30, 9), RGB, seed), expected)
    assert np.array_equal(run(RandomRotation(0), RGB), RGB)


@BOTH
def test_random_affine(pixels):
    assert np.array_equal(run(RandomAffine(), pixels), pixels)
    moved = run(RandomAffine(shift=0.2), pixels, 3)
    draws = generator(3).uniform(-1, 1, 6)
    expected = sampled(pixels, np.eye(2), 0.2 * np.array([draws[2] * 23, draws[1] * 17]), 0)
    assert np.abs(moved - expected).max() <= 1
    for name in ("rotation", "scale", "shear"):
        strength = {"rotation": 40.0}.get(name, 0.4)
        assert np.array_equal(run(RandomAffine(**{name: 0}), pixels), pixels)
        assert not np.array_equal(run(RandomAffine(**{name: strength}), pixels), pixels)
    linear = np.diag([1 + 0.3 * draws[4], 1 + 0.3 * draws[3]])
    assert np.abs(run(RandomAffine(scale=0.3), pixels, 3) - sampled(pixels, linear, np.zeros(2), 0)).max() <= 1
    linear = np.array([[1, 0.3 * draws[5]], [0, 1]])
    assert np.abs(run(RandomAffine(shear=0.3), pixels, 3) - sampled(pixels, linear, np.zeros(2), 0)).max() <= 1


def test_random_resized_crop():
    transform, random = RandomResizedCrop(8, (0.1, 0.9), (0.5, 2.0)), generator()
    windows = np.array([transform.window(170, 230, random) for _ in range(3000)])
    top, left, height, width = windows.T
    assert (windows >= 0).all() and (top + height <= 170).all() and (left + width <= 230).all()
    whole = (height == 170) & (width == 230)  # one picture in some 500,000: none of its ten draws fits
    assert whole.sum() <= 3
    top, left, height, width = windows[~whole].T
    area, ratio = height * width / (170 * 230), width / height
    assert area.min() > 0.098 and area.max() < 0.91 and ratio.min() > 0.48 and ratio.max() < 2.1
    small = area < 0.3  # nearly all of these fit, so that their distribution is that of the draws
    assert abs(area[small].mean() - 0.2) < 0.01
    assert abs(np.log(ratio[small]).mean()) < 0.08
    for start, rest in ((top, 170 - height), (left, 230 - width)):
        assert abs((start[rest > 20] / rest[rest > 20]).mean() - 0.5) < 0.04
    top, left, height, width = transform.window(17, 23, generator(5))
    cut = Image.fromarray(RGB[top : top + height, left : left + width])
    expected = np.asarray(cut.resize((8, 8), Image.Resampling.BILINEAR))
    assert np.array_equal(run(transform, RGB, 5), expected)


@pytest.mark.parametrize(("height", "width"), [(1, 100), (100, 1), (1, 1)])
def test_random_resized_crop_of_odd_pictures(height, width):
    """Where no draw fits, a window of an allowed ratio from the middle, or nearly."""
    transform = RandomResizedCrop(4, (0.9, 1.0))
    top, left, h, w = transform.window(height, width, generator())
    assert (h, w) == (1, 1) and abs(top - (height - 1) / 2) <= 0.5 and abs(left - (width - 1) / 2) <= 0.5
    assert run(transform, np.zeros((height, width, 3), np.uint8)).shape == (4, 4, 3)


# ---------------------------------------------------------------------------------------------- colour

LUMA = np.array([299, 587, 114]) / 1000


def blended(pixels: np.ndarray, base: np.ndarray | float, factor: float) -> np.ndarray:
    return np.clip(base + factor * (pixels.astype(float) - base), 0, 255)


@pytest.mark.parametrize("factor", [0.0, 0.4, 1.0, 1.7])
def test_brightness_contrast_and_saturation(factor):
    image, grey = Image.fromarray(RGB), RGB @ LUMA
    cases = {
        colour.brightness: 0.0,
        colour.contrast: round(grey.mean()),
        colour.saturation: grey[:, :, None],
    }
    for function, base in cases.items():
        assert np.abs(np.asarray(function(image, factor)) - blended(RGB, base, factor)).max() <= 2, function


def test_hue():
    red = np.zeros((2, 2, 3), np.uint8)
    red[..., 0] = 200
    for turn, expected in ((1 / 3, (0, 200, 0)), (-1 / 3, (0, 0, 200)), (0.5, (0, 200, 200))):
        assert np.abs(np.asarray(colour.hue(Image.fromarray(red), turn))[0, 0].astype(int) - expected).max() <= 4
    assert np.array_equal(np.asarray(colour.hue(Image.fromarray(GREY), 0.3)), GREY)


def test_colour_jitter():
    assert np.array_equal(run(ColourJitter(), RGB), RGB)
    levels = np.full((4, 4, 3), 100, np.uint8)
    got = np.array([run(ColourJitter(brightness=0.4), levels, seed)[0, 0, 0] for seed in range(500)])
    assert 59 <= got.min() < 65 and 135 < got.max() <= 140 and abs(got.mean() - 100) < 5
    results = {run(ColourJitter(0.4, 0.4, 0.4, 0.1), RGB, seed).tobytes() for seed in range(20)}
    assert len(results) == 20
    assert run(ColourJitter(0.4, 0.4, 0.4, 0.1), GREY).shape == GREY.shape
    factors = generator(7)
    bright, dark = factors.uniform(0.6, 1.4), factors.uniform(0.6, 1.4)
    orders = [
        np.asarray(colour.contrast(colour.brightness(Image.fromarray(RGB), bright), dark)),
        np.asarray(colour.brightness(colour.contrast(Image.fromarray(RGB), dark), bright)),
    ]
    assert any(np.array_equal(run(ColourJitter(0.4, 0.4), RGB, 7), order) for order in orders)


def test_lighting_follows_the_principal_axes():
    image, axes = torch.rand(3, 4, 5), np.asarray(colour.EIGENVECTORS)
    assert np.abs(axes.T @ axes - np.eye(3)).max() < 1e-3
    added = [(Lighting(0.1)(image, generator(seed)) - image).numpy() for seed in range(2000)]
    assert all(np.ptp(change, (1, 2)).max() < 1e-6 for change in added[:10])  # the same in every pixel
    amounts = np.array([change[:, 0, 0] for change in added]) @ axes
    assert np.allclose(amounts.std(0), 0.1 * np.asarray(colour.EIGENVALUES), rtol=0.1, atol=2e-5)
    assert (np.abs(amounts.mean(0)) < 5 * amounts.std(0) / math.sqrt(2000)).all()
    with pytest.raises(ValueError, match=r"image: Lighting takes a tensor \(3, H, W\), got \(1, 4, 5\)"):
        Lighting()(image[:1], generator())


# ---------------------------------------------------------------------------------------------- RandAugment


@BOTH
@pytest.mark.parametrize("name", randaugment.OPERATIONS)
def test_operations_of_randaugment(name, pixels):
    operation, image = randaugment.OPERATIONS[name], Image.fromarray(pixels)
    strong = [np.asarray(operation(image, 1.0, sign)) for sign in (1, -1)]
    assert strong[0].shape == pixels.shape and image.mode == ("RGB" if pixels.ndim == 3 else "L")
    unsigned = name in ("identity", "autocontrast", "equalize", "posterize", "solarize")
    without_colour = name == "saturation" and pixels.ndim == 2
    assert np.array_equal(*strong) == (unsigned or without_colour)
    weak = np.asarray(operation(image, 0.0, 1)).astype(int)
    if name not in ("autocontrast", "equalize"):  # these have no strength
        assert np.abs(weak - pixels).max() <= 1
    assert np.array_equal(np.asarray(image), pixels)  # what it took is as it was


def test_strengths_of_randaugment():
    image, x = Image.fromarray(GREY), GREY.astype(int)
    assert np.array_equal(np.asarray(randaugment.OPERATIONS["posterize"](image, 1.0, 1)), x & 0xF0)
    assert np.array_equal(np.asarray(randaugment.OPERATIONS["solarize"](image, 0.5, 1)), np.where(x < 128, x, 255 - x))
    moved = np.asarray(randaugment.OPERATIONS["translate_x"](image, 1.0, 1))
    assert (moved[:, :10] == 128).all() and not (moved[:, 11:] == 128).all()
    turned = np.asarray(randaugment.OPERATIONS["rotate"](image, 1.0, 1))
    assert np.array_equal(turned, np.asarray(geometry.rotate(image, 30, 128)))


def test_randaugment_draws_every_operation_equally(monkeypatch):
    counts = dict.fromkeys(randaugment.OPERATIONS, 0)

    def counting(name):
        def operation(image, strength, sign):
            assert strength == 0.7
            counts[name] += 1
            return image

        return operation

    monkeypatch.setattr(randaugment, "_BY_NUMBER", tuple(counting(name) for name in randaugment.OPERATIONS))
    random, image = generator(), Image.fromarray(GREY)
    for _ in range(700):
        RandAugment(3, 7)(image, random)
    assert sum(counts.values()) == 2100 and min(counts.values()) > 90 and max(counts.values()) < 215


# ---------------------------------------------------------------------------------------------- tensors


def test_to_tensor_and_normalise():
    tensor = ToTensor()(Image.fromarray(RGB), generator())
    assert tensor.dtype == torch.float32 and tensor.is_contiguous()
    assert np.array_equal(tensor.numpy(), RGB.transpose(2, 0, 1).astype(np.float32) / np.float32(255))
    grey = ToTensor()(Image.fromarray(GREY), generator())
    assert np.array_equal(grey.numpy(), GREY[None].astype(np.float32) / np.float32(255))
    before = tensor.clone()
    mean, deviation = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    got = Normalise(mean, deviation)(tensor, generator())
    expected = (before.double().numpy() - np.array(mean)[:, None, None]) / np.array(deviation)[:, None, None]
    assert np.abs(got.numpy() - expected).max() < 1e-6 and torch.equal(tensor, before)
    assert Normalise((0.5,), (2.0,))(tensor, generator()).shape == tensor.shape
    with pytest.raises(ValueError, match=r"mean=\(0.1, 0.2, 0.3\): 3 channels, but the image has 1"):
        Normalise(mean, deviation)(grey, generator())


def test_random_erasing():
    image = torch.full((3, 40, 30), 9.0)
    assert RandomErasing(0.0)(image, generator()) is image
    areas, shapes = [], []
    for seed in range(400):
        erased = RandomErasing(1.0, (0.1, 0.3), (0.5, 2.0), value=0.0)(image, generator(seed))
        gone = erased[0] == 0
        rows, columns = np.flatnonzero(gone.any(1)), np.flatnonzero(gone.any(0))
        assert gone[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all() and torch.equal(erased[0], erased[2])
        areas.append(gone.float().mean().item())
        shapes.append(len(rows) / len(columns))
    assert 0.08 < min(areas) < 0.12 and 0.27 < max(areas) < 0.33 and abs(np.mean(areas) - 0.2) < 0.015
    assert 0.4 < min(shapes) < 0.6 and 1.7 < max(shapes) < 2.4
    assert (image == 9).all()
    erased = RandomErasing(1.0, (0.3, 0.3))(image, generator())
    noise = erased[erased != 9]
    assert abs(noise.mean()) < 0.2 and abs(noise.std() - 1) < 0.15
    happened = sum(RandomErasing(0.25)(image, generator(seed)) is not image for seed in range(800))
    assert 140 < happened < 262


# ---------------------------------------------------------------------------------------------- mixing


def test_mixup():
    first, second = torch.rand(3, 4, 5), torch.rand(3, 4, 5)
    a, b = first.clone(), second.clone()
    share = Mixup(1.0)(a, b, generator())
    torch.testing.assert_close(a, share * first + (1 - share) * second)
    torch.testing.assert_close(b, share * second + (1 - share) * first)
    shares = np.array([Mixup(0.4)(a, b, generator(seed)) for seed in range(500)])
    assert abs(shares.mean() - 0.5) < 0.09 and abs(shares.var() - 1 / (4 * 1.8)) < 0.03  # of Beta(0.4, 0.4)


def test_cutmix():
    first, second = torch.zeros(3, 20, 30), torch.ones(3, 20, 30)
    shares = []
    for seed in range(300):
        a, b = first.clone(), second.clone()
        share = CutMix(1.0)(a, b, generator(seed))
        assert torch.equal(a + b, torch.ones_like(a)) and share == pytest.approx(1 - a.mean().item(), abs=1e-6)
        gone = a[0] == 1
        if gone.any():
            rows, columns = np.flatnonzero(gone.any(1)), np.flatnonzero(gone.any(0))
            assert gone[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        shares.append(share)
    # A window of area s (s uniform) about a uniform centre keeps on each axis 1 - sqrt(s) / 4 of its length.
    side = np.sqrt(np.linspace(0, 1, 1001))
    assert abs(np.mean(shares) - (1 - (side * (1 - side / 4)) ** 2).mean()) < 0.08


def test_pairs_and_their_labels():
    images = torch.arange(7.0).view(7, 1, 1, 1).repeat(1, 1, 4, 4)
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 2])
    mixed = images.clone()
    targets = mix.mix_pairs(Mixup(1.0), mixed, labels, 3, [3, 4, 5, 8, 10, 11, 12], SEED, 2)
    torch.testing.assert_close(targets.sum(1), torch.ones(7))
    pairs, alone = {1: 2, 4: 5}, [0, 3, 6]
    for row in alone:
        assert torch.equal(mixed[row], images[row])
        assert targets[row].tolist() == [float(labels[row] == label) for label in range(3)]
    for row, other in pairs.items():
        share = (mixed[row, 0, 0, 0].item() - other) / (row - other)
        assert 0 <= share <= 1 and targets[row, labels[row]] == pytest.approx(share, abs=1e-5)
        assert targets[other, labels[other]] == pytest.approx(share, abs=1e-5)
        assert targets[row, labels[other]] == pytest.approx(1 - share, abs=1e-5)
    again = mix.mix_pairs(Mixup(1.0), images[1:3].clone(), labels[1:3], 3, [4, 5], SEED, 2)
    assert torch.equal(again, targets[1:3])
    other = mix.mix_pairs(Mixup(1.0), images[1:3].clone(), labels[1:3], 3, [4, 5], SEED, 3)
    assert not torch.equal(again, other)


def test_one_of():
    calls = []
    ways = OneOf(tuple(lambda a, b, random, name=name: calls.append(name) or 0.5 for name in "ab"))
    for seed in range(200):
        assert ways(None, None, generator(seed)) == 0.5
    assert 60 < calls.count("a") < 140


# ---------------------------------------------------------------------------------------------- all of them


def values(image: Image.Image | torch.Tensor) -> np.ndarray:
    return image.numpy().copy() if isinstance(image, torch.Tensor) else np.array(image)


EVERY = [
    Resize(9), CentreCrop(9), RandomCrop(9, 2), RandomResizedCrop(9), RandomFlip(), RandomAffine(9, 0.1, 0.1, 0.1),
    RandomRotation(20), ColourJitter(0.3, 0.3, 0.3, 0.1), RandAugment(), Sometimes(RandomRotation(20), 0.5),
]  # fmt: skip
ON_TENSORS = [Lighting(), Normalise((0.5,), (0.5,)), RandomErasing(1.0)]


@pytest.mark.parametrize("transform", [*EVERY, *ON_TENSORS], ids=repr)
def test_results_depend_on_the_generator_alone(transform):
    """The same from the same generator, in another process too; what was taken is left as it was."""
    image = torch.rand(3, 17, 23) if transform in ON_TENSORS else Image.fromarray(RGB)
    before = values(image)
    first = values(transform(image, generator()))
    np.random.seed(1)
    torch.manual_seed(1)
    assert np.array_equal(values(pickle.loads(pickle.dumps(transform))(image, generator())), first)
    assert np.array_equal(values(image), before)
    deterministic = isinstance(transform, Resize | CentreCrop | Normalise)
    others = [values(transform(image, generator(seed))) for seed in range(12)]
    assert all(np.array_equal(first, other) for other in others) == deterministic


def test_compose():
    both = Compose(RandomFlip(1.0), ToTensor())
    assert np.array_equal(both(Image.fromarray(GREY), generator())[0].numpy() * 255, GREY[:, ::-1])
    assert repr(both) == "Compose(\n    RandomFlip(probability=1.0),\n    ToTensor(),\n)"


@pytest.mark.parametrize(
    ("preset", "pixels", "shape"),
    [
        (presets.imagenet_train(), (300, 200, 3), (3, 224, 224)),
        (presets.imagenet_train(96, RandAugment(), 0.9), (300, 200, 3), (3, 96, 96)),
        (presets.imagenet_eval(), (300, 200, 3), (3, 224, 224)),
        (presets.alexnet_train(), (300, 200, 3), (3, 224, 224)),
        (presets.cifar_train(), (32, 32, 3), (3, 32, 32)),
        (presets.cifar_eval(presets.CIFAR100), (32, 32, 3), (3, 32, 32)),
        (presets.digits_train(), (8, 8), (1, 32, 32)),
        (presets.digits_eval(28, presets.MNIST), (28, 28), (1, 28, 28)),
    ],
)
def test_presets(preset, pixels, shape):
    image = preset(Image.fromarray(layouts.pixels(1, *pixels)[0]), generator())
    assert image.shape == shape and image.dtype == torch.float32 and image.isfinite().all()


def test_statistics_of_the_digits():
    images = data.create("digits").images / 255
    assert presets.DIGITS.mean[0] == pytest.approx(images.mean(), abs=1e-3)
    assert presets.DIGITS.deviation[0] == pytest.approx(images.std(), abs=1e-3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Resize(0), "size=0"),
        (lambda: Resize((3, -1)), r"size=\(3, -1\)"),
        (lambda: CentreCrop(2.5), r"size=2\.5"),
        (lambda: Resize(3, "lanczos"), "filter='lanczos': expected one of nearest, bilinear, bicubic"),
        (lambda: RandomCrop(3, -1), "padding=-1"),
        (lambda: RandomResizedCrop(3, (0.5, 1.5)), r"scale=\(0\.5, 1\.5\)"),
        (lambda: RandomResizedCrop(3, (0, 1)), r"scale=\(0, 1\)"),
        (lambda: RandomResizedCrop(3, ratio=(2, 1)), r"ratio=\(2, 1\)"),
        (lambda: RandomFlip(1.5), r"probability=1\.5"),
        (lambda: Sometimes(RandomFlip(), -1), "probability=-1"),
        (lambda: RandomAffine(scale=1.0), r"scale=1\.0"),
        (lambda: RandomAffine(shear=-1), "shear=-1"),
        (lambda: RandomRotation(-3), "degrees=-3"),
        (lambda: ColourJitter(contrast=-1), "contrast=-1"),
        (lambda: ColourJitter(hue=0.6), r"hue=0\.6"),
        (lambda: Lighting(-1), "deviation=-1"),
        (lambda: RandAugment(-1), "operations=-1"),
        (lambda: RandAugment(2, 11), "magnitude=11"),
        (lambda: Normalise((0.5,), (0.5, 0.5)), "mean="),
        (lambda: Normalise((0.5,), (0.0,)), r"deviation=\(0\.0,\)"),
        (lambda: RandomErasing(2), "probability=2"),
        (lambda: RandomErasing(scale=(0.5, 0.1)), "scale="),
        (lambda: Mixup(0), "alpha=0"),
        (lambda: CutMix(-1), "alpha=-1"),
        (lambda: OneOf(()), "ways="),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_every_transform_is_public():
    assert {type(transform).__name__ for transform in (*EVERY, *ON_TENSORS)} <= set(transforms.__all__)
