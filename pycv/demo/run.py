"""The demo from end to end: train, test once, time the kernels beside torch's, draw, explain, write.

All files are made in a hidden folder inside the output folder and moved into place, whole, at the very end.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import torch

import pycv

from .. import bench, registry
from ..bench import report
from ..explain import Explanation
from .data import upsampled
from .training import Epoch, Outcome, Recipe, learn_digits

QUICK_EPOCHS = 3
EXTRAS = {"scikit-learn": "sklearn", "matplotlib": "matplotlib", "tqdm": "tqdm"}


def main(argv: list[str] | None = None) -> int:
    """Run the demo with command-line arguments (without the program's name); returns the exit status."""
    arguments = _parser().parse_args(argv)
    missing = [package for package, module in EXTRAS.items() if importlib.util.find_spec(module) is None]
    if missing:
        print(f"pycv demo needs {', '.join(missing)}: pip install {' '.join(missing)}", file=sys.stderr)
        return 1
    recipe = Recipe(epochs=arguments.epochs or (QUICK_EPOCHS if arguments.quick else Recipe.epochs))
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        print(f"pycv demo: --out {arguments.out}: {error.strerror}", file=sys.stderr)
        return 1
    try:
        run(arguments.out, recipe, arguments.seed, arguments.quick)
    except KeyboardInterrupt:
        print(f"\ninterrupted: {arguments.out} is as it was", file=sys.stderr)
        return 130
    except pycv.UnsupportedError as error:
        print(f"pycv demo: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("pycv demo", description="Train LeNet-5 on digits with pycv's kernels.")
    add = parser.add_argument
    add("--out", type=Path, default=Path("runs/demo"), help="folder for metrics.json and the pictures (%(default)s)")
    add("--seed", type=_whole(0), default=0, help="of split, initialisation and order (%(default)s)")
    add("--epochs", type=_whole(1), help=f"passes over the training digits ({Recipe.epochs})")
    add("--quick", action="store_true", help=f"a smoke test: {QUICK_EPOCHS} epochs, LeNet's own layers timed alone")
    return parser


def _whole(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) < 2**32:
            raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number, {least} or more")
        return int(text)

    return parse


def run(out: Path, recipe: Recipe, seed: int, quick: bool = False) -> dict:
    """The whole demo; prints as it goes, leaves its files in the folder ``out`` and returns what metrics.json holds."""
    start = time.perf_counter()
    print(f"{pycv.info()}\n")
    outcome = _learn(recipe, seed)
    rows = _kernels_beside_torch(quick)
    print(_explained(outcome))
    metrics = _metrics(outcome, recipe, seed, rows, time.perf_counter() - start)
    files = _pictures(outcome) | {"metrics.json": (json.dumps(metrics, indent=1) + "\n").encode()}
    write_whole(out, files)
    print(f"\n{out}{os.sep}: {', '.join(files)}")
    return metrics


def _learn(recipe: Recipe, seed: int) -> Outcome:
    """Training with a progress bar; then says how it went."""
    from tqdm import tqdm

    with tqdm(total=recipe.epochs, unit="epoch", desc="LeNet-5 on digits") as bar:

        def show(number: int, epoch: Epoch) -> None:
            bar.set_postfix_str(
                f"loss {epoch.train_loss:.3f}, accuracy {epoch.train_accuracy:.1%}, "
                f"validation {epoch.validation_accuracy:.2%}"
            )
            bar.update()

        outcome = learn_digits(recipe, seed, show)
    trained, split = outcome.trained, outcome.split
    print(
        f"trained on {len(split.train)} digits in {outcome.seconds:.1f} s on one thread\n"
        f"validation accuracy {trained.best.validation_accuracy:.2%} (epoch {trained.best_epoch + 1}, which was kept)\n"
        f"test accuracy {outcome.test_accuracy:.2%} on {len(split.test)} digits, looked at once\n"
    )
    return outcome


def _kernels_beside_torch(quick: bool) -> list[dict]:
    """Times the network's layers, and eight larger ones, in pycv and in torch; prints the table."""
    from tqdm import tqdm

    cases = bench.load("lenet5") + ([] if quick else bench.load("demo"))
    with tqdm(total=len(cases), unit="layer", desc="pycv beside torch") as bar:

        def progress(done: int, total: int, name: str) -> None:
            bar.update(done - bar.n)
            bar.set_postfix_str(name)

        rows = bench.run(cases, ("pycv", "torch:nchw"), budget=(0.1 if quick else 1.2) * len(cases), progress=progress)
    print(f"{bench.table(rows)}\n")
    return rows


@torch.no_grad()
def _explained(outcome: Outcome) -> Explanation:
    """What runs in the network for a batch of 64, warm."""
    model, x = outcome.trained.model, upsampled(outcome.split.train.images[:64])
    model(x)
    with pycv.use(backend=registry.own_backend()):  # as it was trained
        return pycv.explain(model, x)


def _pictures(outcome: Outcome) -> dict[str, bytes]:
    """The PNG files by name."""
    from . import figures

    model, test, logits = outcome.trained.model, outcome.split.test, outcome.test_logits
    surest = int(logits.softmax(1).gather(1, test.labels[:, None]).argmax())
    with figures.style(), pycv.use(backend=registry.own_backend()):
        drawn = {
            "curves": figures.curves(outcome.trained),
            "filters": figures.filters(model),
            "feature_maps": figures.feature_maps(model, test, surest),
            "misclassified": figures.misclassified(test, logits),
            "confusion_matrix": figures.confusion_matrix(test.labels, logits.argmax(1)),
        }
        return {f"{name}.png": figures.png(figure) for name, figure in drawn.items()}


def _metrics(outcome: Outcome, recipe: Recipe, seed: int, rows: list[dict], seconds: float) -> dict:
    trained, split = outcome.trained, outcome.split
    versions = {"python": platform.python_version(), "pycv": pycv.__version__}
    return {
        "test_accuracy": outcome.test_accuracy,
        "validation_accuracy": trained.best.validation_accuracy,
        "seed": seed,
        "digits": {"train": len(split.train), "validation": len(split.validation), "test": len(split.test)},
        "epochs": recipe.epochs,
        "best_epoch": trained.best_epoch + 1,
        "seconds": {"training": outcome.seconds, "total": seconds},
        "versions": versions | {name: version(name) for name in ("torch", "numpy", *EXTRAS)},
        "recipe": asdict(recipe),
        "history": [asdict(epoch) for epoch in trained.epochs],
        "kernels": report.document(rows),
    }


def write_whole(folder: Path, files: dict[str, bytes]) -> None:
    """Writes files so that each is there whole or as it was before, whenever the process ends."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".unfinished-") as unfinished:
        for name, content in files.items():
            Path(unfinished, name).write_bytes(content)
        for name in files:
            os.replace(Path(unfinished, name), folder / name)
