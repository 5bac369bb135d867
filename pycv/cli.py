"""``pycv …``: the commands. Each is one function; what they do lives in the package.

Bad input ends in one line that says what is wrong, and exit code 2.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .train import Observer, Recipe

USAGE = """usage: pycv COMMAND [OPTIONS]

  demo      train a LeNet on handwritten digits with pycv's kernels, and compare them with torch
  info      what was built and found on this machine, and what to do about what is missing
  kernels   the registered kernels; with a problem: which would run it, and why
  models    the architectures, with their parameters and multiply-accumulates
  summary   a model layer by layer: output size, activation memory, parameters, MACs, receptive field
  train     train a network by a recipe; go on with a run that was interrupted
  eval      evaluate trained networks, several as an ensemble
  predict   what trained networks see in picture files
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


# -------------------------------------------------------------------------------------------------------- train


def _train(arguments: list[str]) -> int:
    parser = _train_parser()
    options = parser.parse_args(arguments)
    train = _training()
    if options.list:
        for name in train.recipe.names():
            shipped = train.recipe.load(name)
            print(f"{name:<18} {shipped.model.name} on {shipped.data.name}, {shipped.epochs} epochs")
        return 0
    with _user_input():
        if (options.recipe is None) == (options.resume is None):
            raise ValueError("expected either --recipe NAME (pycv train --list) or --resume RUN")
        run = None if options.resume is None else Path(options.resume)
        wanted = train.recipe.load(options.recipe if run is None else run / "recipe.toml")
        if options.synthetic is not None:
            wanted = train.on_synthetic_data(wanted, options.synthetic)
        wanted = train.recipe.override(wanted, [*_shorthands(options), *options.set])
        run = run or Path(options.run or _free_name(Path("runs") / wanted.name))
    if options.vs is None:
        return _run_training(wanted, run, options.resume is not None)
    beside = run.with_name(f"{run.name}-{options.vs}")
    with _user_input():
        on_torch = train.recipe.override(wanted, ["kernels.backend=torch", "kernels.algorithm=none"])
    code = _run_training(on_torch, beside, resume=beside.exists())
    return code or _run_training(wanted, run, options.resume is not None, vs=beside)


def _training() -> ModuleType:
    """pycv.train, which needs more than pycv itself does."""
    try:
        from . import train
    except ImportError as error:
        raise UsageError(f'{error}: pip install "pycv[train]"') from None
    return train


def _run_training(wanted: Recipe, run: Path, resume: bool, vs: Path | None = None) -> int:
    """Trains, reports, and says how it ended; ``vs`` is the run to be set beside this one."""
    train = _training()
    from .data import DataError
    from .registry import UnsupportedError

    with ExitStack() as stack:
        try:
            with _user_input():
                session = stack.enter_context(train.prepared(wanted, run, resume=resume, observers=_observers))
            outcome = session.train()
        except DataError as error:
            raise UsageError(f"{error}; what was reached is kept in {run}") from None
        except UnsupportedError as error:
            raise UsageError(str(error)) from None
        except train.Interrupted as error:
            print(f"pycv: {error}. Go on: pycv train --resume {session.run}", file=sys.stderr)
            return 130
        except train.TrainError as error:
            print(f"pycv: error: {error}", file=sys.stderr)
            return 1
        if session.trainer.group.main:
            print(f"best validation top-1 {outcome.best_top1:.2%} (epoch {outcome.best_epoch})")
            if outcome.test is not None:
                print(f"test top-1 {outcome.test.top1:.2%}, loss {outcome.test.loss:.4f}, looked at once")
            print(f"report: {session.report(vs)}")
    return 0


def _observers(run: Path) -> list[Observer]:
    """A progress bar, or lines where there is no terminal; and TensorBoard where it is installed."""
    from .train.progress import progress
    from .train.tensorboard import TensorBoard

    found: list[Observer] = [progress()]
    with suppress(ImportError):
        found.append(TensorBoard(run))
    return found


def _train_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "pycv train",
        description="Trains a network by a recipe: pycv train --recipe alexnet --data FOLDER --set optim.lr=0.02. "
        "Ctrl-C saves and ends; --resume goes on to the same weights.",
        epilog="On several GPUs or machines: torchrun --nproc-per-node 8 -m pycv.cli train ... (docs/training.md).",
    )
    add = parser.add_argument
    add("--recipe", metavar="NAME", help="one of pycv's (--list), or a TOML file")
    add("--list", action="store_true", help="the recipes that come with pycv")
    add("--run", metavar="FOLDER", help="where everything is written; default: runs/NAME, with a number if taken")
    add("--resume", metavar="FOLDER", help="go on with this run from its newest whole checkpoint")
    add(
        "--vs", choices=("torch",), help="train the same seed on torch's layers first, in FOLDER-torch, and report both"
    )
    add("--synthetic", type=int, metavar="N", help="smoke run: so many generated pictures in place of the data")
    _add_recipe_options(parser)
    return parser


