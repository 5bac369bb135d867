"""The seed of a test run, and what is drawn with it.

It follows from the commit, so that a run can be repeated while the project's history walks through all cases;
PYCV_SEED sets it.
"""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import hypothesis
import pytest


def _seed() -> int:
    if text := os.environ.get("PYCV_SEED"):
        return int(text)
    try:
        command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout[:8], 16)
    except (OSError, subprocess.CalledProcessError):
        return 0  # a source distribution has no history


SEED = _seed()


def sliced(items: Iterable[Any], n: int, id: Callable[[Any], str] = str) -> list[Any]:
    """Parameters for a test (tuples are several): ``n``, drawn with the run's seed; the rest are marked ``full``."""
    items = list(items)
    chosen = set(random.Random(f"{SEED}.{len(items)}").sample(range(len(items)), min(n, len(items))))
    parameters = []
    for i, item in enumerate(items):
        values = item if isinstance(item, tuple) else (item,)
        parameters.append(pytest.param(*values, id=id(item), marks=() if i in chosen else pytest.mark.full))
    return parameters


def properties(examples: int) -> Callable:
    """Decorates a hypothesis test: this many examples (a tenth in Triton's interpreter), drawn with the run's seed."""

    count = examples if os.environ.get("TRITON_INTERPRET") != "1" else -(-examples // 10)  # a kernel takes a second

    def decorate(test: Callable) -> Callable:
        return hypothesis.seed(SEED)(hypothesis.settings(max_examples=count)(test))

    return decorate
