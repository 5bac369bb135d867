"""What a call costs beyond torch's: pycv and torch on tensors too small for the kernel to matter.

Run ``python benchmarks/overhead.py``. One thread; microseconds per call; "grad" records the graph, "backward" runs
forward and backward. pycv may take 1 us more for relu (4 with grad) and 3 us for conv and linear (6 with grad).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from pycv import functional
from pycv.timing import measure

SECONDS_PER_CASE = 1.5
ALLOWED = {"relu": (1.0, 4.0), "conv2d": (3.0, 6.0), "linear": (3.0, 6.0)}
TENSORS = {"relu": [(1,)], "conv2d": [(1, 1, 1, 1), (1, 1, 1, 1)], "linear": [(1, 1), (1, 1)]}


def calls(op: str, mode: str) -> dict[str, Callable[[], object]]:
    """pycv's and torch's call of one op, on the same tensors."""
    tensors = [torch.ones(shape, requires_grad=mode != "plain") for shape in TENSORS[op]]
    both = {"torch": getattr(torch.nn.functional, op), "pycv": getattr(functional, op)}
    if mode == "backward":
        return {name: partial(_forward_and_backward, function, tensors) for name, function in both.items()}
    return {name: partial(function, *tensors) for name, function in both.items()}


def _forward_and_backward(function: Callable[..., torch.Tensor], tensors: list[torch.Tensor]) -> None:
    torch.autograd.grad(function(*tensors).sum(), tensors)


def main() -> None:
    torch.set_num_threads(1)
    print(f"{'op':<8}{'':<10}{'torch us':>10}{'pycv us':>10}{'beyond':>9}{'allowed':>9}")
    for op, (plain, grad) in ALLOWED.items():
        for mode in ("plain", "grad", "backward"):
            timings = measure(calls(op, mode), SECONDS_PER_CASE, precision=0.005)
            theirs, ours = (1e6 * timings[name].seconds for name in ("torch", "pycv"))
            allowed = {"plain": f"{plain:.1f}", "grad": f"{grad:.1f}"}.get(mode, "")
            noisy = " ~" if any(timing.noisy for timing in timings.values()) else ""
            print(f"{op:<8}{mode:<10}{theirs:>10.2f}{ours:>10.2f}{ours - theirs:>9.2f}{allowed:>9}{noisy}")


if __name__ == "__main__":
    main()
