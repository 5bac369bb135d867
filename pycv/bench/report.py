"""What was measured, for people and for programs: JSON with a schema, a table for the terminal, a table for Markdown.

A recorded file is a JSON object ``{"schema": 2, "recorded": ISO time, "machine": {...}, "peaks": {...}, "rows":
[...]}``. :data:`ROW`
and :data:`DOCUMENT` are JSON Schema (draft 2020-12); :func:`validate` checks a document against them.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ..problem import parse
from . import gpu, machine
from .runner import Row

SCHEMA_VERSION = 2
# What is beyond these nobody has measured; sums and plots need not reckon with it.
LARGEST = 1e21
SHORTEST, LONGEST = 1e-12, 1e9  # seconds


def field(kind: str, description: str, nullable: bool = False) -> dict[str, Any]:
    """The schema of a value."""
    return {"type": [kind, "null"] if nullable else kind, "description": description}


def closed(properties: dict[str, Any], description: str = "") -> dict[str, Any]:
    """The schema of an object that has all of these and nothing else."""
    told = {"description": description} if description else {}
    required = list(properties)
    return {"type": "object", **told, "additionalProperties": False, "properties": properties, "required": required}


ROW = closed(
    {
        "name": field("string", "what the problem set calls the problem; its text if it has no name"),
        "problem": field("string", "text of the problem (pycv/problem.py)"),
        "contender": field("string", "its name: pycv, backend:algorithm, torch:nchw, ..."),
        "kernel": field("string", "what really ran, as recorded: backend:algorithm, or the contender's name", True),
        "threads": field("integer", "threads that torch and pycv were given"),
        "flops": field("integer", "floating-point operations of the direct algorithm"),
        "bytes": field("integer", "the fewest bytes that have to move: each tensor once"),
        "seconds": field("number", "median time of a call", True),
        "low": field("number", "lower end of the median's 95 % confidence interval, seconds", True),
        "high": field("number", "its upper end", True),
        "q25": field("number", "lower quartile of the samples, seconds per call", True),
        "q75": field("number", "upper quartile", True),
        "samples": field("integer", "samples used", True),
        "disturbed": field("integer", "samples during which the process lost a processor", True),
        "noisy": field("boolean", "disturbed samples had to be used, or the precision was not reached", True),
        "gflops": field("number", "effective rate: flops / seconds / 1e9", True),
        "algorithm_flops": field("number", "operations that the algorithm performs; null if unknown", True),
        "roofline": field("number", "least time possible on this machine's measured peaks / seconds", True),
        "bound": field("string", "what sets that least time: compute, or the level of memory", True),
        "error": field("number", "max |result - float64| / max |float64| on fresh data; null if infinite", True),
        "unavailable": field("string", "why the contender cannot run the problem", True),
    },
    "One contender on one problem. Measured values are null where it could not run it.",
)

DOCUMENT = closed(
    {
        "schema": {"const": SCHEMA_VERSION},
        "recorded": field("string", "when, ISO 8601, UTC"),
        "machine": {
            "type": "object",
            "properties": {
                "cpu": field("string", "its name"),
                "cores": field("integer", "cores the process could use"),
                "isa": field("string", "instruction set of pycv's kernels", True),
                "compiler": field("string", "of pycv's kernels", True),
                "platform": field("string", "system"),
                "python": field("string", "version"),
                "torch": field("string", "version"),
                "version": field("string", "of pycv"),
                "commit": field("string", "of pycv's checkout, with + if files were changed", True),
            },
        },
        "peaks": {"type": ["object", "null"], "description": "measured peaks of the machine (bench/machine.py)"},
        "rows": {"type": "array", "items": ROW},
    }
)
DOCUMENT["properties"]["machine"]["required"] = list(DOCUMENT["properties"]["machine"]["properties"])


def validate(value: Any, schema: Mapping[str, Any] = DOCUMENT, where: str = "document") -> None:
    """Raises ValueError naming the place where ``value`` departs from the schema.

    Knows the words that :data:`DOCUMENT` uses: type, const, properties, required, additionalProperties, items.
    """
    if "const" in schema and value != schema["const"]:
        raise ValueError(f"{where}: expected {schema['const']!r}, found {value!r}")
    kinds = schema.get("type", [])
    if kinds and not any(_is(value, kind) for kind in ([kinds] if isinstance(kinds, str) else kinds)):
        raise ValueError(f"{where}: expected {kinds}, found {value!r}")
    if isinstance(value, dict):
        known = schema.get("properties", {})
        for name in schema.get("required", []):
            if name not in value:
                raise ValueError(f"{where}: {name!r} is missing")
        for name, part in value.items():
            if name in known:
                validate(part, known[name], f"{where}.{name}")
            elif not schema.get("additionalProperties", True):
                raise ValueError(f"{where}: {name!r} is unknown")
    if isinstance(value, list):
        for i, part in enumerate(value):
            validate(part, schema.get("items", {}), f"{where}[{i}]")


def _is(value: Any, kind: str) -> bool:
    types = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
    if kind in ("number", "integer"):
        wanted = int if kind == "integer" else (int, float)
        return isinstance(value, wanted) and not isinstance(value, bool) and abs(value) <= LARGEST
    return isinstance(value, types[kind])


# -------------------------------------------------------------------------------------------------------- files


def document(rows: Sequence[Row]) -> dict[str, Any]:
    """Rows with their machine and time, as they are recorded."""
    finite = [{key: None if value in (math.inf, -math.inf) else value for key, value in row.items()} for row in rows]
    recorded = datetime.now(timezone.utc).isoformat(timespec="seconds")
    on_gpu = bool(rows) and parse(rows[0]["problem"]).device == "cuda"
    peaks = gpu.recorded() if on_gpu else machine.recorded(rows[0]["threads"]) if rows else None
    return {
        "schema": SCHEMA_VERSION,
        "recorded": recorded,
        "machine": where(on_gpu),
        "peaks": peaks.to_json() if peaks else None,
        "rows": finite,
    }


def where(on_gpu: bool) -> dict[str, Any]:
    """The machine and, where rows were measured on it, its GPU."""
    return machine.describe() | ({"gpu": gpu.name(), "gpu state": gpu.state()} if on_gpu else {})


def as_json(document: Mapping[str, Any]) -> str:
    """The text of a recorded file."""
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows under a line of their field names; None is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else list(ROW["properties"]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write(path: str | Path, rows: Sequence[Row]) -> None:
    """Records rows in a new file. Raises FileExistsError rather than overwrite one."""
    create(path, as_json(document(rows)))


def create(path: str | Path, text: str) -> None:
    """A new file with this text, there as a whole or not at all. Raises FileExistsError rather than overwrite one."""
    with _temporary(path, text) as temporary:
        os.link(temporary, path)


def replace(path: str | Path, text: str) -> None:
    """A file with this text, in the place of whatever was there, at no moment half of it."""
    with _temporary(path, text) as temporary:
        os.replace(temporary, path)


@contextmanager
def _temporary(path: str | Path, text: str) -> Iterator[str]:
    """A file beside ``path``, complete and on disk, that is removed if it is still there in the end."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=path.name, suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o666 & ~_umask())
        yield temporary
    finally:
        Path(temporary).unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def read(path: str | Path) -> dict[str, Any]:
    """A recorded document. Raises ValueError, naming the file, if it is none of ours, OSError if it cannot be read."""
    try:
        return checked(json.loads(Path(path).read_text(encoding="utf-8")))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not a recorded benchmark of problems: {error}") from None


