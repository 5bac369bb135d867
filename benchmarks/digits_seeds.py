"""Ten times the training of ``pycv demo``, each from its own seed (split, initialisation, order of the digits).

    python benchmarks/digits_seeds.py

Writes benchmarks/results/digits-ten-seeds.json: test accuracy per seed, mean and minimum. The recipe was chosen on
the validation digits of seeds 101 to 105; no test digit of any seed was looked at for it.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from statistics import mean

from tqdm import tqdm

from pycv.bench import machine
from pycv.demo.training import Recipe, learn_digits

HERE = Path(__file__).resolve().parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "digits-ten-seeds.json")
    arguments = parser.parse_args()
    recipe = Recipe()
    runs = [learn(recipe, seed) for seed in range(arguments.seeds)]
    accuracies = [run["test_accuracy"] for run in runs]
    record = {
        "mean_test_accuracy": mean(accuracies),
        "min_test_accuracy": min(accuracies),
        "seeds": runs,
        "recipe": asdict(recipe),
        "machine": machine.describe(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = arguments.out.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(record, indent=1) + "\n")
    os.replace(unfinished, arguments.out)
    print(f"mean {mean(accuracies):.2%}, minimum {min(accuracies):.2%}: {arguments.out}")


def learn(recipe: Recipe, seed: int) -> dict:
    """One seed, with a progress bar."""
    with tqdm(total=recipe.epochs, unit="epoch", desc=f"seed {seed}") as bar:
        outcome = learn_digits(recipe, seed, lambda number, epoch: bar.update())
        best = outcome.trained.best
        bar.set_postfix_str(f"validation {best.validation_accuracy:.2%}, test {outcome.test_accuracy:.2%}")
    return {
        "seed": seed,
        "test_accuracy": outcome.test_accuracy,
        "validation_accuracy": best.validation_accuracy,
        "best_epoch": outcome.trained.best_epoch + 1,
        "test_digits": len(outcome.split.test),
        "seconds": round(outcome.seconds, 1),
    }


if __name__ == "__main__":
    main()
