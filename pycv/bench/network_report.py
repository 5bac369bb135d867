"""What was measured of whole networks, for people and for programs: the schema of a recording, and its tables.

A recorded file is a JSON object ``{"schema": 2, "kind": "networks", "recorded": ISO time, "machine": {...}, "rows":
[...]}``; :data:`ROW` and :data:`DOCUMENT` are JSON Schema, as those of problems (report.py), whose functions this uses.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from . import report
from .report import Row, aligned_table, closed, fastest_rival, field, grouped_table, markdown_table, reasons

KIND = "networks"
SCHEMA_VERSION = 2

LAYER = closed(
    {
        "layer": field("string", "its name in the network, or in what an engine made of it"),
        "op": field("string", "its class, or the engine's operator"),
        "kernel": field("string", "what ran: backend:algorithm, torch, or the engine"),
        "seconds": field("number", "median time"),
    },
)

_TIMING = ("seconds", "low", "high", "q25", "q75", "samples", "disturbed", "noisy")
ROW = closed(
    {
        "model": field("string", "its name in the zoo"),
        "batch": field("integer", "images at a time"),
        "size": field("integer", "height and width of the images"),
        "mode": field("string", "inference, or training: a step of it"),
        "device": field("string", "cpu or cuda"),
        "precision": field("string", "fp32, tf32 or bf16"),
        "contender": field("string", "its name: pycv, torch:nhwc, onnxruntime, ..."),
        "threads": field("integer", "that the contender was given"),
        **{name: report.ROW["properties"][name] for name in _TIMING},
        "images_per_second": field("number", "batch / seconds", True),
        "peak_bytes": field("integer", "largest resident memory of its process; on a GPU what it allocated", True),
        "base_bytes": field("integer", "the same before the network was built", True),
        "error": field(
            "number", "against float64 on other images: of the output, or the worst gradient; null: not compared", True
        ),
        "layers": {"type": ["array", "null"], "items": LAYER, "description": "what each took; null where not known"},
        "unavailable": field("string", "why the contender cannot run the network", True),
    },
    "One contender on one network at one batch size. Measured values are null where it could not run.",
)

DOCUMENT = closed(
    {
        "schema": {"const": SCHEMA_VERSION},
        "kind": {"const": KIND},
        "recorded": field("string", "when, ISO 8601, UTC"),
        "machine": report.DOCUMENT["properties"]["machine"],
        "rows": {"type": "array", "items": ROW},
    },
)


def document(rows: Sequence[Row]) -> dict[str, Any]:
    """Rows with their machine and time, as they are recorded."""
    recorded = datetime.now(timezone.utc).isoformat(timespec="seconds")
    where = report.where(bool(rows) and rows[0]["device"] == "cuda")
    return {"schema": SCHEMA_VERSION, "kind": KIND, "recorded": recorded, "machine": where, "rows": list(rows)}


def setting(row: Row) -> str:
    """What was run, whoever ran it: "vgg16 inference, batch 8, 224 px"; with the precision where it is on a GPU."""
    how = "" if row["device"] == "cpu" else f", {row['precision']} on {row['device']}"
    return f"{row['model']} {row['mode']}, batch {row['batch']}, {row['size']} px{how}"


def by_setting(rows: Iterable[Row]) -> list[list[Row]]:
    """Rows that compete with each other."""
    groups: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        groups.setdefault((setting(row), row["threads"]), []).append(row)
    return list(groups.values())


def without_layers(rows: Iterable[Row]) -> list[Row]:
    """For CSV, which has no room for lists."""
    return [{name: value for name, value in row.items() if name != "layers"} for row in rows]


# ------------------------------------------------------------------------------------------------------- tables

HEADER = ("network", "contender", "ms", "±%", "images/s", "vs fastest other", "peak MB", "before MB", "error")


def table(rows: Sequence[Row]) -> str:
    """For the terminal: one line per row; the ratio is to the fastest contender that is not pycv's. ``~``: noisy."""
    return "\n".join([grouped_table(HEADER, _groups(rows)), *reasons(rows, setting)])


def markdown(recorded: Mapping[str, Any]) -> str:
    """The same table of a recorded document, its machine, and the layers of every network."""
    rows = recorded["rows"]
    lines: list[Sequence[str]] = [HEADER, *((name, *cells) for name, group in _groups(rows) for cells in group)]
    told = (
        f"{_where(recorded)} Median times; a ratio above 1 means that the contender is faster than the fastest that is "
        f"not pycv's; {report.NOISY}."
    )
    parts = [markdown_table(lines), "", *(f"- {why}" for why in reasons(rows, setting)), "", told]
    for group in by_setting(rows):
        if of_layers := layer_lines(group):
            parts += ["", f"Layers of {setting(group[0])}:", "", markdown_table(of_layers)]
    return "\n".join(parts) + "\n"


