"""Figures as the report writes them."""

from __future__ import annotations

import math
from typing import Any

NOTHING = "\N{EN DASH}"


def percent(share: float) -> str:
    """``97.50 %`` of a fraction."""
    return f"{100 * share:.2f} %" if math.isfinite(share) else NOTHING


def count(number: int) -> str:
    """``61,706``, ``25.6 million``."""
    return f"{number / 1e6:,.1f} million" if number >= 10**6 else f"{number:,}"


def rate(number: float) -> str:
    """``3,310``, ``0.71``: of images per second."""
    return f"{number:,.0f}" if number >= 10 or number == 0 else f"{number:.2g}"


def duration(seconds: float) -> str:
    """``42 s``, ``7 min 05 s``, ``3 h 12 min``, ``2 d 03 h``."""
    whole = round(seconds)
    for unit, name, part, below in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= unit:
            return f"{whole // unit} {name} {whole % unit // part:02} {below}"
    return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"


def spelled(value: Any) -> str:
    """A value of a JSON file on one line."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {spelled(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(spelled, value)) or NOTHING
    return NOTHING if value is None else str(value)
