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

from . import plots
from .machine import Peaks
from .report import OTHERS, Row, as_csv, by_problem, fastest_rival, geometric_means, ratio

TEMPLATE = Path(__file__).with_name("report.html")


def page(recordings: Sequence[tuple[str, Mapping[str, Any]]], title: str = "pycv benchmark") -> str:
    """The text of the page; ``recordings`` are names and documents (:func:`report.read`).

    Raises ValueError without any.
    """
    if not recordings:
        raise ValueError("a report needs at least one recording")
    data = {
        "title": title,
        "files": [{"name": name, **_about(document)} for name, document in recordings],
        "rows": [row for name, document in recordings for row in _rows(name, document["rows"])],
        "means": [mean for name, document in recordings for mean in _means(name, document["rows"])],
        "accuracy": [line for name, document in recordings for line in _accuracy(name, document["rows"])],
        "raw": {name: document for name, document in recordings},
        "csv": "".join(_csv(name, document["rows"], header=i == 0) for i, (name, document) in enumerate(recordings)),
    }
    drawn = [_roofline(name, document) for name, document in recordings]
    text = TEMPLATE.read_text(encoding="utf-8")
    # Nothing in a script element ends it early but "<".
    embedded = json.dumps(data, allow_nan=False).replace("<", "\\u003c")
    return text.replace("<!-- plots -->", "\n".join(filter(None, drawn))).replace("/* data */ null", embedded)


def _csv(name: str, rows: Sequence[Row], header: bool) -> str:
    text = as_csv([{"recording": name} | row for row in rows])
    return text if header else text.partition("\n")[2]


def _about(document: Mapping[str, Any]) -> dict[str, Any]:
    return {"recorded": document["recorded"], "machine": document["machine"], "peaks": document["peaks"]}


def _rows(file: str, rows: Sequence[Row]) -> list[dict[str, Any]]:
    found = []
    for group in by_problem(rows):
        rival = fastest_rival(group)
        for row in group:
            shown = {name: row[name] for name in ("name", "problem", "contender", "kernel", "threads", "gflops")}
            shown |= {name: row[name] for name in ("roofline", "bound", "error", "noisy", "unavailable", "samples")}
            shown |= {
                "file": file,
                "ms": _milli(row["seconds"]),
                "spread": 100 * (row["high"] - row["low"]) / 2 / row["seconds"] if row["seconds"] else None,
                "ratio": ratio(row, group),
                "best": rival["seconds"] / row["seconds"] if rival and row["seconds"] else None,
                "verdict": _verdict(row, rival),
            }
            found.append(shown)
    return found


def _verdict(row: Row, rival: Row | None) -> str:
    """Of pycv's rows, against the fastest library: "win", "loss", or "no difference" where the intervals overlap."""
    if not row["seconds"]:
        return "not measured"
    if rival is None or row["contender"].partition(":")[0] in OTHERS:
        return "rival"
    if row["low"] <= rival["high"] and rival["low"] <= row["high"]:
        return "no difference"
    return "win" if row["seconds"] < rival["seconds"] else "loss"


def _means(file: str, rows: Sequence[Row]) -> list[dict[str, Any]]:
    shown = _rows(file, rows)
    means = geometric_means(rows)
    found = []
    for contender in dict.fromkeys(row["contender"] for row in rows):
        mine = [row for row in shown if row["contender"] == contender and row["best"]]
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


def _roofline(file: str, document: Mapping[str, Any]) -> str:
    """A figure, or nothing where the recording has no peaks or no place under them."""
    if not document["peaks"]:
        return ""
    peaks = Peaks.from_json(document["peaks"])
    series: dict[str, list[tuple[float, float, str]]] = {}
    for row in document["rows"]:
        if row["seconds"] and row["algorithm_flops"] and row["roofline"]:
            rate = row["algorithm_flops"] / row["seconds"] / 1e9
            share = f"{row['roofline']:.0%} of its roofline ({row['bound']})"
            words = f"{row['name']}, {row['kernel']}: {rate:.1f} GFLOP/s, {share}"
            series.setdefault(row["contender"], []).append((row["algorithm_flops"] / row["bytes"], rate, words))
    if not series:
        return ""
    title = f"Roofline, {document['machine']['cpu']}, {peaks.threads} threads, {peaks.isa} (f32)"
    return f'<figure data-file="{escape(file)}">{plots.roofline(peaks, series, title)}</figure>'
