"""``pycv bench ...``: measures kernels, compares and shows what was measured."""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from .shared import UsageError, names, progress_bar, user_input

Row = dict[str, Any]
MAKE_BENCH = ("--set", "resnet_vgg", "--budget", "90")

USAGE = """usage: pycv bench [COMMAND] [OPTIONS]

  list      ops, kernels, problem sets, contenders
  run       time contenders on problems, and compare each with float64
  sweep     time contenders on many problems out of one pattern, with CSV and a plot
  model     a whole network: latency, images/s, memory, layers, each contender in its own process
  compare   two recordings: what became slower, what cannot be told apart
  roofline  the peaks of this machine, and the place of every kernel under them
  report    show recorded results, as a table or one HTML page; rewrite the README's table

Without a command: 20 ResNet and VGG layers against torch, in under two minutes.
pycv bench COMMAND --help tells more."""


def bench(arguments: list[str]) -> int:
    """Runs one of the commands below ``pycv bench``; returns the exit code."""
    if arguments[:1] in (["-h"], ["--help"]):
        print(USAGE)
        return 0
    if not arguments or arguments[0] not in _COMMANDS:
        if arguments and not arguments[0].startswith("-"):
            raise UsageError(f"bench: there is no {arguments[0]!r}: expected one of {', '.join(_COMMANDS)}")
        arguments = ["run", *(arguments or MAKE_BENCH)]
    return _COMMANDS[arguments[0]](arguments[1:])


# ---------------------------------------------------------------------------------------------------------- list


