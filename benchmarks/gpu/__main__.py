"""Measures the GPU kernels against cuDNN and cuBLAS: ``python -m benchmarks.gpu --output FOLDER``.

Per problem: pycv's kernels for a GPU, in CUDA C++ and in Triton, each algorithm by itself, and the vendor's: torch in
nchw, in nhwc, through torch.compile, and Inductor's Triton templates (pycv/bench/device.py says how, and under which
switches). Nobody uses TF32 there; kernels that do (numeric class fast) are measured under the name ``PROBLEM tf32``,
where torch may, too. Rows are recorded as those of `pycv bench`: cold.json (operands in memory) and warm.json (in the
L2 cache as far as they fit). table.md holds for each problem and backend the ratio to the fastest of torch's in the
problem's layout, the error against float64, and the bytes and operations that explain it; then which goals are met.

All of them are written after every problem. What there was no time for is named, and measured by the next run into the
same folder, which goes on where this one stopped; until then the exit status is 75.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

from pycv import bench, registry
from pycv.bench import report
from pycv.bench.problems import Case
from pycv.cli.shared import progress_bar
from pycv.problem import ConvProblem, GemmProblem

from . import goals

PROBLEMS = Path(__file__).with_name("problems.txt")
BASELINES = "torch:nchw,torch:nhwc,torch:compiled,torch:triton-templates"
TEMPLATES = "torch:triton-templates"
TF32 = " tf32"  # ends the names of problems on which everybody may use it
LEAST_SECONDS = 2.0  # below which a problem is left out
UNFINISHED = 75  # exit status
LONGEST_REASON = 100
HEADER = (
    "problem", "ran", "cold µs", "warm µs", "fastest torch", "cold µs", "ratio", "of CUDA C++", "GB/s", "TFLOP/s",
    "error",
)  # fmt: skip
GOALS_HEADER = ("goal", "kernels", "problem", "must", "reached", "aim", "reached", "verdict")
_EARLIER_STEPS = re.compile(r"cuda:(simt_[1-7]|wgmma_[12])_")
Row = dict[str, Any]


def in_both_precisions(cases: Sequence[Case]) -> Iterator[Case]:
    """Each problem, and again for the kernels that use TF32 where there are any."""
    for one in cases:
        yield one
        if contenders(again := Case(one.name + TF32, one.problem)):
            yield again


def contenders(one: Case) -> list[str]:
    """The kernels that support the problem: those that round to TF32, or all others. A ladder's earlier steps run on
    the problems of that class alone."""
    found = []
    for kernel in registry.kernels(one.problem.op, one.problem.pass_):
        fits = (kernel.numeric_class == "fast") == one.name.endswith(TF32)
        earlier = _EARLIER_STEPS.match(kernel.name) and goals.class_of(one.name) != "ladder"
        if fits and not earlier and kernel.backend != "torch" and kernel.supports(one.problem) is None:
            found.append(kernel.name)
    return found


def rivals(one: Case, baselines: Sequence[str]) -> list[str]:
    """Of the baselines those that there are for such a problem."""
    templates = isinstance(one.problem, (ConvProblem, GemmProblem)) and one.problem.pass_ == "forward"
    return [name for name in baselines if name != TEMPLATES or templates]


def measure(
    cases: Sequence[Case], baselines: Sequence[str], seconds: float, sampling: float, output: Path
) -> list[Case]:
    """Measures the problems in turn, which share what is left of ``seconds``, each up to ``sampling`` per table. What
    the folder holds already counts as measured. Returns what there was no time for."""
    deadline = time.perf_counter() + seconds
    cold, warm = _recorded(output)
    there = {row["name"] for row in warm}
    todo = [one for one in in_both_precisions(cases) if one.name not in there]
    with progress_bar() as progress:
        for done, one in enumerate(todo):
            record(output, cold, warm, todo[done:])
            left = deadline - time.perf_counter()
            if left < LEAST_SECONDS:
                return todo[done:]
            progress(done, len(todo), one.name)
            share, wanted = min(sampling, left / (len(todo) - done) / 2), [*contenders(one), *rivals(one, baselines)]
            tf32 = one.name.endswith(TF32)
            cold += bench.run([one], wanted, budget=share, tf32=tf32)
            warm += bench.run([one], wanted, budget=share, tf32=tf32, warm=True)
    record(output, cold, warm, ())
    return []


def _recorded(output: Path) -> tuple[list[Row], list[Row]]:
    """The rows of an earlier run, cold and warm, of the problems that it measured both ways."""
    cold, warm = (
        bench.read(path)["rows"] if (path := output / f"{name}.json").exists() else [] for name in ("cold", "warm")
    )
    both = {row["name"] for row in cold} & {row["name"] for row in warm}
    return [row for row in cold if row["name"] in both], [row for row in warm if row["name"] in both]


def record(output: Path, cold: Sequence[Row], warm: Sequence[Row], left_out: Sequence[Case]) -> None:
    """Writes what has been measured so far, in the place of what was there before."""
    for name, rows in (("cold", cold), ("warm", warm)):
        report.replace(output / f"{name}.json", report.as_json(report.document(rows)))
    missing = "".join(f"\n- left out, no time: {one.name}" for one in left_out)
    text = f"{table(cold, warm)}\n{goal_table(cold)}"
    report.replace(output / "table.md", text + (missing and f"{missing}\n"))


def table(cold: Sequence[Row], warm: Sequence[Row]) -> str:
    """In Markdown, a line per problem and backend: pycv's fastest kernel beside the fastest of torch's that has the
    same layout. Where nobody may use TF32 no kernel that does counts."""
    warm_seconds = {(row["name"], row["contender"]): row["seconds"] for row in warm}
    lines = [HEADER]
    for rows in report.by_problem(cold):
        own, base = own_rows(rows), rival_row(rows, "torch")
        if not own or not base:
            reasons = "; ".join(
                f"{row['contender']}: {_short(row['unavailable'])}" for row in rows if row["unavailable"]
            )
            lines.append((rows[0]["name"], reasons or "nothing", *["-"] * (len(HEADER) - 2)))
            continue
        best_cuda = rival_row(rows, "cuda")
        for best in _fastest_by_backend(own).values():
            hot = warm_seconds.get((best["name"], best["contender"]))
            lines.append((
                best["name"], best["contender"], _micro(best["seconds"]), _micro(hot), base["contender"],
                _micro(base["seconds"]), f"{base['seconds'] / best['seconds']:.2f}",
                "-" if best is best_cuda else _times(goals.ratio(best, best_cuda)),
                f"{best['bytes'] / best['seconds'] / 1e9:.0f}", f"{best['flops'] / best['seconds'] / 1e12:.1f}",
                "inf" if best["error"] is None else f"{best['error']:.0e}",
            ))  # fmt: skip
    return report.markdown_table(lines) + "\n"


def goal_table(cold: Sequence[Row]) -> str:
    """In Markdown, a line per goal and problem that was measured, for the backends that took part."""
    lines = [GOALS_HEADER]
    there = {row["contender"].partition(":")[0] for row in cold}
    for goal in (goal for goal in goals.GOALS if goal.backend in there):
        for rows in report.by_problem(cold):
            name = rows[0]["name"]
            if goals.class_of(name) != goal.class_ or name.endswith(TF32):
                continue
            counted = [row for row in own_rows(rows) if goal.takes(kernel_of(row), _numeric_class(row))]
            own = min(counted, key=seconds_of, default=None)
            rival = {who: rival_row(rows, who) for who in (goal.must_rival, goal.aim_rival)}
            aim = "-" if goal.aim is None else f"{goal.aim:.2f} {goal.aim_rival}"
            lines.append((
                goal.class_, goal.kernels, name, f"{goal.must:.2f} {goal.must_rival}",
                _times(goals.ratio(own, rival[goal.must_rival])), aim,
                "-" if goal.aim is None else _times(goals.ratio(own, rival[goal.aim_rival])),
                goals.verdict(goal, own, rival.__getitem__),
            ))  # fmt: skip
    return report.markdown_table(lines) + "\n"


def own_rows(rows: Sequence[Row]) -> list[Row]:
    """pycv's rows that were measured and are as exact as torch was asked to be."""
    tf32 = rows[0]["name"].endswith(TF32)
    own = [row for row in rows if not row["contender"].startswith("torch") and row["seconds"]]
    return [row for row in own if (_numeric_class(row) == "fast") == tf32]