def checked(value: Any) -> dict[str, Any]:
    """A document as one of today. Raises ValueError where it departs from the schema, or a row is measured in part."""
    value = _upgraded(value)
    validate(value)
    require_measured(value["rows"], ("low", "high", "q25", "q75", "gflops"))
    require_no_negative(value["rows"], ("flops", "bytes", "gflops", "algorithm_flops", "roofline", "error"))
    if value["peaks"] is not None:
        try:
            machine.Peaks.from_json(value["peaks"])
        except (TypeError, KeyError, AttributeError, ValueError, OverflowError) as error:
            raise ValueError(f"document.peaks: {type(error).__name__}: {error}") from None
    return value


def require_measured(rows: Sequence[Row], fields: Sequence[str]) -> None:
    """Raises ValueError naming a row whose time is none, or that has a time but not these fields."""
    for i, row in enumerate(rows):
        if row["seconds"] is None:
            continue
        for name in ("seconds", *fields):
            where = f"document.rows[{i}].{name}"
            if row[name] is None:
                raise ValueError(f"{where}: expected a number, as 'seconds' is one")
            if name in _TIMES and not SHORTEST <= row[name] <= LONGEST:
                raise ValueError(f"{where}: expected seconds between {SHORTEST} and {LONGEST}, found {row[name]}")


