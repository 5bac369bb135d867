"""Goals: how many times faster than its best rival a kernel has to be, measured problem by problem.

A row compares the fastest of the rivals (torch in either layout, oneDNN with a prepacked weight, other products) with
the faster of pycv's two layouts; each layout's own ratio stands beside it. ``backend="cpu"`` is forced: a problem
handed to torch would be a miss. What pycv chooses by default is a ratio of its own. Beside the effective rate stands
the algorithm's own, and the share of its floor: the time that its multiply-adds take at the machine's peak, or the
bytes it moves at the bandwidth of the smallest memory that holds them, whichever is longer, both as its plan counts
them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from .. import registry, settings
from ..problem import ConvProblem, Problem
from ..timing import Timing, measure
from . import check, machine
from .contenders import Call, Unavailable, contender
from .data import Data, random_data
from .problems import Case
from .report import aligned_table, markdown_table, validate

NOISE = 0.07  # a goal is met this far below it
FLOOR = 0.92  # ... and where this much of the algorithm's own floor is reached
DEFAULT_MUST = 0.95  # of the default choice, always
ROTATED_BYTES = 64 * 2**20  # what the weights of a rotated row pass through
MAX_COPIES = 256
_RIVALS = {
    "torch": ("torch:nchw", "torch:nhwc"),
    "prepacked": ("onednn:nchw", "onednn:nhwc"),
    "product": ("torch:nchw", "onednn:matmul", "numpy:matmul"),
}
_LAYOUTS = ("nchw", "nhwc")
Row = dict[str, Any]
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Goal:
    """What a class of problems has to reach.

    Attributes
    ----------
    name : of the class.
    must, aim : ratios.
    rivals : "torch", "prepacked" (oneDNN's convolution with a weight reordered once) or "product" (other GEMMs).
    rotated : the weights pass through 64 MB, as in a network, instead of staying in the caches.
    kept : prepared weights are kept between calls, as a layer in eval mode does.
    layout : where only one counts.
    must_nchw : what the ratio of nchw alone has to reach besides.
    passes : the passes whose times are added; () is the problem's own.
    """

    name: str
    must: float
    aim: float
    rivals: str = "torch"
    rotated: bool = False
    kept: bool = True
    layout: str = ""
    must_nchw: float | None = None
    passes: tuple[str, ...] = ()


# -------------------------------------------------------------------------------------------------------- rows


def run(
    pairs: Iterable[tuple[Goal, Case]],
    seconds: float = 2.0,
    seed: int = 0,
    progress: Progress | None = None,
    each: Callable[[Row], None] = lambda row: None,
) -> list[Row]:
    """One row per goal and case, ``seconds`` for each. ``each`` is handed every row as soon as it is measured."""
    pairs = list(pairs)
    rows = []
    peaks = machine.peaks()
    with torch.no_grad():
        for done, (goal, one) in enumerate(pairs):
            if progress:
                progress(done, len(pairs), f"{goal.name}: {one.name}")
            rows.append(_row(goal, one, seconds, seed, peaks))
            each(rows[-1])
    if progress:
        progress(len(pairs), len(pairs), "done")
    return rows


def _row(goal: Goal, one: Case, seconds: float, seed: int, peaks: machine.Peaks) -> Row:
    problems = [replace(one.problem, pass_=pass_) for pass_ in goal.passes] or [one.problem]
    found = [_measured(goal, problem, seconds / len(problems), seed, peaks) for problem in problems]
    times = _sums([each.seconds for each in found])
    layouts = (goal.layout,) if goal.layout else _LAYOUTS
    rivals, own = _fastest(times, _RIVALS[goal.rivals], layouts), _fastest(times, _names("cpu"), layouts)
    default = _fastest(times, _names("pycv"), layouts)
    main = found[0]
    best = main.best or "cpu@nchw"
    ratios = {layout: _ratio(_rival(times, goal, layout), times.get(f"cpu@{layout}")) for layout in _LAYOUTS}
    flops = sum(problem.flops for problem in problems)
    row: Row = {
        "goal": goal.name,
        "name": one.name,
        "problem": str(one.problem),
        "rotated": goal.rotated,
        "kept": goal.kept,
        "threads": torch.get_num_threads(),
        "must": goal.must,
        "aim": goal.aim,
        "ratio": _ratio(rivals, own),
        "ratio_nchw": ratios["nchw"],
        "ratio_nhwc": ratios["nhwc"],
        "default_ratio": _ratio(rivals, default),
        "seconds": times,
        "kernels": main.kernels,
        "gflops": flops / own / 1e9 if own else None,
        "algorithm_gflops": main.algorithm_gflops.get(best) if len(found) == 1 else None,
        "floor": min((each.floors[each.best] for each in found if each.best in each.floors), default=None),
        "error": max((e for each in found for name, e in each.errors.items() if name in _names("cpu")), default=None),
        "noisy": any(each.noisy for each in found),
        "unavailable": "; ".join(dict.fromkeys(text for each in found for text in each.unavailable)) or None,
    }
    return row | {"verdict": verdict(row, goal)}


def verdict(row: Mapping[str, Any], goal: Goal) -> str:
    """ "aim", "must", "floor" (bounded by what the algorithm needs), or "miss"."""
    if row["ratio"] is None:
        return "miss"
    enough = 1 - NOISE
    nchw_holds = goal.must_nchw is None or (row["ratio_nchw"] or 0.0) >= enough * goal.must_nchw
    if row["ratio"] >= enough * goal.aim and nchw_holds:
        return "aim"
    if row["ratio"] >= enough * goal.must and nchw_holds:
        return "must"
    return "floor" if row["floor"] is not None and row["floor"] >= FLOOR else "miss"


def _names(who: str) -> tuple[str, ...]:
    return tuple(f"{who}@{layout}" for layout in _LAYOUTS)


def _sums(times: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Seconds of each contender over all passes, of those that ran every one."""
    return {name: sum(t[name] for t in times) for name in times[0] if all(name in t for t in times)}


def _fastest(times: Mapping[str, float], names: Sequence[str], layouts: Sequence[str]) -> float | None:
    counted = [n for n in names if n.rpartition("@")[2].rpartition(":")[2] in layouts or n.endswith("matmul")]
    return min((times[name] for name in counted if name in times), default=None)


def _rival(times: Mapping[str, float], goal: Goal, layout: str) -> float | None:
    return _fastest(times, _RIVALS[goal.rivals], (layout,))


def _ratio(rival: float | None, own: float | None) -> float | None:
    return rival / own if rival and own else None


# --------------------------------------------------------------------------------------------------- measuring


@dataclass
class _Found:
    """What one problem gave, by contender."""

    seconds: dict[str, float]
    kernels: dict[str, str]
    errors: dict[str, float]
    floors: dict[str, float]
    algorithm_gflops: dict[str, float]
    unavailable: list[str]
    noisy: bool
    best: str  # pycv's faster layout


def _measured(goal: Goal, problem: Problem, seconds: float, seed: int, peaks: machine.Peaks) -> _Found:
    wanted = [*_RIVALS[goal.rivals], *_names("cpu"), *_names("pycv")]
    data = _data(goal, problem, seed)
    calls, reasons = {}, []
    with settings.use(weight_cache_limit=2**40):  # every copy of a rotated weight is to be kept
        for name in wanted:
            try:
                calls[name] = _call(goal, contender(name).prepare(problem, data))
            except Unavailable as reason:
                if name.startswith("cpu"):
                    reasons.append(f"{name}: {reason}")
    for call in calls.values():
        for _ in data.get("weights", ()):
            call()  # prepares the weight of its turn
    ran = {name: _ran(call, problem) for name, call in calls.items()}
    for layout in _LAYOUTS:  # what is chosen by default is what was forced, as a rule: then it is measured once
        default, forced = f"pycv@{layout}", f"cpu@{layout}"
        if default in ran and forced in ran and ran[default] and ran[default] == ran[forced]:
            del calls[default]
    timings = measure(calls, seconds)
    for layout in _LAYOUTS:
        if f"pycv@{layout}" in ran and f"pycv@{layout}" not in timings:
            timings[f"pycv@{layout}"] = timings[f"cpu@{layout}"]
    own = {name: timings[name] for name in _names("cpu") if name in timings}
    best = min(own, key=lambda name: own[name].seconds, default="")
    errors = _errors(goal, problem, list(own), seed + 1)
    costs = {name: _cost(call, problem) for name, call in calls.items() if name in own}
    return _Found(
        {name: timing.seconds for name, timing in timings.items()},
        {name: kernel or name for name, kernel in ran.items()},
        errors,
        {name: f for name, cost in costs.items() if (f := _floor(cost, own[name], peaks, problem)) is not None},
        {name: _own_rate(cost, own[name]) for name, cost in costs.items() if cost is not None},
        reasons,
        any(timing.noisy for timing in timings.values()),
        best,
    )


def _data(goal: Goal, problem: Problem, seed: int) -> Data:
    data = random_data(problem, seed)
    if not goal.rotated:
        return data
    weight = data["weight"]
    copies = min(MAX_COPIES, -(-ROTATED_BYTES // max(1, weight.numel() * weight.element_size())))
    return data | {"weights": weight.expand(copies, *weight.shape)}


def _call(goal: Goal, call: Call) -> Call:
    """With grad mode on (though nothing asks for a gradient) a layer prepares its weight each time."""
    if goal.kept:
        return call

    def unkept():
        with torch.enable_grad():
            return call()

    return unkept


def _choice(call: Call, problem: Problem) -> registry.Choice | None:
    with registry.record() as log:
        call()
    choices = [c.choice for c in log if (c.choice.problem.op, c.choice.problem.pass_) == (problem.op, problem.pass_)]
    return choices[0] if choices else None


def _ran(call: Call, problem: Problem) -> str | None:
    choice = _choice(call, problem)
    return choice.kernel.name if choice is not None else None


def _cost(call: Call, problem: Problem) -> Any:
    choice = _choice(call, problem)
    return getattr(choice.plan, "cost", None) if choice is not None else None


def _own_rate(cost: Any, timing: Timing) -> float:
    return 2 * cost.multiply_adds * torch.get_num_threads() / timing.seconds / 1e9


def _floor(cost: Any, timing: Timing, peaks: machine.Peaks, problem: Problem) -> float | None:
    """The share of the kernel's own floor that was reached; without counts that of the problem's bytes."""
    if problem.dtype not in peaks.flops:
        return None
    flops, moved = (2 * cost.multiply_adds * peaks.threads, cost.bytes) if cost is not None else (0.0, problem.bytes)
    return peaks.roofline_seconds(flops, moved, problem.dtype) / timing.seconds


def _errors(goal: Goal, problem: Problem, names: Sequence[str], seed: int) -> dict[str, float]:
    """Against float64, on data that nothing was timed on."""
    if not names:
        return {}
    data = random_data(problem, seed)
    expected = check.reference(problem, data)
    return {name: check.error(_call(goal, contender(name).prepare(problem, data)), expected) for name in names}


# -------------------------------------------------------------------------------------------------- other tables


def accuracy(
    cases: Iterable[Case], seed: int = 0, progress: Callable[[int, int, str], None] | None = None
) -> list[Row]:
    """The error of every C++ kernel of pycv, and of torch, on every problem: max|error| / max|float64|."""
    rows = []
    cases = list(cases)
    with torch.no_grad():
        for done, one in enumerate(cases):
            if progress:
                progress(done, len(cases), one.name)
            data = random_data(one.problem, seed)
            expected = check.reference(one.problem, data)
            registered = registry.kernels(one.problem.op, one.problem.pass_)
            kernels = [k.name for k in registered if k.backend not in ("torch", "numba")]
            for name in [*kernels, "torch:nchw"]:
                rows += _accuracy_row(one, name, data, expected)
    return rows


def _accuracy_row(one: Case, name: str, data: Data, expected: torch.Tensor) -> list[Row]:
    with settings.use(precision="fast"):
        try:
            error = check.error(contender(name).prepare(one.problem, data), expected)
        except Unavailable:
            return []
    channels = one.problem.c if isinstance(one.problem, ConvProblem) else 0
    return [{"problem": str(one.problem), "kernel": name, "channels": channels, "error": error}]


def accuracy_table(rows: Sequence[Row], markdown: bool = False) -> str:
    """Median and largest error of each kernel over the problems that it ran."""
    by_kernel: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        by_kernel.setdefault((row["problem"].split(" ")[0], row["kernel"]), []).append(row)
    lines = [("op", "kernel", "problems", "median error", "largest", "on")]
    for (op, kernel), mine in sorted(by_kernel.items()):
        errors = sorted(row["error"] for row in mine)
        worst = max(mine, key=lambda row: row["error"])
        middle = errors[len(errors) // 2]
        lines.append((op, kernel, str(len(mine)), f"{middle:.1e}", f"{worst['error']:.1e}", worst["problem"]))
    return markdown_table(lines) if markdown else aligned_table(lines, left=(0, 1, 5))


def network_row(
    name: str, text: str, batch: int, goal: Goal, timings: Mapping[str, Timing], errors: Mapping[str, float]
) -> Row:
    """A row of a whole network, measured by somebody else: by contender (``torch:nchw``, ``pycv@nhwc``, ...) its
    timing and its error."""
    seconds = {each: timing.seconds for each, timing in timings.items()}
    rival, own = _fastest(seconds, _RIVALS["torch"], _LAYOUTS), _fastest(seconds, _names("pycv"), _LAYOUTS)
    ratio = _ratio(rival, own)
    row: Row = dict.fromkeys(ROW["properties"])
    row |= {
        "goal": goal.name, "name": name, "problem": f"{text} batch {batch}",
        "rotated": False, "kept": goal.kept, "threads": torch.get_num_threads(),
        "must": goal.must, "aim": goal.aim, "ratio": ratio, "default_ratio": ratio,
        "ratio_nchw": _ratio(seconds["torch:nchw"], seconds["pycv@nchw"]),
        "ratio_nhwc": _ratio(seconds["torch:nhwc"], seconds["pycv@nhwc"]),
        "seconds": seconds, "kernels": {}, "error": max(errors[each] for each in _names("pycv")),
        "noisy": any(timing.noisy for timing in timings.values()),
    }  # fmt: skip
    return row | {"verdict": verdict(row, goal)}


# -------------------------------------------------------------------------------------------- tables, recordings


def _field(kind: str | list[str], description: str) -> dict[str, Any]:
    return {"type": kind, "description": description}


_NUMBER = ["number", "null"]
ROW: dict[str, Any] = {
    "type": "object",
    "description": "One problem of one class of goals.",
    "additionalProperties": False,
    "properties": {
        "goal": _field("string", "the class"),
        "name": _field("string", "what the problem set calls the problem"),
        "problem": _field("string", "its text, or the network"),
        "rotated": _field("boolean", "the weights passed through 64 MB"),
        "kept": _field("boolean", "prepared weights were kept between calls"),
        "threads": _field("integer", "threads that torch and pycv were given"),
        "must": _field("number", "the ratio that must be reached"),
        "aim": _field("number", "the ratio that is aimed at"),
        "ratio": _field(_NUMBER, "fastest rival / faster layout of pycv, backend cpu forced"),
        "ratio_nchw": _field(_NUMBER, "the same within nchw"),
        "ratio_nhwc": _field(_NUMBER, "the same within nhwc"),
        "default_ratio": _field(_NUMBER, "fastest rival / what pycv chose by itself"),
        "seconds": _field("object", "median seconds of a call by contender"),
        "kernels": _field("object", "what ran, by contender"),
        "gflops": _field(_NUMBER, "effective rate: operations of the direct algorithm / seconds / 1e9"),
        "algorithm_gflops": _field(_NUMBER, "operations that the algorithm performs / seconds / 1e9"),
        "floor": _field(_NUMBER, "share of the algorithm's own floor"),
        "error": _field(
            _NUMBER, "max|result - float64| / max|float64| on fresh data (a training step: of the gradients, by norm)"
        ),
        "noisy": _field("boolean", "a median's confidence interval is wider than 2 %"),
        "unavailable": _field(["string", "null"], "why a layout of pycv could not run it"),
        "verdict": _field("string", "aim, must, floor or miss"),
    },
}
ROW["required"] = list(ROW["properties"])
DOCUMENT: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "schema": {"const": 1},
        "kind": {"const": "goals"},
        "recorded": _field("string", "when, ISO 8601, UTC"),
        "machine": {"type": "object"},
        "seed": _field("integer", "of the drawn shapes and the data"),
        "rows": {"type": "array", "items": ROW},
        "accuracy": {"type": "array", "items": {"type": "object"}},
    },
}
DOCUMENT["required"] = list(DOCUMENT["properties"])


def document(rows: Sequence[Row], accuracy: Sequence[Row], seed: int) -> dict[str, Any]:
    """Rows with their machine and time, as they are recorded."""
    value = {
        "schema": 1,
        "kind": "goals",
        "recorded": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine.describe(),
        "seed": seed,
        "rows": [_finite(row) for row in rows],
        "accuracy": [_finite(row) for row in accuracy],
    }
    validate(value, DOCUMENT)
    return value


def _finite(row: Row) -> Row:
    return {name: None if value in (math.inf, -math.inf) else value for name, value in row.items()}


def write(path: str | Path, value: Mapping[str, Any]) -> None:
    """Records a document, in the place of the one that a run under way wrote before."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read(path: str | Path) -> dict[str, Any]:
    """A recorded document. Raises ValueError, naming the file, if it is none of ours."""
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
        validate(value, DOCUMENT)
    except ValueError as error:
        raise ValueError(f"{path}: no recording of goals: {error}") from None
    return value


def page(recorded: Mapping[str, Any], markdown: bool = False) -> str:
    """All of a recording: the machine, the classes, every row, and the errors of every algorithm."""
    of = recorded["machine"]
    parts = [
        f"{of['cpu']}, {of['isa']}, torch {of['torch']}, {of['compiler']}, {of['platform']}; recorded "
        f"{recorded['recorded']}, commit {of['commit']}, shapes drawn from seed {recorded['seed']}.",
        "Ratios: the rival's time over pycv's, the faster layout of each; floor: the share of the peak that the "
        "algorithm's own operations or the compulsory bytes reach; !: the default choice is below 0.95; ~: noisy.",
    ]
    if recorded["rows"]:
        parts += [summary(recorded["rows"], markdown), table(recorded["rows"], markdown)]
    if recorded["accuracy"]:
        parts += ["Errors against float64, of the largest output:", accuracy_table(recorded["accuracy"], markdown)]
    return "\n\n".join(part.rstrip("\n") for part in parts)


HEADER = ("problem", "ran", "ms", "ratio", "nchw", "nhwc", "default", "GFLOP/s", "own", "floor", "error", "verdict")


def table(rows: Sequence[Row], markdown: bool = False) -> str:
    """Rows by class, losses like wins. ``~``: noisy."""
    lines: list[Sequence[str]] = [HEADER]
    for row in rows:
        lines.append(_cells(row))
    return markdown_table(lines) if markdown else aligned_table(lines, left=(0, 1, 11))


def _cells(row: Row) -> tuple[str, ...]:
    measured = row["seconds"]
    names = _names("cpu") if any(name in measured for name in _names("cpu")) else _names("pycv")  # networks: pycv
    own = [(measured[name], name) for name in names if name in measured]
    seconds, best = min(own) if own else (None, "")
    kernel = row["kernels"].get(best, best)
    where = "" if row["default_ratio"] is None or row["default_ratio"] >= DEFAULT_MUST else "!"
    return (
        f"{row['goal']}: {row['name']}" + (" rotated" if row["rotated"] else ""),
        f"{kernel} {best.partition('@')[2]}",
        "-" if seconds is None else f"{'~' if row['noisy'] else ''}{1e3 * seconds:.3g}",
        *(_times(row[name]) for name in ("ratio", "ratio_nchw", "ratio_nhwc")),
        _times(row["default_ratio"]) + where,
        *("-" if row[name] is None else f"{row[name]:.0f}" for name in ("gflops", "algorithm_gflops")),
        "-" if row["floor"] is None else f"{row['floor']:.0%}",
        "-" if row["error"] is None else f"{row['error']:.0e}",
        row["verdict"],
    )


def _times(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}"


def summary(rows: Sequence[Row], markdown: bool = False) -> str:
    """One line per class: its goals, the lowest, mean and highest ratio, and how many problems reached what."""
    header = (
        "class",
        "must",
        "aim",
        "problems",
        "lowest",
        "mean",
        "highest",
        "aim",
        "must",
        "floor",
        "miss",
        "verdict",
    )
    lines: list[Sequence[str]] = [header]
    for name in dict.fromkeys(row["goal"] for row in rows):
        mine = [row for row in rows if row["goal"] == name]
        ratios = [row["ratio"] for row in mine if row["ratio"]]
        mean = math.exp(sum(map(math.log, ratios)) / len(ratios)) if ratios else None
        counts = [sum(row["verdict"] == v for row in mine) for v in ("aim", "must", "floor", "miss")]
        lines.append(
            (
                name,
                *(f"{mine[0][which]:g}" for which in ("must", "aim")),
                str(len(mine)),
                *map(_times, (min(ratios, default=None), mean, max(ratios, default=None))),
                *map(str, counts),
                "miss" if counts[3] else "PASS",
            )
        )
    defaults = [row["default_ratio"] for row in rows if row["default_ratio"] is not None]
    below = sum(ratio < DEFAULT_MUST for ratio in defaults)
    lowest = min(defaults, default=None)
    verdict = "miss" if below else "PASS"
    reached = str(len(defaults) - below)
    lines.append(
        ("the default choice", f"{DEFAULT_MUST}", "", str(len(defaults)), _times(lowest), "", "", "", reached, "",
         str(below), verdict)
    )  # fmt: skip
    return markdown_table(lines) if markdown else aligned_table(lines, left=(0, 11))