def _add_recipe_options(parser: argparse.ArgumentParser) -> None:
    """Options that stand for keys of a recipe."""
    add = parser.add_argument
    add("--data", metavar="PATH", help="folder or archive of the data: data.path")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="any key of the recipe: optim.lr=0.02")
    add("--seed", type=int, help="of initialisation, order, augmentation and splits: seed")
    add("--backend", help="only kernels of this backend: kernels.backend")
    add("--algorithm", help="only this algorithm, or conv2d.forward=NAME,...: kernels.algorithm")
    add("--precision", help="the loosest numeric class of kernels: kernels.precision")


def _shorthands(options: argparse.Namespace) -> list[str]:
    """The assignments that the shorthand options stand for."""
    keys = {
        "data.path": options.data,
        "seed": options.seed,
        "kernels.backend": options.backend,
        "kernels.algorithm": options.algorithm,
        "kernels.precision": options.precision,
    }
    return [f"{key}={value}" for key, value in keys.items() if value is not None]


def _free_name(path: Path) -> Path:
    """The path itself, or the first of ``path-2``, ``path-3`` ... that is not there."""
    found, number = path, 1
    while found.exists():
        number += 1
        found = path.with_name(f"{path.name}-{number}")
    return found


def _eval(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        "pycv eval", description="Evaluates the best weights of runs; those of several as an ensemble."
    )
    add = parser.add_argument
    add("run", nargs="+", help="folders of runs, or best.pt files; data and pictures are those of the first")
    add("--split", default="validation", choices=("train", "validation", "test"), help="default: %(default)s")
    add("--crops", type=int, default=1, help="test-time crops, 1, 2, 5 or 10 (default: %(default)s)")
    add("--json", action="store_true", help="as JSON, with the confusion matrix")
    _add_recipe_options(parser)
    options = parser.parse_args(arguments)
    train = _training()
    with _user_input():
        trained = [train.load(path) for path in options.run]
        wanted = train.recipe.override(trained[0].recipe, [*_shorthands(options), *options.set])
        found = train.evaluate_runs(trained, wanted, options.split, options.crops)
    classes = trained[0].classes
    if options.json:
        measured = found.record() | {"samples": len(found.index), "classes": classes}
        counted = {"per_class": found.per_class.tolist(), "confusion": found.confusion.tolist()}
        print(json.dumps(measured | counted))
        return 0
    print(f"{options.split}: {len(found.index)} pictures, loss {found.loss:.4f}, top-1 {found.top1:.2%}, "
          f"top-5 {found.top5:.2%}, {found.images_per_second:.0f} pictures/s")  # fmt: skip
    for name, share in zip(classes, found.per_class, strict=True):
        print(f"  {name:<20} {share:.2%}")
    return 0


def _predict(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser("pycv predict", description="What trained networks see in picture files.")
    add = parser.add_argument
    add("run", help="folder of a run, or a best.pt; several apart by commas are an ensemble")
    add("picture", nargs="+", help="JPEG, PNG, WebP, BMP, GIF, PPM or TIFF files")
    add("--top", type=int, default=5, help="classes to name (default: %(default)s)")
    add("--crops", type=int, default=1, help="test-time crops, 1, 2, 5 or 10 (default: %(default)s)")
    add("--device", default="auto", choices=("auto", "cpu", "cuda"))
    add("--json", action="store_true", help="as JSON, one object per picture")
    options = parser.parse_args(arguments)
    train = _training()
    with _user_input():
        trained = [train.load(path) for path in _names(options.run)]
        found = train.predict(trained, options.picture, options.crops, options.device)
    for picture, probabilities in zip(options.picture, found, strict=True):
        named = dict(list(probabilities.items())[: options.top])
        if options.json:
            print(json.dumps({"picture": picture, "probabilities": named}))
        else:
            print(f"{picture}: " + ", ".join(f"{name} {share:.1%}" for name, share in named.items()))
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
    "train": _train,
    "eval": _eval,
    "predict": _predict,
    "tune": _tune,
    "bench": _bench,
}

if __name__ == "__main__":
    sys.exit(main())
