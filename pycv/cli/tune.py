"""``pycv tune ...``: measures this machine for the choice among kernels, and shows or forgets what was measured."""

from __future__ import annotations

import argparse
from pathlib import Path

from .bench import add_problems, cases_of, number, require_folder, require_positive
from .shared import UsageError, names, progress_bar, user_input


def tune(arguments: list[str]) -> int:
    """Runs one of the commands below ``pycv tune``; returns the exit code."""
    if not arguments or arguments[0] not in _COMMANDS:
        if arguments and arguments[0] not in ("-h", "--help"):
            raise UsageError(f"tune: there is no {arguments[0]!r}: expected one of {', '.join(_COMMANDS)}")
        print(TUNE_USAGE)
        return 0
    from ..choice.cache import NotWritten

    try:
        return _COMMANDS[arguments[0]](arguments[1:])
    except NotWritten as warning:
        raise UsageError(str(warning)) from None


TUNE_USAGE = """usage: pycv tune machine | model | set | show | clear

  machine   measure the constants of the cost model here: about a quarter of an hour on an otherwise idle machine
  model     measure every layer of a network once with every kernel and torch, and remember the fastest
  set       the same for the problems of a set
  show      the cost model in use, and the choices that autotune has measured (pycv.use(autotune=True))
  clear     forget those choices; with --machine what `tune machine` measured too"""


def _tune_machine(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        "pycv tune machine",
        description="Measures what pycv's kernels and torch take on this machine, and records the constants of the "
        "cost model that chooses among them. Takes about a quarter of an hour; nothing else should run meanwhile.",
    )
    parser.add_argument("--only", default="", metavar="OP.PASS", help="only these problems: conv2d.forward")
    parser.add_argument("--threads", default="", metavar="COUNTS", help="default: 1 and as many as torch uses")
    parser.add_argument("--output", metavar="FILE", help="default: this machine's table in pycv's cache directory")
    options = parser.parse_args(arguments)
    from .. import tune as tuning
    from ..bench import memory

    with user_input():
        threads = [number("--threads", text) for text in names(options.threads)] or None
        if not any(str(problem).startswith(options.only) for problem in tuning.problems()):
            raise ValueError(f"--only {options.only}: no problem of the set starts like this")
        if options.output:
            require_folder(Path(options.output).parent)
    memory.keep_freed()
    with progress_bar() as progress:
        print(tuning.tune(options.only, threads, Path(options.output) if options.output else None, progress=progress))
    return 0


def _tune_model(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        "pycv tune model",
        description="Runs a network once under pycv.use(autotune=True): what its layers are run by is measured and "
        "kept in the choice cache, which every later run obeys.",
    )
    parser.add_argument("model", help="its name: vgg16 (pycv models lists all)")
    parser.add_argument("--batch", default="1", metavar="SIZES", help="numbers of images: 1,8; default: 1")
    parser.add_argument("--layout", default="nchw", metavar="NAMES", help="nchw,nhwc; default: nchw")
    parser.add_argument("--size", type=int, help="height and width of the images; default: the model's own")
    parser.add_argument("--train", action="store_true", help="the gradients, too")
    parser.add_argument("--threads", type=int, help="default: as many as torch uses")
    options = parser.parse_args(arguments)
    from .. import models
    from .. import tune as tuning

    with user_input():
        models.image_shape(options.model)
        batches = [number("--batch", text) for text in names(options.batch)]
        require_positive(size=options.size, threads=options.threads)
        for layout in names(options.layout):
            if layout not in ("nchw", "nhwc"):
                raise ValueError(f"--layout {layout}: expected nchw or nhwc")
    try:
        with progress_bar() as progress:
            found = tuning.tune_model(
                options.model, batches, names(options.layout), options.size, options.train, options.threads, progress
            )
    except (RuntimeError, ValueError) as error:  # the model's own objections to the size, too little memory
        raise UsageError(f"{options.model}: {next(iter(str(error).splitlines()), error)}") from None
    print(tuning.added(found))
    return 0


def _tune_set(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        "pycv tune set", description="Measures each problem once with every kernel and torch, and keeps the choice."
    )
    add_problems(parser)
    parser.add_argument("--threads", type=int, help="default: as many as torch uses")
    options = parser.parse_args(arguments)
    from .. import tune as tuning

    with user_input():
        cases = cases_of(options)
        require_positive(threads=options.threads)
    with progress_bar() as progress:
        found = tuning.tune_cases(cases, options.threads, progress)
    print(tuning.added(found))
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


_COMMANDS = {
    "machine": _tune_machine,
    "model": _tune_model,
    "set": _tune_set,
    "show": _tune_show,
    "clear": _tune_clear,
}
