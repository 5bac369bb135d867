"""The report of a training run: ``report.html`` in its directory, one file that needs nothing else and no network.

Curves, what was confused with what, examples, filters, what the layers cost, and all that is needed to repeat the run.
With a second run (the same seed on torch's layers) every curve shows both.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np
from torch import nn

from ..files import write_whole
from . import curves, network, predictions, recorded
from .page import Section, document, table
from .predictions import Picture
from .recorded import Evaluation, Run
from .words import count, duration, percent, rate, spelled


def write_report(
    run: Path, model: nn.Module, classes: Sequence[str], image: Picture | None, vs: Path | None = None
) -> Path:
    """Writes ``RUN/report.html`` from the files of a run and the trained model; an older one is replaced at the end.

    What the run has no file for is left out of the page. The layers are timed here and now: one inference and one
    training step of a copy of the model, with the kernels that the settings in force choose.

    Parameters
    ----------
    run : a run directory: metrics.jsonl, and where there are recipe.toml, environment.json and evaluation.npz.
    model : with the weights of the best checkpoint, on the device to be timed. It stays as it is.
    classes : their names.
    image : the picture of a sample by its index of evaluation.npz, uint8 (H, W) or (H, W, 3); None: no examples.
    vs : the directory of the run to compare with.

    Raises
    ------
    FileNotFoundError
        If ``run`` or ``vs`` has no metrics.jsonl.
    ValueError
        If the predictions are of more classes than have names, or a picture is not as it should be.
    DiskFull
        If the page does not fit.
    """
    this = recorded.read(run)
    other = None if vs is None else recorded.read(vs)
    evaluation = this.evaluation
    if evaluation is not None:
        _check_labels(evaluation, len(classes))
    confusion = None if evaluation is None else evaluation.confusion(len(classes))
    sections = [
        curves.section(this, other),
        curves.comparison(this, other),
        predictions.confusion_section(confusion, classes),
        predictions.misclassified(evaluation, classes, image),
        network.filters(model, this),
        network.timing(model, this),
        predictions.per_class(confusion, classes),
        _recipe(this),
        _environment(this),
    ]
    page = document(this.name, _subtitle(this, other), _tiles(this, model), sections)
    target = Path(run) / "report.html"
    write_whole(target, page.encode())
    return target


def _check_labels(evaluation: Evaluation, classes: int) -> None:
    for labels in (evaluation.target, evaluation.prediction):
        if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
            raise ValueError(f"classes: {classes} names, but evaluation.npz has class {labels.max()}")


def _subtitle(run: Run, other: Run | None) -> str:
    name, data = run.settings().get("model.name"), run.settings().get("data.name")
    parts = [f"{name} on {data}" if name and data else name or "", f"beside {other.name}" if other else ""]
    return ", ".join(part for part in parts if part) or "a training run"


def _tiles(run: Run, model: nn.Module) -> list[tuple[str, str]]:
    tiles = []
    for test in run.of_kind("test")[-1:]:
        for key, name in (("top1", "test top-1"), ("top5", "test top-5")):
            if test.get(key) is not None:
                tiles.append((name, percent(test[key])))
    if (best := run.best()) and best.get("top1") is not None:
        tiles.append((f"best validation top-1: epoch {best['epoch']}", percent(best["top1"])))
    if run.records:
        epochs = run.records[-1]["epoch"]
        tiles.append((f"steps, {epochs} epoch{'s' if epochs > 1 else ''}", f"{run.records[-1]['step']:,}"))
    if (seconds := _seconds(run)) is not None:
        tiles.append(("training time", duration(seconds)))
    if rates := run.series("step", "images_per_second")[1]:
        tiles.append(("images per second (median)", rate(float(np.median(rates)))))
    tiles.append(("parameters", count(sum(p.numel() for p in model.parameters()))))
    return tiles


def _seconds(run: Run) -> float | None:
    values = run.series("step", "seconds")[1]
    return max(values) if values else None


def _recipe(run: Run) -> Section:
    return Section("recipe", "Recipe", f"<pre>{escape(run.recipe_text)}</pre>" if run.recipe_text.strip() else "")


def _environment(run: Run) -> Section:
    rows = [(key, spelled(value)) for key, value in run.environment.items()]
    return Section("environment", "Environment", table(("", ""), rows))
