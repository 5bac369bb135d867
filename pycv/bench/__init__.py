"""Measures kernels against each other and against torch: ``pycv.bench.run(problems, contenders)`` and ``pycv bench``.

problems (what) and contenders (who) meet in runner; timing says how long, check how exact, machine and gpu what can be
had at best, roofline how near to that a kernel is, report how it is shown and recorded, html as a page, compare what
has changed. sweep makes many problems out of one text, layers the sets of networks; network measures networks,
network_report shows and records them; recording reads either kind.
"""

from .contenders import Contender, Unavailable
from .contenders import names as contender_names
from .machine import peaks
from .problems import Case, load, set_names, variants
from .recording import read
from .report import table, write
from .runner import run

__all__ = [
    "Case",
    "Contender",
    "Unavailable",
    "contender_names",
    "load",
    "peaks",
    "read",
    "run",
    "set_names",
    "table",
    "variants",
    "write",
]
