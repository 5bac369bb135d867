"""What was taken for what: the confusion matrix, examples, and every class by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

import numpy as np

from . import pictures, plots
from .page import Bar, Section, table
from .recorded import Evaluation
from .words import percent

Picture = Callable[[int], np.ndarray]

MOST_SAMPLES = 24
MOST_CELLS = 30  # classes of a confusion matrix that has numbers in it
MOST_CONFUSIONS = 20


def confusion_section(confusion: np.ndarray | None, classes: Sequence[str]) -> Section:
    title = "Confusion matrix"
    if confusion is None or not confusion.sum():
        return Section("confusion", title, "")
    right, total = int(confusion.trace()), int(confusion.sum())
    note = (
        f"{right:,} of {total:,} samples are right ({percent(right / total)}): the diagonal. Rows are the true classes."
    )
    if len(classes) <= MOST_CELLS:
        return Section(
            "confusion", title, f'<div class="matrix">{plots.confusion_matrix(confusion, classes)}</div>', note
        )
    wrong = confusion * (1 - np.eye(len(classes), dtype=np.int64))
    order = np.argsort(-wrong, axis=None, kind="stable")[:MOST_CONFUSIONS]
    rows = [
        (classes[target], classes[prediction], f"{wrong[target, prediction]:,}", f"{confusion[target].sum():,}")
        for target, prediction in zip(*np.unravel_index(order, wrong.shape), strict=True)
        if wrong[target, prediction]
    ]
    image = f'<img class="heat" alt="confusion matrix" src="{pictures.data_url(pictures.shares(confusion))}">'
    most = table(("true class", "most often taken for", "samples", "of"), rows, numbers=(2, 3))
    return Section("confusion", title, image + (f"<h3>The commonest confusions</h3>{most}" if rows else ""), note)


def misclassified(evaluation: Evaluation | None, classes: Sequence[str], image: Picture | None) -> Section:
    """The wrong predictions with the highest probability."""
    title = "Misclassified examples"
    if evaluation is None or image is None:
        return Section("misclassified", title, "")
    wrong = np.flatnonzero(evaluation.target != evaluation.prediction)
    if not len(wrong):
        return Section("misclassified", title, "<p>None: every sample is right.</p>")
    surest = wrong[np.argsort(-evaluation.probability[wrong], kind="stable")][:MOST_SAMPLES]
    figures = "".join(_sample(evaluation, place, classes, image) for place in surest)
    note = f"{len(wrong):,} of {len(evaluation.target):,} samples are wrong."
    if len(surest) < len(wrong):
        note += f" These are the {len(surest)} of which the network was surest."
    return Section("misclassified", title, f'<div class="samples">{figures}</div>', note)


def _sample(evaluation: Evaluation, place: int, classes: Sequence[str], image: Picture) -> str:
    index = int(evaluation.index[place])
    target, prediction = classes[evaluation.target[place]], classes[evaluation.prediction[place]]
    pixels = image(index)
    kind = ' class="smooth"' if max(pixels.shape[:2]) > 64 else ""
    return (
        f'<figure><img{kind} alt="sample {index}" src="{pictures.sample(pixels)}">'
        f"<figcaption>{escape(target)} taken for <b>{escape(prediction)}</b> "
        f"<small>{100 * evaluation.probability[place]:.0f} %, no. {index}</small></figcaption></figure>"
    )


def per_class(confusion: np.ndarray | None, classes: Sequence[str]) -> Section:
    """Recall and precision; with many classes the worst first."""
    if confusion is None or not confusion.sum():
        return Section("classes", "Per class", "")
    right, of_class, predicted = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    recall = right / np.where(of_class, of_class, np.nan)
    precision = right / np.where(predicted, predicted, np.nan)
    order = np.argsort(recall, kind="stable") if len(classes) > MOST_CELLS else np.arange(len(classes))
    rows = [
        (
            classes[label],
            f"{of_class[label]:,}",
            percent(recall[label]),
            Bar(np.nan_to_num(recall[label])),
            percent(precision[label]),
            _commonest_mistake(confusion[label], label, classes),
        )
        for label in order
    ]
    header = ("class", "samples", "recognised", "", "precision", "most often taken for")
    note = "Recognised: the share of the class that was predicted as such. Precision: the share of such that was right."
    return Section("classes", "Per class", table(header, rows, numbers=(1, 2, 4)), note)


def _commonest_mistake(row: np.ndarray, label: int, classes: Sequence[str]) -> str:
    others = np.where(np.arange(len(row)) == label, 0, row)
    worst = int(others.argmax())
    return f"{classes[worst]} ({others[worst]:,})" if others[worst] else ""
