"""The tiles that autotune measures: what is left out, and that the winner is kept and used."""

import random

import pytest

from pycv import registry, settings
from pycv.kernels.triton.tiles import AMPERE, GROUP, HOPPER, Block, Product, blocks, candidates, tile_of
from pycv.problem import ITEMSIZES, parse

from ..seed import SEED
from . import ahead
from .test_backend import in_a_new_process

PRECISIONS = {"f32": ("ieee", "tf32", "tf32x3")}


def drawn(count):
    draw = random.Random(SEED)
    for _ in range(count):
        size = [draw.choice((0, 1, 5, 17, 64, 70, 200, 1000, 4096, 100_000)) for _ in range(3)]
        dtype = draw.choice(("f16", "bf16", "f32", "f64"))
        gathered = draw.random() < 0.7
        yield Product(
            *size, dtype, draw.choice(PRECISIONS.get(dtype, ("ieee",))), draw.choice((1, 1, 8, 132)), gathered,
            draw.choice((0, 8, 16)) if gathered else 0,
        ), draw.choice((HOPPER, AMPERE, AMPERE._replace(shared_memory=99 * 2**10)))  # fmt: skip


def test_a_handful_within_all_limits():
    for product, limits in drawn(500):
        found = candidates(product, limits)
        assert found[0] == tile_of(product) and len(set(found)) == len(found) <= 10, product
        assert len({str(tile) for tile in found}) == len(found)
        for tile in found:
            staged = tile.stages * (tile.rows + tile.columns) * tile.depth * ITEMSIZES[product.dtype]
            assert staged < limits.shared_memory, (product, tile)
            assert 32 * tile.warps * 128 >= tile.rows * tile.columns * (2 if product.dtype == "f64" else 1)
            for side, size in zip(tile[:3], (product.rows, product.columns, product.depth), strict=True):
                assert side >= 16 and (side < 2 * size or side == 16), (product, tile)


def test_what_shapes_leave():
    """Larger tiles where there are many, smaller ones where there are few, none that would stay half empty."""
    square = [str(tile) for tile in candidates(Product(8192, 8192, 8192, "bf16"), HOPPER)]
    assert {"128x256x64w8s3", "256x128x64w8s3", "128x128x64w4s3", "128x128x64w8s4"} <= set(square)
    assert not any(tile.startswith("64x") for tile in square)
    assert max(tile.area for tile in candidates(Product(8192, 8192, 8192, "bf16"), AMPERE)) == 128 * 128
    few = [tile.area for tile in candidates(Product(256, 256, 512, "bf16"), HOPPER)]
    assert min(few) < few[0] == max(few)
    assert {tile.columns for tile in candidates(Product(100_000, 64, 576, "bf16"), HOPPER)} <= {32, 64}


def test_orders_of_tiles():
    """Column by column in strips of rows, or row by row; where there is one row of tiles there is one order."""
    groups = [tile.group for tile in candidates(Product(4096, 4096, 4096, "bf16"), HOPPER)]
    assert groups[0] == GROUP and set(groups) == {GROUP, 1}
    assert {tile.group for tile in candidates(Product(16, 4096, 4096, "bf16"), HOPPER)} == {GROUP}


def test_blocks_of_what_is_no_product():
    draw = random.Random(SEED)
    for _ in range(300):
        positions, channels = (draw.choice((1, 5, 17, 200, 4096, 100_000)) for _ in range(2))
        rule = Block(min(512, 1 << draw.randrange(10)), min(8, 1 << draw.randrange(4)), 4)
        found = blocks(rule, positions, channels, most := draw.choice((4, 8, 16)))
        assert found[0] == rule and len({str(block) for block in found}) == len(found) <= 9
        for block in found[1:]:
            assert 32 * block.warps <= block.elements <= 32 * block.warps * most, (rule, block)
            assert block.positions < 2 * positions and block.channels < 2 * channels, (positions, channels, block)
    assert blocks(Block(16, 64, 4), 100_000, 128, 16)[1:] and blocks(Block(512, 1, 4), 100_000, 1, 8)[1:]


