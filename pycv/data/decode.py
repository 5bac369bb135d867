"""From an image file to pixels, by Pillow, for files that nobody vouches for.

Only formats that Pillow decodes itself are opened (its EPS plug-in would start Ghostscript). The header tells the size
before anything is decoded, so that a decompression bomb costs nothing. Orientation tags are ignored, as the published
accuracies of ImageNet have it.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from .errors import CorruptImage

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "PPM", "TIFF")
EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff")
MAX_PIXELS = 1 << 26  # 8192×8192: more than any photograph in a data set, 200 MB as RGB
MODES = ("L", "RGB")


def decode(source: bytes | Path, name: str, mode: str = "RGB", max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The image of a file or of a file's bytes, fully decoded, in mode ``L`` or ``RGB``.

    Parameters
    ----------
    source
        A path, or the contents of a file.
    name
        What messages call it.

    Raises
    ------
    OSError
        The operating system's, of its own classes: if the path is not there or cannot be read.
    CorruptImage
        If it is truncated, damaged, of a format not in ``FORMATS``, or has more than ``max_pixels`` pixels.
    """
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        with Image.open(file, formats=FORMATS) as image:
            _check_size(image, name, max_pixels)
            return _converted(image, mode)
    except CorruptImage:
        raise
    except Exception as error:  # what a decoder raises on damaged bytes is of every class there is
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the operating system's: the path is not there, may not be read, the disk fails
        raise CorruptImage(f"{name}: {error or type(error).__name__}") from error


def _check_size(image: Image.Image, name: str, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        raise CorruptImage(
            f"{name}: {image.width}×{image.height} pixels are more than max_pixels={max_pixels}: a decompression bomb?"
        )


def _converted(image: Image.Image, mode: str) -> Image.Image:
    """In 8 bits per channel: Pillow would clip 16 bits, not scale them. What 32 bits hold beyond 16 is refused."""
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise ValueError("32-bit pixels have no defined range; those from 0 to 65535 are read as 16 bits")
        image = Image.fromarray((values >> 8).astype(np.uint8))
    elif image.mode == "F":
        raise ValueError("floating-point pixels have no defined range")
    elif image.mode == "P":  # of a palette with transparency the colours are meant
        image = image.convert("RGBA")
    image.load()
    return image.convert(mode)


def check_mode(mode: str) -> str:
    """The mode itself; ValueError if it is neither ``L`` nor ``RGB``."""
    if mode not in MODES:
        raise ValueError(f"mode={mode!r}: expected {' or '.join(map(repr, MODES))}")
    return mode
