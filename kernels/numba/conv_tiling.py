"""Tiles of the matrix products of conv_im2col.py: how large, so that they fall evenly to the threads, and which of the
two products computes them.

Sums along rows (row_products.py) cost as much for few columns as for many, but a sum of few terms has hardly begun when
it ends, and in forward and grad_input the panel is gathered across its rows, which the rows of the tile must pay for.
The other product (product.py) needs long rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from .conv_im2col import PITCH, Tiling
from .sharing import round_up, worthwhile

ROWS, COLUMNS = 512, 512  # of a tile, at most
DEPTH, DEPTH_IN_ROWS = 128, 256  # of a panel, at most
FEW_TERMS = 128  # of a sum
FEW_COLUMNS = 160  # of a tile of an image
FEW_POSITIONS = 128  # for a thread: it rather shares them and takes fewer rows


class Shares(NamedTuple):
    """How threads share a product: its tiles, how many threads, the elements of workspace that they need, and the
    multiply-adds and gathered elements of each."""

    tiling: Tiling
    threads: int
    workspace: int
    products: float
    gathered: float


def image_shares(groups: int, rows: int, terms: int, positions: int, team: int, elements: int, in_rows: bool) -> Shares:
    """Of an image (forward, grad_input, a phase of it); the workspace is to hold ``elements`` at most. ``in_rows``: the
    terms of a row of the weight follow each other."""
    products = positions * terms * groups * rows
    team = worthwhile(team, products // 8, max(1, groups * rows * positions))
    threads = 1 if groups % team == 0 else team  # that share a group: so many its positions, the others its rows
    across = max(n for n in range(1, threads + 1) if threads % n == 0 and (n == 1 or n * FEW_POSITIONS <= positions))
    height, columns = _even(rows, ROWS, threads // across, 4), _even(positions, COLUMNS, across, 16)
    in_rows = in_rows and terms >= FEW_TERMS and columns < min(height, FEW_COLUMNS)
    depth = min(DEPTH_IN_ROWS if in_rows else DEPTH, terms)
    tiling = _within(elements // team, _image_elements, rows, positions, height, depth, columns, in_rows)
    threads = max(1, min(team, groups * tiling.row_blocks * tiling.column_blocks))
    workspace = threads * _image_elements(tiling)
    gathered = positions * terms * groups * tiling.row_blocks
    return Shares(tiling, threads, workspace, products / threads, gathered / threads)


def weight_shares(groups: int, rows: int, terms: int, positions: int, team: int, elements: int) -> Shares:
    """Of grad_weight, likewise. A tile of many rows gathers little."""
    products = positions * terms * groups * rows
    team = worthwhile(team, products // 8, max(1, groups * rows * terms))
    in_rows = positions >= FEW_TERMS
    most = DEPTH_IN_ROWS if in_rows else COLUMNS
    height, columns = min(ROWS, rows), min(most, terms)
    if groups * -(-rows // ROWS) % team and terms >= 32 * team:
        columns = _even(terms, most, team, 16)
    elif groups * -(-rows // ROWS) * -(-terms // most) < team:
        height = _even(rows, ROWS, team, 4)
    depth = min(DEPTH_IN_ROWS if in_rows else DEPTH, positions)
    tiling = _within(elements // team, _weight_elements, rows, terms, height, depth, columns, in_rows)
    threads = max(1, min(team, groups * tiling.row_blocks * tiling.column_blocks))
    workspace = threads * _weight_elements(tiling)
    gathered = positions * groups * (terms * tiling.row_blocks + rows * tiling.column_blocks)
    return Shares(tiling, threads, workspace, products / threads, gathered / threads)


def _even(count: int, most: int, team: int, step: int) -> int:
    """The size of parts of at most so many, as many of them for each of a team."""
    parts = round_up(max(1, -(-count // most)), team)
    return min(count, round_up(-(-count // parts), step))


def _within(
    elements: int, elements_of: Callable[[Tiling], int], m: int, n: int, rows: int, depth: int, columns: int,
    in_rows: bool,
) -> Tiling:  # fmt: skip
    """The tiling of an m x n matrix, with smaller tiles where a thread would exceed so many elements."""
    sizes = [max(1, size) for size in (rows, depth, columns)]
    while True:
        rows, depth, columns = sizes
        tiling = Tiling(rows, depth, columns, -(-m // rows), -(-n // columns), in_rows)
        if elements_of(tiling) <= elements or max(sizes) <= 16:
            return tiling
        sizes = [size // 2 if size > 16 else size for size in sizes]


def _image_elements(tiling: Tiling) -> int:
    """Of a tile and its panel."""
    depth, columns = tiling.depth, tiling.columns
    panel = columns * (depth + PITCH) if tiling.in_rows else depth * (columns + PITCH)
    return tiling.rows * (columns + PITCH) + panel


def _weight_elements(tiling: Tiling) -> int:
    """The gradient's elements, too."""
    return _image_elements(tiling) + tiling.rows * (tiling.depth + PITCH)
