"""Where Fourier convolution overtakes the others: measured time over the size of the filter, beside two counts.

Lecture notes set the sums of a convolution, C' C N^2 m^2, against C' C N^2 log N for "the" Fourier convolution, as if
every pair of channels were transformed. Each channel is transformed once, and at each frequency the pairs are only
multiplied: (C + C') N^2 log N + C C' N^2. (C input and C' output channels, N^2 pixels, m^2 taps, logarithms to base 2,
the weight transformed beforehand.) Neither counts what an operation costs.

    python benchmarks/cpu/crossover.py                       direct, im2col, winograd, fft; 3x3 to 31x31; 64 channels
    python benchmarks/cpu/crossover.py --channels 16 --size 128 --batch 8
    python benchmarks/cpu/crossover.py --plot FILE.json      draw a recording again

Writes benchmarks/results/crossover.json (as ``pycv bench run --json`` does) and .png (matplotlib: ``pip install
pycv[demo]``). Each algorithm is shown by its fastest variant of numeric class default; the weight is prepared once.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pycv import bench
from pycv.problem import ConvProblem, parse

ALGORITHMS = ("direct", "im2col", "winograd", "fft")
COLOURS = {"direct": "#7f7f7f", "im2col": "#c98b1b", "winograd": "#2a8f5b", "fft": "#1f5fbf"}
RESULT = Path("benchmarks/results/crossover")
Times = dict[str, dict[int, float]]  # seconds by algorithm and filter size


@dataclass(frozen=True)
class Counts:
    """Operations as the notes count them."""

    sums: float
    lecture: float
    right: float

    @staticmethod
    def of(p: ConvProblem) -> Counts:
        pixels, pairs = p.n * math.prod(p.output_size), p.c * p.k
        log = math.log2(max(p.size))
        taps = math.prod(p.filter)
        return Counts(pairs * pixels * taps, pairs * pixels * log, ((p.c + p.k) * log + pairs) * pixels)


def problems(channels: int, size: int, batch: int, filters: Sequence[int]) -> list[ConvProblem]:
    texts = (
        f"conv2d.forward n{batch}c{channels}h{size}w{size} k{channels}r{r}s{r} p{r // 2} f32 nchw cpu" for r in filters
    )
    return [parse(text) for text in texts]  # type: ignore[misc]


def contenders() -> list[str]:
    """Every variant of the algorithms that is registered."""
    return [name for name in bench.contender_names() if name.partition(":")[2].partition("/")[0] in ALGORITHMS]


def fastest(rows: Sequence[dict[str, Any]]) -> Times:
    times: Times = {algorithm: {} for algorithm in ALGORITHMS}
    for row in rows:
        if row["seconds"] is None:
            continue
        algorithm = row["contender"].partition(":")[2].partition("/")[0]
        of_algorithm, r = times[algorithm], parse(row["problem"]).filter[0]
        of_algorithm[r] = min(row["seconds"], of_algorithm.get(r, math.inf))
    return times


def overtakes(first: dict[int, float], second: dict[int, float]) -> int | None:
    """The filter size from which on the second is the faster; None if it is not even at the largest."""
    sizes = sorted(first.keys() & second.keys())
    slower = [r for r in sizes if second[r] >= first[r]]
    return next((r for r in sizes if r > max(slower, default=0)), None)


def others(times: Times) -> dict[int, float]:
    """The fastest of what is not fft."""
    every = [times[algorithm] for algorithm in ALGORITHMS if algorithm != "fft"]
    return {r: min(t[r] for t in every if r in t) for r in set().union(*every)}


def table(cases: Sequence[ConvProblem], times: Times) -> str:
    lines = [
        f"{'':7}{'measured, ms':^{10 * len(ALGORITHMS)}}{'operations, 10^6':^36}",
        f"{'filter':7}" + "".join(f"{a:>10}" for a in ALGORITHMS)
        + f"{'sums':>12}{'lecture fft':>12}{'right fft':>12}",
    ]  # fmt: skip
    for p in cases:
        r, counts = p.filter[0], Counts.of(p)
        measured = "".join(f"{times[a][r] * 1e3:>10.2f}" if r in times[a] else f"{'-':>10}" for a in ALGORITHMS)
        operations = "".join(f"{count / 1e6:>12.1f}" for count in (counts.sums, counts.lecture, counts.right))
        lines.append(f"{f'{r}x{r}':7}{measured}{operations}")
    return "\n".join(lines)


def draw(cases: Sequence[ConvProblem], times: Times, machine: str, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    sizes = [p.filter[0] for p in cases]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 5.2), layout="constrained")
    for algorithm in ALGORITHMS:
        measured = times[algorithm]
        if not measured:
            continue
        xs = sorted(measured)
        left.plot(xs, [measured[r] * 1e3 for r in xs], "o-", ms=4, lw=2, color=COLOURS[algorithm])
        name = f" {algorithm}"
        if algorithm == "winograd":  # ends early, between the other lines
            left.annotate(
                algorithm, (xs[-1], measured[xs[-1]] * 1e3), (8, -14), textcoords="offset points",
                color=COLOURS[algorithm], fontweight="bold",
            )  # fmt: skip
        else:
            left.text(xs[-1], measured[xs[-1]] * 1e3, name, color=COLOURS[algorithm], va="center", fontweight="bold")
    where = overtakes(others(times), times["fft"])
    if where is not None:
        left.axvline(where, color="black", lw=1, ls=":", zorder=0)
        text = f"from {where}x{where} on fft is the fastest"
        left.text(where + 0.4, 0.97, text, transform=left.get_xaxis_transform(), va="top")
    p = cases[0]
    left.set_title(f"Measured: {p.c} to {p.k} channels, {p.size[0]}² pixels, batch {p.n}, f32", loc="left")
    left.set_ylabel("milliseconds")

    counts = [Counts.of(case) for case in cases]
    curves = (
        ("C'C N² m²", [c.sums for c in counts], COLOURS["direct"], "-"),
        ("C'C N² log N  (lecture notes)", [c.lecture for c in counts], "#b03030", "--"),
        ("(C+C') N² log N + C C' N²  (right)", [c.right for c in counts], COLOURS["fft"], "-"),
    )
    for name, values, colour, style in curves:
        right.plot(sizes, values, style, lw=2, color=colour)
        at = len(sizes) // 2  # the label stands above the middle of its line
        right.annotate(
            name,
            (sizes[at], values[at]),
            (0, 9),
            textcoords="offset points",
            ha="right" if values[0] < values[-1] else "center",
            color=colour,
        )
    right.set_title("Counted: operations, the weight transformed beforehand", loc="left")
    right.set_ylabel("operations")
    for axes in (left, right):
        axes.set_yscale("log")
        axes.set_xticks([r for r in sizes if r % 4 == 3 or len(sizes) < 9])
        axes.set_xlabel("filter size m")
        axes.grid(True, which="major", color="#e4e4e4", lw=0.8)
        axes.spines[["top", "right"]].set_visible(False)
    left.set_xlim(right=sizes[-1] + 4.5)
    figure.text(0.995, 0.002, machine, ha="right", va="bottom", fontsize=8, color="#666666")
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--channels", type=int, default=64, help="input and output channels (default 64)")
    parser.add_argument("--size", type=int, default=64, help="height and width of the image (default 64)")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--filters", type=int, nargs="+", default=list(range(3, 32, 2)), help="default 3 5 ... 31")
    parser.add_argument("--threads", type=int, help="default: torch's")
    parser.add_argument("--seconds", type=float, default=60, help="to spend on all measurements (default 60)")
    parser.add_argument("--out", type=Path, default=RESULT, help=f"without suffix (default {RESULT})")
    parser.add_argument("--plot", type=Path, metavar="JSON", help="draw this recording instead of measuring")
    options = parser.parse_args()
    recording = options.plot or options.out.with_suffix(".json")
    if options.plot is None:
        if recording.exists():
            parser.error(f"{recording} exists: results are never overwritten; move it or name another with --out")
        cases = problems(options.channels, options.size, options.batch, options.filters)
        bench.write(recording, bench.run(cases, contenders(), threads=options.threads, budget=options.seconds))
    recorded = bench.read(recording)
    rows = recorded["rows"]
    cases = [parse(text) for text in dict.fromkeys(row["problem"] for row in rows)]
    times = fastest(rows)
    print(table(cases, times))
    worst = max(row["error"] for row in rows if row["error"] is not None)
    print(f"largest error of any: {worst:.1e} of the largest output")
    machine = f"{recorded['machine'].get('cpu', '')}, {rows[0]['threads']} threads, {recorded['recorded'][:10]}"
    draw(cases, times, machine, recording.with_suffix(".png"))
    print(f"{recording.with_suffix('.png')}")


if __name__ == "__main__":
    main()
