"""implicit_gemm at plan level: 1x1 convolutions read in place, on the machinery of test_conv_kernels."""

from dataclasses import replace

import pytest

from .test_conv_kernels import LAYOUTS, PASSES, check, flat, normal

CASES = {
    "plain": flat(2, 20, 33, 7, 1),
    "aligned": flat(2, 16, 32, 8, 1),
    "few-outputs": flat(2, 48, 16, 13, 1),
    "plane-of-14-rows": flat(3, 40, 30, 14, 1),
    "one-pixel": flat(1, 40, 50, 1, 1),
    "one-pixel-batch": flat(40, 24, 18, 1, 1),
    "wide": flat(1, 5, 7, (3, 67), 1),
    "page-sized-plane": flat(2, 18, 20, 32, 1),
    "page-sized-pixel": flat(1, 1024, 17, (2, 9), 1),
    "deep": flat(2, 1100, 35, 5, 1),
    "strided": flat(2, 9, 13, (9, 12), 1, stride=2),
    "deep-strided": flat(1, 600, 600, (5, 6), 1, stride=2),
    "stride-3": flat(1, 6, 17, 11, 1, stride=3),
    "padded": flat(2, 5, 18, 6, 1, padding=1),
    "strided-padded": flat(1, 4, 5, 9, 1, stride=(2, 3), padding=(2, 1)),
    "groups": flat(2, 24, 40, 9, 1, groups=4),
    "fewer-windows": flat(1, 4, 20, 9, 1, out=5),
    "3d": replace(flat(2, 6, 19, 5, 1), size=(3, 5, 5)),
}


@pytest.mark.parametrize("pass_", PASSES)
@pytest.mark.parametrize("name", CASES)
def test_exact_on_integers(name, pass_):
    for layouts in LAYOUTS.values():
        check(CASES[name], pass_, "implicit_gemm", layouts=layouts)
    check(CASES[name], pass_, "implicit_gemm", layouts=LAYOUTS["nchw"], dtype="f64")
    check(CASES[name], pass_, "implicit_gemm", layouts=LAYOUTS["nhwc"], dtype="f64", limit=1 << 14)


@pytest.mark.parametrize("epilogue", [("bias",), ("residual",), ("bias", "residual", "relu")], ids="+".join)
@pytest.mark.parametrize("pass_", ["forward", "grad_input"])
def test_epilogue(pass_, epilogue):
    for case in CASES.values():
        for layout in ("nchw", "nhwc", "mixed", "slices"):
            check(case, pass_, "implicit_gemm", layouts=LAYOUTS[layout], epilogue=epilogue)


@pytest.mark.parametrize("pass_", PASSES)
def test_tile_edges(pass_):
    """Channels and pixels around multiples of every register tile."""
    for width in (1, 5, 7, 13, 14, 15, 16, 17, 31, 32, 33, 48, 49):
        for channels in (1, 3, 6, 14, 15, 16, 17, 32, 33):
            case = flat(2, 3, channels, (1, width), 1)
            if pass_ == "grad_input":
                case = replace(case, c=channels, k=3)
            for layout in ("nchw", "nhwc"):
                check(case, pass_, "implicit_gemm", layouts=LAYOUTS[layout])


@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize("pass_", PASSES)
def test_threads_and_error(pass_, threads):
    for case in (flat(2, 60, 70, 20, 1), flat(8, 512, 40, 7, 1), flat(1, 700, 1400, 1, 1), flat(3, 20, 30, 57, 1)):
        for layout in ("nchw", "nhwc"):
            check(case, pass_, "implicit_gemm", layouts=LAYOUTS[layout], threads=threads, data=normal)


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("pass_", ["forward", "grad_input"])
def test_tensors_past_the_caches(pass_, layout):
    """Large enough to be written with streaming stores, in part: the last rows and lanes are no whole vectors."""
    for case in (flat(1, 32, 40, 260, 1), flat(1, 36, 48, (257, 255), 1)):
        for epilogue in ((), ("bias", "residual", "relu")):
            check(case, pass_, "implicit_gemm", layouts=LAYOUTS[layout], epilogue=epilogue, threads=2)


WAYS = [
    flat(1, 20, 300, 9, 1), flat(1, 300, 20, 9, 1), flat(2, 16, 90, 40, 1), flat(2, 90, 16, 40, 1),
    flat(1, 320, 320, 7, 1), flat(2, 48, 40, 33, 1, stride=2), flat(2, 64, 300, 17, 1, groups=2),
]  # fmt: skip


@pytest.mark.parametrize("layout", ["nchw", "nhwc", "mixed", "slices"])
def test_ways_of_grad_weight(layout):
    """More of one operand than of the other, or of the depth: each way to lay out the product and to share it."""
    for case in WAYS:
        for threads in (1, 2, 3):
            check(case, "grad_weight", "implicit_gemm", layouts=LAYOUTS[layout], threads=threads)
        check(case, "grad_weight", "im2col", layouts=LAYOUTS[layout], threads=2)


@pytest.mark.parametrize("pass_", PASSES)
def test_empty(pass_):
    base = flat(2, 3, 4, 5, 1)
    for change in ({"n": 0}, {"c": 0}, {"k": 0}):
        for layout in ("nchw", "nhwc"):
            check(replace(base, **change), pass_, "implicit_gemm", layouts=LAYOUTS[layout], threads=2)