WITH_BLOCKS = (
    "conv2d.{} n32c128h56w56 k128r3s3 p1 g128 f32 nhwc cuda",
    "avg_pool2d.{} n32c64h112w112 r3s3 f32 nchw cuda",
)


@pytest.mark.parametrize("text", WITH_BLOCKS)
def test_depthwise_and_pooling_have_a_choice(text):
    for pass_ in ("forward", "grad_input"):
        problem = parse(text.format(pass_))
        (kernel,) = ahead.kernels(problem, "direct")
        made = [each.plan(problem, 1, 2**28).launches[0] for each in kernel.in_tiles(problem)]
        names = ("BP", "BR", "BLOCK", "num_warps")
        assert len(made) > 3 and len({tuple(map(launch._arguments.get, names)) for launch in made}) == len(made)


def test_the_key_holds_all_that_changes_the_code():
    """Every argument of the problem and every setting, and so does the file: device, versions, kernels."""
    text, problems = "conv2d.forward n8c64h56w56 k64r3s3 p1 {} cuda", []
    for changed in (
        "bf16 nhwc", "d2 bf16 nhwc", "g4 bf16 nhwc", "u2 bf16 nhwc", "f16 nhwc", "f32 nhwc", "f64 nhwc", "bf16 nchw",
        "bf16 nchw>nhwc", "bf16 nhwc>nchw", "bf16 nhwc w=nhwc", "bf16 nhwc/230400/72>nhwc",
    ):  # fmt: skip
        problems.append(text.format(changed))
    problems += [f"{problems[0]} {epilogue}" for epilogue in ("bias", "bias+relu", "residual", "bias+residual+relu")]
    used = [
        {}, {"deterministic": True}, {"precision": "fast"}, {"precision": "strict"}, {"workspace_limit": 2**20},
    ]  # fmt: skip
    keys = set()
    for problem in map(parse, problems):
        for setting in used:
            with settings.use(**setting):
                keys.add(registry._tuning_key([], problem, settings.current(), 1, False))
    assert len(keys) == len(problems) * len(used)
    with settings.use():
        kernel = registry.kernels("conv2d", "forward")[0]
        keys.add(registry._tuning_key([kernel.name], parse(problems[0]), settings.current(), 1, True))
    assert len(keys) == len(problems) * len(used) + 1


@pytest.mark.full
def test_measured_tiles_are_kept_and_run(tmp_path):
    """In the interpreter, where the entries stand in for those of the CPU: measured for real, once; what runs then, and
    in the next process, is the winner, kernel and tile."""
    code = (
        "import torch, pycv, pycv.functional as F\n"
        "from dataclasses import replace\n"
        "from pycv import registry\n"
        "entries = [k for k in registry.kernels('gemm', 'forward') if k.name == 'triton:tiled']\n"
        "registry._by_op()['gemm', 'forward'] = tuple(replace(k, backend='cpu') for k in entries)\n"
        "registry.autotune.SECONDS = 0.0\n"
        "a, b = torch.randn(40, 33), torch.randn(33, 40)\n"
        "with pycv.use(autotune=AUTOTUNE), registry.record() as log:\n"
        "    torch.testing.assert_close(F.mm(a, b), a @ b)\n"
        "choice = log[0].choice\n"
        "constants = choice.plan.launches[0]._arguments\n"
        "launched = '%(BM)dx%(BN)dx%(BK)dw%(num_warps)ds%(num_stages)d' % constants\n"
        "launched += '' if constants['GROUP'] == 8 else 'g%(GROUP)d' % constants\n"
        "print(choice.kernel.name, launched, len(choice.estimates))"
    )
    where = {"TRITON_INTERPRET": "1", "PYCV_CACHE_DIR": str(tmp_path)}
    first = in_a_new_process(code.replace("AUTOTUNE", "True"), **where)
    name, launched, measured = first.split()
    assert name == f"cpu:tiled[{launched}]" and int(measured) > 3
    assert in_a_new_process(code.replace("AUTOTUNE", "False"), **where) == first
    assert launched in next(tmp_path.glob("choices-*.json")).read_text()
