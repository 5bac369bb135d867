"""A kernel of your own for a GPU: relu in Triton, registered with pycv like any other.

    python examples/custom_kernel_triton.py                        # runs it, on a GPU, and shows that it ran
    export PYCV_KERNELS=examples/custom_kernel_triton.py           # every command of pycv knows it from here on
    pycv kernels --op relu                                         # it is listed
    pycv bench run "relu.forward e100000000 f32 cuda" --contender triton:mine,triton:direct,torch:nchw
    PYCV_TEST_BACKEND=triton PYCV_TEST_PREFER=mine python -m pytest tests/ops/test_relu.py
    PYCV_TEST_BACKEND=triton python -m tests.fuzz --op relu --algorithm mine --n 500

Without a GPU TRITON_INTERPRET=1 before each of them, but for the benchmark, runs it on CPU tensors in Triton's
interpreter. examples/custom_kernel.py says what an entry and a plan are.
"""

import triton
import triton.language as tl

import pycv
from pycv.kernels import Kernel
from pycv.kernels.triton import interpreted
from pycv.kernels.triton.launch import Launch, ceil_div


@triton.jit
def relu(x, y, n, BLOCK: tl.constexpr):
    """y = x where it is not negative (NaN is not), else 0."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + i, mask=i < n, other=0)
    tl.store(y + i, tl.where(value < 0, 0.0, value), mask=i < n)


class Plan:
    """Of relu.forward: run(input, grad_output, output); launch is what the op calls, positional."""

    def __init__(self, problem, tile):
        n, dtypes = problem.count, {"x": problem.dtype, "y": problem.dtype}
        self.relu = Launch(relu, ceil_div(n, tile), dtypes, n=n, BLOCK=tile)

    def run(self, input, grad_output, output):
        self.relu(x=input, y=output)  # addresses, by the names of the kernel's pointers

    launch = run


def supports(problem):
    """None, or in words why not."""
    device = "cpu" if interpreted() else "cuda"
    if problem.device != device or problem.dtype not in ("f32", "f64", "f16"):
        return f"{problem.dtype} on {problem.device}: mine takes f32, f64 and f16 on {device}"
    return "mask: mine has none" if problem.mask else None


def plan(problem, threads, workspace_limit, tile=1024):
    return Plan(problem, tile)


def tiles(problem):
    """What autotune has the choice between; ``plan`` is handed one of them, without autotune its own."""
    return (1024, 4096)


pycv.register(Kernel("relu", "forward", "triton", "mine", supports, plan, tiles=tiles))


def main():
    import torch

    if not interpreted() and not torch.cuda.is_available():
        raise SystemExit("no GPU: TRITON_INTERPRET=1 python examples/custom_kernel_triton.py runs it on the CPU")
    x = torch.randn(10_000, device="cpu" if interpreted() else "cuda")
    with pycv.registry.record() as calls, pycv.use(backend="triton", algorithm={"relu.forward": "mine"}):
        y = pycv.functional.relu(x)
    assert torch.equal(y, torch.relu(x))
    print(f"{calls[0].choice.problem} ran on {calls[0].choice.kernel.name}: {calls[0].choice.reason}")


if __name__ == "__main__":
    main()
