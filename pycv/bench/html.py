"""Recordings as one HTML file that needs nothing else: no network, no library, no second file.

What is shown is computed here, by the same functions as the tables of the terminal; the page (report.html) sorts,
filters and draws it. The recordings themselves are in it, too, and can be saved from there.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from . import network_report, plots, recording
from .machine import Peaks
from .report import Row, by_problem, fastest_rival, geometric_means, is_own, ratio

TEMPLATE = Path(__file__).with_name("report.html")


def page(recordings: Sequence[tuple[str, Mapping[str, Any]]], title: str = "pycv benchmark") -> str:
    """The text of the page; ``recordings`` are names and documents (:func:`report.read`).

    Raises ValueError without any.
    """
    if not recordings:
        raise ValueError("a report needs at least one recording")
    networks = [(name, document) for name, document in recordings if recording.of_networks(document)]
    problems = [(name, document) for name, document in recordings if not recording.of_networks(document)]
    rows = [row for name, document in problems for row in _rows(name, document["rows"])]
    network_rows = [row for name, document in networks for row in _network_rows(name, document["rows"])]
    data = {
        "title": title,
        "files": [{"name": name, **_about(document)} for name, document in recordings],
        "rows": rows,
        "networks": network_rows,
        "layers": [line for name, document in networks for line in _layers(name, document["rows"])],
        "means": [
            *(mean for name, document in problems for mean in _means(name, rows, geometric_means(document["rows"]))),
            *(mean for name, _ in networks for mean in _means(name, network_rows, {})),
        ],
        "accuracy": [line for name, document in problems for line in _accuracy(name, document["rows"])],
        "raw": {name: document for name, document in recordings},
        "csv": recording.together(problems),
        "networkCsv": recording.together(networks),
    }
    drawn = [*(_roofline(*one) for one in problems), *(_speeds(*one) for one in networks)]
    text = TEMPLATE.read_text(encoding="utf-8")
    # Nothing in a script element ends it early but "<".
    embedded = json.dumps(data, allow_nan=False).replace("<", "\\u003c")
    return text.replace("<!-- plots -->", "\n".join(filter(None, drawn))).replace("/* data */ null", embedded)


def _about(document: Mapping[str, Any]) -> dict[str, Any]:
    return {"recorded": document["recorded"], "machine": document["machine"]}


def _rows(file: str, rows: Sequence[Row]) -> list[dict[str, Any]]:
    found = []
    for group in by_problem(rows):
        rival = fastest_rival(group)
        for row in group:
            shown = {name: row[name] for name in ("name", "problem", "contender", "kernel", "threads", "gflops")}
            shown |= {name: row[name] for name in ("roofline", "bound", "samples")}
            found.append(shown | _measured(file, row, rival) | {"ratio": ratio(row, group)})
    return found


def _network_rows(file: str, rows: Sequence[Row]) -> list[dict[str, Any]]:
    found = []
    for group in network_report.by_setting(rows):
        rival = fastest_rival(group)
        for row in group:
            shown = {"name": network_report.setting(row), "contender": row["contender"], "threads": row["threads"]}
            shown |= {name: row[name] for name in ("images_per_second", "samples")}
            shown |= {"peak": _mega(row["peak_bytes"]), "base": _mega(row["base_bytes"])}
            found.append(shown | _measured(file, row, rival))
    return found


def _measured(file: str, row: Row, rival: Row | None) -> dict[str, Any]:
    """What problems and networks have in common; ``rival``: the fastest library."""
    return {
        **{name: row[name] for name in ("error", "noisy", "unavailable")},
        "file": file,
        "ms": _milli(row["seconds"]),
        "spread": 100 * (row["high"] - row["low"]) / 2 / row["seconds"] if row["seconds"] else None,
        "best": rival["seconds"] / row["seconds"] if rival and row["seconds"] else None,
        "verdict": _verdict(row, rival),
    }


def _layers(file: str, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """A line per layer of each network: milliseconds by contender, and how pycv's fastest compares with the fastest of
    the others (which is no verdict: layers are timed once in each of a few runs)."""
    found = []
    for group in network_report.by_setting(rows):
        for layer, seconds in network_report.layers(group).items():
            others = [value for name, value in seconds.items() if not is_own(name)]
            own = [value for name, value in seconds.items() if is_own(name)]
            found.append(
                {"file": file, "name": network_report.setting(group[0]), "layer": layer,
                 "ratio": min(others) / min(own) if others and own and min(own) > 0 else None}
                | {f"ms {name}": _milli(value) for name, value in seconds.items()}
            )  # fmt: skip
    return found


def _verdict(row: Row, rival: Row | None) -> str:
    """Of pycv's rows, against the fastest library: "win", "loss", or "no difference" where the intervals overlap."""
    if not row["seconds"]:
        return "not measured"
    if rival is None or not is_own(row["contender"]):
        return "rival"
    if row["low"] <= rival["high"] and rival["low"] <= row["high"]:
        return "no difference"
    return "win" if row["seconds"] < rival["seconds"] else "loss"


