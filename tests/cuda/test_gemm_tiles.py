"""GEMM in each of the tiles that autotune may take: right, offered for what they suit, and kept where they win."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

import pycv
from pycv import registry, settings
from pycv.choice import autotune, cache, model
from pycv.kernels import cuda
from pycv.problem import parse as parse_as_it_is

from .. import draw, raw
from ..backend import DEVICE, by_host, parse
from .execution import ALL_ORDERS, assert_right, kernels, schedule
from .tiles import kernel_of, offered, ran_in

MMA = [("f16", "mma_sync"), ("bf16", "mma_sync"), ("f32", "mma_sync/3xtf32"), ("f32", "mma_sync/tf32")]
WGMMA = [("bf16", "wgmma_3_persistent"), ("f32", "wgmma_3_persistent/tf32")]
TILES = {"mma_sync": ("64x64", "128x128"), "wgmma_3_persistent": ("128x128", "128x256")}
EVERY = [(*each, tile) for each in (*MMA, *WGMMA) for tile in TILES[each[1].partition("/")[0]]]


@pytest.mark.parametrize(("dtype", "algorithm", "tile"), EVERY)
def test_every_tile_is_right(dtype, algorithm, tile):
    """Whatever the rule takes: ragged last tiles both ways, by vectors and boxes, and element by element."""
    for sizes in ("m131n264k72 a=col/136/0", "m67n259k41 b=col"):
        text = f"gemm.forward {sizes} {dtype} cpu bias+relu"
        kernel_of(text, algorithm)
        assert_right(text, algorithm, tile=tile, kinds=["integers"], orders=["reverse"], offset=0)
    text = f"gemm.forward b2m259n36k72 {dtype} out=col cpu"
    assert_right(text, algorithm, tile=tile, kinds=["normal"], orders=["forward"])


@pytest.mark.parametrize(("dtype", "algorithm"), MMA[1:3])
@pytest.mark.parametrize("tile", TILES["mma_sync"])
def test_every_tile_in_parts_of_k(tile, dtype, algorithm):
    for limit in (2**28, 2 * 4 * 128 * 128, 0):
        text = f"gemm.forward m70n66k530 {dtype} res=row cpu bias+residual+relu"
        assert_right(text, algorithm, tile=tile, kinds=["normal"], orders=["reverse"], workspace_limit=limit)


@by_host
@pytest.mark.parametrize(("dtype", "algorithm"), MMA[1:3] + WGMMA)
def test_the_rules_own_tile_is_the_first(dtype, algorithm):
    rule, first, second = ran_in(f"gemm.forward m131n259k72 {dtype} cpu", algorithm, 3)
    assert rule == first != second


@by_host
@pytest.mark.parametrize(
    ("text", "algorithm"), [("m1456n1496k8", "mma_sync"), ("b17m128n1024k8", "wgmma_3_persistent")]
)
def test_so_it_is_where_the_rule_takes_the_large_one(text, algorithm):
    text = f"gemm.forward {text} bf16 cpu"
    assert offered(text, algorithm) == [*reversed(TILES[algorithm])]
    rule, first = ran_in(text, algorithm, 2)
    assert rule == first


def test_the_rule_knows_the_limit_that_is_in_force_by_default():
    assert cuda._USUAL_LIMIT == settings.DEFAULT_WORKSPACE_LIMIT


def test_what_is_offered():
    """No tile of which a quarter would do, no wide one where the narrow one is as wide as the result; none twice."""
    for (_, algorithm), sizes in product(MMA[1:3], ("m64n64k512", "m1n64k9")):
        assert offered(f"gemm.forward {sizes} {'bf16' if algorithm == 'mma_sync' else 'f32'} cpu", algorithm) == [""]
    assert set(offered("gemm.forward m1n65k9 bf16 cpu", "mma_sync")) == set(TILES["mma_sync"])
    assert offered("gemm.forward m512n128k64 bf16 cpu", WGMMA[0][1]) == [""]
    assert offered("gemm.forward m8192n8192k64 bf16 cpu", WGMMA[0][1]) == ["128x256", "128x128"]
    assert offered("gemm.forward m129n512k64 bf16 out=col cpu", WGMMA[0][1]) == ["128x128", "128x256"]
    assert offered("gemm.forward m128n512k64 bf16 out=col cpu", WGMMA[0][1]) == [""]


def test_a_tile_that_is_not_offered_is_refused():
    text = "gemm.forward m64n64k8 f16 cpu"
    with pytest.raises(ValueError, match="mma_sync offers no tile 128x128 for this problem"):
        kernel_of(text, "mma_sync").plan(parse(text), 1, 0, tile="128x128")
    with pytest.raises(ValueError, match="simt_8_warp_tiled offers no tile 64x64"):
        kernel_of(text, "simt_8_warp_tiled").plan(parse(text), 1, 0, tile="64x64")


@pytest.mark.skipif(DEVICE != "cpu", reason="stands in for kernels of the CPU")
@pytest.mark.parametrize(("algorithm", "tiles"), TILES.items())
def test_autotune_keeps_a_tile(algorithm, tiles, only_kernels, monkeypatch, tmp_path):
    """Measured for real, once; what runs then, also where it is read again, is the winner. The entries stand in for
    those of the CPU, where nothing needs a GPU's events."""
    monkeypatch.setenv("PYCV_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(autotune, "SECONDS", 0.0)
    monkeypatch.setattr(model, "predicted", lambda *_: None)
    (kernel,) = kernels(problem := parse_as_it_is("gemm.forward m96n160k16 f16"), algorithm)
    only_kernels("gemm", "forward", replace(kernel, backend="cpu"))

    def choose(autotuned: bool) -> registry.Choice:
        with pycv.use(autotune=autotuned):
            return registry.choose(problem, settings.current(), torch.get_num_threads())

    assert choose(False).kernel.tile == ""
    tuned = choose(True)
    assert set(dict(tuned.estimates)) == {f"cpu:{algorithm}[{tile}]" for tile in tiles}
    assert tuned.kernel.name == tuned.estimates[0][0] and tuned.basis == "measured"
    cache._loaded.clear()  # as another process finds it
    assert choose(False).kernel.name == tuned.kernel.name


@pytest.mark.parametrize(("dtype", "algorithm"), MMA)
def test_parts_of_k_give_the_same_bits_in_every_order(dtype, algorithm):
    """Two runs, and blocks and threads in every order, over sums that round."""
    text = f"gemm.forward m70n66k530 {dtype} cpu"
    problem, kernel = parse(text), kernel_of(text, algorithm)
    assert kernel.plan(problem, 1, 2**28).workspace_bytes > 0
    arrays, scalars = draw.data(problem, "normal", np.random.default_rng(3))
    results = []
    for order in (ALL_ORDERS[0], *ALL_ORDERS):
        schedule(*order.split(" "))
        results.append(raw.run(problem, kernel, arrays, scalars)["out"])
    assert all(np.array_equal(results[0], result) for result in results[1:])
    assert len(np.unique(results[0])) > 100
