"""The handwritten digits that ship with scikit-learn: 1797 grey images of 8×8 pixels, ten classes.

A part of E. Alpaydin and C. Kaynak's "Optical Recognition of Handwritten Digits" (UCI, 1998).
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from .dataset import ArrayImages
from .registry import check_no_path, check_split, register


@register("digits")
def digits(path: None = None, split: str | None = None) -> ArrayImages:
    """All 1797 digits, in scikit-learn's order; ink is white. There is one split, ``all``: see ``splits``.

    Read from the file that scikit-learn ships, without importing it: its wheels bring an OpenMP runtime of their own,
    which would fight torch's over the cores.

    Raises
    ------
    ImportError
        If scikit-learn is not installed.
    """
    check_no_path(path, "digits")
    check_split(split, ("all",))
    package = importlib.util.find_spec("sklearn")
    if package is None or package.origin is None:
        raise ImportError('the digits ship with scikit-learn, which is not installed: pip install "pycv[train]"')
    table = np.loadtxt(Path(package.origin).parent / "datasets/data/digits.csv.gz", delimiter=",", dtype=np.uint8)
    ink = np.rint(table[:, :-1] * (255 / 16)).astype(np.uint8)  # 0 to 16 in the file
    return ArrayImages(ink.reshape(-1, 8, 8), table[:, -1], [str(digit) for digit in range(10)], "digits")
