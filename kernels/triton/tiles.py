"""How much a program takes at a time: the tile of a matrix product, by its shape and dtype; a block of other things.

A tile is as large as registers allow (its sums live there), smaller where the matrix is, and smaller again where there
would be fewer tiles than multiprocessors to compute them. A block has so many elements that each thread has some to
load at the same time.
"""

from __future__ import annotations

from typing import NamedTuple

from .launch import ceil_div, power_of_2

PROCESSORS = 132  # of an H100; others have fewer or about as many
ELEMENTS = 1024  # of a block
GROUP = 8


class Tile(NamedTuple):
    rows: int
    columns: int
    depth: int
    warps: int
    stages: int

    def covering(self, rows: int, columns: int) -> int:
        """How many of them a matrix takes."""
        return ceil_div(rows, self.rows) * ceil_div(columns, self.columns)

    def constants(self) -> dict[str, int]:
        """As the kernels and Triton take them."""
        return {
            "BM": self.rows, "BN": self.columns, "BK": self.depth,
            "num_warps": self.warps, "num_stages": self.stages,
        }  # fmt: skip


# Rows, columns and depth; SCATTERED where every element of an operand has an address of its own.
LARGEST = {"f16": (128, 128, 64), "bf16": (128, 128, 64), "f32": (128, 64, 32), "f64": (64, 32, 16)}
SCATTERED = {"f16": (128, 128, 32), "bf16": (128, 128, 32), "f32": (64, 64, 32), "f64": (64, 32, 16)}
_EXACT_F32 = (64, 64, 16)  # without tensor cores
_EXACT_F32_SCATTERED = (64, 32, 16)


def tile_of(
    rows: int, columns: int, depth: int, dtype: str, precision: str, matrices: int = 1, scattered: bool = False
) -> Tile:
    """The tile for ``matrices`` products of (rows, depth) by (depth, columns). ``scattered``: addresses take
    registers."""
    largest = (SCATTERED if scattered else LARGEST)[dtype]
    if dtype == "f32" and precision == "ieee":
        largest = _EXACT_F32_SCATTERED if scattered else _EXACT_F32
    height, width = power_of_2(rows, 16, largest[0]), power_of_2(columns, 16, largest[1])
    while matrices * ceil_div(rows, height) * ceil_div(columns, width) < PROCESSORS and max(height, width) > 32:
        height, width = (height // 2, width) if height >= width else (height, width // 2)
    area = height * width
    warps = 8 if area > 64 * 64 else 4 if area >= 32 * 32 else 2
    stages = 3 if dtype in ("f16", "bf16") else 2
    return Tile(height, width, power_of_2(depth, 16, largest[2]), warps, stages)


def block_of(channels: int, positions: int, widest: int) -> tuple[int, int]:
    """How many (channels, positions) a program takes at a time: up to ``widest`` channels, and more where the positions
    are few and the channels would still do for every multiprocessor."""
    width = power_of_2(channels, 1, widest)
    height = power_of_2(positions, 16, ELEMENTS // width)
    spare = min(ELEMENTS // height, channels // (2 * PROCESSORS))
    return max(width, 1 << max(0, spare.bit_length() - 1)), height
