"""A recorded file, whatever it is of: problems (report.py) or whole networks (network_report.py)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from . import network_report, report
from .report import Row

Key = tuple[str, str, str, int]  # name, problem, contender, threads


def read(path: str | Path) -> dict[str, Any]:
    """A recorded document. Raises ValueError, naming the file, if it is none of ours, OSError if it cannot be read."""
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
        if not of_networks(value):
            return report.checked(value)
        report.validate(value, network_report.DOCUMENT)
        measured = ("low", "high", "images_per_second", "peak_bytes", "base_bytes")
        report.require_measured(value["rows"], measured)
        report.require_no_negative(value["rows"], (*measured, "error"))
        report.require_no_negative([layer for row in value["rows"] for layer in row["layers"] or ()], ("seconds",))
        return value
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not a recorded benchmark: {error}") from None


def of_networks(document: Any) -> bool:
    """Networks were measured, not problems."""
    return isinstance(document, dict) and document.get("kind") == network_report.KIND


def key(row: Row) -> Key:
    """What a row is known by: no other row of its recording has the same."""
    if "model" in row:
        name = network_report.setting(row)
        return name, name, row["contender"], row["threads"]
    return row["name"], row["problem"], row["contender"], row["threads"]


def table(document: Mapping[str, Any]) -> str:
    """For the terminal."""
    return (network_report.table if of_networks(document) else report.table)(document["rows"])


def markdown(document: Mapping[str, Any]) -> str:
    """The ratios, and the machine."""
    return (network_report.markdown if of_networks(document) else report.markdown)(document)


def as_csv(document: Mapping[str, Any], name: str | None = None) -> str:
    """The rows, those of networks without their layers; ``name``: that of the recording, in a column before them."""
    rows = network_report.without_layers(document["rows"]) if of_networks(document) else document["rows"]
    return report.as_csv(rows if name is None else [{"recording": name} | row for row in rows])


def together(recordings: Iterable[tuple[str, Mapping[str, Any]]]) -> str:
    """The rows of several recordings of one kind, by name, under one line of field names."""
    texts = [as_csv(document, name) for name, document in recordings]
    return "".join(text if i == 0 else text.partition("\n")[2] for i, text in enumerate(texts))
