"""The limit of the workspace: what is chosen stays within it, what cannot is passed over and says by how much."""

from functools import cache

import pytest

import pycv
from pycv import registry, settings
from pycv.kernels import Kernel
from pycv.problem import NormProblem

from ..backend import parse
from .small import problem_for

KERNELS = [kernel for kernel in registry.kernels() if kernel.backend == "cuda"]
WIDER = {
    "conv1d": "n2c40w70 k72s5 p2", "conv2d": "n2c40h9w9 k72r3s3 p1", "conv3d": "n1c12d4h5w6 k20t2r3s3",
    "gemm": "m70n72k520",
}  # fmt: skip


@cache
def problems(kernel: Kernel) -> list:
    """A small one, and of products wider ones in which the depth is long."""
    texts = [problem_for(kernel)]
    if kernel.op in WIDER:
        layouts = ("", "b=col") if kernel.op == "gemm" else ("nchw", "nhwc")
        wide = f"{kernel.op}.{kernel.pass_} {WIDER[kernel.op]}"
        texts += [f"{wide} {dtype} {layout} cpu" for dtype in ("f32", "bf16") for layout in layouts]
    return [problem for problem in map(parse, texts) if kernel.supports(problem) is None]


@pytest.mark.parametrize("limit", [0, 20_000])
def test_the_workspace_is_within_the_limit(limit):
    """Of every kernel: it runs within the limit, or is not chosen, for a reason with both numbers. What norms keep for
    each channel comes on top."""
    chosen, refused = set(), set()
    for kernel in KERNELS:
        for problem in problems(kernel):
            wants = {"backend": "cuda", "algorithm": kernel.full_algorithm, "precision": "fast"}
            needed = getattr(kernel.plan(problem, 1, limit), "workspace_bytes", 0)
            with pycv.use(**wants, workspace_limit=limit):
                if needed <= limit or isinstance(problem, NormProblem):
                    choice = registry.choose(problem, settings.current(), 1)
                    assert getattr(choice.plan, "workspace_bytes", 0) <= max(needed, limit)
                    chosen.add(kernel.full_algorithm)
                elif only_one(kernel, problem):
                    words = f"needs {needed} bytes of workspace, workspace_limit={limit}"
                    with pytest.raises(pycv.UnsupportedError, match=words):
                        registry.choose(problem, settings.current(), 1)
                    refused.add(kernel.full_algorithm)
    assert {"implicit_gemm", "direct", "mma_sync", "simt_8_warp_tiled"} <= chosen
    assert {"wgmma", "wgmma/tf32", "mma_sync", "mma_sync/3xtf32", "winograd/f4"} <= refused


def only_one(kernel: Kernel, problem) -> bool:
    """An algorithm without a variant names all of its variants."""
    others = registry.kernels(kernel.op, kernel.pass_)
    return not any(k.algorithm == kernel.full_algorithm and k != kernel and not k.supports(problem) for k in others)


def test_others_take_the_place_of_what_needs_too_much():
    """Of nchw mma_sync transposes a copy."""
    problem = parse("conv2d.forward n2c40h9w9 k72r3s3 p1 bf16 nchw cpu")
    with pycv.use(backend="cuda"):
        assert registry.choose(problem, settings.current(), 1).kernel.name == "cuda:mma_sync"
        with pycv.use(workspace_limit=0):
            choice = registry.choose(problem, settings.current(), 1)
    assert choice.kernel.name == "cuda:implicit_gemm" and choice.plan.workspace_bytes == 0
    copied = 2 * 9 * 9 * 40 * 2
    reason = f"cuda:mma_sync: needs {-(-copied // 256) * 256} bytes of workspace, workspace_limit=0"
    assert reason in choice.rejected
