"""``pycv …``: the commands. Each is one function; what they do lives in the package.

Bad input ends in one line that says what is wrong, and exit code 2.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

USAGE = """usage: pycv COMMAND [OPTIONS]

  demo      train a LeNet on handwritten digits with pycv's kernels, and compare them with torch
  info      what was built and found on this machine, and what to do about what is missing
  kernels   the registered kernels; with a problem: which would run it, and why
  models    the architectures, with their parameters and multiply-accumulates
  summary   a model layer by layer: output size, activation memory, parameters, MACs, receptive field
  tune      measure this machine for the choice among kernels (`tune machine`, 3 to 5 minutes); see what was tuned
  bench     measure kernels; without options: 20 ResNet and VGG layers against torch, in under two minutes

pycv COMMAND --help tells more; pycv --version the version."""

MAKE_BENCH = ("--set", "resnet_vgg", "--budget", "90")


class UsageError(Exception):
    """The user asked for something that does not exist; the message says what."""


@contextmanager
def _user_input() -> Iterator[None]:
    """Around the reading of what the user gave only: elsewhere a ValueError is a bug and looks like one."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise UsageError(str(error)) from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    command, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if command in ("-h", "--help"):
        print(USAGE)
        return 0
    if command == "--version":
        from . import __version__

        print(__version__)
        return 0
    try:
        if command not in _COMMANDS:
            raise UsageError(f"there is no command {command!r}: expected one of {', '.join(_COMMANDS)}")
        return _COMMANDS[command](rest)
    except UsageError as error:
        print(f"pycv: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("pycv: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `pycv kernels | head`
        sys.stderr.close()
        return 0


def _demo(arguments: list[str]) -> int:
    from . import demo

    return demo.main(arguments) or 0


def _info(arguments: list[str]) -> int:
    argparse.ArgumentParser("pycv info", description="What was built and found on this machine.").parse_args(arguments)
    from .info import info

    print(info())
    return 0


def _kernels(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser("pycv kernels", description="The registered kernels.")
    parser.add_argument("problem", nargs="*", help="which would run it, and why: conv2d.forward n8c64h56w56 k64r3s3 p1")
    parser.add_argument("--op", help="only the kernels of this op")
    parser.add_argument("--json", action="store_true", help="as JSON, one object per kernel")
    options = parser.parse_args(arguments)
    from .listing import list_kernels

    with _user_input():
        found = list_kernels(" ".join(options.problem) or None, op=options.op)
    print(json.dumps(found.rows(), indent=1) if options.json else found)
    return 0


# ------------------------------------------------------------------------------------------------------- models


def _models(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser("pycv models", description="The architectures, with their default arguments.")
    parser.add_argument("pattern", nargs="?", default="*", help='only these: "resnet*"')
    parser.add_argument("--json", action="store_true", help="as JSON, one object per model")
    options = parser.parse_args(arguments)
    from .models import catalogue

    found = catalogue.catalogue(options.pattern)
    if not found:
        raise UsageError(f"no model matches {options.pattern!r} (pycv models lists all)")
    print(json.dumps(found.rows(), indent=1) if options.json else found)
    return 0


def _summary(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        "pycv summary",
        description="A model layer by layer: output size, values and megabytes (10^6 bytes) of activation memory, "
        "parameters, multiply-accumulates, and the side of the receptive field of one output.",
        epilog="Activations are counted once each: what works in place adds none (python: help(pycv.models.summary)).",
    )
    parser.add_argument("model", help="its name: vgg16 (pycv models lists all)")
    parser.add_argument("--size", type=int, help="height and width of the images; default: the model's own")
    parser.add_argument("--batch", type=int, default=1, help="images (default: 1)")
    parser.add_argument("--classes", type=int, help="outputs; default: the model's own")
    parser.add_argument("--json", action="store_true", help="as JSON, with every layer")
    options = parser.parse_args(arguments)
    import torch

    from . import models

    with _user_input():
        channels, *size = models.image_shape(options.model)
    if options.size is not None:
        size = [options.size, options.size]
    classes = {} if options.classes is None else {"num_classes": options.classes}
    if options.classes is not None and options.classes < 1:
        raise UsageError(f"--classes {options.classes}: expected at least 1")
    try:
        with torch.device("meta"):
            model = models.create(options.model, **classes)
        found = models.summary(model, (channels, *size), options.batch)
    except (TypeError, ValueError, RuntimeError) as error:  # the model's own objections to size and classes
        raise UsageError(f"{options.model}: {error}") from None
    print(json.dumps(found.to_json(), indent=1) if options.json else f"{options.model}\n{found}")
    return 0


# --------------------------------------------------------------------------------------------------------- tune


def _tune(arguments: list[str]) -> int:
    if not arguments or arguments[0] not in _TUNE_COMMANDS:
        if arguments and arguments[0] not in ("-h", "--help"):
            raise UsageError(f"tune: there is no {arguments[0]!r}: expected one of {', '.join(_TUNE_COMMANDS)}")
        print(TUNE_USAGE)
        return 0
    return _TUNE_COMMANDS[arguments[0]](arguments[1:])


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
    from . import tune

    with _user_input():
        threads = [int(text) for text in _names(options.threads)] or None
        if threads and min(threads) < 1:
            raise ValueError(f"--threads {options.threads}: expected 1 or more")
        if not any(str(problem).startswith(options.only) for problem in tune.problems()):
            raise ValueError(f"--only {options.only}: no problem of the set starts like this")
    with progress_bar() as progress:
        print(tune.tune(options.only, threads, Path(options.output) if options.output else None, progress=progress))
    return 0


def _tune_show(arguments: list[str]) -> int:
    description = "The cost model in use and the choices that autotune has measured."
    argparse.ArgumentParser("pycv tune show", description=description).parse_args(arguments)
    from . import tune

    print(tune.show())
    return 0


def _tune_clear(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser("pycv tune clear", description="Forgets what autotune has measured.")
    parser.add_argument("--machine", action="store_true", help="and what `pycv tune machine` has")
    options = parser.parse_args(arguments)
    from . import tune

    removed = tune.clear(options.machine)
    print("\n".join(f"removed {path}" for path in removed) or "nothing was there")
    return 0


# -------------------------------------------------------------------------------------------------------- bench


def _bench(arguments: list[str]) -> int:
    if not arguments or arguments[0] not in _BENCH_COMMANDS:
        if arguments and not arguments[0].startswith("-"):
            raise UsageError(f"bench: there is no {arguments[0]!r}: expected one of {', '.join(_BENCH_COMMANDS)}")
        arguments = ["run", *(arguments or MAKE_BENCH)]
    return _BENCH_COMMANDS[arguments[0]](arguments[1:])


def _bench_run(arguments: list[str]) -> int:
    options = _run_parser().parse_args(arguments)
    from . import bench
    from .bench import report
    from .bench.contenders import contender
    from .bench.data import require_dtype

    with _user_input():
        cases = [case for name in options.set for case in bench.load(name)]
        cases += [bench.problems.case(text) for text in options.problem]
        cases = bench.variants(cases, _names(options.passes), _names(options.dtype))
        for case in cases:
            require_dtype(case.problem)
        contenders = [contender(name) for name in _names(options.contender)]
        if not cases:
            raise ValueError("nothing to measure: give --set NAME or the text of a problem (pycv bench run --help)")
        output = Path(options.json) if options.json else _new_result()
        if output.exists():
            raise ValueError(f"{output} exists: results are never overwritten; move it or name another file")
        if options.threads is not None and options.threads < 1:
            raise ValueError(f"--threads {options.threads}: expected 1 or more")
    with progress_bar() as progress:
        rows = bench.run(
            cases, contenders, threads=options.threads, budget=options.budget, seed=options.seed, progress=progress
        )
    print(report.table(rows))
    report.write(output, rows)
    print(f"Recorded in {output}")
    return 0


def _run_parser() -> argparse.ArgumentParser:
    from .bench import contender_names, set_names
    from .bench.contenders import DEFAULT

    parser = argparse.ArgumentParser(
        "pycv bench run",
        description="Times contenders side by side, then compares each with float64 on fresh data.",
        epilog="Lists are separated by commas. Contenders: " + ", ".join(contender_names()) + ".",
    )
    parser.add_argument("problem", nargs="*", help='text of a problem: "conv2d.forward n8c64h56w56 k64r3s3 p1"')
    sets = ", ".join(set_names())
    parser.add_argument("--set", action="append", default=[], metavar="SET", help=f"{sets}, or a file of problems")
    parser.add_argument("--contender", default=",".join(DEFAULT), metavar="NAMES", help="default: %(default)s")
    parser.add_argument("--pass", dest="passes", default="", metavar="NAMES", help="forward,grad_input,grad_weight")
    parser.add_argument("--dtype", default="", metavar="NAMES", help="f32,f64; default: as each problem says")
    parser.add_argument("--threads", type=int, help="default: as many as torch uses")
    parser.add_argument("--budget", type=float, metavar="SECONDS", help="for everything; default: 2 per problem")
    parser.add_argument("--seed", type=int, default=0, help="of the random data")
    parser.add_argument("--json", metavar="FILE", help="where to record; default: a new file under runs/bench/")
    return parser


def _bench_list(arguments: list[str]) -> int:
    argparse.ArgumentParser("pycv bench list", description="Problem sets and contenders.").parse_args(arguments)
    from . import bench

    for name in bench.set_names():
        print(f"set        {name:<12} {len(bench.load(name))} problems")
    for name in bench.contender_names():
        print(f"contender  {name}")
    return 0


def _bench_report(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser("pycv bench report", description="Shows a recorded result.")
    parser.add_argument(
        "file", nargs="?", help="a recorded JSON; with --readme benchmarks/results/cpu-resnet-vgg.json if left out"
    )
    parser.add_argument("--readme", action="store_true", help="rewrite the ratio table in ./README.md instead")
    options = parser.parse_args(arguments)
    from .bench import readme, report

    with _user_input():
        if options.readme:
            print(readme.rewrite(options.file or readme.RECORDING))
        elif options.file is None:
            raise ValueError("report: which file? (pycv bench report FILE)")
        else:
            print(report.table(report.read(options.file)["rows"]))
    return 0


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _new_result() -> Path:
    return Path("runs/bench") / f"{datetime.now():%Y%m%d-%H%M%S}.json"


@contextmanager
def progress_bar() -> Iterator[Callable[[int, int, str], None]]:
    """A progress bar where tqdm is installed, else a line per problem; on standard error."""
    try:
        from tqdm import tqdm
    except ImportError:
        yield lambda done, total, name: print(f"[{done}/{total}] {name}", file=sys.stderr, flush=True)
        return
    with tqdm(unit="problem", leave=False) as bar:

        def show(done: int, total: int, name: str) -> None:
            bar.total = total
            bar.set_description(name, refresh=False)
            bar.update(done - bar.n)
            bar.refresh()

        yield show


_BENCH_COMMANDS = {"run": _bench_run, "list": _bench_list, "report": _bench_report}
_TUNE_COMMANDS = {"machine": _tune_machine, "show": _tune_show, "clear": _tune_clear}
_COMMANDS = {
    "demo": _demo,
    "info": _info,
    "kernels": _kernels,
    "models": _models,
    "summary": _summary,
    "tune": _tune,
    "bench": _bench,
}

if __name__ == "__main__":
    sys.exit(main())
