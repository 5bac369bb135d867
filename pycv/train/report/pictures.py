"""Pictures of a report as data URLs: samples, learned filters, large confusion matrices. PNG by Pillow."""

from __future__ import annotations

import base64
import io
import math

import numpy as np
from PIL import Image
from torch import nn

MOST_FILTERS = 128
FRAME = 200  # grey
THUMBNAIL = 160  # the longer side of a sample that is larger


def data_url(pixels: np.ndarray) -> str:
    """uint8 (H, W) or (H, W, 3) as a PNG in a URL."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def sample(pixels: np.ndarray) -> str:
    """A sample as it is, or its thumbnail: uint8 (H, W), (H, W, 1) or (H, W, 3).

    Raises
    ------
    ValueError
        If it is something else.
    """
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (1, 3)):
        raise ValueError(f"image: {pixels.dtype} {pixels.shape}, expected uint8 (H, W), (H, W, 1) or (H, W, 3)")
    picture = Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels))
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    return data_url(np.asarray(picture))


def diverging(values: np.ndarray) -> np.ndarray:
    """Values from -1 to 1 as uint8 colours: blue below zero, white, red above."""
    depth = np.abs(np.clip(values, -1, 1))[..., None]
    end = np.where(values[..., None] < 0, (0x2F, 0x6D, 0xB3), (0xC8, 0x35, 0x2B))
    return np.rint(255 + depth * (end - 255)).astype(np.uint8)


def shares(counts: np.ndarray, most: int = 1000) -> np.ndarray:
    """A large confusion matrix as uint8 colours: the share of each row, its square root, so that little can be seen."""
    part = np.sqrt(counts[:most, :most] / np.maximum(counts[:most].sum(1, keepdims=True), 1))
    return diverging(np.where(np.eye(len(part)) == 1, -part, part))


def filters(model: nn.Module, size: int | None) -> tuple[np.ndarray, str] | None:
    """What the first layer looks for, as uint8 colours (H, W, 3), and in words; None if it cannot be seen.

    That is the first convolution; in a network without one the first linear layer, if its inputs are the pixels of
    pictures of ``size``. Weights for three channels are shown as colours around grey, each filter at its own contrast;
    others as blue (negative) and red on one scale, of several channels the mean.
    """
    found = _first_weights(model, size)
    if found is None:
        return None
    name, weights = found
    shown = weights[:MOST_FILTERS]
    if weights.shape[1] == 3:
        peaks = np.abs(shown).max(axis=(1, 2, 3), keepdims=True)
        tiles = np.rint(127.5 + 127.5 * shown / np.maximum(peaks, 1e-30)).astype(np.uint8).transpose(0, 2, 3, 1)
        words = "as colours around grey"
    else:
        planes = shown.mean(1)
        tiles = diverging(planes / max(float(np.abs(planes).max()), 1e-30))
        words = "blue lowers a response, red raises it" + ("; mean of the channels" if weights.shape[1] > 1 else "")
    count, _, height, width = weights.shape
    of = f"the first {len(shown)} of {count}" if count > len(shown) else f"{count}"
    return _sheet(tiles), f"{name}: {of} filters of {height}×{width}, {words}."


def _first_weights(model: nn.Module, size: int | None) -> tuple[str, np.ndarray] | None:
    """Name and weights (K, C, R, S) of the first layer."""
    layers = list(model.named_modules())
    for name, module in layers:
        if isinstance(module, nn.Conv2d):
            return name, module.weight.detach().float().cpu().numpy()
    for name, module in layers:
        if isinstance(module, nn.Linear):
            if size is None or module.in_features not in (size**2, 3 * size**2):
                return None
            return name, module.weight.detach().float().cpu().numpy().reshape(module.out_features, -1, size, size)
    return None


def _sheet(tiles: np.ndarray) -> np.ndarray:
    """Tiles (N, H, W, 3) side by side in rows, magnified so that each can be seen, in thin frames."""
    count, height, width, _ = tiles.shape
    factor = max(1, 72 // max(height, width))
    tiles = tiles.repeat(factor, axis=1).repeat(factor, axis=2)
    columns = min(count, max(8, math.ceil(math.sqrt(2 * count))))
    rows = -(-count // columns)
    gap = 6
    sheet = np.full((rows * (height * factor + gap), columns * (width * factor + gap), 3), 255, np.uint8)
    for number, tile in enumerate(tiles):
        y, x = number // columns * (height * factor + gap), number % columns * (width * factor + gap)
        sheet[y : y + tile.shape[0] + 2, x : x + tile.shape[1] + 2] = FRAME
        sheet[y + 1 : y + 1 + tile.shape[0], x + 1 : x + 1 + tile.shape[1]] = tile
    return sheet
