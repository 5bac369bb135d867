"""A kernel of your own: relu in Numba, registered with pycv like any other.

    python examples/custom_kernel.py                                  # runs it and shows that it ran
    export PYCV_KERNELS=examples/custom_kernel.py                     # every command of pycv knows it from here on
    pycv kernels --op relu                                            # it is listed
    pycv bench run "relu.forward e1000000" --contender numba:mine,cpu,torch:nchw
    PYCV_TEST_BACKEND=numba PYCV_TEST_PREFER=mine python -m pytest tests/ops/test_relu.py
    PYCV_TEST_BACKEND=numba python -m tests.fuzz --op relu --algorithm mine --n 500

A kernel is an entry (pycv/kernels/__init__.py) that says what it computes and supports, and makes a plan: an object
that holds all that follows from the problem and runs on addresses. docs/architecture.md says what a plan may and may
not do.
"""

import numba
import numpy as np

import pycv
from pycv.kernels import Kernel
from pycv.kernels.numba.memory import View
from pycv.kernels.numba.threads import team


@numba.njit(parallel=True, cache=True)
def relu(x, y):
    """y = x where it is not negative (NaN is not), else 0."""
    for i in numba.prange(x.size):
        y[i] = 0 if x[i] < 0 else x[i]


class Plan:
    """Of relu.forward: run(input, grad_output, output); launch is what the op calls, positional."""

    def __init__(self, problem, threads):
        self.view = View(problem.count, problem.dtype)  # from an address to a NumPy array
        self.threads = threads
        relu(np.empty(0, self.view(0).dtype), np.empty(0, self.view(0).dtype))  # compiles: now, not in the first call

    def run(self, input, grad_output, output):
        with team(self.threads):
            relu(self.view(input), self.view(output))

    launch = run


def supports(problem):
    """None, or in words why not."""
    if problem.device != "cpu" or problem.dtype not in ("f32", "f64"):
        return f"{problem.dtype} on {problem.device}: mine takes f32 and f64 on the CPU"
    return "mask: mine has none" if problem.mask else None


def plan(problem, threads, workspace_limit):
    return Plan(problem, threads)


pycv.register(Kernel("relu", "forward", "numba", "mine", supports, plan))


def main():
    import torch

    x = torch.randn(1000)
    with pycv.registry.record() as calls, pycv.use(algorithm={"relu.forward": "mine"}):
        y = pycv.functional.relu(x)
    assert torch.equal(y, torch.relu(x))
    print(f"{calls[0].choice.problem} ran on {calls[0].choice.kernel.name}: {calls[0].choice.reason}")


if __name__ == "__main__":
    main()
