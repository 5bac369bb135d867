"""GEMM on tensor cores by mma.sync: edges of tiles, how operands lie, parts of k, epilogues, and the errors."""

from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest

from pycv import registry, use
from pycv.kernels import cuda
from pycv.problem import parse as parse_as_it_is
from pycv.settings import current as settings_in_force

from .. import draw, raw
from ..backend import parse
from .execution import assert_right, kernels

ARITHMETICS = [("f16", ""), ("bf16", ""), ("f32", "/3xtf32"), ("f32", "/tf32")]


def right(text: str, dtype: str, variant: str, **how) -> None:
    assert_right(text.replace("DTYPE", dtype), f"mma_sync{variant}", **how)


@pytest.mark.parametrize(("dtype", "variant"), ARITHMETICS)
@pytest.mark.parametrize("sizes", ["m1n1k1", "m65n63k33", "m70n130k100", "b3m20n31k7"])
def test_sizes_across_the_edges_of_tiles(sizes, dtype, variant):
    right(f"gemm.forward {sizes} DTYPE cpu bias+relu", dtype, variant)


@pytest.mark.parametrize(("dtype", "variant"), ARITHMETICS)
@pytest.mark.parametrize("majors", ["", "a=col", "b=col", "a=col b=col out=col"])
@pytest.mark.parametrize("sizes", ["m72n136k72", "m66n69k43"])  # by vectors, and element by element
def test_how_operands_lie(sizes, majors, dtype, variant):
    kinds, orders = (["normal"], ["reverse"]) if sizes == "m72n136k72" else (["integers"], ["forward"])
    right(f"gemm.forward {sizes} DTYPE {majors} cpu bias", dtype, variant, kinds=kinds, orders=orders, offset=0)


STRIDES = [
    "a=row/32/1600 b=row/80/2000 out=col",
    "a=any/60/2/2700 b=any/0/1/0 out=any/3/150/11000",
    "b=col/32/0 res=col",
    "a=row/0/0 res=any/0/1/0",
]


@pytest.mark.parametrize(("dtype", "variant"), ARITHMETICS[1:3])
@pytest.mark.parametrize("strides", STRIDES)
def test_every_stride(strides, dtype, variant):
    residual = "+residual" if "res=" in strides else ""
    for offset in (0, 1):
        right(f"gemm.forward b2m44n66k25 DTYPE {strides} cpu bias{residual}", dtype, variant, offset=offset, beta=2.0)


@pytest.mark.parametrize(("dtype", "variant"), ARITHMETICS)
def test_parts_of_k(dtype, variant):
    """As many as the workspace allows, however little that is."""
    for limit in (2**28, 2 * 4 * 128 * 128, 0):
        right(
            "gemm.forward m70n66k530 DTYPE res=row cpu bias+residual+relu", dtype, variant, workspace_limit=limit,
            orders=["reverse"],
        )  # fmt: skip
    right("gemm.forward b2m3n5k700 DTYPE b=col cpu", dtype, variant)


def test_parts_use_the_workspace_they_are_given():
    problem = parse("gemm.forward m64n64k4096 bf16 cpu")
    (kernel,) = kernels(problem, "mma_sync")
    sizes = [kernel.plan(problem, 1, limit).workspace_bytes for limit in (0, 10**5, 10**9)]
    assert sizes[0] == 0 < sizes[1] <= 10**5 < sizes[2] <= 10**9


MAJORS = ["", "a=col", "b=col", "a=col b=col"]
LARGE = [(majors, *arithmetic) for majors, arithmetic in product(MAJORS, ARITHMETICS)]
QUICK = [("", "bf16", ""), ("a=col b=col", "f16", ""), ("a=col", "f32", "/3xtf32")]


@pytest.mark.parametrize(
    ("majors", "dtype", "variant"), [pytest.param(*c, marks=() if c in QUICK else pytest.mark.full) for c in LARGE]
)
def test_the_large_tile(majors, dtype, variant):
    """As many as make it worth while, the last ones ragged, over two steps of k."""
    k = 40 if dtype != "f32" else 20
    text = f"gemm.forward m1456n1496k{k} {dtype} {majors} cpu"
    assert_right(text, f"mma_sync{variant}", kinds=["integers"], orders=["reverse"], offset=0)


