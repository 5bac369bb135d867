"""GEMM on Hopper's tensor cores: every step of the ladder, edges of tiles, how operands lie, and what is refused."""

from types import SimpleNamespace

import pytest

from pycv import registry
from pycv.kernels import cuda
from pycv.problem import parse as parse_as_it_is

from ..backend import by_host, parse
from .execution import ALL_ORDERS, ORDERS, assert_right, kernels, launched, on_hopper

pytestmark = on_hopper

STEPS = ("wgmma_1_simple", "wgmma_2_specialized", "wgmma_3_persistent")


def right(text: str, algorithm: str, **how) -> None:
    """With integers, where each sum is exact, unless ``kinds`` says otherwise; one thread order, lazy."""
    assert_right(text, algorithm, **{"kinds": ["integers"], "orders": ["forward"], **how})


@pytest.mark.parametrize("order", ALL_ORDERS)
@pytest.mark.parametrize("step", STEPS)
def test_tiles_that_the_matrices_do_not_fill(step, order):
    """Several tiles down and across, the last ones ragged, over two steps of k of which the second is short."""
    n = 259 if step == "wgmma_2_specialized" else 131  # it has wide tiles
    right(f"gemm.forward m131n{n}k72 bf16 b=row/264/0 out=row/264/0 cpu bias+relu", step, orders=[order])


ONE_ROW = ["m1n24k16", "m1n136k1 b=col out=col", "m1n1k8 b=col"]
ONE_COLUMN = ["m24n1k16", "m136n1k8 a=col", "m24n1k16 b=row/8/0 out=row/8/0"]
DEPTH_OF_ONE = ["m16n16k1", "m16n16k1 b=col", "m72n24k1 a=col b=col", "b3m16n8k1", "m1n1k1"]


def runs_as(text: str, algorithm: str) -> set[str]:
    """Right with random values; the functions that ran."""
    launched()
    right(text, algorithm, kinds=["normal"])
    return launched()


@by_host
@pytest.mark.parametrize("dtype", ["f16", "bf16"])
@pytest.mark.parametrize("text", ONE_ROW + ONE_COLUMN + DEPTH_OF_ONE)
@pytest.mark.parametrize("step", STEPS)
def test_extents_of_one(step, text, dtype):
    """A stride along one element says nothing about how a matrix lies: all of these come by boxes."""
    assert runs_as(f"gemm.forward {text} {dtype} cpu bias", step) == {f"gemm_{step}"}


@by_host
@pytest.mark.parametrize("text", ["m1n24k16 b=col", "m24n1k16", "m16n16k1 a=row/4/0 b=col/4/0", "m1n1k1"])
@pytest.mark.parametrize("step", STEPS)
def test_extents_of_one_in_tf32(step, text):
    assert runs_as(f"gemm.forward {text} f32 cpu bias", f"{step}/tf32") == {f"gemm_{step}"}


@pytest.mark.parametrize("text", DEPTH_OF_ONE)
def test_depths_of_one_that_tf32_gathers(text):
    right(f"gemm.forward {text} f32 cpu bias", "wgmma_3_persistent/tf32", kinds=["normal"])


@pytest.mark.parametrize("majors", ["a=col b=col", "a=col", "b=col out=col"])
@pytest.mark.parametrize("step", STEPS)
def test_how_operands_lie(step, majors):
    right(f"gemm.forward m72n80k136 f16 {majors} cpu bias", step, kinds=["normal"])


@pytest.mark.parametrize("step", STEPS)
def test_tf32(step):
    right("gemm.forward m70n84k100 f32 b=col cpu bias", f"{step}/tf32", kinds=["normal"])


@pytest.mark.parametrize("step", STEPS)
def test_batches(step):
    right("gemm.forward b3m24n16k40 bf16 res=row cpu bias+residual+relu", step, kinds=["normal"])
    right("gemm.forward b2m9n24k16 f16 a=row/16/0 b=row/24/0 cpu", step)


def test_more_tiles_than_stages_and_blocks():
    """The ring goes on from tile to tile; blocks have different numbers of tiles."""
    right("gemm.forward m400n264k456 bf16 cpu", "wgmma_3_persistent")


def test_wide_tiles():
    right("gemm.forward b17m128n1024k8 bf16 cpu", "wgmma_3_persistent")


