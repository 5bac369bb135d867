"""Convolution in each tile that autotune may take: right, offered for what it suits, and kept where it wins."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import pycv
from pycv import registry, settings
from pycv.choice import autotune, model
from pycv.problem import PASSES
from pycv.problem import parse as parse_as_it_is

from ..backend import DEVICE, by_host, parse
from .execution import assert_right, kernels
from .tiles import kernel_of, offered, ran_in

MMA = [("f16", "mma_sync"), ("bf16", "mma_sync"), ("f32", "mma_sync/3xtf32"), ("f32", "mma_sync/tf32")]
WGMMA = [("f16", "wgmma"), ("bf16", "wgmma"), ("f32", "wgmma/tf32")]
# Positions and channels that fill no tile: two of the largest down, and across.
WIDE = "n2c264h9w11 k264r2s2 p1"
ALL = {
    ("mma_sync", "forward"): {"128x128", "128x64", "64x64"},
    ("mma_sync", "grad_input"): {"128x128", "128x64", "64x64"},
    ("mma_sync", "grad_weight"): {"128x128", "64x128", "64x64"},
    ("wgmma", "forward"): {"128x256", "128x128", "128x64"},
    ("wgmma", "grad_input"): {"128x256", "128x128", "128x64"},
    ("wgmma", "grad_weight"): {"128x256", "128x128"},
}


@pytest.mark.parametrize("pass_", PASSES)
@pytest.mark.parametrize(("dtype", "algorithm"), MMA + WGMMA)
def test_every_tile_is_right(dtype, algorithm, pass_):
    """Several of each both ways, the last ones ragged; in parts of the depth where there is workspace for them."""
    text = f"conv2d.{pass_} {WIDE} {dtype} nhwc cpu"
    tiles = offered(text, algorithm)
    assert set(tiles) == ALL[algorithm.partition("/")[0], pass_]
    for tile in tiles:
        assert_right(text, algorithm, tile=tile, kinds=["integers"], orders=["reverse"])


@pytest.mark.parametrize("tile", ["128x128", "128x64", "64x64"])
@pytest.mark.parametrize(
    "text",
    [
        "conv2d.forward n2c12h9w9 k136r3s3 p1 g2 f16 nchw cpu bias+relu",
        "conv2d.grad_input n2c144h9w9 k20r3s3 u2 p1 bf16 nchw cpu",
        "conv3d.forward n1c9d5h6w7 k130t2r3s3 p1 f32 nhwc cpu",
    ],
)
def test_groups_phases_and_layouts_in_every_tile(text, tile):
    for limit in (2**28, 2**20):
        for kernel in kernels(parse(text), "mma_sync"):
            if tile in offered(text, kernel.full_algorithm):
                assert_right(
                    text, kernel.full_algorithm, tile=tile, kinds=["normal"], orders=["forward"], workspace_limit=limit
                )


@by_host
@pytest.mark.parametrize("pass_", PASSES)
@pytest.mark.parametrize(("dtype", "algorithm"), MMA[1:3] + WGMMA[1:])
def test_the_rules_own_tile_is_the_first(dtype, algorithm, pass_):
    rule, first, second = ran_in(f"conv2d.{pass_} {WIDE} {dtype} nhwc cpu", algorithm, 3)
    assert rule == first != second


def test_what_is_offered():
    """None that a smaller one does as well as, and none twice; a kernel without a choice is itself."""
    few = "n64c64h56w56 k64r3s3 p1 bf16 nhwc cpu"
    assert offered(f"conv2d.forward {few}", "mma_sync") == ["128x64", "64x64"]
    assert offered(f"conv2d.grad_weight {few}", "mma_sync") == ["64x128", "64x64"]
    assert offered("conv2d.forward n1c64h7w7 k64r3s3 p1 bf16 nhwc cpu", "mma_sync") == [""]
    assert offered("conv2d.forward n1c64h7w7 k65r3s3 p1 bf16 nhwc cpu", "mma_sync") == ["64x64", "128x128"]
    assert offered(f"conv2d.forward {few}", "implicit_gemm") == [""]
    assert offered("conv2d.forward n0c64h7w7 k64r3s3 p1 bf16 nhwc cpu", "mma_sync") == [""]


def test_what_hopper_is_offered():
    few = "n64c64h56w56 k64r1s1 bf16 nhwc cpu"
    assert offered(f"conv2d.forward {few}", "wgmma") == offered(f"conv2d.grad_weight {few}", "wgmma") == [""]
    many = "n64c256h56w56 k512r3s3 p1 bf16 nhwc cpu"
    assert offered(f"conv2d.forward {many}", "wgmma") == ["128x256", "128x128", "128x64"]
    assert offered(f"conv2d.grad_weight {many}", "wgmma") == ["128x256", "128x128"]


def test_a_tile_that_is_not_offered_is_refused():
    text = "conv2d.forward n1c64h7w7 k64r3s3 p1 bf16 nhwc cpu"
    for algorithm in ("mma_sync", "implicit_gemm"):
        with pytest.raises(ValueError, match=f"{algorithm} offers no tile 64x128 for this problem"):
            kernel_of(text, algorithm).plan(parse(text), 1, 0, tile="64x128")


@pytest.mark.skipif(DEVICE != "cpu", reason="stands in for kernels of the CPU")
@pytest.mark.parametrize("algorithm", ["mma_sync", "wgmma"])
def test_autotune_measures_every_tile(algorithm, only_kernels, monkeypatch, tmp_path):
    monkeypatch.setenv("PYCV_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(autotune, "SECONDS", 0.0)
    monkeypatch.setattr(model, "predicted", lambda *_: None)
    (kernel,) = kernels(problem := parse_as_it_is("conv2d.forward n1c16h9w9 k136r1s1 f16 nhwc"), algorithm)
    only_kernels("conv2d", "forward", replace(kernel, backend="cpu"))
    with pycv.use(autotune=True):
        choice = registry.choose(problem, settings.current(), torch.get_num_threads())
    tiles = [each.tile for each in kernel.in_tiles(problem)]
    assert set(dict(choice.estimates)) == {f"cpu:{algorithm}[{tile}]" for tile in tiles} and len(tiles) > 1
    assert choice.kernel.name == choice.estimates[0][0] and choice.basis == "measured"
