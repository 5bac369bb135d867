"""Measures the CUDA kernels against cuDNN and cuBLAS: ``python -m benchmarks.gpu --output FOLDER``.

Per problem: pycv's kernels, each algorithm by itself, and three vendor baselines: torch in nchw, in nhwc, and through
torch.compile (pycv/bench/device.py says how, and under which switches). Rows are recorded as those of `pycv bench`:
cold.json (operands in memory) and warm.json (in the L2 cache as far as they fit). table.md holds for each problem the
ratio to the fastest baseline in the problem's layout, the error against float64, and the bytes and operations that
explain it. All of them are written after every problem; table.md names those that there was no time for.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from pycv import bench, registry
from pycv.bench import report
from pycv.bench.problems import Case
from pycv.cli.shared import progress_bar

PROBLEMS = Path(__file__).with_name("problems.txt")
BASELINES = "torch:nchw,torch:nhwc,torch:compiled"
LEAST_SECONDS = 2.0  # below which a problem is left out
HEADER = ("problem", "ran", "cold µs", "warm µs", "fastest torch", "cold µs", "ratio", "GB/s", "TFLOP/s", "error")


def contenders(one: Case) -> list[str]:
    """The kernels that support the problem."""
    entries = registry.kernels(one.problem.op, one.problem.pass_)
    return [kernel.name for kernel in entries if kernel.backend == "cuda" and kernel.supports(one.problem) is None]


def measure(cases: Sequence[Case], baselines: Sequence[str], seconds: float, sampling: float, output: Path) -> None:
    """Measures the problems in turn, which share what is left of ``seconds``, each up to ``sampling`` per table."""
    deadline = time.perf_counter() + seconds
    cold: list[dict[str, Any]] = []
    warm: list[dict[str, Any]] = []
    with progress_bar() as progress:
        for done, one in enumerate(cases):
            record(output, cold, warm, cases[done:])
            left = deadline - time.perf_counter()
            if left < LEAST_SECONDS:
                return
            progress(done, len(cases), one.name)
            share, wanted = min(sampling, left / (len(cases) - done) / 2), [*contenders(one), *baselines]
            cold += bench.run([one], wanted, budget=share)
            warm += bench.run([one], wanted, budget=share, warm=True)
    record(output, cold, warm, ())


def record(
    output: Path, cold: Sequence[dict[str, Any]], warm: Sequence[dict[str, Any]], left_out: Sequence[Case]
) -> None:
    """Writes what has been measured so far, in the place of what was there before."""
    for name, rows in (("cold", cold), ("warm", warm)):
        report.replace(output / f"{name}.json", report.as_json(report.document(rows)))
    missing = "".join(f"\n- left out, no time: {one.name}" for one in left_out)
    report.replace(output / "table.md", table(cold, warm) + (missing and f"{missing}\n"))


def table(cold: Sequence[dict[str, Any]], warm: Sequence[dict[str, Any]]) -> str:
    """In Markdown, a line per problem: pycv's fastest kernel beside the fastest of torch's that has the same layout.

    torch:nchw and torch:nhwc compute from tensors that lie their way already: only the one in the problem's own layout
    is a baseline; it is not ours to pay for a change of layout or to be spared one.
    """
    warm_seconds = {(row["name"], row["contender"]): row["seconds"] for row in warm}
    lines = [HEADER]
    for rows in report.by_problem(cold):
        own = [row for row in rows if not row["contender"].startswith("torch") and row["seconds"]]
        layout = "torch:nhwc" if " nhwc" in rows[0]["problem"] else "torch:nchw"
        torchs = [row for row in rows if row["contender"] in (layout, "torch:compiled") and row["seconds"]]
        if not own or not torchs:
            reasons = "; ".join(f"{row['contender']}: {row['unavailable']}" for row in rows if row["unavailable"])
            lines.append((rows[0]["name"], reasons or "nothing", *["-"] * (len(HEADER) - 2)))
            continue
        best, base = (min(found, key=lambda row: row["seconds"]) for found in (own, torchs))
        hot = warm_seconds.get((best["name"], best["contender"]))
        lines.append((
            best["name"], best["contender"], _micro(best["seconds"]), _micro(hot), base["contender"],
            _micro(base["seconds"]), f"{base['seconds'] / best['seconds']:.2f}",
            f"{best['bytes'] / best['seconds'] / 1e9:.0f}", f"{best['flops'] / best['seconds'] / 1e12:.1f}",
            "inf" if best["error"] is None else f"{best['error']:.0e}",
        ))  # fmt: skip
    return report.markdown_table(lines) + "\n"


def _micro(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1e6 * seconds:.1f}"


def main() -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.gpu", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--output", type=Path, default=Path("runs/gpu"), help="folder; default: %(default)s")
    parser.add_argument("--only", default="", metavar="TEXT", help="problems whose name contains this")
    parser.add_argument("--problems", type=Path, default=PROBLEMS, help="default: %(default)s")
    parser.add_argument("--baseline", default=BASELINES, metavar="NAMES", help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=420.0, help="for everything; default: %(default)s")
    parser.add_argument(
        "--sampling", type=float, default=8.0, help="at most per problem and table; default: %(default)s"
    )
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("benchmarks.gpu: torch sees no GPU here")
    cases = [one for one in bench.load(options.problems) if options.only in one.name]
    measure(cases, options.baseline.split(","), options.seconds, options.sampling, options.output)
    print((options.output / "table.md").read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