def test_nothing_to_do():
    for sizes in ("m0n5k3", "m5n0k3", "b0m5n4k3"):
        assert_right(f"gemm.forward {sizes} f16 cpu bias", "mma_sync", kinds=["integers"])
    assert_right("gemm.forward m5n40k0 f16 res=row cpu bias+residual+relu", "mma_sync", kinds=["integers"])
    assert_right("gemm.forward m5n40k3 f32 res=row cpu residual", "mma_sync", kinds=["integers"], beta=0.0)


@pytest.mark.parametrize(("dtype", "variant"), ARITHMETICS)
def test_nonfinite_values_spread_as_in_the_reference(dtype, variant):
    right("gemm.forward m34n70k33 DTYPE a=col cpu relu", dtype, variant, kinds=["nonfinite"])


# ------------------------------------------------------------------------------------------------------- precision


def worst(dtype: str, variant: str) -> float:
    """The largest error of N(0, 1) times He-scaled data, relative to the largest element."""
    problem = parse(f"gemm.forward m64n64k512 {dtype} cpu")
    (kernel,) = kernels(problem, f"mma_sync{variant}")
    arrays, _ = draw.data(problem, "normal", np.random.default_rng(5))
    arrays["b"] = (arrays["b"] * np.sqrt(2 / 512)).astype(np.float32).astype(np.float64)
    computed = raw.run(problem, kernel, arrays, {"alpha": 1.0, "beta": 1.0})["out"]
    expected = arrays["a"] @ arrays["b"]
    return float(np.abs(computed - expected).max() / np.abs(expected).max())


def test_numeric_classes():
    """3xTF32 is as good as fp32, TF32 a thousand times worse."""
    assert worst("f32", "/3xtf32") <= 2e-6
    assert 1e-4 <= worst("f32", "/tf32") <= 1e-3


def test_which_settings_allow_which():
    problem = parse("gemm.forward m8n8k8 f32 cpu")

    def chosen(algorithm, **settings):
        with use(backend="cuda", algorithm=algorithm, **settings):
            return registry.choose(problem, settings_in_force(), 1).kernel.full_algorithm

    assert chosen("mma_sync") == "mma_sync/3xtf32"
    assert chosen("mma_sync/tf32", precision="fast") == "mma_sync/tf32"
    for algorithm, settings in (("mma_sync/tf32", {}), ("mma_sync", {"precision": "strict"})):
        with pytest.raises(registry.UnsupportedError, match="is looser than precision="):
            chosen(algorithm, **settings)


def test_the_variants_refuse_other_dtypes_in_words():
    problem = parse("gemm.forward m8n8k8 f64 cpu")
    reasons = [k.supports(problem) for k in registry.kernels("gemm") if k.algorithm == "mma_sync"]
    assert reasons == [
        "dtype f64: mma_sync takes f16, bf16", "dtype f64: mma_sync/3xtf32 takes f32",
        "dtype f64: mma_sync/tf32 takes f32",
    ]  # fmt: skip


@pytest.mark.parametrize(("capability", "refused"), [((7, 5), True), ((8, 0), False), ((12, 0), False)])
def test_tensor_cores_before_ampere(monkeypatch, capability, refused):
    """There are other ones, which these instructions are not for."""
    monkeypatch.setenv("PYCV_CUDA_HOST", "0")
    monkeypatch.setattr(cuda, "unusable", lambda: None)
    monkeypatch.setattr(cuda, "capability", lambda: capability)
    monkeypatch.setattr(cuda, "_cuda", SimpleNamespace(architectures="7.5;8.0+PTX;9.0a", kernels=tuple))
    answer = kernels(parse_as_it_is("gemm.forward m8n8k8 f16 cuda"), "mma_sync")
    assert len(answer) == (not refused)
