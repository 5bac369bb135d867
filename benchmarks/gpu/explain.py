"""Why one is faster than the other: ``python -m benchmarks.gpu.explain --bench FOLDER --output FOLDER``.

Of the problems in a recording of the benchmark, where torch or pycv is more than a tenth faster, both are run once
under Nsight Compute: throughput of the processors and of memory, use of each pipe, occupancy, stalls. What torch wins
by most comes first. Per problem and contender FOLDER receives NAME.csv, what ncu found of every kernel that was
launched; explain.md has the first figures of each. What is there already is not profiled again, so that another run
goes on where this one stopped; until then the exit status is 75.
"""

from __future__ import annotations

import argparse
import csv
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from pycv import bench
from pycv.bench import device, report
from pycv.bench.contenders import contender
from pycv.bench.data import random_data
from pycv.bench.problems import case

from .__main__ import TF32, UNFINISHED, Row, own_rows, rival_row, seconds_of

WORTH = 1.1  # a ratio, either way
SECTIONS = ("SpeedOfLight", "ComputeWorkloadAnalysis", "Occupancy", "WarpStateStats")
LAUNCHES = 20  # of kernels in a call, at most
WARMUP_CALLS = 3
SHOWN = ("Duration", "Compute (SM) Throughput", "Memory Throughput", "DRAM Throughput", "Achieved Occupancy")
REFUSED = "ERR_NVGPUCTRPERM"


class Subject(NamedTuple):
    """A contender on a problem, and how many times faster torch's best is than pycv's."""

    row: Row
    behind: float

    @property
    def file(self) -> str:
        return re.sub(r"[^\w.-]+", "_", f"{self.row['name']}.{self.row['contender']}") + ".csv"


def subjects(rows: Sequence[Row]) -> list[Subject]:
    """Both sides of every problem that is worth it, what torch wins first."""
    found = []
    for group in report.by_problem(rows):
        own, rival = min(own_rows(group), key=seconds_of, default=None), rival_row(group, "torch")
        if own is None or rival is None:
            continue
        behind = own["seconds"] / rival["seconds"]
        if max(behind, 1 / behind) > WORTH:
            found += [Subject(own, behind), Subject(rival, behind)]
    return sorted(found, key=lambda one: -one.behind)


def profiled(ncu: str, one: Subject, file: Path) -> str | None:
    """Runs the contender under ncu, which writes the file. Returns why it could not, in words."""
    command = [ncu, "--csv", "--page", "details", "--print-details", "all", "--log-file", str(file)]
    command += [*(word for name in SECTIONS for word in ("--section", name)), "--profile-from-start", "off"]
    command += ["--launch-count", str(LAUNCHES), "--target-processes", "all"]
    command += [sys.executable, "-m", "benchmarks.gpu.explain", "--once", one.row["contender"]]
    command += ["--problem", f"{one.row['name']}: {one.row['problem']}"]
    done = subprocess.run(command, capture_output=True, text=True)
    told = done.stdout + done.stderr + (file.read_text() if file.exists() else "")
    if REFUSED in told:
        file.unlink(missing_ok=True)
        return (
            f"ncu may not read the counters of this GPU ({REFUSED}): run it as root, or load the driver with "
            "NVreg_RestrictProfilingToAdminUsers=0"
        )
    if done.returncode or not _figures(file):
        file.unlink(missing_ok=True)
        return f"ncu failed ({done.returncode}): {' '.join(told.split())[-300:]}"
    return None


def once(name: str, problem: str) -> None:
    """What ncu watches: one call, warm."""
    one = case(problem)
    with device.fair(tf32=one.name.endswith(TF32)), torch.no_grad():
        call = contender(name).prepare(one.problem, random_data(one.problem, 0))
        for _ in range(WARMUP_CALLS):
            call()
        torch.cuda.synchronize()
        torch.cuda.profiler.start()
        call()
        torch.cuda.synchronize()
        torch.cuda.profiler.stop()


def _figures(file: Path) -> list[dict[str, str]]:
    """The lines of ncu's table, after what it says besides."""
    if not file.exists():
        return []
    lines = [line for line in file.read_text().splitlines() if not line.startswith("==")]
    return [line for line in csv.DictReader(lines) if line.get("Metric Name")]


def table(found: Sequence[Subject], folder: Path) -> str:
    """In Markdown, a line per kernel that a contender launched."""
    lines = [("problem", "torch faster by", "contender", "kernel", *SHOWN)]
    for one in found:
        for kernel, values in _by_kernel(_figures(folder / one.file)):
            shown = (values.get(name, "-") for name in SHOWN)
            lines.append((one.row["name"], f"{one.behind:.2f}", one.row["contender"], kernel, *shown))
    return report.markdown_table(lines) + "\n"


def _by_kernel(figures: Sequence[dict[str, str]]) -> Iterator[tuple[str, dict[str, str]]]:
    launches: dict[tuple[str, str], dict[str, str]] = {}
    for line in figures:
        values = launches.setdefault((line["ID"], line["Kernel Name"]), {})
        values.setdefault(line["Metric Name"], f"{line['Metric Value']} {line['Metric Unit']}".strip())
    for (_, kernel), values in launches.items():
        yield kernel.partition("(")[0][:60], values


def main() -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.gpu.explain", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--bench", type=Path, default=Path("runs/gpu/bench"), help="default: %(default)s")
    parser.add_argument("--output", type=Path, default=Path("runs/gpu/ncu"), help="folder; default: %(default)s")
    parser.add_argument("--most", type=int, default=40, help="problems; default: %(default)s")
    parser.add_argument("--seconds", type=float, default=540.0, help="for everything; default: %(default)s")
    parser.add_argument("--ncu", default="ncu", metavar="PROGRAM", help="default: %(default)s")
    parser.add_argument("--once", metavar="CONTENDER", help=argparse.SUPPRESS)
    parser.add_argument("--problem", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.once:
        once(options.once, options.problem)
        return 0
    recording = options.bench / "cold.json"
    if not recording.exists():
        sys.exit(f"benchmarks.gpu.explain: there is no {recording}: the benchmark writes it")
    deadline = time.perf_counter() + options.seconds
    found = subjects(bench.read(recording)["rows"])[: 2 * options.most]
    options.output.mkdir(parents=True, exist_ok=True)
    failures, left = 0, 0
    for one in found:
        file = options.output / one.file
        if file.exists():
            continue
        if time.perf_counter() > deadline:
            left += 1
        elif reason := profiled(options.ncu, one, file):
            failures += 1
            print(f"{one.row['name']}, {one.row['contender']}: {reason}")
            if REFUSED in reason:
                break
    text = table(found, options.output)
    (options.output / "explain.md").write_text(text)
    print(text)
    return 1 if failures else UNFINISHED if left else 0


if __name__ == "__main__":
    sys.exit(main())
