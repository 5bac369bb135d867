"""Runs problems on the Triton kernels in Triton's interpreter and compares them with the reference.

    TRITON_INTERPRET=1 python -m tests.triton.interpreted "relu.forward e100 f32 cpu" ...
    TRITON_INTERPRET=1 python -m tests.triton.interpreted --drawn 20 --op conv gemm

A process of its own: Triton reads the variable when it is imported. The exit status says whether all were right.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace

import pycv  # noqa: F401  (torch before anything else)
from pycv.problem import Problem, parse

from .. import draw
from ..fuzz import check
from ..seed import SEED

SMALL = 20_000  # multiply-adds of a drawn problem: the interpreter takes milliseconds for each tile
DTYPES = ("f32", "f32", "f64", "f16", "bf16")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.triton.interpreted")
    parser.add_argument("problems", nargs="*")
    parser.add_argument("--drawn", type=int, default=0, help="how many problems to draw")
    parser.add_argument("--op", nargs="*", default=(), choices=sorted(draw.FAMILIES), help="only these operations")
    arguments = parser.parse_args()
    ran = 0
    for problem, variant in [*_given(arguments.problems), *_drawn(arguments.drawn, arguments.op)]:
        for kernel in check.kernels_of("triton", problem):
            if (message := check.trial(problem, kernel, variant)) is not None:
                print(f"{kernel.name}: {message}\n  {problem}\n  with {variant}")
                return 1
            ran += 1
    print(f"{ran} right")
    return 0 if ran >= max(len(arguments.problems), arguments.drawn // 3) else 2


def _given(texts: list[str]) -> Iterator[tuple[Problem, check.Variant]]:
    for text in texts:
        for i, kind in enumerate(draw.KINDS):
            yield parse(text), check.Variant(kind, i, workspace_limit=2**28 if i else 0, offset=i // 2, tile=i)


def _drawn(count: int, ops: tuple[str, ...]) -> Iterator[tuple[Problem, check.Variant]]:
    for i in range(count):
        source = draw.Generator(f"{SEED}.triton.{i}")
        problem = replace(draw.problem(source, ops, SMALL), dtype=source.pick(DTYPES))
        how = (1, source.pick((2**28, 2**14, 0)), i % 4, i % 2 > 0, source.integer(0, 8))
        yield problem, check.Variant(source.pick(draw.KINDS), i, *how)


if __name__ == "__main__":
    sys.exit(main())
