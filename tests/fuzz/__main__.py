"""The command line of the fuzzer; see the package's docstring."""

from __future__ import annotations

import argparse
import random
import sys
import time
from dataclasses import replace

from pycv import registry
from pycv.choice import device
from pycv.problem import Problem
from tools import simt

from .. import backend, draw
from ..backend import BACKEND, parse
from . import check


def main() -> int:
    arguments = _arguments()
    if reason := backend.missing():
        sys.exit(reason)
    if BACKEND == "cuda" and backend.BY_HOST:
        simt.build()
    backend.be_there()
    if arguments.problem:
        return repeat(arguments.problem, arguments.algorithm)
    seed = random.randrange(2**32) if arguments.seed is None else arguments.seed
    print(f"seed {seed}, backend {BACKEND}, {_machine()}", flush=True)
    return 1 if fuzz(arguments.n, seed, arguments.op, arguments.algorithm) else 0


def _machine() -> str:
    try:
        return f"instruction set {device.current().isa}"
    except RuntimeError as error:
        return str(error)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzz the kernels against the reference.")
    parser.add_argument("--n", type=int, default=10_000, help="how many problems (default 10000)")
    parser.add_argument("--seed", type=int, help="a number that fixes what is drawn; default: drawn and printed")
    parser.add_argument("--op", nargs="*", default=(), choices=sorted(draw.FAMILIES), help="only these operations")
    parser.add_argument("--algorithm", help="only this algorithm")
    parser.add_argument("--problem", help="run one problem, with every kind of data and thread count")
    return parser.parse_args()


def repeat(text: str, algorithm: str | None) -> int:
    """Runs one problem in all variants and says what is wrong with it."""
    problem, status = parse(text), 0
    for kernel in _selected(problem, algorithm):
        failure = check.fails(problem, kernel)
        print(f"{kernel.algorithm}:", "ok" if failure is None else f"{failure[1]}\n  with {failure[0]}")
        status |= failure is not None
    return status


def _selected(problem, algorithm):
    return [kernel for kernel in check.kernels(problem) if algorithm in (None, kernel.algorithm)]


def fuzz(n: int, seed: int, ops: tuple[str, ...] = (), algorithm: str | None = None) -> list[str]:
    """Draws ``n`` problems, runs each on every algorithm, and returns what failed (the first few, shrunk)."""
    failures: list[str] = []
    start = time.monotonic()
    for i in range(n):
        failures += one(draw.Generator(f"{seed}.{i}"), ops, algorithm)
        if i % 100 == 99 or i + 1 == n:
            _progress(i + 1, n, time.monotonic() - start)
        if len(failures) >= 5:
            break
    print(f"\n{len(failures)} mismatches; seed {seed}", flush=True)
    return failures


def one(source: draw.Generator, ops: tuple[str, ...], algorithm: str | None) -> list[str]:
    """Draws one problem and runs it on every algorithm."""
    budget = draw.BUDGET if source.integer(0, 49) else 20 * draw.BUDGET
    problem = _drawn(source, ops or _families(), budget)
    variant = check.Variant(
        kind=source.pick(draw.KINDS), seed=source.integer(0, 2**31), threads=source.pick((1, 1, 1, 2, 3)),
        workspace_limit=source.pick((2**28, 2**28, 16384, 0)), offset=source.integer(0, 3),
        prepare=bool(source.integer(0, 1)), tile=source.integer(0, 8),
    )  # fmt: skip
    failures = []
    for kernel in _selected(problem, algorithm):
        if (message := check.trial(problem, kernel, variant)) is not None:
            smallest = check.shrink(problem, kernel, variant)
            final = check.fails(smallest, kernel, variant)
            how = final[1] if final else message
            failures.append(f'python -m tests.fuzz --problem "{smallest}" --algorithm {kernel.algorithm}')
            print(f"\n{how}\n  drawn as {problem}\n  with {variant}\n  repeat: {failures[-1]}", flush=True)
    return failures


def _families() -> tuple[str, ...]:
    """The operations that the backend has kernels for; () stands for all of them in the CPU's proportions."""
    if BACKEND == "cpu":
        return ()
    there = {kernel.op.rstrip("123d") for kernel in registry.kernels() if kernel.backend == BACKEND}
    return tuple(op for op in draw.FAMILIES if op.rstrip("123d") in there)


def _drawn(source: draw.Generator, ops: tuple[str, ...], budget: int) -> Problem:
    """GPU kernels also take the storage types of 16 bits."""
    problem = draw.problem(source, ops, budget)
    if BACKEND == "cpu" or source.integer(0, 2):
        return problem
    return replace(problem, dtype=source.pick(("f16", "bf16")))


def _progress(done: int, n: int, seconds: float) -> None:
    if sys.stderr.isatty() or done == n or done % 5000 == 0:
        filled = 30 * done // n
        end = "" if sys.stderr.isatty() else "\n"
        bar = "#" * filled + "." * (30 - filled)
        print(f"\r[{bar}] {done}/{n}  {done / seconds:.0f}/s", end=end, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