_TIMES = ("seconds", "low", "high", "q25", "q75")


def require_no_negative(rows: Sequence[Row], fields: Sequence[str]) -> None:
    """Raises ValueError naming the first number among these fields that is less than 0."""
    for i, row in enumerate(rows):
        for name in fields:
            if row[name] is not None and row[name] < 0:
                raise ValueError(f"document.rows[{i}].{name}: expected 0 or more, found {row[name]}")


def _upgraded(value: Any) -> Any:
    """A recording of schema 1, which knew neither peaks nor an algorithm's own operations, as one of today."""
    if not isinstance(value, dict) or value.get("schema") != 1 or not isinstance(value.get("rows"), list):
        return value
    unknown = {"algorithm_flops": None, "bound": None}
    rows = [row | unknown | {"roofline": None} if isinstance(row, dict) else row for row in value["rows"]]
    return value | {"schema": SCHEMA_VERSION, "peaks": None, "rows": rows}


# ------------------------------------------------------------------------------------------------------- tables


def times(ratio: float) -> str:
    """``2.13x``; small ones to two digits: ``0.0042x``."""
    return f"{ratio:.2f}x" if ratio >= 0.095 else f"{ratio:.2g}x"


NOISY = "~ marks what was measured under disturbance"
HEADER = ("problem", "contender", "ran", "ms", "±%", "ratio", "GFLOP/s", "roofline", "error")


def baseline(rows: Sequence[Row]) -> Row | None:
    """Of the rows of one problem the one that ratios refer to: torch in the layout of the problem."""
    layout = "torch:nhwc" if " nhwc" in rows[0]["problem"] else "torch:nchw"
    return next((row for row in rows if row["contender"] == layout and row["seconds"]), None)


def ratio(row: Row, rows: Sequence[Row]) -> float | None:
    """How many times faster than the baseline of its problem's rows."""
    base = baseline(rows)
    return base["seconds"] / row["seconds"] if base and row["seconds"] else None


# Libraries: whatever begins with one of these is not pycv's.
OTHERS = ("torch", "onednn", "mkl", "numpy", "onnxruntime", "openvino")


def is_own(contender: str) -> bool:
    """Whether it is pycv's, not another library's."""
    return contender.partition(":")[0] not in OTHERS


def fastest_rival(rows: Sequence[Row]) -> Row | None:
    """Of rows that compete the fastest that is another library's, whatever its layout."""
    others = [row for row in rows if not is_own(row["contender"]) and row["seconds"]]
    return min(others, key=lambda row: row["seconds"], default=None)


def by_problem(rows: Iterable[Row]) -> list[list[Row]]:
    groups: dict[tuple[str, str, int], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["name"], row["problem"], row["threads"]), []).append(row)
    return list(groups.values())


def geometric_means(rows: Sequence[Row]) -> dict[str, float]:
    """Mean ratio to the baseline of each contender over the problems that both ran."""
    logs: dict[str, list[float]] = {}
    for group in by_problem(rows):
        for row in group:
            if value := ratio(row, group):
                logs.setdefault(row["contender"], []).append(math.log(value))
    return {name: math.exp(sum(values) / len(values)) for name, values in logs.items()}


def table(rows: Sequence[Row]) -> str:
    """For the terminal: one line per row, then the geometric means. Noisy rows are marked ``~``."""
    groups = [
        (group[0]["name"], [(row["contender"], *_cells(row, ratio(row, group))) for row in group])
        for group in by_problem(rows)
    ]
    means = ", ".join(f"{name} {times(value)}" for name, value in geometric_means(rows).items())
    means = f"Geometric mean of the ratios to torch in the problem's layout: {means or 'none'}"
    return "\n".join([grouped_table(HEADER, groups, left=(0, 1, 2)), *reasons(rows), means])


def reasons(rows: Iterable[Row], name: Callable[[Row], str] = lambda row: row["name"]) -> list[str]:
    """Why contenders were not measured: each reason once, with what it holds for."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row["unavailable"]:
            found.setdefault((row["contender"], row["unavailable"]), []).append(name(row))
    return [f"{contender}: {why} ({'; '.join(which)})" for (contender, why), which in found.items()]


def _cells(row: Row, times_faster: float | None) -> tuple[str, ...]:
    if row["seconds"] is None:
        return ("-",) * 7
    spread = 50 * (row["q75"] - row["q25"]) / row["seconds"]
    return (
        row["kernel"] or "-",
        f"{'~' if row['noisy'] else ''}{1e3 * row['seconds']:.3f}",
        f"{spread:.0f}",
        "-" if times_faster is None else times(times_faster),
        f"{row['gflops']:.1f}",
        "-" if row["roofline"] is None else f"{100 * row['roofline']:.0f} % {row['bound']}",
        "inf" if row["error"] is None else f"{row['error']:.1e}",
    )


def aligned_table(lines: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> str:
    """Lines of cells, the first the header, in columns; those of the indices ``left`` aligned to the left."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    text = [
        "  ".join(c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True)))
        for line in lines
    ]
    return "\n".join([text[0].rstrip(), "-" * max(map(len, text)), *(line.rstrip() for line in text[1:])])


