"""The pictures of a training run, as matplotlib figures of one style; nothing here writes a file."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ..models.lenet import LeNet5
from .data import Digits, upsampled
from .training import Trained

INK, GREY, BLUE, ORANGE, RED = "#22252a", "#8a9099", "#2f6db3", "#e08a1e", "#c8352b"
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "grid.color": "#e4e7eb",
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "figure.dpi": 130,
    "savefig.dpi": 130,
}


@contextmanager
def style() -> Iterator[None]:
    """matplotlib's settings for all figures, for a block; drawing and saving both belong inside."""
    with matplotlib.rc_context(STYLE):
        yield


def png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def curves(trained: Trained) -> Figure:
    """Loss and accuracy per epoch, training beside validation, with the epoch that was kept."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    losses, accuracies = figure.subplots(1, 2)
    numbers = np.arange(1, len(trained.epochs) + 1)
    series = {name: np.array([getattr(e, name) for e in trained.epochs]) for name in vars(trained.epochs[0])}
    kept = trained.best_epoch
    training = {"loss": "training (bent images, smoothed labels)", "accuracy": "training (bent images)"}
    panels = (("loss", losses, 1.0, ".3f"), ("accuracy", accuracies, 100.0, ".2f"))
    for measure, axes, unit, form in panels:
        validation = unit * series[f"validation_{measure}"]
        axes.plot(numbers, unit * series[f"train_{measure}"], color=ORANGE, label=training[measure])
        axes.plot(numbers, validation, color=BLUE, label="validation (averaged weights)")
        axes.plot(numbers[kept], validation[kept], "o", color=BLUE, markersize=7, mfc="white", clip_on=False, zorder=3)
        axes.annotate(
            f"kept: epoch {kept + 1}, {validation[kept]:{form}}{' %' if unit != 1 else ''}",
            (numbers[kept], validation[kept]), xytext=(-14, 58 if measure == "loss" else -58),
            textcoords="offset points", ha="right" if kept > len(numbers) / 2 else "left", color=BLUE,
            arrowprops={"arrowstyle": "-", "color": BLUE, "linewidth": 0.8, "shrinkB": 5},
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
        )  # fmt: skip
        axes.grid(True, axis="y")
        axes.set_xlabel("epoch")
        axes.set_xlim(1, max(2, len(numbers)))
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(loc="upper right" if measure == "loss" else "lower right")
    losses.set(title="Loss", ylabel="cross-entropy (nats per digit)")
    losses.set_ylim(bottom=0)
    accuracies.set(title="Accuracy", ylabel="digits read correctly (%)")
    accuracies.set_ylim(80 if 100 * trained.best.validation_accuracy > 85 else 0, 100.5)
    return figure


def filters(model: LeNet5) -> Figure:
    """The filters of the first convolution on one diverging scale: blue lowers a response, red raises it."""
    weight = model.c1.weight.detach()[:, 0]
    limit = float(weight.abs().max())
    figure = Figure(figsize=(10, 2.35), layout="constrained")
    panels = figure.subplots(1, len(weight))
    for number, (axes, kernel) in enumerate(zip(panels, weight, strict=True)):
        image = axes.imshow(kernel.numpy(), cmap="RdBu_r", vmin=-limit, vmax=limit)
        _bare(axes, f"filter {number + 1}")
    figure.colorbar(image, ax=list(panels), label="weight", fraction=0.02, pad=0.01, shrink=0.85)
    figure.suptitle("What the first layer looks for: its 5×5 filters", fontweight="bold")
    return figure


@torch.no_grad()
def feature_maps(model: LeNet5, digits: Digits, index: int) -> Figure:
    """One digit on its way through the network: each map after its ReLU, and after its pooling."""
    image = upsampled(digits.images[index : index + 1])
    c1 = model.relu(model.c1(image))
    s2 = model.s2(c1)
    c3 = model.relu(model.c3(s2))
    stages = (
        ("C1: 6 maps of 28×28", c1), ("S2: pooled to 14×14", s2),
        ("C3: 16 maps of 10×10", c3), ("S4: pooled to 5×5", model.s4(c3)),
    )  # fmt: skip
    probabilities = model(image).softmax(1)[0]
    figure = Figure(figsize=(11, 6.6), layout="constrained")
    halves: Any = figure.subfigures(1, 2, width_ratios=(1.0, 2.9))
    left, right = halves
    _digit_and_verdict(left, image[0, 0], int(digits.labels[index]), probabilities)
    heights = [_rows(maps) * (8 / min(8, maps.shape[1])) ** 0.35 + 0.45 for _, maps in stages]
    parts: Any = right.subfigures(len(stages), 1, height_ratios=heights)
    for part, (title, maps) in zip(parts, stages, strict=True):
        part.suptitle(title, fontweight="bold", fontsize=10)
        panels = part.subplots(_rows(maps), min(8, maps.shape[1]), squeeze=False).ravel()
        for axes, plane in zip(panels, maps[0], strict=True):
            axes.imshow(plane.numpy(), cmap="magma", vmin=0, vmax=float(maps.max()))
            _bare(axes)
    return figure


def _rows(maps: Tensor) -> int:
    return -(-maps.shape[1] // 8)


def _digit_and_verdict(part, image: Tensor, label: int, probabilities: Tensor) -> None:
    picture, bars = part.subplots(2, 1, height_ratios=(1, 1.1))
    picture.imshow(image.numpy(), cmap="gray_r")
    _bare(picture, f"The digit {label}, 32×32")
    colours = [BLUE if digit == label else GREY for digit in range(10)]
    bars.barh(range(10), 100 * probabilities.numpy(), color=colours)
    bars.set(title="What the network reads", xlabel="probability (%)", ylabel="digit", yticks=range(10), xlim=(0, 100))
    bars.invert_yaxis()


def misclassified(digits: Digits, logits: Tensor, most: int = 18) -> Figure:
    """The test digits that were read wrongly (red), then the nearest calls among the right ones (grey)."""
    probabilities = logits.softmax(1)
    confidence = probabilities.gather(1, digits.labels[:, None])[:, 0]
    predicted = logits.argmax(1)
    wrong = predicted != digits.labels
    order = (confidence + (~wrong).float()).argsort()[: max(most, min(int(wrong.sum()), 3 * most))]
    columns = 6
    rows = -(-len(order) // columns)
    figure = Figure(figsize=(10, 1.95 * rows + 0.7), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels:
        axes.axis("off")
    images = upsampled(digits.images[order])[:, 0]
    for axes, image, index in zip(panels, images, order.tolist(), strict=False):
        axes.imshow(image.numpy(), cmap="gray_r", vmin=float(images.min()), vmax=float(images.max()))
        true, read = int(digits.labels[index]), int(predicted[index])
        sure = 100 * float(probabilities[index, read])
        text = f"{true} read as {read}" if read != true else f"{true} read correctly"
        colour = RED if read != true else GREY
        axes.set_title(f"{text}\n{sure:.0f} % sure", color=colour, fontsize=9, fontweight="normal")
    if count := int(wrong.sum()):
        title = f"{count} of {len(digits)} test digits misread (red, true digit first), and the nearest calls"
    else:
        title = f"None of {len(digits)} test digits misread: these were the nearest calls"
    figure.suptitle(f"{title}\n", fontweight="bold")
    return figure


def confusion_matrix(labels: Tensor, predicted: Tensor) -> Figure:
    """How many digits of each kind (rows) were read as which (columns); mistakes stand out in red."""
    counts = np.zeros((10, 10), int)
    np.add.at(counts, (labels.numpy(), predicted.numpy()), 1)
    right = np.where(np.eye(10, dtype=bool), counts, 0)
    wrong = counts - right
    figure = Figure(figsize=(6.6, 6.4), layout="constrained")
    axes = figure.subplots()
    axes.imshow(np.ma.masked_equal(right, 0), cmap="Blues", vmin=0, vmax=1.2 * counts.max())
    axes.imshow(np.ma.masked_equal(wrong, 0), cmap="Reds", vmin=-1, vmax=max(5, 2 * wrong.max()))
    for row, column in np.argwhere(counts):
        colour = "white" if row == column else INK
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=colour, fontweight="bold")
    axes.set(xlabel="read as", ylabel="true digit", xticks=range(10), yticks=range(10))
    axes.set_title(f"Test set: {int(right.sum())} of {counts.sum()} digits read correctly")
    axes.set_xticks(np.arange(11) - 0.5, minor=True)
    axes.set_yticks(np.arange(11) - 0.5, minor=True)
    axes.grid(True, which="minor", linewidth=1)
    axes.tick_params(which="both", length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    return figure


def _bare(axes: Axes, title: str = "", ticks: Sequence[int] = ()) -> None:
    axes.set(xticks=ticks, yticks=ticks, title=title)
    for side in axes.spines.values():
        side.set_visible(False)
