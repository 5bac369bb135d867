"""``pycv tune ...``: measures this machine for the choice among kernels, and shows or forgets what was measured."""

from __future__ import annotations

import argparse
from pathlib import Path

from .shared import UsageError, names, progress_bar, user_input


def tune(arguments: list[str]) -> int:
    """Runs one of the commands below ``pycv tune``; returns the exit code."""
    if not arguments or arguments[0] not in _COMMANDS:
        if arguments and arguments[0] not in ("-h", "--help"):
            raise UsageError(f"tune: there is no {arguments[0]!r}: expected one of {', '.join(_COMMANDS)}")
        print(TUNE_USAGE)
        return 0
    return _COMMANDS[arguments[0]](arguments[1:])


TUNE_USAGE = """usage: pycv tune machine | show | clear

  machine   measure the constants of the cost model here: 3 to 5 minutes on an otherwise idle machine
  show      the cost model in use, and the choices that autotune has measured (pycv.use(autotune=True))
  clear     forget those choices; with --machine what `tune machine` measured too"""


def _tune_machine(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        "pycv tune machine",
        description="Measures what pycv's kernels and torch take on this machine, and records the constants of the "
        "cost model that chooses among them. Takes 3 to 5 minutes; nothing else should run meanwhile.",
    )
    parser.add_argument("--only", default="", metavar="OP.PASS", help="only these problems: conv2d.forward")
    parser.add_argument("--threads", default="", metavar="COUNTS", help="default: 1 and as many as torch uses")
    parser.add_argument("--output", metavar="FILE", help="default: this machine's table in pycv's cache directory")
    options = parser.parse_args(arguments)
    from .. import tune as tuning

    with user_input():
        threads = [int(text) for text in names(options.threads)] or None
        if threads and min(threads) < 1:
            raise ValueError(f"--threads {options.threads}: expected 1 or more")
        if not any(str(problem).startswith(options.only) for problem in tuning.problems()):
            raise ValueError(f"--only {options.only}: no problem of the set starts like this")
    with progress_bar() as progress:
        print(tuning.tune(options.only, threads, Path(options.output) if options.output else None, progress=progress))
    return 0


def _tune_show(arguments: list[str]) -> int:
    description = "The cost model in use and the choices that autotune has measured."
    argparse.ArgumentParser("pycv tune show", description=description).parse_args(arguments)
    from .. import tune as tuning

    print(tuning.show())
    return 0


def _tune_clear(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser("pycv tune clear", description="Forgets what autotune has measured.")
    parser.add_argument("--machine", action="store_true", help="and what `pycv tune machine` has")
    options = parser.parse_args(arguments)
    from .. import tune as tuning

    removed = tuning.clear(options.machine)
    print("\n".join(f"removed {path}" for path in removed) or "nothing was there")
    return 0


_COMMANDS = {"machine": _tune_machine, "show": _tune_show, "clear": _tune_clear}
