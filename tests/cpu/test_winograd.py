"""Winograd convolution at plan level: every tile, pass, layout and edge against the float64 reference.

An output's error may be as large as the largest values of its tile allow, so an element's bound is the tolerance times
the largest sum of absolute products within its tile. Where an image is so small that some taps meet only padding, their
rounding errors still count: the bound is at least that of one product of the largest values per channel.
"""

import numpy as np
import pytest

from pycv import registry
from pycv.kernels import Kernel, reference
from pycv.problem import ConvProblem, parse

from .. import compare, raw

# What a tile's transforms multiply rounding errors with, against the sum of absolute products.
AMPLIFICATION = {(2, 3): 1, (4, 3): 3, (6, 3): 10, (2, 5): 5, (3, 5): 5, (4, 5): 12}
GRAD_WEIGHT_AMPLIFICATION = AMPLIFICATION | {(2, 5): 15, (3, 5): 12, (4, 5): 35}
TILES = tuple(AMPLIFICATION)
PASSES = ("forward", "grad_input", "grad_weight")


def kernel_of(problem: ConvProblem, m: int) -> Kernel:
    return next(k for k in registry.kernels(problem.op, problem.pass_) if k.name == f"cpu:winograd/f{m}")


def tile_maxima(values: np.ndarray, m: int) -> np.ndarray:
    """Each element (n, c, y, x) replaced by the largest of its m x m tile."""
    *_, h, w = values.shape
    padded = np.pad(values, ((0, 0), (0, 0), (0, -h % m), (0, -w % m)), constant_values=0)
    for axis in (2, 3):
        blocks = np.moveaxis(padded, axis, -1)
        blocks = blocks.reshape(*blocks.shape[:-1], -1, m)
        blocks = np.broadcast_to(blocks.max(-1, keepdims=True), blocks.shape)
        padded = np.moveaxis(blocks.reshape(*blocks.shape[:-2], -1), -1, axis)
    return padded[..., :h, :w]


def largest_products(problem: ConvProblem, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """Per computed plane, the sum over its terms' channels or images of the largest absolute values' products."""
    maxima = {o.name: np.abs(arrays[o.name]).max((2, 3), keepdims=True) for o in raw.operands(problem)[:3] if o.read}
    pixel = replace(problem, size=(1, 1), filter=(1, 1), output_size=(1, 1), padding=(0, 0), epilogue=(), prologue=())
    return next(iter(reference.run(pixel, maxima).values()))


def arrays_of(problem: ConvProblem, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    dtype = np.float32 if problem.dtype == "f32" else np.float64
    return {
        o.name: rng.standard_normal(o.shape).astype(dtype).astype(np.float64) for o in raw.operands(problem) if o.read
    }


def check(text: str, m: int, threads: int = 1, limit: int = 2**28, seed: int = 0) -> None:
    problem = parse(text)
    kernel = kernel_of(problem, m)
    assert kernel.supports(problem) is None, kernel.supports(problem)
    arrays = arrays_of(problem, seed)
    computed = raw.run(problem, kernel, arrays, {}, threads, limit, 1, True)
    expected = reference.run(problem, arrays)
    bounds = compare.magnitudes(problem, arrays, expected)
    amplification = GRAD_WEIGHT_AMPLIFICATION if problem.pass_ == "grad_weight" else AMPLIFICATION
    factor = amplification[m, problem.filter[0]] * compare.tolerance(problem.dtype, compare.reduction_length(problem))
    for name, values in computed.items():
        bound = tile_maxima(bounds[name], problem.filter[0] if name == "weight" else m)
        bound = np.maximum(bound, largest_products(problem, arrays))
        compare.assert_elements(f"{problem} {kernel.name}: {name}", values, expected[name], factor * bound)


def problem_text(sizes: str, r: int, pass_: str = "forward", rest: str = "f32 nchw cpu") -> str:
    return f"conv2d.{pass_} {sizes}r{r}s{r} p{r // 2} {rest}"


@pytest.mark.parametrize("pass_", PASSES)
@pytest.mark.parametrize(("m", "r"), TILES)
def test_sizes_around_every_tile(m, r, pass_):
    """Images of one pixel to several tiles, whole and ragged, in both layouts."""
    for index, size in enumerate((1, 2, 3, 4, 5, 7, 8, 11, 12, 13, 17, 25)):
        for layout in ("nchw", "nhwc"):
            other = (size * 5 + index) % 19 + 1
            check(problem_text(f"n2c3h{size}w{other} k5", r, pass_, f"f32 {layout} cpu"), m, seed=index)
            check(problem_text(f"n1c18h{other}w{size} k33", r, pass_, f"f32 {layout} cpu"), m, seed=index)