LONG = 30  # characters of a name that leave room for the rest of a line in a terminal


def grouped_table(
    header: Sequence[str], groups: Iterable[tuple[str, Sequence[Sequence[str]]]], left: Sequence[int] = (0, 1)
) -> str:
    """The same of groups of lines, each with a name: before its first line, or above it where the name is long."""
    lines: list[Sequence[str]] = [header]
    above: dict[int, str] = {}
    for name, group in groups:
        if len(name) > LONG:
            above[len(lines)] = name
        lines += [(name if i == 0 and len(name) <= LONG else "", *cells) for i, cells in enumerate(group)]
    first, rule, *text = aligned_table(lines, left).splitlines()
    named = [[above[i], line] if i in above else [line] for i, line in enumerate(text, 1)]
    return "\n".join([first, rule, *(line for part in named for line in part)])


def markdown_table(lines: Sequence[Sequence[str]]) -> str:
    """The same in Markdown, the first column aligned to the left."""
    rule = ["---"] + ["---:"] * (len(lines[0]) - 1)
    return "\n".join("| " + " | ".join(line) + " |" for line in [lines[0], rule, *lines[1:]])


def markdown(recorded: Mapping[str, Any]) -> str:
    """The ratio table of a recorded document: one line per problem, its machine below."""
    groups = by_problem(recorded["rows"])
    contenders = list(dict.fromkeys(row["contender"] for row in recorded["rows"]))
    others = [name for name in contenders if not name.startswith("torch:")]
    torches = [name for name in contenders if name.startswith("torch:")]
    header = ["layer", *(f"{name} ms" for name in others + torches)]
    header += [f"{name} vs {base}" for name in others for base in torches] + ["max error"]
    lines = [header, ["---"] + ["---:"] * (len(header) - 1)]
    for group in groups:
        seconds = {row["contender"]: row["seconds"] for row in group}
        errors = [row["error"] for row in group if row["contender"] in others and row["error"] is not None]
        measured = {row["contender"]: row for row in group}
        line = [f"`{group[0]['name']}`", *(milliseconds(measured.get(name)) for name in others + torches)]
        line += [_times(seconds.get(base), seconds.get(name)) for name in others for base in torches]
        lines.append([*line, f"{max(errors):.0e}" if errors else "-"])
    mean = ["geometric mean", *[""] * len(others + torches)]
    for name in others:
        for base in torches:
            pairs = [({r["contender"]: r["seconds"] for r in group}) for group in groups]
            logs = [math.log(p[base] / p[name]) for p in pairs if p.get(base) and p.get(name)]
            mean.append(f"**{times(math.exp(sum(logs) / len(logs)))}**" if logs else "-")
    lines.append([*mean, ""])
    machine, threads = recorded["machine"], sorted({row["threads"] for row in recorded["rows"]})
    where = (
        f"{machine['cpu']}, {machine['cores']} cores, {'/'.join(map(str, threads))} threads, {machine['isa']}; torch "
        f"{machine['torch']}, pycv {machine['version']} ({machine['commit']}), {recorded['recorded'][:10]}. Median "
        f"times; a ratio above 1 means that pycv is faster; {NOISY}; error is max|err|/max|ref| against float64."
    )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + f"\n\n{where}\n"


def milliseconds(row: Row | None) -> str:
    """Of a row three digits, or all before the point: ``8.95``, ``~1266`` where it is noisy; ``-`` without a time."""
    if row is None or row["seconds"] is None:
        return "-"
    milliseconds = 1e3 * row["seconds"]
    return f"{'~' if row['noisy'] else ''}{milliseconds:{'.3g' if milliseconds < 999.5 else '.0f'}}"


def _times(base: float | None, seconds: float | None) -> str:
    return "-" if not base or not seconds else times(base / seconds)
