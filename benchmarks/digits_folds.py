"""Stratified 5-fold cross-validation on the digits: LeNet-5 and a small ResNet, each with its recipe as it is shipped.

    python -m benchmarks.digits_folds [--recipe digits-resnet] [--folds 5] [--only FOLD]

Every digit is in the test data of one fold; a tenth of the other digits of each fold decides which epoch is kept. The
pooled accuracy is that of all digits, each judged by a network that never saw it. Written to
benchmarks/results/digits-folds.json unless only one fold was asked for: accuracy and seconds of every fold. The goals
are 98.5 % for LeNet, 99 % for the ResNet, and three minutes per fold on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pycv import train
from pycv.bench import machine

HERE = Path(__file__).resolve().parent
GOALS = {"lenet-digits": 0.985, "digits-resnet": 0.99}
SECONDS = 180


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", choices=GOALS, action="append", help="default: both")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--only", type=int, metavar="FOLD", help="one fold, and record nothing")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="changes to the recipes")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "digits-folds.json")
    arguments = parser.parse_args()
    chosen = range(arguments.folds) if arguments.only is None else [arguments.only]
    found = []
    for name in arguments.recipe or GOALS:
        recipe = train.recipe.override(train.recipe.load(name), [f"data.folds={arguments.folds}", *arguments.set])
        found.append(pooled(name, [learn(recipe, fold) for fold in chosen]))
        print(summary(found[-1]))
    if arguments.only is None:
        record(arguments.out, found, arguments.set)


def learn(recipe: train.Recipe, fold: int) -> dict[str, Any]:
    """One fold, from the start to the evaluation of its test digits."""
    wanted = train.recipe.override(recipe, [f"data.fold={fold}", "data.test_share=0"])
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, Bar(f"{recipe.name}, fold {fold}") as bar:
        outcome = train.train(wanted, Path(folder) / "run", observers=lambda run: [bar])
    assert outcome.test is not None
    return {
        "fold": fold,
        "digits": len(outcome.test.index),
        "errors": int((outcome.test.prediction != outcome.test.target).sum()),
        "best_epoch": outcome.best_epoch,
        "validation_accuracy": outcome.best_top1,
        "seconds": round(time.perf_counter() - start, 1),
    }


def pooled(name: str, folds: list[dict[str, Any]]) -> dict[str, Any]:
    """The folds of a recipe together."""
    digits, errors = (sum(fold[key] for fold in folds) for key in ("digits", "errors"))
    return {"recipe": name, "accuracy": 1 - errors / digits, "digits": digits, "errors": errors, "folds": folds}


def summary(found: dict[str, Any]) -> str:
    slowest = max(fold["seconds"] for fold in found["folds"])
    goal = GOALS[found["recipe"]]
    return (
        f"{found['recipe']}: {found['accuracy']:.2%} of {found['digits']} digits (goal {goal:.1%}: "
        f"{'met' if found['accuracy'] >= goal else 'missed'}), {slowest:.0f} s for the slowest fold "
        f"(goal {SECONDS} s: {'met' if slowest < SECONDS else 'missed'})"
    )


def record(out: Path, found: list[dict[str, Any]], changes: list[str]) -> None:
    """Writes what was found, with the machine and the recipes."""
    document = {
        "recipes": found,
        "changes": changes,
        "machine": machine.describe(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(document, indent=1) + "\n")
    os.replace(unfinished, out)
    print(out)


class Bar:
    """A progress bar over the steps of a fold."""

    def __init__(self, name: str) -> None:
        self._bar = tqdm(unit="step", desc=name)

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()

    def start(self, total_steps: int, done_steps: int) -> None:
        self._bar.total = total_steps

    def record(self, record: dict[str, Any]) -> None:
        self._bar.update(record["step"] - self._bar.n if record["kind"] == "step" else 0)
        if record["kind"] == "validation":
            self._bar.set_postfix_str(f"validation {record['top1']:.2%}")

    def close(self) -> None:
        self._bar.refresh()


if __name__ == "__main__":
    main()
