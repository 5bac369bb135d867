"""Measures every goal of the CPU kernels: ``python -m benchmarks.cpu``.

    python -m benchmarks.cpu --quick                    a small slice, about a minute
    python -m benchmarks.cpu --class "3x3" --batch 1    the classes whose name contains this
    python -m benchmarks.cpu --output FILE              everything; 22 minutes with --seconds 0.5
    python -m benchmarks.cpu --show FILE --markdown     the tables of a recording (results/cpu-goals.md)

Each result is compared with float64. The recording is written after every row, so that a run that ends early is kept.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path

import torch

from pycv.bench import goals, memory
from pycv.bench.problems import Case
from pycv.cli.shared import progress_bar

from . import networks
from .classes import CLASSES, Class, cases, layers

DRAWN = 20


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser("python -m benchmarks.cpu", description=__doc__.split("\n", 1)[0])
    made.add_argument(
        "--class",
        dest="classes",
        action="append",
        default=[],
        metavar="TEXT",
        help="classes whose name contains this (network, accuracy: those tables); default: everything",
    )
    made.add_argument("--list", action="store_true", help="the classes and how many problems each has")
    made.add_argument(
        "--quick", action="store_true", help="the first and last layer of each class and one drawn problem"
    )
    made.add_argument("--batch", type=int, choices=(1, 8), help="only the layers of this batch size")
    made.add_argument("--seed", type=int, default=0, help="of the drawn shapes and the data")
    made.add_argument("--drawn", type=int, default=DRAWN, help="drawn shapes per class; default: %(default)s")
    made.add_argument("--seconds", type=float, default=2.0, help="per problem; default: %(default)s")
    made.add_argument("--threads", type=int, help="default: as many as torch uses")
    made.add_argument("--output", type=Path, help="where to record; default: runs/bench/cpu-goals.json")
    made.add_argument("--show", type=Path, metavar="FILE", help="measure nothing: the tables of a recording")
    made.add_argument("--markdown", action="store_true", help="tables in Markdown")
    return made  # fmt: skip


def selected(options: argparse.Namespace) -> list[tuple[Class, list[Case]]]:
    """The classes asked for, each with its problems."""
    every = layers()
    found = []
    for one in CLASSES:
        if options.classes and not any(text in one.name for text in options.classes):
            continue
        chosen = list(cases(one, every, options.drawn, options.seed))
        if options.batch:
            chosen = [c for c in chosen if c.name.startswith("drawn") or getattr(c.problem, "n", 1) == options.batch]
        if options.quick:
            named = [c for c in chosen if not c.name.startswith("drawn")]
            drawn = [c for c in chosen if c.name.startswith("drawn")]
            chosen = list(dict.fromkeys([*named[:1], *named[-1:], *drawn[:1]]))
        found.append((one, chosen))
    return found


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    if options.show:
        try:
            print(goals.page(goals.read(options.show), options.markdown))
        except (OSError, ValueError) as error:
            print(error, file=sys.stderr)
            return 2
        return 0
    chosen = selected(options)
    if options.list:
        for one, problems in chosen:
            print(f"{one.name:<24} must {one.goal.must:<5} aim {one.goal.aim:<5} {len(problems)} problems")
        return 0
    wanted = lambda table: any(text in table for text in options.classes) or not (options.classes or options.quick)  # noqa: E731
    if not chosen and not wanted("network") and not wanted("accuracy"):
        print(f"no class contains {' or '.join(options.classes)}: see --list", file=sys.stderr)
        return 2
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    output = options.output or Path("runs/bench/cpu-goals.json")
    memory.keep_freed()
    rows: list[goals.Row] = []
    errors: list[goals.Row] = []

    def record(row: goals.Row | None = None) -> None:
        rows.extend([row] if row is not None else [])
        goals.write(output, goals.document(rows, errors, options.seed))

    pairs = [(one.goal, case) for one, problems in chosen for case in problems]
    with contextlib.suppress(KeyboardInterrupt), progress_bar() as progress:
        goals.run(pairs, options.seconds, options.seed, progress, record)
        if wanted("network"):
            progress(0, 1, "networks")
            for row in networks.rows():
                record(row)
                progress(0, 1, str(row["problem"]))
        if wanted("accuracy"):
            errors += goals.accuracy(accuracy_cases(), options.seed, progress)
            record()
    print(goals.page(goals.document(rows, errors, options.seed), options.markdown))
    print(f"\nRecorded in {output}")
    return 0


def accuracy_cases() -> list[Case]:
    """The convolutions of the networks in all passes, batch 1."""
    from pycv.bench import variants

    convolutions = [one for one in layers() if one.problem.op == "conv2d"]
    return variants(convolutions, ("forward", "grad_input", "grad_weight"))


if __name__ == "__main__":
    sys.exit(main())
