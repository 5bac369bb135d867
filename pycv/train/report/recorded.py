"""What the files of a run directory say, for its report; what is missing or cut short is left out, never an error."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class Evaluation:
    """The predictions of the best checkpoint: per sample its place in the dataset, true and predicted class, and the
    probability of the latter; int64, int64, int64 and float32, all (N,)."""

    index: np.ndarray
    target: np.ndarray
    prediction: np.ndarray
    probability: np.ndarray

    def confusion(self, classes: int) -> np.ndarray:
        """int64 (classes, classes): how many of each class (row) were taken for which (column)."""
        counts = np.zeros((classes, classes), np.int64)
        np.add.at(counts, (self.target, self.prediction), 1)
        return counts


@dataclass(frozen=True)
class Run:
    """A run directory, read.

    Attributes
    ----------
    recipe_text, recipe : of recipe.toml; empty if there is none.
    environment : of environment.json; empty if there is none.
    records : the lines of metrics.jsonl by step; of a step that a resumed run took again, the last.
    evaluation : of evaluation.npz, or None.
    """

    path: Path
    recipe_text: str
    recipe: dict[str, Any]
    environment: dict[str, Any]
    records: list[dict[str, Any]]
    evaluation: Evaluation | None

    @property
    def name(self) -> str:
        return self.path.resolve().name

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        return [record for record in self.records if record["kind"] == kind]

    def series(self, kind: str, key: str) -> tuple[list[float], list[float]]:
        """Steps and values of one curve, finite values only."""
        found = [(r["step"], r[key]) for r in self.of_kind(kind) if r.get(key) is not None and math.isfinite(r[key])]
        return [float(step) for step, _ in found], [float(value) for _, value in found]

    def best(self) -> dict[str, Any] | None:
        """The validation with the highest top-1, of equals that with the lowest loss, as training keeps them; without
        any top-1 the lowest loss."""

        def rank(record: dict[str, Any]) -> tuple[float, float]:
            return record.get("top1", 0.0), -record.get("loss", math.inf)

        finite = [r for r in self.of_kind("validation") if all(math.isfinite(r.get(k, 0.0)) for k in ("top1", "loss"))]
        return max(finite, key=rank, default=None)

    def settings(self) -> dict[str, Any]:
        """The recipe's values by ``table.key``."""
        flat: dict[str, Any] = {}
        for key, value in self.recipe.items():
            if isinstance(value, dict):
                flat |= {f"{key}.{inner}": item for inner, item in value.items()}
            else:
                flat[key] = value
        return flat


def read(path: Path) -> Run:
    """Reads a run directory.

    Raises
    ------
    FileNotFoundError
        If there is no metrics.jsonl: this is no run.
    """
    path = Path(path)
    if not (path / "metrics.jsonl").is_file():
        raise FileNotFoundError(f"{path} is no run: it has no metrics.jsonl")
    recipe = _text(path / "recipe.toml")
    return Run(
        path, recipe, _toml(recipe), _json(_text(path / "environment.json")) or {},
        _records(_text(path / "metrics.jsonl")), _evaluation(path / "evaluation.npz"),
    )  # fmt: skip


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _toml(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return {}


def _json(text: str) -> dict[str, Any] | None:
    """The object that a text is, or None where it is none: the last line of a run that was killed, say."""
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _records(text: str) -> list[dict[str, Any]]:
    last = {}
    for line in text.splitlines():
        record = _json(line)
        if record is not None and {"kind", "epoch", "step"} <= record.keys():
            last[record["kind"], record["step"]] = record
    return sorted(last.values(), key=lambda record: record["step"])


def _evaluation(path: Path) -> Evaluation | None:
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as arrays:
        return Evaluation(*(arrays[name] for name in ("index", "target", "prediction", "probability")))