def rival_row(rows: Sequence[Row], who: str) -> Row | None:
    """The fastest row of a rival (goals.py). torch:nchw and torch:nhwc compute from tensors that lie their way already:
    only the one in the problem's own layout is one; it is not ours to pay for a change of layout or to be spared it."""
    eager = "torch:nhwc" if " nhwc" in rows[0]["problem"] else "torch:nchw"
    names: Mapping[str, tuple[str, ...]] = {
        "eager": (eager,), "compiled": ("torch:compiled",), "torch": (eager, "torch:compiled"),
        "templates": (TEMPLATES,),
    }  # fmt: skip
    if who == "cuda":
        found = [row for row in own_rows(rows) if kernel_of(row).startswith("cuda:")]
    else:
        found = [row for row in rows if row["contender"] in names[who] and row["seconds"]]
    return min(found, key=seconds_of, default=None)


def _fastest_by_backend(own: Sequence[Row]) -> dict[str, Row]:
    found: dict[str, Row] = {}
    for row in sorted(own, key=seconds_of):
        found.setdefault(kernel_of(row).partition(":")[0], row)
    return found


def kernel_of(row: Row) -> str:
    return row["kernel"] or row["contender"]


def _numeric_class(row: Row) -> str:
    """Of the kernel that ran."""
    op, _, pass_ = row["problem"].partition(" ")[0].partition(".")
    return _classes(op, pass_).get(kernel_of(row).partition("[")[0], "strict")


@cache
def _classes(op: str, pass_: str) -> dict[str, str]:
    return {kernel.name: kernel.numeric_class for kernel in registry.kernels(op, pass_)}


def seconds_of(row: Row) -> float:
    return row["seconds"]


def _short(reason: str) -> str:
    """torch names every backend that it knows."""
    line = " ".join(reason.split())
    return line if len(line) <= LONGEST_REASON else line[:LONGEST_REASON].rstrip() + " …"


def _times(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


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
    left = measure(cases, options.baseline.split(","), options.seconds, options.sampling, options.output)
    print((options.output / "table.md").read_text())
    return UNFINISHED if left else 0


if __name__ == "__main__":
    sys.exit(main())
