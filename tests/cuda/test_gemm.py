"""GEMM on CUDA cores: every step of the ladder at the edges of its tiles, all strides, epilogues and dtypes."""

import pytest

from pycv import registry

from ..backend import parse
from .execution import assert_right

ALGORITHMS = [k.algorithm for k in registry.kernels("gemm") if k.backend == "cuda" and "simt" in k.algorithm]
SIZES = ["m1n1k1", "m33n65k9", "m129n130k17", "m3n200k40", "m140n5k33", "b3m20n31k7"]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("sizes", SIZES)
def test_sizes_across_the_edges_of_tiles(sizes, algorithm):
    assert_right(f"gemm.forward {sizes} f32 cpu bias", algorithm)


@pytest.mark.parametrize(
    ("algorithm", "dtype"), [*((a, "f64") for a in ALGORITHMS), (ALGORITHMS[0], "f16"), (ALGORITHMS[0], "bf16")]
)
def test_every_dtype(algorithm, dtype):
    assert_right(f"gemm.forward m40n136k19 {dtype} res=row cpu bias+residual+relu", algorithm, offset=1)
    assert_right(f"gemm.forward m40n136k24 {dtype} a=col cpu", algorithm)


def test_the_earlier_steps_refuse_16_bits_in_words():
    problem = parse("gemm.forward m8n8k8 f16 cpu")
    reasons = {k.algorithm: k.supports(problem) for k in registry.kernels("gemm") if k.algorithm in ALGORITHMS}
    assert reasons.pop(ALGORITHMS[0]) is None
    assert all("this step of the ladder is for f32 and f64" in reason for reason in reasons.values())


STRIDES = [
    "a=col b=col",
    "a=row/30/1400 b=row/80/2000 out=col",
    "a=any/60/2/2700 b=any/0/1/0 out=any/3/150/11000",
    "b=col/29/0 res=col",
    "a=row/0/0 res=any/0/1/0",
]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("strides", STRIDES)
def test_every_stride(strides, algorithm):
    residual = "+residual" if "res=" in strides else ""
    assert_right(f"gemm.forward b2m44n66k25 f32 {strides} cpu bias{residual}", algorithm, beta=2.0)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_nothing_to_do(algorithm):
    for sizes in ("m0n5k3", "m5n0k3", "b0m5n4k3"):
        assert_right(f"gemm.forward {sizes} f32 cpu bias", algorithm, kinds=["integers"])
    assert_right("gemm.forward m5n40k0 f32 res=row cpu bias+residual+relu", algorithm, kinds=["integers"])
    assert_right("gemm.forward m5n40k3 f32 res=row cpu residual", algorithm, kinds=["integers"], beta=0.0)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_nonfinite_values_spread_as_in_the_reference(algorithm):
    assert_right("gemm.forward m34n70k33 f32 a=col cpu relu", algorithm, kinds=["nonfinite"])


# ------------------------------------------------------------------------- the tuned step: shapes of tiles, parts of k

TUNED = ALGORITHMS[0]


@pytest.mark.parametrize("dtype", ["f32", "f64", "f16"])
def test_long_sums_are_shared_among_blocks_in_a_fixed_order(dtype):
    """As many parts as the workspace allows, however little that is."""
    for limit in (2**28, 3 * 8 * 70 * 66, 0):
        assert_right(f"gemm.forward m70n66k1030 {dtype} cpu bias+relu", TUNED, workspace_limit=limit)
        assert_right(f"gemm.forward b2m3n5k2100 {dtype} b=col res=row cpu residual", TUNED, workspace_limit=limit)


@pytest.mark.parametrize("sizes", ["m9n260k40", "m260n9k40", "m16n129k33", "m129n16k33", "b7m1n1k70"])
def test_few_rows_or_columns(sizes):
    for strides in ("", "a=col", "b=col", "a=col b=col out=col"):
        assert_right(f"gemm.forward {sizes} f32 {strides} res=row cpu bias+residual", TUNED)


def test_enough_tiles_for_the_large_shape():
    """Of them more than a strip of tile rows, the last one short."""
    assert_right("gemm.forward b12m140n257k20 f32 cpu bias", TUNED, kinds=["integers"], orders=["forward"])
    assert_right("gemm.forward m1300n1500k9 f32 a=col cpu", TUNED, kinds=["integers"], orders=["reverse"])


@pytest.mark.full  # 65537 blocks take seconds, and half an hour where races are looked for
def test_more_matrices_than_a_grid_is_deep():
    for algorithm in (TUNED, "simt_2_coalesced"):
        assert_right("gemm.forward b65537m1n2k2 f32 b=row/2/0 cpu bias", algorithm, ["integers"], ["forward"])
