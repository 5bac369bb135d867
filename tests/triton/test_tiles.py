"""The tiles that autotune measures: what is left out, and that the winner is kept and used."""

import random

import pytest

from pycv import registry, settings
from pycv.kernels.triton.tiles import AMPERE, HOPPER, Product, candidates, tile_of
from pycv.problem import ITEMSIZES, parse

from ..seed import SEED
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
        assert found[0] == tile_of(product) and len(set(found)) == len(found) <= 9, product
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


def test_the_key_holds_all_that_changes_the_code():
    """Every argument of the problem and the setting of determinism, and so does the file: device, versions, kernels."""
    text = "conv2d.forward n8c64h56w56 k64r3s3 p1 d{} g{} {} {} cuda"
    keys = set()
    for changed in ("1 1 bf16 nhwc", "2 1 bf16 nhwc", "1 4 bf16 nhwc", "1 1 f16 nhwc", "1 1 bf16 nchw"):
        problem = parse(text.format(*changed.split()))
        for deterministic in (False, True):
            with settings.use(deterministic=deterministic):
                keys.add(registry._tuning_key([], problem, settings.current(), 1, False))
    assert len(keys) == 10


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
        "print(choice.kernel.name, launched, len(choice.estimates))"
    )
    where = {"TRITON_INTERPRET": "1", "PYCV_CACHE_DIR": str(tmp_path)}
    first = in_a_new_process(code.replace("AUTOTUNE", "True"), **where)
    name, launched, measured = first.split()
    assert name == f"cpu:tiled[{launched}]" and int(measured) > 3
    assert in_a_new_process(code.replace("AUTOTUNE", "False"), **where) == first
    assert launched in next(tmp_path.glob("choices-*.json")).read_text()
