"""A run of the fuzzer, and that it finds what it is there to find."""

from dataclasses import replace

import numpy as np
import pytest

from .. import draw, raw
from ..backend import for_cpu, parse
from ..seed import SEED
from . import check
from .__main__ import fuzz


def test_problems_drawn_by_the_seed():
    assert fuzz(1000, SEED) == []


class Tampered:
    """A plan that does its work and then some harm."""

    def __init__(self, plan, harm):
        self._plan, self._harm = plan, harm

    def __getattr__(self, name):
        return getattr(self._plan, name)

    def run(self, **arguments):
        self._plan.run(**arguments)
        self._harm(arguments)


def poke(address: int, value: float) -> None:
    np.frombuffer((np.ctypeslib.ctypes.c_float * 1).from_address(address), np.float32)[0] = value


CONV = "conv2d.forward n1c3h6w6 k4r3s3 p1 f32 nchw/111 cpu bias"
HARMS = {
    "wrong element": lambda a: poke(a["output"] + 4 * 7, 1e6),
    "element never written": lambda a: poke(a["output"] + 4 * 7, float("nan")),
    "before the output": lambda a: poke(a["output"] - 4, 0.0),
    "after the output": lambda a: poke(a["output"] + 4 * 4 * 36, 0.0),
    "input changed": lambda a: poke(a["input"] + 8, 99.0),
    "bias changed": lambda a: poke(a["bias"], 99.0),
}


@for_cpu  # whose memory Python can spoil
@pytest.mark.parametrize("harm", HARMS)
def test_harm_is_found(harm):
    problem = parse(CONV)
    for kernel in check.kernels(problem):
        assert check.fails(problem, kernel) is None

        def plan(*arguments, kernel=kernel):
            return Tampered(kernel.plan(*arguments), HARMS[harm])

        assert check.fails(problem, replace(kernel, plan=plan)) is not None


def test_a_missing_term_is_found_in_normal_data():
    """One product of thousands left out of one element exceeds the bound."""
    problem = parse("conv2d.forward n1c256h4w4 k2r3s3 p1 f32 nchw cpu")
    arrays, scalars = draw.data(problem, "normal", np.random.default_rng(0))
    (kernel, *_) = check.kernels(problem)
    good = raw.run(problem, kernel, arrays, scalars)
    arrays["input"][0, 100, 2, 2] = 0
    check.compare.assert_close(problem, raw.run(problem, kernel, arrays, scalars), arrays)
    with pytest.raises(AssertionError, match="elements are wrong"):
        check.compare.assert_close(problem, good, arrays)


def test_shrinking_ends_at_a_small_problem():
    """A kernel that is wrong wherever padding meets a stride: what is left names just that."""

    class Wrong:
        numeric_class = "strict"
        supports = staticmethod(lambda problem: None)

    def broken(problem, kernel, variant=None):
        return (variant, "wrong") if problem.stride[0] > 1 and problem.padding[0] > 0 else None

    problem = parse("conv2d.forward n2c12h17w19 k8r3s3 u2 p1 d2x1 g4 f64 nhwc res=nchw cpu bias+residual+relu")
    original = check.fails
    check.fails = broken
    try:
        smallest = check.shrink(problem, Wrong, check.Variant())
    finally:
        check.fails = original
    assert (smallest.n, smallest.c, smallest.k, smallest.groups, smallest.epilogue) == (1, 1, 1, 1, ())
    assert smallest.stride[0] == 2 and smallest.padding == (1, 0)
    assert parse(str(smallest)) == smallest
