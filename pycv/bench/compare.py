"""Two recordings side by side: what became slower, what faster, and what cannot be told apart.

A row is known by its name, problem, contender and thread count, that of a network by what was run of it. Where the 95 %
confidence intervals of the two medians overlap there is no difference; else the ratio of the medians says how much. A
row counts as a regression where it is slower by more than the tolerance, or where it had a time before and has none
now.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .recording import Key, key, of_networks
from .report import Row, aligned_table


@dataclass(frozen=True)
class Change:
    """One row in both recordings: seconds before and after (None: it was not measured), and what that means.

    ``verdict``: "no difference", "faster", "slower", "regression", "lost" (a time before, none now), "new" or
    "not measured".
    """

    key: Key
    before: float | None
    after: float | None
    verdict: str

    @property
    def ratio(self) -> float | None:
        """Time after / time before."""
        return self.after / self.before if self.before and self.after else None


@dataclass(frozen=True)
class Comparison:
    """What :func:`compare` found. ``missing`` are rows of the first recording only, ``added`` of the second only."""

    changes: tuple[Change, ...]
    missing: tuple[Key, ...]
    added: tuple[Key, ...]
    tolerance: float
    other_machine: str = ""

    @property
    def failed(self) -> bool:
        """There is a regression, or a row that was measured before is gone."""
        return bool(self.missing) or any(change.verdict in ("regression", "lost") for change in self.changes)

    def __str__(self) -> str:
        lines = [("what", "contender", "threads", "before ms", "after ms", "change", "verdict")]
        for change in self.changes:
            name, _, contender, threads = change.key
            ratio = "-" if change.ratio is None else f"{100 * (change.ratio - 1):+.1f} %"
            times = (_ms(change.before), _ms(change.after))
            lines.append((name, contender, str(threads), *times, ratio, change.verdict))
        text = [aligned_table(lines, left=(0, 1, 6))]
        text += [f"missing in the second: {_named(one)}" for one in self.missing]
        text += [f"only in the second: {_named(one)}" for one in self.added]
        text += [self.other_machine] if self.other_machine else []
        counts = {v: sum(c.verdict == v for c in self.changes) for v in dict.fromkeys(c.verdict for c in self.changes)}
        counted = ", ".join(f"{count} {verdict}" for verdict, count in counts.items()) or "nothing in common"
        return "\n".join([*text, f"{counted}; slower by more than {100 * self.tolerance:g} % is a regression"])


def compare(before: Mapping[str, Any], after: Mapping[str, Any], tolerance: float = 0.0) -> Comparison:
    """Two recorded documents (:func:`recording.read`). ``tolerance``: how much slower is no regression, 0.05 for 5 %.

    Raises ValueError for a negative tolerance, a recording that has two rows of one key, or recordings of which one is
    of problems and the other of networks.
    """
    if not tolerance >= 0:
        raise ValueError(f"tolerance {tolerance}: expected 0 or more")
    kinds = ["networks" if of_networks(document) else "problems" for document in (before, after)]
    if len(set(kinds)) > 1:
        raise ValueError(f"the first recording is of {kinds[0]}, the second of {kinds[1]}: nothing to compare")
    old, new = _by_key(before["rows"], "the first"), _by_key(after["rows"], "the second")
    changes = tuple(_change(one, old[one], new[one], tolerance) for one in old if one in new)
    missing = tuple(one for one in old if one not in new and old[one]["seconds"])
    added = tuple(one for one in new if one not in old)
    return Comparison(changes, missing, added, tolerance, _machines(before["machine"], after["machine"]))


def _by_key(rows: Sequence[Row], which: str) -> dict[Key, Row]:
    found: dict[Key, Row] = {}
    for row in rows:
        if (known := key(row)) in found:
            raise ValueError(f"{which} recording has two rows of {_named(known)}")
        found[known] = row
    return found


def _change(one: Key, before: Row, after: Row, tolerance: float) -> Change:
    old, new = before["seconds"], after["seconds"]
    if not old or not new:
        return Change(one, old, new, "lost" if old else "new" if new else "not measured")
    if after["low"] <= before["high"] and before["low"] <= after["high"]:
        verdict = "no difference"
    elif new < old:
        verdict = "faster"
    else:
        verdict = "regression" if new > (1 + tolerance) * old else "slower"
    return Change(one, old, new, verdict)


def _machines(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    parts = [name for name in ("cpu", "cores", "isa", "torch", "gpu") if before.get(name) != after.get(name)]
    told = ", ".join(f"{name} {before.get(name)} and {after.get(name)}" for name in parts)
    return f"not of one machine: {told}" if told else ""


def _named(one: Key) -> str:
    name, problem, contender, threads = one
    return f"{name if name == problem else f'{name}: {problem}'}, {contender}, {threads} threads"


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1e3 * seconds:.4g}"
