"""One small problem for every kernel of the backend under test, right to the element: ``python -m tests.cuda.small``.

What compute-sanitizer runs, which makes kernels a hundred times slower. ``--verified FILE`` writes the record by which
the kernels that came out right count as verified on this device (pycv/choice/verified.json); of what is in FILE the
records of other backends stay.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np

from pycv import registry
from pycv.info import commit
from pycv.kernels import Kernel
from pycv.listing import small_problem
from pycv.problem import PointwiseProblem, Problem

from .. import backend, compare, draw, raw

LIMITS = (2**28, 0)  # of the workspace: with and without splits


def problem_for(kernel: Kernel) -> str:
    """A problem that the kernel takes; where it takes none, the last one tried."""
    flag = {"max_pool": "indices", "batch_norm": "training"}.get(kernel.op.removeprefix("adaptive_").rstrip("123d"), "")
    text = ""
    for layout, dtype in product(("nchw", "nhwc"), ("f32", "bf16", "f16")):
        text = f"{small_problem(kernel, dtype, layout, backend.DEVICE)} {flag}"
        if kernel.op == "gemm" and layout == "nhwc":
            text = text.replace(dtype, f"{dtype} b=col")  # both operands along k
        if kernel.supports(backend.parse(text)) is None:
            break
    return text


def with_mask(problem: Problem, kernel: Kernel) -> list[Problem]:
    """The problem, and for relu that with a mask, which is another function of the device."""
    masked = [replace(problem, mask=True)] if isinstance(problem, PointwiseProblem) else []
    return [problem, *(other for other in masked if kernel.supports(other) is None)]


def wrong(kernel: Kernel) -> str | None:
    """What is wrong with the kernel's results, None if nothing is."""
    problem = backend.parse(problem_for(kernel))
    if reason := kernel.supports(problem):
        return f"does not support {problem}: {reason}"
    for (kind, limit), one in product(zip(("normal", "integers"), LIMITS, strict=True), with_mask(problem, kernel)):
        arrays, scalars = draw.data(one, kind, np.random.default_rng(0))
        try:
            computed = raw.run(one, kernel, arrays, scalars, workspace_limit=limit)
            read, numeric_class = compare.as_read(kernel, one, arrays)
            compare.assert_close(one, computed, read, False, numeric_class, **scalars)
        except (AssertionError, RuntimeError) as error:
            return str(error)
    return None


def main() -> int:
    parser = argparse.ArgumentParser("python -m tests.cuda.small", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--only", default="", help="kernels whose name contains this")
    parser.add_argument("--verified", type=Path, metavar="FILE", help="record those that are right")
    options = parser.parse_args()
    if reason := backend.missing():
        sys.exit(reason)
    backend.be_there()
    right, failed = [], 0
    for kernel in registry.kernels():
        name = f"{kernel.op}.{kernel.pass_} {kernel.name}"
        if kernel.backend != backend.BACKEND or options.only not in name:
            continue
        reason = kernel.supports(backend.parse(problem_for(kernel)))
        if reason and reason.startswith("capability"):  # for other GPUs than this one
            print(f"{name}: {reason}")
        elif message := wrong(kernel):
            failed += 1
            print(f"{name}: {message}")
        else:
            right.append(kernel)
    print(f"{len(right)} kernels right, {failed} wrong, on {backend.device_name()}")
    if options.verified:
        options.verified.write_text(record(right, others_in(options.verified)))
    return 1 if failed or not right else 0


def others_in(file: Path) -> list[dict[str, str]]:
    """The entries of other backends."""
    entries = json.loads(file.read_text())["kernels"] if file.exists() else []
    return [entry for entry in entries if not entry["kernel"].startswith(f"{backend.BACKEND}:")]


def record(kernels: list[Kernel], others: list[dict[str, str]]) -> str:
    """The entries of verified.json."""
    where = {"device": backend.device_name(), "date": str(datetime.date.today()), "commit": commit() or "?"}
    entries = others + [{"op": k.op, "pass_": k.pass_, "kernel": k.name, **where} for k in kernels]
    return '{"kernels": [\n' + ",\n".join(json.dumps(entry) for entry in entries) + "\n]}\n"


if __name__ == "__main__":
    sys.exit(main())