@pytest.mark.parametrize("step", STEPS)
def test_nothing_to_multiply_and_addresses_off_alignment(step):
    """These run as mma_sync does, but for addresses of the last step."""
    right("gemm.forward m8n16k0 bf16 a=row/8/0 cpu bias", step)
    right("gemm.forward m24n16k40 bf16 b=col cpu bias", step, offset=1)
    right("gemm.forward m0n16k8 bf16 cpu", step)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    "text",
    [
        "m131n259k37 f32 cpu bias+relu",  # b transposed on the way, a and out off alignment
        "m132n64k72 f32 a=col cpu", "m20n260k68 f32 cpu",  # the other operand and the result by boxes
        "m131n70k75 bf16 cpu bias", "m36n9k64 f16 a=col b=col cpu", "m24n12k64 bf16 b=col cpu",
    ],
)  # fmt: skip
def test_matrices_that_no_boxes_bring(text, order):
    """Tiles that the matrices do not fill; each operand gathered, from both majors, and by boxes; results likewise."""
    variant = "/tf32" if "f32" in text.split() else ""
    right(f"gemm.forward {text}", f"wgmma_3_persistent{variant}", orders=[order])


@pytest.mark.parametrize("variant", ["", "/tf32"])
def test_any_strides_and_addresses(variant):
    """Batches of which one matrix serves all, rows apart and on one another, columns of the result, addresses."""
    dtype, name = "f32" if variant else "f16", f"wgmma_3_persistent{variant}"
    right(
        f"gemm.forward b3m9n20k11 {dtype} a=any/33/3/500 b=row/21/0 res=col cpu bias+residual", name, kinds=["normal"]
    )
    right(f"gemm.forward m24n70k40 {dtype} a=row/0/0 out=any/300/2/0 cpu relu", name, kinds=["normal"])
    right(f"gemm.forward m70n24k40 {dtype} out=col cpu", name, kinds=["normal"])
    right(f"gemm.forward b2m24n16k40 {dtype} b=col cpu bias", name, kinds=["normal"], offset=1)
    right(f"gemm.forward b2m9n21k16 {dtype} a=row/16/0 cpu", name, kinds=["normal"])


@pytest.mark.parametrize("order", ALL_ORDERS)
def test_gathered_in_every_order(order):
    """Copies and products as early and as late as may be, in each order of the threads."""
    right("gemm.forward m131n70k133 f32 a=col/132/0 cpu", "wgmma_3_persistent/tf32", orders=[order])
    right("gemm.forward m36n9k264 bf16 b=col cpu bias", "wgmma_3_persistent", orders=[order])


def test_more_gathered_tiles_than_stages_and_blocks():
    right("gemm.forward m397n265k171 f32 cpu", "wgmma_3_persistent/tf32")
    right("gemm.forward b17m128n1025k7 bf16 cpu", "wgmma_3_persistent")


def test_nonfinite_values_spread_as_in_the_reference():
    right("gemm.forward m34n72k40 f16 a=col/40/0 cpu relu", "wgmma_3_persistent", kinds=["nonfinite"])
    right("gemm.forward m34n71k41 f32 cpu relu", "wgmma_3_persistent/tf32", kinds=["nonfinite"])


# ------------------------------------------------------------------------------------------------- what is copied


def workspace(text: str, limit: int = 2**28) -> int:
    """What the last step asks for."""
    (kernel,) = kernels(parse(f"gemm.forward {text} cpu"), "wgmma_3_persistent")
    assert kernel.plan is not None
    return kernel.plan(parse(f"gemm.forward {text} cpu"), 1, limit).workspace_bytes


