"""GEMM on the GPU: every step of the ladder at the edges of its tiles, all strides, epilogues and dtypes."""

import pytest

from pycv import registry

from .execution import assert_right

ALGORITHMS = [k.algorithm for k in registry.kernels("gemm") if k.backend == "cuda"]
SIZES = ["m1n1k1", "m33n65k9", "m129n130k17", "m3n200k40", "m140n5k33", "b3m20n31k7"]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("sizes", SIZES)
def test_sizes_across_the_edges_of_tiles(sizes, algorithm):
    assert_right(f"gemm.forward {sizes} f32 cpu bias", algorithm)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("dtype", ["f64", "f16", "bf16"])
def test_every_dtype(dtype, algorithm):
    assert_right(f"gemm.forward m40n136k19 {dtype} res=row cpu bias+residual+relu", algorithm, offset=1)
    assert_right(f"gemm.forward m40n136k24 {dtype} a=col cpu", algorithm)


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