def ratios(recorded: Mapping[str, Any]) -> str:
    """A line per setting, in Markdown: milliseconds of each contender that ran, and how many times faster than the
    fastest of the others pycv's fastest is."""
    rows = recorded["rows"]
    names = list(dict.fromkeys(row["contender"] for row in rows if row["seconds"]))
    lines: list[Sequence[str]] = [("network", *(f"{name} ms" for name in names), "pycv vs fastest other")]
    found = []
    for group in by_setting(rows):
        ran = {row["contender"]: row for row in group if row["seconds"]}
        own = min((row["seconds"] for name, row in ran.items() if report.is_own(name)), default=None)
        rival = fastest_rival(group)
        found += [rival["seconds"] / own] if rival and own else []
        cells = (report.milliseconds(ran.get(name)) for name in names)
        lines.append((setting(group[0]), *cells, report.times(found[-1]) if rival and own else "-"))
    if found:
        mean = math.exp(math.fsum(map(math.log, found)) / len(found))
        lines.append(("geometric mean", *[""] * len(names), f"**{report.times(mean)}**"))
    why = [f"- {reason}\n" for reason in reasons(rows, setting)]
    told = f"{_where(recorded)} Median times; {report.NOISY}.\n"
    return markdown_table(lines) + "\n\n" + "".join([*why, "\n"] if why else []) + told


def _where(recorded: Mapping[str, Any]) -> str:
    where, threads = recorded["machine"], sorted({row["threads"] for row in recorded["rows"]})
    gpu = "".join(f"{where[name]}; " for name in ("gpu", "gpu state") if where.get(name))
    return (
        f"{gpu}{where['cpu']}, {where['cores']} cores, {'/'.join(map(str, threads))} threads, {where['isa']}; torch "
        f"{where['torch']}, pycv {where['version']} ({where['commit']}), {recorded['recorded'][:10]}."
    )


def _groups(rows: Sequence[Row]) -> list[tuple[str, list[tuple[str, ...]]]]:
    groups = []
    for group in by_setting(rows):
        rival = fastest_rival(group)
        groups.append((setting(group[0]), [(row["contender"], *_cells(row, rival)) for row in group]))
    return groups


def _cells(row: Row, rival: Row | None) -> tuple[str, ...]:
    if not row["seconds"]:
        return ("-",) * 7
    return (
        f"{'~' if row['noisy'] else ''}{1e3 * row['seconds']:.4g}",
        f"{50 * (row['high'] - row['low']) / row['seconds']:.1f}",
        f"{row['images_per_second']:.1f}",
        report.times(rival["seconds"] / row["seconds"]) if rival else "-",
        f"{row['peak_bytes'] / 1e6:.0f}",
        f"{row['base_bytes'] / 1e6:.0f}",
        "-" if row["error"] is None else f"{row['error']:.0e}",
    )


def layers(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Seconds of each layer of one setting, by layer and contender: those that several contenders have, in their order,
    then those that only one has (engines fuse and rename), slowest first."""
    told = [row for row in rows if row["layers"]]
    found: dict[str, dict[str, float]] = {}
    for row in told:
        for layer in row["layers"]:
            seconds = found.setdefault(layer["layer"], {})
            seconds[row["contender"]] = seconds.get(row["contender"], 0.0) + layer["seconds"]
    shared = [name for name, seconds in found.items() if len(seconds) > 1 or len(told) == 1]
    only = sorted((name for name in found if name not in shared), key=lambda name: -max(found[name].values()))
    return {name: found[name] for name in shared + only}


def layer_lines(rows: Sequence[Row]) -> list[Sequence[str]]:
    """Milliseconds of each layer of one setting, a column per contender; nothing where none tells its layers."""
    found = layers(rows)
    names = [row["contender"] for row in rows if row["layers"]]
    if not names:
        return []
    lines: list[Sequence[str]] = [("layer", *(f"{name} ms" for name in names))]
    for layer, seconds in found.items():
        lines.append((layer, *(f"{1e3 * seconds[name]:.3f}" if name in seconds else "-" for name in names)))
    sums = (math.fsum(seconds.get(name, 0.0) for seconds in found.values()) for name in names)
    return [*lines, ("sum", *(f"{1e3 * total:.3f}" for total in sums))]


def layer_tables(rows: Sequence[Row]) -> str:
    """The layers of every setting, for the terminal."""
    parts = []
    for group in by_setting(rows):
        lines = layer_lines(group)
        parts.append(f"{setting(group[0])}\n{aligned_table(lines) if lines else 'no contender tells its layers'}")
    return "\n\n".join(parts)
