"""How much a program takes at a time: the tile of a matrix product, by its shape and dtype; a block of other things.

A tile is as large as registers allow (its sums live there), smaller where the matrix is, and smaller again where there
would be fewer tiles than multiprocessors to compute them. A block has so many elements that each thread has some to
load at the same time. Those are rules, made up without measuring; ``candidates`` and ``blocks`` are theirs and those
next to it, among which autotune measures.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from pycv.problem import ITEMSIZES

from .launch import ceil_div, power_of_2, sum_dtype

PROCESSORS = 132  # of an H100; others have fewer or about as many
ELEMENTS = 1024  # of a block
GROUP = 8  # rows of tiles that follow one another column by column (language.grouped)
SMALLEST = 16  # side of a tile, of those that tensor cores multiply
_PLENTY = 8  # tiles for each multiprocessor
_BARRIERS = 1024  # bytes, at most


class Tile(NamedTuple):
    rows: int
    columns: int
    depth: int
    warps: int
    stages: int
    group: int = GROUP

    def __str__(self) -> str:
        group = "" if self.group == GROUP else f"g{self.group}"
        return f"{self.rows}x{self.columns}x{self.depth}w{self.warps}s{self.stages}{group}"

    @property
    def area(self) -> int:
        return self.rows * self.columns

    @property
    def operands(self) -> int:
        """Elements of a step."""
        return (self.rows + self.columns) * self.depth

    @property
    def threads(self) -> int:
        return 32 * self.warps

    def covering(self, rows: int, columns: int) -> int:
        """How many of them a matrix takes."""
        return ceil_div(rows, self.rows) * ceil_div(columns, self.columns)

    def constants(self) -> dict[str, int]:
        """As the kernels and Triton take them."""
        return {
            "BM": self.rows, "BN": self.columns, "BK": self.depth,
            "GROUP": self.group, "num_warps": self.warps, "num_stages": self.stages,
        }  # fmt: skip


class Block(NamedTuple):
    """What a program takes of anything else."""

    positions: int
    channels: int
    warps: int

    def __str__(self) -> str:
        return f"{self.positions}x{self.channels}w{self.warps}"

    @property
    def elements(self) -> int:
        return self.positions * self.channels


class Product(NamedTuple):
    """What a tile is for: ``matrices`` products of (rows, depth) by (depth, columns).

    ``gathered``: where an operand's elements lie is worked out anew in each step. ``scattered``: so it is for every
    element of the left one, so many of which a thread has registers for. 0: addresses take few.
    """

    rows: int
    columns: int
    depth: int
    dtype: str
    precision: str = "ieee"
    matrices: int = 1
    gathered: bool = False
    scattered: int = 0

    @property
    def on_tensor_cores(self) -> bool:
        return self.dtype != "f32" or self.precision != "ieee"


class Limits(NamedTuple):
    """What a GPU has for a tile: bytes of shared memory for a block, and how many registers of each thread sums may
    take where addresses take few."""

    shared_memory: int
    sums: int


HOPPER = Limits(227 * 2**10, 128)  # its tensor cores read operands from shared memory
AMPERE = Limits(163 * 2**10, 64)  # of compute capability 8.0; those of others have less shared memory

# Rows, columns and depth
LARGEST = {"f16": (128, 128, 64), "bf16": (128, 128, 64), "f32": (128, 64, 32), "f64": (64, 32, 16)}
SCATTERED = {"f16": (128, 128, 32), "bf16": (128, 128, 32), "f32": (64, 64, 32), "f64": (64, 32, 16)}
_EXACT_F32 = (64, 64, 16)  # without tensor cores
_EXACT_F32_SCATTERED = (64, 32, 16)
_THREE_TF32_SCATTERED = (64, 64, 16)


def tile_of(p: Product) -> Tile:
    """The tile of the rule."""
    largest = _largest(p)
    height, width = power_of_2(p.rows, SMALLEST, largest[0]), power_of_2(p.columns, SMALLEST, largest[1])
    while p.matrices * ceil_div(p.rows, height) * ceil_div(p.columns, width) < PROCESSORS and max(height, width) > 32:
        height, width = (height // 2, width) if height >= width else (height, width // 2)
    depth, warps = power_of_2(p.depth, SMALLEST, largest[2]), _warps(height, width)
    while p.scattered and depth > SMALLEST and height * depth > p.scattered * 32 * warps:
        depth //= 2
    return Tile(height, width, depth, warps, 3 if p.dtype in ("f16", "bf16") else 2)


def _largest(p: Product) -> tuple[int, int, int]:
    if not p.on_tensor_cores:
        return _EXACT_F32_SCATTERED if p.scattered else _EXACT_F32
    if not p.scattered:
        return LARGEST[p.dtype]
    return _THREE_TF32_SCATTERED if p.precision == "tf32x3" else SCATTERED[p.dtype]


def _warps(height: int, width: int) -> int:
    area = height * width
    return 8 if area > 64 * 64 else 4 if area >= 32 * 32 else 2


def candidates(p: Product, limits: Limits) -> tuple[Tile, ...]:
    """The tiles worth measuring: the rule's first, then those that are one step away from it and no waste. None is
    larger than the matrices, or than what a GPU has for it; none is larger than the rule's where there are too few
    tiles already, none smaller where there are plenty."""
    rule = tile_of(p)
    beside = (tile for tile in _beside(rule) if _useful(tile, rule, p) and _fits(tile, rule, p, limits))
    return tuple(dict.fromkeys((rule, *beside)))


def _beside(tile: Tile) -> Iterator[Tile]:
    """All that differ from a tile by one step."""
    height, width, depth, warps, stages, _ = tile
    for rows, columns in ((height * 2, width), (height, width * 2), (height // 2, width), (height, width // 2)):
        yield Tile(rows, columns, depth, _warps(rows, columns), stages)
    yield tile._replace(depth=depth * 2)
    yield tile._replace(depth=depth // 2, stages=stages + 1)
    yield tile._replace(stages=stages + 1)
    yield tile._replace(warps=warps // 2 if warps == 8 else warps * 2)
    yield tile._replace(group=1)


def _useful(tile: Tile, rule: Tile, p: Product) -> bool:
    sides = zip(tile[:3], (p.rows, p.columns, p.depth), strict=True)
    if not all(SMALLEST <= side <= power_of_2(size, SMALLEST) for side, size in sides):
        return False
    if tile.group != rule.group and (p.rows <= tile.rows or p.columns <= tile.columns):
        return False  # one row or column of tiles: the same order
    if tile.area > rule.area:
        return p.matrices * tile.covering(p.rows, p.columns) >= PROCESSORS // 2
    return tile.area == rule.area or p.matrices * rule.covering(p.rows, p.columns) < _PLENTY * PROCESSORS


def _fits(tile: Tile, rule: Tile, p: Product, limits: Limits) -> bool:
    """By what ptxas says of all of them: a thread that keeps more than this spills registers to memory."""
    if tile.stages * tile.operands * ITEMSIZES[p.dtype] + _BARRIERS > limits.shared_memory:
        return False
    three = p.precision == "tf32x3"  # each operand in two parts
    if (p.gathered or three) and tile.depth > rule.depth:
        return False
    sums = tile.area * ITEMSIZES[sum_dtype(p.dtype)] // 4 // tile.threads
    if sums > min(limits.sums // 2 if three else limits.sums, 64 if p.gathered else limits.sums):
        return False
    if p.scattered and tile.rows * tile.depth > p.scattered * tile.threads:
        return False
    most = max(rule.operands // rule.threads, 32 if p.on_tensor_cores and p.dtype != "f64" else 16)
    return not p.gathered or tile.operands // tile.threads <= most


def block_of(channels: int, positions: int, widest: int) -> tuple[int, int]:
    """By the rule, how many (channels, positions) a program takes at a time: up to ``widest`` channels, and more where
    the positions are few and the channels would still do for every multiprocessor."""
    width = power_of_2(channels, 1, widest)
    height = power_of_2(positions, SMALLEST, ELEMENTS // width)
    spare = min(ELEMENTS // height, channels // (2 * PROCESSORS))
    return max(width, 1 << max(0, spare.bit_length() - 1)), height


def blocks(rule: Block, positions: int, channels: int, most: int) -> tuple[Block, ...]:
    """The blocks worth measuring: the rule's first, then those that differ from it by one step, none larger than what
    there is, and none that leaves threads without an element or gives them more than ``most``."""
    beside = (
        rule._replace(positions=rule.positions * 2),
        rule._replace(positions=rule.positions // 2),
        rule._replace(channels=rule.channels * 2),
        rule._replace(channels=rule.channels // 2),
        rule._replace(positions=rule.positions * 2, channels=rule.channels // 2),
        rule._replace(positions=rule.positions // 2, channels=rule.channels * 2),
        rule._replace(warps=rule.warps * 2),
        rule._replace(warps=rule.warps // 2),
    )
    return (rule, *(block for block in beside if _sensible(block, positions, channels, most)))


def _sensible(block: Block, positions: int, channels: int, most: int) -> bool:
    if not (1 <= block.positions <= power_of_2(positions) and 1 <= block.channels <= power_of_2(channels)):
        return False
    return 1 <= block.elements / (32 * block.warps) <= most