BOTH = "m131n259k1100 bf16"  # off alignment both, a along k, b along its columns
COPIES = {"a": 131 * 1104 * 2, "b": 259 * 1104 * 2}
COPIES = {name: -(-size // 128) * 128 for name, size in COPIES.items()}


def test_what_is_worth_a_copy():
    """b where there are many rows of a; a where b would be gathered with it, else never; nothing of what is small."""
    assert workspace("m1024n8192k8192 bf16 b=row/8193/0") == 2 * 8192 * 8192
    assert workspace("m512n8192k8192 bf16 b=row/8193/0") == 0
    assert workspace("m8192n8192k8192 f16 a=row/8193/0 b=col") == 0  # gathered in time
    assert workspace("m4096n8192k8192 f16 a=row/8193/0") == 2 * 4096 * 8192  # so that boxes bring b
    assert workspace("m8192n4096k8192 f16 a=row/8193/0 out=col") == 2 * 8192 * 8192  # out^T = b^T a^T
    assert workspace("m256n8192k8192 f16 b=row/8193/0") == 0
    assert workspace("m256n8192k8192 f16 a=col b=row/8193/0") == 2 * 256 * 8192  # beside b no boxes bring a by lines
    assert workspace("m131n259k75 bf16") == 0
    assert workspace("b9m1024n8192k1024 bf16 b=row/8193/0") == 2 * 8192 * 1024  # one for all
    assert workspace(BOTH) == COPIES["a"] + COPIES["b"]
    assert workspace(BOTH, COPIES["b"]) in COPIES.values()
    assert workspace(BOTH, COPIES["a"]) == COPIES["a"]
    assert workspace(BOTH, COPIES["a"] - 1) == 0


@by_host
def test_copied_operands():
    """Both, one and neither, as the workspace has room; a by rows, b transposed; products along k of the copies."""
    for limit, copied in ((2**28, {"padded_copy_kernel", "transpose_kernel"}), (COPIES["a"], {"padded_copy_kernel"})):
        launched()
        right(f"gemm.forward {BOTH} cpu bias+relu", "wgmma_3_persistent", workspace_limit=limit)
        assert launched() == {*copied, "gemm_wgmma_3_gathered"}, limit
    right(f"gemm.forward {BOTH} cpu bias+relu", "wgmma_3_persistent", workspace_limit=0)
    assert launched() == {"gemm_wgmma_3_gathered"}


@by_host
@pytest.mark.parametrize(
    ("text", "copied"),
    [
        ("b3m20n24k1101 f16", {"padded_copy_kernel"}),  # result and b by boxes
        ("b3m24n20k1101 f16 b=row/20/0 out=col", {"padded_copy_kernel", "transpose_kernel"}),  # one b for all
        ("b2m20n24k1100 bf16 a=any/2500/2/60000 b=row/31/40000", {"padded_copy_kernel", "transpose_kernel"}),
        ("b2m9n21k1100 bf16 a=row/0/0 b=col res=col", {"padded_copy_kernel"}),  # one row again and again
    ],
)
def test_copies_of_batches_and_strides(text, copied):
    launched()
    residual = "+residual" if "res=" in text else ""
    for offset in (0, 1):
        right(f"gemm.forward {text} cpu bias{residual}", "wgmma_3_persistent", kinds=["normal"], offset=offset)
        assert copied == launched() & {"padded_copy_kernel", "transpose_kernel"}, offset


# ------------------------------------------------------------------------------------------------ what is refused


def reason(text: str, algorithm: str = "wgmma_2_specialized") -> str | None:
    (kernel,) = [k for k in registry.kernels("gemm") if k.full_algorithm == algorithm]
    return kernel.supports(parse(text))


@pytest.mark.parametrize(
    ("text", "tensor"),
    [
        ("m9n16k12 bf16", "a (layout row)"), ("m16n12k16 bf16", "b (layout row)"),
        ("m16n12k16 bf16 b=col", "out (layout row)"), ("m16n16k16 f16 a=any/32/2/0", "a (layout any/32/2/0)"),
        ("b2m16n16k16 f16 a=row/16/260", "a (layout row/16/260)"), ("m16n16k16 f16 a=row/0/0", "a (layout row/0/0)"),
    ],
)  # fmt: skip
def test_rows_off_alignment_are_refused_before_the_last_step(text, tensor):
    assert reason(f"gemm.forward {text} cpu") == f"rows of {tensor} do not begin at multiples of 16 bytes"
    assert kernels(parse(f"gemm.forward {text} cpu"), "wgmma_3_persistent")


def test_more_rows_than_copies_can_count():
    for step in STEPS:
        assert reason(f"gemm.forward m{2**31}n8k8 bf16 cpu", step) == (
            f"{2**31} x 8 x 8: wgmma's copies count rows and columns in 31 bits"
        )


def test_tf32_runs_along_k_before_the_last_step():
    for text, tensor in (("m16n16k16 f32", "b (layout row)"), ("m16n16k16 f32 a=col b=col", "a (layout col)")):
        expected = f"rows of {tensor} do not begin at multiples of 16 bytes along k"
        assert reason(f"gemm.forward {text} cpu", "wgmma_1_simple/tf32") == expected


@pytest.mark.parametrize(("capability", "refused"), [((8, 0), True), ((9, 0), False), ((10, 0), True)])
def test_on_hopper_alone(monkeypatch, capability, refused):
    monkeypatch.setenv("PYCV_CUDA_HOST", "0")
    monkeypatch.setattr(cuda, "unusable", lambda: None)
    monkeypatch.setattr(cuda, "capability", lambda: capability)
    monkeypatch.setattr(cuda, "_cuda", SimpleNamespace(architectures="7.5;8.0+PTX;9.0a", kernels=tuple))
    answer = kernels(parse_as_it_is("gemm.forward m8n8k8 f16 cuda"), "wgmma_3_persistent")
    assert len(answer) == (not refused)
