"""Rewrites the ratio table of README.md from a recorded result: ``python -m pycv.bench.readme [FILE]``.

Only what stands between the two markers changes, and it is never written by hand.
"""

from __future__ import annotations

import sys
from pathlib import Path

from .report import markdown, read

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
RESULTS = Path("benchmarks/results")


def rewrite(result: str | Path | None = None, readme: str | Path = "README.md") -> str:
    """Puts the table of ``result`` (the newest recording under benchmarks/results/ if None) between the markers.

    Returns what was done. Raises ValueError if there is no result or README.md lacks the markers.
    """
    path = Path(result) if result is not None else _newest()
    recorded = read(path)
    text = Path(readme).read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{readme}: the markers {BEGIN} and {END} are missing")
    Path(readme).write_text(f"{before}{BEGIN}\n{markdown(recorded)}{END}{after}", encoding="utf-8")
    return f"{readme}: ratio table rewritten from {path}"


def _newest() -> Path:
    recordings = sorted(RESULTS.glob("*.json"), key=lambda path: read(path)["recorded"])
    if not recordings:
        raise ValueError(f"no recorded result under {RESULTS}/")
    return recordings[-1]


if __name__ == "__main__":
    try:
        print(rewrite(*sys.argv[1:2]))
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
