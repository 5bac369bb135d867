"""``pycv train``, ``pycv eval``, ``pycv predict``."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from .shared import UsageError, names, user_input

if TYPE_CHECKING:
    from ..train import Observer, Recipe


def train(arguments: list[str]) -> int:
    """``pycv train``; returns the exit code."""
    parser = _train_parser()
    options = parser.parse_args(arguments)
    training = _training()
    if options.list:
        for name in training.recipe.names():
            shipped = training.recipe.load(name)
            print(f"{name:<18} {shipped.model.name} on {shipped.data.name}, {shipped.epochs} epochs")
        return 0
    with _asked():
        if (options.recipe is None) == (options.resume is None):
            raise ValueError("expected either --recipe NAME (pycv train --list) or --resume RUN")
        if options.resume is not None and options.out is not None:
            raise ValueError(f"--out {options.out}: --resume {options.resume} goes on where that run is")
        run = None if options.resume is None else Path(options.resume)
        wanted = training.recipe.load(options.recipe if run is None else run / "recipe.toml")
        if options.synthetic is not None:
            wanted = training.on_synthetic_data(wanted, options.synthetic)
        wanted = training.recipe.override(wanted, [*_shorthands(options), *options.set])
        run = run or Path(options.out or _free_name(Path("runs") / wanted.name))
    if options.vs is None:
        return _run_training(wanted, run, options.resume is not None, f"pycv train --resume {run}")
    beside = run.with_name(f"{run.name}-{options.vs}")
    with _asked():
        on_torch = training.recipe.override(wanted, ["kernels.backend=torch", "kernels.algorithm=none"])
        # What refuses the second run is said before the first takes its time.
        with training.prepared(wanted, run, resume=options.resume is not None, say=lambda line: None):
            pass
    code = _run_training(on_torch, beside, beside.exists(), "the same command")
    return code or _run_training(
        wanted, run, options.resume is not None, f"pycv train --resume {run} --vs torch", vs=beside
    )


def _training() -> ModuleType:
    """pycv.train, which needs more than pycv itself does."""
    with _asked():
        from .. import train
    return train


@contextmanager
def _asked(*also: type[Exception]) -> Iterator[None]:
    """As user_input; and what is not installed, cannot run what was asked for, or is ``also`` to be, is one line as
    well."""
    from ..registry import UnsupportedError

    refused: tuple[type[Exception], ...] = (UnsupportedError, *also)
    try:
        with user_input():
            yield
    except ImportError as error:
        how = "" if "pip install" in str(error) else ': pip install "pycv[train]"'
        raise UsageError(f"{error}{how}") from None
    except refused as error:
        raise UsageError(str(error)) from None


def _run_training(wanted: Recipe, run: Path, resume: bool, go_on: str, vs: Path | None = None) -> int:
    """Trains, reports, and says how it ended. ``go_on`` is what to type after an interruption; ``vs`` is the run to be
    set beside this one."""
    training = _training()
    from ..data import DataError
    from ..registry import UnsupportedError

    with ExitStack() as stack:
        try:
            with _asked():
                session = stack.enter_context(training.prepared(wanted, run, resume=resume, observers=_observers))
            outcome = session.train()
            if session.trainer.group.main:
                print(f"best validation top-1 {outcome.best_top1:.2%} (epoch {outcome.best_epoch})")
                if outcome.test is not None:
                    print(f"test top-1 {outcome.test.top1:.2%}, loss {outcome.test.loss:.4f}, looked at once")
                print(f"report: {session.report(vs)}")
        except DataError as error:
            raise UsageError(f"{error}; what was reached is kept in {run}") from None
        except UnsupportedError as error:
            raise UsageError(str(error)) from None
        except training.Interrupted as error:
            if session.trainer.group.main:
                print(f"pycv: {error}. Go on: {go_on}", file=sys.stderr)
            return 130
        except training.TrainError as error:
            print(f"pycv: error: {error}", file=sys.stderr)
            return 1
    return 0


def _note(line: str) -> None:
    """Beside what the command prints, which may be JSON."""
    print(line, file=sys.stderr)


def _observers(run: Path) -> list[Observer]:
    """A progress bar, or lines where there is no terminal; and TensorBoard where it is installed."""
    from ..train.progress import progress
    from ..train.tensorboard import TensorBoard

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
    # Not --run: torchrun, too, reads what follows "-m pycv.cli train", and could take that for its --run-path.
    add("--out", metavar="FOLDER", help="where everything is written; default: runs/NAME, with a number if taken")
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


def evaluate(arguments: list[str]) -> int:
    """``pycv eval``; returns the exit code."""
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
    training = _training()
    with _asked(training.TrainError):
        trained = [training.load(path) for path in options.run]
        wanted = training.recipe.override(trained[0].recipe, [*_shorthands(options), *options.set])
        found = training.evaluate_runs(trained, wanted, options.split, options.crops, say=_note)
    classes = trained[0].classes
    if options.json:
        measured = found.record() | {"samples": len(found.index), "classes": classes}
        shares = [None if math.isnan(share) else share for share in found.per_class.tolist()]  # NaN is no JSON
        counted = {"per_class": shares, "confusion": found.confusion.tolist()}
        print(json.dumps(measured | counted))
        return 0
    print(f"{options.split}: {len(found.index)} pictures, loss {found.loss:.4f}, top-1 {found.top1:.2%}, "
          f"top-5 {found.top5:.2%}, {found.images_per_second:.0f} pictures/s")  # fmt: skip
    for name, share in zip(classes, found.per_class, strict=True):
        print(f"  {name:<20} {share:.2%}")
    return 0


def predict(arguments: list[str]) -> int:
    """``pycv predict``; returns the exit code."""
    parser = argparse.ArgumentParser("pycv predict", description="What trained networks see in picture files.")
    add = parser.add_argument
    add("run", help="folder of a run, or a best.pt; several apart by commas are an ensemble")
    add("picture", nargs="+", help="JPEG, PNG, WebP, BMP, GIF, PPM or TIFF files")
    add("--top", type=int, default=5, help="classes to name (default: %(default)s)")
    add("--crops", type=int, default=1, help="test-time crops, 1, 2, 5 or 10 (default: %(default)s)")
    add("--device", default="auto", choices=("auto", "cpu", "cuda"))
    add("--json", action="store_true", help="as JSON, one object per picture")
    options = parser.parse_args(arguments)
    if options.top < 1:
        raise UsageError(f"--top {options.top}: expected at least 1")
    training = _training()
    with _asked(training.TrainError):
        trained = [training.load(path) for path in names(options.run)]
        found = training.predict(trained, options.picture, options.crops, options.device)
    for picture, probabilities in zip(options.picture, found, strict=True):
        named = dict(list(probabilities.items())[: options.top])
        if options.json:
            print(json.dumps({"picture": picture, "probabilities": named}))
        else:
            print(f"{picture}: " + ", ".join(f"{name} {share:.1%}" for name, share in named.items()))
    return 0
