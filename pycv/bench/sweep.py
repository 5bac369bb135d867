"""Sweeps: one pattern of text stands for many problems.

    conv2d.forward n1c64h56w56 k64r{3..31:2}s{3..31:2} p{/2}

``{a..b}`` and ``{a..b:step}`` count, ``{a,b,c}`` lists. Equal braces go together: here r and s take the same value at
the same time; different ones are combined with each other, the first varying slowest. ``{/N}`` is the value of the
brace before it, divided by N and rounded down. Without an op the pattern is a conv2d.forward.

Parameters of kernels are varied beside: ``variant=f2,f4`` takes those variants of an algorithm, ``tile=2,4`` the same
ones of Winograd; the settings that ``pycv.use`` knows (``workspace_limit``, ``precision``, ``deterministic``) are set
while the kernel is prepared and run.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from .. import settings
from ..problem import Problem
from . import plots
from .contenders import Call, Contender, contender
from .data import Data
from .problems import Case, case
from .runner import Progress, Row, run

MAX_PROBLEMS = 10_000
_BRACE = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)(?::(\d+))?$")


@dataclass(frozen=True)
class Point:
    """One problem of a sweep, and the values of the braces that made it, by their text."""

    case: Case
    values: Mapping[str, str]


def expand(pattern: str) -> list[Point]:
    """The problems of a pattern. Raises ValueError naming what is wrong with it, or the problem that cannot be."""
    if not pattern.split() or "." not in pattern.split()[0]:
        pattern = f"conv2d.forward {pattern}"
    braces = [brace for brace in _BRACE.findall(pattern) if not brace.startswith("/")]
    if "{" in _BRACE.sub("", pattern) or "}" in _BRACE.sub("", pattern):
        raise ValueError(f"sweep {pattern!r}: a brace is not closed, or stands in another one")
    axes = {brace: _values(pattern, brace) for brace in braces}
    count = 1
    for values in axes.values():
        count *= len(values)
    if count > MAX_PROBLEMS:
        raise ValueError(f"sweep {pattern!r}: {count} problems; at most {MAX_PROBLEMS}")
    points = []
    for chosen in itertools.product(*axes.values()):
        named = dict(zip(axes, chosen, strict=True))
        points.append(Point(case(_filled(pattern, named)), named))
    return points


def _values(pattern: str, brace: str) -> list[str]:
    if match := _RANGE.match(brace):
        first, last, step = int(match[1]), int(match[2]), int(match[3] or 1)
        if step > 0 and first <= last:
            if (count := (last - first) // step + 1) > MAX_PROBLEMS:
                raise ValueError(f"sweep {pattern!r}: {{{brace}}}: {count} values; at most {MAX_PROBLEMS} problems")
            return [str(value) for value in range(first, last + 1, step)]
    elif brace and "" not in (listed := [value.strip() for value in brace.split(",")]) and ".." not in brace:
        return listed
    raise ValueError(f"sweep {pattern!r}: {{{brace}}}: expected {{3..31}}, {{3..31:2}}, {{3,5,7}} or {{/2}}")


def _filled(pattern: str, values: Mapping[str, str]) -> str:
    last: str | None = None

    def fill(match: re.Match[str]) -> str:
        nonlocal last
        brace = match[1]
        if not brace.startswith("/"):
            last = values[brace]
            return last
        divisor = brace[1:]
        if last is None or not last.isdecimal() or not divisor.isdecimal() or int(divisor) < 1:
            raise ValueError(f"sweep {pattern!r}: {{{brace}}}: expected {{/2}} after a brace of numbers")
        return str(int(last) // int(divisor))

    return _BRACE.sub(fill, pattern)


# --------------------------------------------------------------------------------------------------- parameters


def contenders(names: Iterable[str], parameters: Mapping[str, Sequence[str]]) -> list[Contender]:
    """Each contender with each combination of parameters, which its name then ends in.

    Raises ValueError for a parameter or contender that does not exist.
    """
    for name in parameters:
        if name not in _PARAMETERS:
            raise ValueError(f"kernel parameter {name!r}: expected one of {', '.join(_PARAMETERS)}")
    if {"tile", "variant"} <= set(parameters):
        raise ValueError("kernel parameters tile and variant: they name the same, give one of them")
    found = []
    for name in names:
        for chosen in itertools.product(*parameters.values()):
            found.append(_with(name, dict(zip(parameters, chosen, strict=True))))
    return list({one.name: one for one in found}.values())


def _with(name: str, chosen: dict[str, str]) -> Contender:
    if name.partition(":")[0].partition("@")[0] not in ("pycv", *settings.BACKENDS) or name.startswith("torch"):
        return contender(name)  # parameters are of pycv's kernels
    tile = chosen.pop("tile", "")
    if variant := chosen.pop("variant", f"f{tile}" if tile else ""):
        algorithm, at, layout = name.partition("@")
        name = f"{algorithm.partition('/')[0]}/{variant}{at}{layout}"
    plain = contender(name)
    if not chosen:
        return plain
    used = {parameter: _PARAMETERS[parameter](text) for parameter, text in chosen.items()}
    words = ",".join(f"{parameter}={text}" for parameter, text in chosen.items())
    return Contender(f"{name} {words}", partial(_prepare, plain, used))


def _prepare(plain: Contender, used: dict[str, Any], problem: Problem, data: Data) -> Call:
    with settings.use(**used):  # a prepared call of pycv's keeps the settings that it was made under
        return plain.prepare(problem, data)


def _bytes(text: str) -> int:
    match = re.match(r"(\d+)(KB|MB|GB)?$", text)
    if match is None:
        raise ValueError(f"workspace_limit={text}: expected bytes: 65536, 256KB, 64MB")
    return int(match[1]) << {None: 0, "KB": 10, "MB": 20, "GB": 30}[match[2]]


def _truth(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(f"deterministic={text}: expected true or false")
    return text == "true"


def _precision(text: str) -> str:
    if text not in settings.NUMERIC_CLASSES:
        raise ValueError(f"precision={text}: expected one of {', '.join(settings.NUMERIC_CLASSES)}")
    return text


_PARAMETERS: dict[str, Callable[[str], Any]] = {
    "variant": str,
    "tile": str,
    "workspace_limit": _bytes,
    "precision": _precision,
    "deterministic": _truth,
}


# -------------------------------------------------------------------------------------------------------- running


def sweep(
    pattern: str,
    names: Iterable[str],
    parameters: Mapping[str, Sequence[str]] | None = None,
    *,
    threads: int | None = None,
    budget: float | None = None,
    progress: Progress | None = None,
    rows: list[Row] | None = None,
) -> list[Row]:
    """Rows as of :func:`pycv.bench.run`, each with the values of its braces besides, as fields named after them."""
    points = {point.case: point.values for point in expand(pattern)}
    chosen = contenders(names, parameters or {})
    rows = [] if rows is None else rows
    try:
        run(points, chosen, threads=threads, budget=budget, progress=progress, rows=rows)
    finally:  # an interrupt, too: the rows before it
        values = {(one.name, str(one.problem)): values for one, values in points.items()}
        for row in rows:
            row |= values[row["name"], row["problem"]]
    return rows


def numeric_brace(pattern: str) -> str:
    """The brace to plot over: the first that has numbers only. Raises ValueError where there is none."""
    points = expand(pattern)
    for brace in points[0].values:
        if all(point.values[brace].isdecimal() for point in points):
            return brace
    raise ValueError(f"sweep {pattern!r}: no brace has numbers to plot over")


def plot(pattern: str, rows: Sequence[Row]) -> str:
    """Milliseconds of every contender over the brace of numbers that comes first, as SVG.

    The values of other braces are part of a line's name. Raises ValueError where no brace has numbers.
    """
    numeric = numeric_brace(pattern)
    others = [brace for brace in expand(pattern)[0].values if brace != numeric]
    series: dict[str, list[tuple[float, float, str]]] = {}
    for row in rows:
        if row["seconds"]:
            name = " ".join([row["contender"], *(str(row[brace]) for brace in others)])
            ms = 1e3 * row["seconds"]
            series.setdefault(name, []).append(
                (float(row[numeric]), ms, f"{row['name']}: {ms:.4g} ms, {row['kernel']}")
            )
    return plots.lines(series, f"{{{numeric}}}", "milliseconds", pattern)
