"""Fills the choice cache on a GPU: ``python -m benchmarks.gpu.tune --output FOLDER``.

Every problem of the benchmark is measured once by autotune, each kernel in each of its tiles: among what may be chosen
by default (torch and the kernels that are verified, also those that ``--verified`` names), then among the kernels of
each backend, as ``pycv.use(backend=...)`` asks for them. FOLDER receives the choice cache (choices-*.json, to be put
into pycv's cache directory on such a machine) and tune.md, which lists what was measured. A choice that is known
already is not measured again, so that another run goes on where this one stopped; until then the exit status is 75.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

import pycv
from pycv import bench, registry, settings, tune
from pycv.bench.problems import Case
from pycv.choice import cache, verified

from .__main__ import PROBLEMS, UNFINISHED

BACKENDS = (None, "cuda", "triton")


def fill(cases: Sequence[Case], seconds: float) -> list[Case]:
    """Measures what is not known; returns what there was no time for."""
    deadline = time.perf_counter() + seconds
    for done, one in enumerate(cases):
        if time.perf_counter() > deadline:
            return list(cases[done:])
        for backend in BACKENDS:
            for kept in (False, True):  # of a layer's prepared weight, and without
                choose(one, backend, kept)
    return []


def choose(one: Case, backend: str | None, kept: bool) -> None:
    """By measurement. Where no kernel of the backend supports the problem, or none of them runs, nothing is kept."""
    with pycv.use(autotune=True, backend=backend):
        try:
            registry.choose(one.problem, settings.current(), torch.get_num_threads(), kept)
        except registry.UnsupportedError:
            return
        except RuntimeError as error:
            print(f"{one.name}, {backend}: {next(iter(str(error).splitlines()), type(error).__name__)}")


def main() -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.gpu.tune", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--output", type=Path, default=Path("runs/gpu/tune"), help="folder; default: %(default)s")
    parser.add_argument("--verified", type=Path, metavar="FILE", help="what check.sh found right, if it is there")
    parser.add_argument("--only", default="", metavar="TEXT", help="problems whose name contains this")
    parser.add_argument("--problems", type=Path, default=PROBLEMS, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=540.0, help="for everything; default: %(default)s")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("benchmarks.gpu.tune: torch sees no GPU here")
    if options.verified and options.verified.exists():
        verified.FILE = options.verified
        verified.records.cache_clear()
    cases = [one for one in bench.load(options.problems) if options.only in one.name]
    left = fill(cases, options.seconds)
    options.output.mkdir(parents=True, exist_ok=True)
    file = cache.path("cuda")
    if file.exists():
        shutil.copy(file, options.output)
    text = tune.added(cache.entries("cuda")) + "".join(f"\n- left out, no time: {one.name}" for one in left) + "\n"
    (options.output / "tune.md").write_text(text)
    print(text)
    return UNFINISHED if left else 0


if __name__ == "__main__":
    sys.exit(main())
