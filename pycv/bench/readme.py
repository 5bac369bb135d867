"""Rewrites the ratio table of README.md from a recorded result: ``python -m pycv.bench.readme [FILE]``.

Only what stands between the two markers changes, and it is never written by hand.
"""

from __future__ import annotations

import sys
from pathlib import Path

from .report import markdown, read

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
RECORDING = Path("benchmarks/results/cpu-resnet-vgg.json")  # of `make bench`, with --json


def rewrite(result: str | Path = RECORDING, readme: str | Path = "README.md") -> str:
    """Puts the table of a recording between the markers, and returns what was done.

    Raises ValueError if that is no recording or README.md lacks the markers, OSError if it cannot be read.
    """
    recorded = read(result)
    text = Path(readme).read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{readme}: the markers {BEGIN} and {END} are missing")
    Path(readme).write_text(f"{before}{BEGIN}\n{markdown(recorded)}{END}{after}", encoding="utf-8")
    return f"{readme}: ratio table rewritten from {result}"


if __name__ == "__main__":
    try:
        print(rewrite(*sys.argv[1:2]))
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
