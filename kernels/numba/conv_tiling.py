"""Tiles of the matrix products of conv_im2col.py: how large, so that they fall evenly to the threads."""

from __future__ import annotations

from typing import NamedTuple

from . import conv_im2col
from .conv_im2col import PITCH, Tiling
from .sharing import round_up, worthwhile


class Shares(NamedTuple):
    """How threads share a product: its tiles, how many threads, the elements of workspace that they need, and the
    multiply-adds and gathered elements of each."""

    tiling: Tiling
    threads: int
    workspace: int
    products: float
    gathered: float


def image_shares(groups: int, rows: int, terms: int, positions: int, team: int, elements: int) -> Shares:
    """Of an image (forward, grad_input, a phase of it); the workspace is to hold ``elements`` at most."""
    products = positions * terms * groups * rows
    threads = worthwhile(team, products // 8, max(1, positions))
    tiling = _image_tiling(groups, rows, terms, positions, threads, elements)
    threads = max(1, min(threads, groups * tiling.row_blocks * tiling.column_blocks))
    workspace = threads * (tiling.rows + tiling.depth) * (tiling.columns + PITCH)
    gathered = positions * terms * groups * tiling.row_blocks
    return Shares(tiling, threads, workspace, products / threads, gathered / threads)


def _image_tiling(groups: int, rows: int, terms: int, positions: int, team: int, elements: int) -> Tiling:
    """Tiles of positions that fall evenly to the threads; tiles of rows where there are too few positions. Smaller
    ones where the workspace would exceed so many elements."""
    height, depth = max(1, min(conv_im2col.ROWS, rows)), max(1, min(conv_im2col.DEPTH, terms))
    blocks = round_up(max(1, -(-positions // conv_im2col.COLUMNS)), team)
    columns = max(1, min(positions, round_up(-(-positions // blocks), 16)))
    if groups * -(-rows // height) * -(-positions // columns) < team:
        height = max(1, min(height, round_up(-(-rows // team), 4)))
    while team * (height + depth) * (columns + PITCH) > elements and max(height, depth, columns) > 16:
        height, depth, columns = (size // 2 if size > 16 else size for size in (height, depth, columns))
    return Tiling(height, depth, columns, -(-rows // height), -(-positions // columns))


def weight_tiling(groups: int, rows: int, terms: int, positions: int, team: int, elements: int) -> Tiling:
    """Tiles of terms that fall evenly to the threads; tiles of rows where there are too few terms. A tile of many rows
    gathers little."""
    height, depth = max(1, min(conv_im2col.WEIGHT_ROWS, rows)), max(1, min(conv_im2col.WEIGHT_DEPTH, positions))
    blocks = max(1, -(-terms // conv_im2col.WEIGHT_COLUMNS))
    if groups * -(-rows // height) % team:
        blocks = round_up(blocks, team)
    columns = max(1, min(terms, round_up(-(-terms // blocks), 16)))
    if groups * -(-rows // height) * -(-terms // columns) < team:
        height = max(1, min(height, round_up(-(-rows // team), 4)))
    while team * (height * (columns + PITCH) + (height + columns) * (depth + PITCH)) > elements:
        if max(height, depth, columns) <= 16:
            break
        height, depth, columns = (size // 2 if size > 16 else size for size in (height, depth, columns))
    return Tiling(height, depth, columns, -(-rows // height), -(-terms // columns))