def _means(file: str, shown: Sequence[dict[str, Any]], means: Mapping[str, float]) -> list[dict[str, Any]]:
    """Of the rows shown of one recording; ``means`` to torch are those of problems only."""
    found = []
    for contender in dict.fromkeys(row["contender"] for row in shown if row["file"] == file):
        mine = [row for row in shown if (row["file"], row["contender"]) == (file, contender) and row["best"]]
        verdicts = [row["verdict"] for row in mine]
        counts = {verdict: verdicts.count(verdict) for verdict in ("win", "no difference", "loss")}
        best = [row["best"] for row in mine]
        if mine:
            found.append(
                {"file": file, "contender": contender, "mean": means.get(contender), "problems": len(mine),
                 "best": math.exp(sum(map(math.log, best)) / len(best)), "lowest": min(best), "highest": max(best)}
                | (dict.fromkeys(counts) if set(verdicts) == {"rival"} else counts)
            )  # fmt: skip
    return found


def _accuracy(file: str, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Median and largest error of what each contender ran, op by op."""
    by_kernel: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row["seconds"]:
            op, dtype = row["problem"].split(" ")[0], _dtype(row["problem"])
            by_kernel.setdefault((f"{op} {dtype}", row["kernel"] or row["contender"]), []).append(row)
    found = []
    for (op, kernel), mine in by_kernel.items():
        errors = sorted(float("inf") if row["error"] is None else row["error"] for row in mine)
        finite = [None if error == float("inf") else error for error in errors]
        worst = max(mine, key=lambda row: float("inf") if row["error"] is None else row["error"])
        found.append(
            {"file": file, "op": op, "kernel": kernel, "problems": len(mine), "median": finite[len(finite) // 2],
             "largest": finite[-1], "on": worst["name"]}
        )  # fmt: skip
    return found


def _dtype(problem: str) -> str:
    return next((token for token in problem.split(" ") if token in ("f32", "f64", "f16", "bf16")), "")


def _milli(seconds: float | None) -> float | None:
    return None if seconds is None else 1e3 * seconds


def _mega(bytes: int | None) -> float | None:
    return None if bytes is None else bytes / 1e6


def _roofline(file: str, document: Mapping[str, Any]) -> str:
    """A figure, or nothing where the recording has no peaks or no place under them."""
    if not document["peaks"]:
        return ""
    peaks = Peaks.from_json(document["peaks"])
    series: dict[str, list[tuple[float, float, str]]] = {}
    for row in document["rows"]:
        if row["seconds"] and row["algorithm_flops"] and row["bytes"] and row["roofline"]:
            rate = row["algorithm_flops"] / row["seconds"] / 1e9
            share = f"{row['roofline']:.0%} of its roofline ({row['bound']})"
            words = f"{row['name']}, {row['kernel']}: {rate:.1f} GFLOP/s, {share}"
            series.setdefault(row["contender"], []).append((row["algorithm_flops"] / row["bytes"], rate, words))
    if not series:
        return ""
    where = peaks.gpu or f"{document['machine']['cpu']}, {peaks.threads} threads, {peaks.isa}"
    title = f"Roofline, {where}"
    return f'<figure data-file="{escape(file)}">{plots.roofline(peaks, series, title)}</figure>'


def _speeds(file: str, document: Mapping[str, Any]) -> str:
    """A figure, or nothing where no network has been measured: how each contender compares with the fastest library."""
    groups: dict[str, plots.Bars] = {}
    for group in network_report.by_setting(document["rows"]):
        rival = fastest_rival(group)
        if rival is None:
            continue
        groups[network_report.setting(group[0])] = [
            (row["contender"], rival["seconds"] / row["seconds"], f"{row['images_per_second']:.4g} images/s")
            for row in group if row["seconds"]
        ]  # fmt: skip
    if not groups:
        return ""
    title = f"Times as fast as the fastest library, {document['machine']['cpu']}"
    return f'<figure data-file="{escape(file)}">{plots.bars(groups, title)}</figure>'