def _list(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser("pycv bench list", description="What can be measured, and who takes part.")
    parser.add_argument("what", nargs="?", metavar="WHAT", help=f"only one of {', '.join(_LISTS)}")
    parser.add_argument("--json", action="store_true", help="as JSON: an object of lists")
    options = parser.parse_args(arguments)
    if options.what is not None and options.what not in _LISTS:
        raise UsageError(f"bench list: {options.what!r}: expected one of {', '.join(_LISTS)}")
    from ..bench.report import aligned_table

    found = {what: make() for what, make in _LISTS.items() if options.what in (None, what)}
    if options.json:
        print(json.dumps(found, indent=1))
        return 0
    tables = [
        aligned_table([tuple(rows[0]), *(tuple(map(str, row.values())) for row in rows)], left=range(9))
        for rows in found.values()
    ]
    print("\n\n".join(tables))
    return 0


def _ops() -> list[dict[str, Any]]:
    from .. import registry

    found: dict[str, list[str]] = {}
    for kernel in registry.kernels():
        found.setdefault(f"{kernel.op}.{kernel.pass_}", []).append(kernel.backend)
    return [
        {"op": op, "kernels": ", ".join(f"{backend} {backends.count(backend)}" for backend in dict.fromkeys(backends))}
        for op, backends in found.items()
    ]


def _kernels() -> list[dict[str, Any]]:
    from .. import registry

    found: dict[tuple[str, str], list[str]] = {}
    for kernel in registry.kernels():
        if kernel.backend != "torch":
            found.setdefault((kernel.name, kernel.numeric_class), []).append(f"{kernel.op}.{kernel.pass_}")
    return [
        {"kernel": name, "numeric class": numeric_class, "of": " ".join(dict.fromkeys(ops))}
        for (name, numeric_class), ops in found.items()
    ]


def _sets() -> list[dict[str, Any]]:
    from .. import bench

    return [
        {"set": name, "problems": len(bench.load(name)), "what": bench.problems.description(name)}
        for name in bench.set_names()
    ]


def _contenders() -> list[dict[str, Any]]:
    from ..bench import contenders

    return [{"contender": name, "what": what} for name, what in contenders.descriptions().items()]


def _network_contenders() -> list[dict[str, Any]]:
    from ..bench import network_worker

    return [{"contender of networks": name, "what": what} for name, what in network_worker.CONTENDERS.items()]


_LISTS = {
    "ops": _ops, "kernels": _kernels, "sets": _sets, "contenders": _contenders, "networks": _network_contenders,
}  # fmt: skip


# ----------------------------------------------------------------------------------------------------------- run


def _run(arguments: list[str]) -> int:
    options = _run_parser().parse_args(arguments)
    from .. import bench
    from ..bench import memory, report

    with user_input():
        cases = cases_of(options)
        contenders = [bench.contenders.contender(name) for name in _some("--contender", options.contender)]
        require_positive(threads=options.threads, budget=options.budget, precision=options.precision)
        if not 0 <= options.seed < 1 << 63:
            raise ValueError(f"--seed {options.seed}: expected 0 or more, below 2^63")
        output = Path(options.json) if options.json else _new_result()
        _require_new(output, options.csv, options.markdown)
    rows: list[Row] = []
    memory.keep_freed()

    def record() -> None:
        _record(report.document(rows), output, options.csv, options.markdown)

    with _recorded(rows, record, output, report.table), progress_bar() as progress:
        bench.run(
            cases,
            contenders,
            threads=options.threads,
            budget=options.budget,
            precision=options.precision / 100,
            seed=options.seed,
            progress=progress,
            rows=rows,
        )
    print(f"{report.table(rows)}\nRecorded in {output}")
    return 0


def cases_of(options: argparse.Namespace) -> list[Any]:
    """The problems that the options name. Raises ValueError for what does not exist, or if there is none."""
    from .. import bench
    from ..bench.data import require_device, require_dtype

    cases = [case for name in options.set for case in bench.load(name)]
    cases += [bench.problems.case(text) for text in options.problem]
    batches = [number("--batch", text) for text in names(options.batch)]
    given = len(cases)
    cases = bench.variants(cases, names(options.passes), names(options.dtype), batches, options.device)
    for case in cases:
        require_dtype(case.problem)
        require_device(case.problem)
    if given and not cases:
        raise ValueError(f"--pass {options.passes}: none of these problems has such a pass")
    if not cases:
        raise ValueError("nothing to measure: give --set NAME or the text of a problem (pycv bench run --help)")
    return cases


def add_problems(parser: argparse.ArgumentParser) -> None:
    """The options that name problems."""
    parser.add_argument("problem", nargs="*", help='text of a problem: "conv2d.forward n8c64h56w56 k64r3s3 p1"')
    parser.add_argument(
        "--set", action="append", default=[], metavar="SET", help="out of `pycv bench list sets`, or a file of problems"
    )
    parser.add_argument("--pass", dest="passes", default="", metavar="NAMES", help="forward,grad_input,grad_weight")
    parser.add_argument(
        "--dtype", default="", metavar="NAMES", help="f32 (or float32), f64, f16, bf16; default: as each problem says"
    )
    parser.add_argument("--batch", default="", metavar="SIZES", help="1,8; default: as each problem says")
    parser.add_argument("--device", default="", metavar="NAME", help="cpu or cuda; default: as each problem says")


def _run_parser() -> argparse.ArgumentParser:
    from ..bench.contenders import DEFAULT

    parser = argparse.ArgumentParser(
        "pycv bench run",
        description="Times contenders side by side, then compares each with float64 on fresh data.",
        epilog="Lists are separated by commas. `pycv bench list` names the problem sets and contenders. "
        "Example: pycv bench run --set resnet50 --pass forward,grad_input,grad_weight --dtype float32 "
        "--contender cpu:winograd,torch:nchw,torch:nhwc --threads 2 --json out.json",
    )
    add_problems(parser)
    parser.add_argument("--contender", default=",".join(DEFAULT), metavar="NAMES", help="default: %(default)s")
    parser.add_argument("--threads", type=int, help="default: as many as torch uses")
    parser.add_argument("--budget", type=float, metavar="SECONDS", help="for everything; default: 2 per problem")
    parser.add_argument(
        "--precision", type=float, default=2.0, metavar="PERCENT",
        help="stop where each median is known this well, at 95 %% confidence; default: 2",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of the random data")
    parser.add_argument("--json", metavar="FILE", help="where to record; default: a new file under runs/bench/")
    parser.add_argument("--csv", metavar="FILE", help="the rows once more, as CSV")
    parser.add_argument("--markdown", metavar="FILE", help="the table of ratios once more, in Markdown")
    return parser


# --------------------------------------------------------------------------------------------------------- sweep


def _sweep(arguments: list[str]) -> int:
    from ..bench.contenders import DEFAULT

    parser = argparse.ArgumentParser(
        "pycv bench sweep",
        description="Times contenders on every problem that a pattern stands for: {3..31:2} counts, {3,5,7} lists, "
        "equal braces go together, different ones are combined, {/2} is half of the one before.",
        epilog='Example: pycv bench sweep "n1c64h56w56 k64r{3..31:2}s{3..31:2} p{/2}" --contender cpu:winograd,cpu:fft '
        "--kernel-param variant=f2,f4 --csv out.csv --plot out.svg",
    )
    parser.add_argument("pattern", help="text of a problem with braces; conv2d.forward if it names no op")
    parser.add_argument("--contender", default=",".join(DEFAULT), metavar="NAMES", help="default: %(default)s")
    parser.add_argument(
        "--kernel-param", action="append", default=[], metavar="NAME=VALUES",
        help="variant=f2,f4 of an algorithm (tile=2,4 of winograd); workspace_limit=1MB,64MB; precision=fast; "
        "deterministic=true",
    )  # fmt: skip
    parser.add_argument("--threads", type=int, help="default: as many as torch uses")
    parser.add_argument("--budget", type=float, metavar="SECONDS", help="for everything; default: 2 per problem")
    parser.add_argument("--csv", metavar="FILE", help="default: a new file under runs/bench/")
    parser.add_argument("--plot", metavar="FILE", help="an SVG: milliseconds over the first brace of numbers")
    options = parser.parse_args(arguments)
    from ..bench import memory, report, sweep
    from ..bench.data import require_device, require_dtype

    with user_input():
        parameters = dict(_parameter(text) for text in options.kernel_param)
        for point in sweep.expand(options.pattern):
            require_dtype(point.case.problem)
            require_device(point.case.problem)
        sweep.contenders(_some("--contender", options.contender), parameters)
        require_positive(threads=options.threads, budget=options.budget)
        if options.plot:
            sweep.numeric_brace(options.pattern)
        output = Path(options.csv) if options.csv else _new_result(".csv")
        _require_new(output, options.plot)
    rows: list[Row] = []
    memory.keep_freed()
    with (
        _recorded(rows, lambda: report.create(output, report.as_csv(rows)), output, report.table),
        progress_bar() as progress,
    ):
        sweep.sweep(
            options.pattern,
            names(options.contender),
            parameters,
            threads=options.threads,
            budget=options.budget,
            progress=progress,
            rows=rows,
        )
    print(f"{report.table(rows)}\nRecorded in {output}")
    if options.plot:
        with user_input():
            report.create(options.plot, sweep.plot(options.pattern, rows))
        print(f"Plotted in {options.plot}")
    return 0


def _parameter(text: str) -> tuple[str, list[str]]:
    name, equals, values = text.partition("=")
    if not equals or not names(values):
        raise ValueError(f"--kernel-param {text}: expected NAME=VALUE,VALUE")
    return name, names(values)


# --------------------------------------------------------------------------------------------------------- model


def _model(arguments: list[str]) -> int:
    from ..bench import network

    parser = argparse.ArgumentParser(
        "pycv bench model",
        description="Times whole networks, each contender in a process of its own, in turns, and compares each with "
        "float64. Contenders that are not installed are named as absent.",
        epilog=f"Contenders: {', '.join(network.CONTENDERS)}. "
        "Example: pycv bench model vgg16 --batch 1,8 --contender pycv,torch:nhwc,onnxruntime,openvino",
    )
    parser.add_argument("model", nargs="+", help="its name, or several: vgg16 (pycv models lists all)")
    parser.add_argument("--batch", default="1", metavar="SIZES", help="numbers of images; default: 1")
    parser.add_argument("--contender", default=",".join(network.DEFAULT), metavar="NAMES", help="default: %(default)s")
    parser.add_argument("--train", action="store_true", help="a training step: forward, backward, SGD with momentum")
    parser.add_argument("--size", type=int, help="height and width of the images; default: the model's own")
    parser.add_argument("--threads", type=int, help="default: as many as torch uses")
    parser.add_argument(
        "--budget", type=float, default=network.SECONDS, metavar="SECONDS", help="per batch size; default: %(default)s"
    )
    parser.add_argument("--layers", action="store_true", help="print what each layer takes")
    parser.add_argument("--json", metavar="FILE", help="where to record; default: a new file under runs/bench/")
    parser.add_argument("--csv", metavar="FILE", help="the rows once more, as CSV, without the layers")
    parser.add_argument("--markdown", metavar="FILE", help="the table once more, in Markdown")
    options = parser.parse_args(arguments)
    from .. import models
    from ..bench import network_report

    with user_input():
        for name in options.model:
            models.image_shape(name)
        batches = [number("--batch", text) for text in _some("--batch", options.batch)]
        require_positive(threads=options.threads, budget=options.budget, size=options.size)
        for name in _some("--contender", options.contender):
            if name not in network.CONTENDERS:
                raise ValueError(f"contender {name!r}: expected one of {', '.join(network.CONTENDERS)}")
        output = Path(options.json) if options.json else _new_result()
        _require_new(output, options.csv, options.markdown)
    rows: list[Row] = []

    def record() -> None:
        _record(network_report.document(rows), output, options.csv, options.markdown)

    try:
        with _recorded(rows, record, output, network_report.table), progress_bar() as progress:
            for done, name in enumerate(options.model):

                def tell(step: int, steps: int, what: str, done: int = done) -> None:
                    progress(done * steps + step, len(options.model) * steps, what)

                network.run(
                    name, batches, names(options.contender), train=options.train, size=options.size,
                    threads=options.threads, budget=options.budget, progress=tell, rows=rows,
                )  # fmt: skip
    except RuntimeError as error:  # a process that died: images too small for the model, too little memory
        raise UsageError(str(error).splitlines()[-1]) from None
    print(network_report.table(rows))
    if options.layers:
        print("\n" + network_report.layer_tables(rows))
    print(f"Recorded in {output}")
    return 0


# ------------------------------------------------------------------------------------------------------- compare


def _compare(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        "pycv bench compare",
        description="Compares two recordings row by row. Where the confidence intervals overlap there is no "
        "difference; a row that is slower by more than --fail-over, or is gone, makes the exit code 1.",
    )
    parser.add_argument("before", help="a recorded JSON")
    parser.add_argument("after", help="another")
    parser.add_argument("--fail-over", default="0%", metavar="PERCENT", help="5%%; default: whatever is slower fails")
    options = parser.parse_args(arguments)
    from ..bench import recording
    from ..bench.compare import compare

    with user_input():
        tolerance = _percent("--fail-over", options.fail_over)
        found = compare(recording.read(options.before), recording.read(options.after), tolerance)
    print(found)
    return 1 if found.failed else 0


# ------------------------------------------------------------------------------------------------------ roofline


def _roofline(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        "pycv bench roofline",
        description="Measures the peaks of this machine and of its GPU, keeps them, and places every kernel of pycv "
        "that supports a problem: its share of the least time that its own operations or the problem's fewest bytes "
        "can take. --device cuda: the GPU alone.",
    )
    add_problems(parser)
    parser.add_argument("--threads", type=int, help="default: as many as torch uses")
    parser.add_argument("--budget", type=float, metavar="SECONDS", help="for everything; default: 0.2 per kernel")
    parser.add_argument("--peaks", action="store_true", help="only the peaks, measured anew")
    parser.add_argument("--json", metavar="FILE", help="record the rows")
    options = parser.parse_args(arguments)
    import torch

    from ..bench import gpu, machine, placing, report

    if not (options.problem or options.set):
        options.set = [placing.SET]
    with user_input():
        cases = cases_of(options)
        require_positive(threads=options.threads, budget=options.budget)
        _require_new(options.json)
    try:
        if options.device != "cuda":
            if options.peaks:
                machine.remeasured(options.threads)
            print(placing.peak_table(options.threads))
        if options.device != "cpu" and torch.cuda.is_available():
            if options.peaks:
                gpu.remeasured()
            print(("" if options.device else "\n") + placing.gpu_peak_table())
    except RuntimeError as error:
        raise UsageError(str(error)) from None
    if options.peaks:
        return 0
    with progress_bar() as progress:
        rows = placing.place_all(cases, options.threads, options.budget, progress)
    if options.json:
        report.write(options.json, rows)
    print("\n" + placing.table(rows))
    if options.json:
        print(f"Recorded in {options.json}")
    return 0


# -------------------------------------------------------------------------------------------------------- report


def _report(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser("pycv bench report", description="Shows recorded results.")
    parser.add_argument(
        "file", nargs="*", help="recorded JSON; with --readme benchmarks/results/cpu-resnet-vgg.json if left out"
    )
    parser.add_argument("--output", metavar="FILE", help="one HTML file that needs nothing else; replaces an older one")
    parser.add_argument("--title", default="pycv benchmark", help="of the HTML page")
    parser.add_argument("--csv", metavar="FILE", help="the rows as CSV, those of networks without their layers")
    parser.add_argument("--markdown", metavar="FILE", help="the tables in Markdown")
    parser.add_argument("--layers", action="store_true", help="print what each layer of a network takes")
    parser.add_argument("--readme", action="store_true", help="rewrite the tables in ./README.md instead")
    options = parser.parse_args(arguments)
    from ..bench import html, network_report, readme, recording, report

    with user_input():
        if options.readme:
            if len(options.file) > 1:
                raise ValueError("report --readme: one file, not several")
            print(readme.rewrite(*(options.file or [readme.RECORDING])))
            return 0
        if not options.file:
            raise ValueError("report: which file? (pycv bench report FILE)")
        recordings = [(name, recording.read(name)) for name in options.file]
        if options.csv and len({recording.of_networks(document) for _, document in recordings}) > 1:
            raise ValueError(f"--csv {options.csv}: problems and networks have different columns: report them apart")
        wanted: list[tuple[str | None, Callable[[], str]]] = [
            (options.output, lambda: html.page(recordings, options.title)),
            (options.csv, lambda: recording.together(recordings)),
            (options.markdown, lambda: "\n".join(recording.markdown(document) for _, document in recordings)),
        ]
        files = [(path, text()) for path, text in wanted if path]
        for path, text in files:
            report.replace(path, text)
            print(f"Written to {path}")
    for _, document in () if files else recordings:
        print(recording.table(document))
        if options.layers and recording.of_networks(document):
            print("\n" + network_report.layer_tables(document["rows"]))
    return 0


# ------------------------------------------------------------------------------------------------- what they share


@contextmanager
def _recorded(
    rows: list[Row], record: Callable[[], None], output: Path, table: Callable[[list[Row]], str]
) -> Iterator[None]:
    """Around the measuring of rows: records them, those before a Ctrl-C, a SIGTERM or an error, too, before anything is
    printed that standard output may refuse. What no disk takes is printed as a table."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    except BaseException:
        if rows:
            _kept(rows, record, table)
            print(f"Recorded in {output} what was measured until then", file=sys.stderr)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
    _kept(rows, record, table)


def _kept(rows: list[Row], record: Callable[[], None], table: Callable[[list[Row]], str]) -> None:
    try:
        record()
    except OSError:
        print(table(rows), flush=True)
        raise


def _record(document: dict[str, Any], output: Path, csv: str | None, markdown: str | None) -> None:
    """Writes what was measured into new files."""
    from ..bench import recording, report

    report.create(output, report.as_json(document))
    if csv:
        report.create(csv, recording.as_csv(document))
    if markdown:
        report.create(markdown, recording.markdown(document))


def _new_result(suffix: str = ".json") -> Path:
    """Two commands that are started in the same second do not take each other's."""
    return Path("runs/bench") / f"{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}{suffix}"


def _require_new(*paths: str | Path | None) -> None:
    """Before anything is measured: raises ValueError where a result would be overwritten, OSError where it could not
    be written."""
    given = [Path(path) for path in paths if path is not None]
    for path in given:
        if path.exists():
            raise ValueError(f"{path} exists: results are never overwritten; move it or name another file")
        if given.count(path) > 1:
            raise ValueError(f"{path} is named twice: every result needs a file of its own")
    for folder in {path.parent for path in given}:
        require_folder(folder)


def require_folder(folder: Path) -> None:
    """Before anything is measured: makes the folder, and raises OSError where no file can be written there."""
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryFile(dir=folder):
        pass


def _some(option: str, text: str) -> list[str]:
    """The parts of a list that must not be empty."""
    if not (found := names(text)):
        raise ValueError(f"{option} {text!r}: expected a name or number, or several separated by commas")
    return found


def require_positive(**values: float | None) -> None:
    """Raises ValueError naming the option that is not more than 0."""
    for name, value in values.items():
        if value is not None and not value > 0:
            raise ValueError(f"--{name} {value}: expected more than 0")


def _percent(option: str, text: str) -> float:
    """0.05 of ``5%`` and of ``5``."""
    try:
        value = float(text.removesuffix("%")) / 100
    except ValueError:
        value = -1.0
    if not 0 <= value < math.inf:
        raise ValueError(f"{option} {text}: expected a percentage, 0 or more")
    return value


def number(option: str, text: str) -> int:
    """A whole number, 1 or more. Raises ValueError naming the option otherwise."""
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{option} {text}: expected a whole number, 1 or more")
    return int(text)


_COMMANDS = {
    "list": _list,
    "run": _run,
    "sweep": _sweep,
    "model": _model,
    "compare": _compare,
    "roofline": _roofline,
    "report": _report,
}
