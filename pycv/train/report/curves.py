"""How the run went, step by step, and beside another run: curves and the figures of both."""

from __future__ import annotations

import math

import numpy as np

from .page import Section, table
from .plots import BLUE, ORANGE, Curve, line_chart, smoothed
from .recorded import Run
from .words import NOTHING, percent, rate

SMOOTHED_PARTS = 40  # a running mean of the training curve spans this part of it


def section(run: Run, other: Run | None) -> Section:
    """Loss, accuracy, learning rate and speed by step, of both runs in the same charts."""
    charts = [
        line_chart("Loss", _learning("loss", run, other)),
        line_chart(
            "Accuracy (top-1)",
            _learning("top1", run, other),
            form=lambda share: f"{100 * share:g} %",
            bottom=_floor(run, other),
            top=1.0,
        ),
        line_chart("Learning rate", _stepwise("learning_rate", run, other)),
        line_chart("Images per second", _stepwise("images_per_second", run, other), form=rate),
    ]
    return Section("curves", "Curves", f'<div class="charts">{"".join(charts)}</div>' if any(charts) else "")


def _runs(run: Run, other: Run | None) -> list[tuple[Run, bool]]:
    """The run, and the one beside it, which is drawn dashed."""
    return [(run, False)] if other is None else [(run, False), (other, True)]


def _learning(key: str, run: Run, other: Run | None) -> list[Curve]:
    """Training and validation. Alone, the colours tell these apart; of two runs, the colour says which it is."""
    curves = []
    for one, dashed in _runs(run, other):
        before = f"{one.name}, " if other else ""
        colour = ORANGE if dashed or other is None else BLUE
        steps, values = one.series("step", key)
        if span := len(steps) // SMOOTHED_PARTS:
            curves.append(Curve(f"{before}training", steps, values, colour, faint=True, dashed=dashed))
            if other is None:
                curves.append(Curve("training, running mean", steps, smoothed(values, span), colour))
        else:
            curves.append(Curve(f"{before}training", steps, values, colour, faint=other is not None, dashed=dashed))
    for one, dashed in _runs(run, other):
        before = f"{one.name}, " if other else ""
        steps, values = one.series("validation", key)
        colour = ORANGE if dashed else BLUE
        curves.append(Curve(f"{before}validation", steps, values, colour, dashed=dashed, dots=True))
    return curves


def _stepwise(key: str, run: Run, other: Run | None) -> list[Curve]:
    return [
        Curve(one.name if other else "", *one.series("step", key), ORANGE if dashed else BLUE, dashed=dashed)
        for one, dashed in _runs(run, other)
    ]


def _floor(run: Run, other: Run | None) -> float:
    """Where the axis of accuracy begins: a round tenth below almost all of its values."""
    values = [y for one, _ in _runs(run, other) for kind in ("step", "validation") for y in one.series(kind, "top1")[1]]
    return max(0.0, math.floor(10 * float(np.quantile(values, 0.05)) - 0.5) / 10) if values else 0.0


def comparison(run: Run, other: Run | None) -> Section:
    """Both runs in figures, and in what their recipes differ."""
    if other is None:
        return Section("comparison", "Both runs", "")
    figures = [(name, *(_figure(one, kind, key) for one in (run, other))) for name, kind, key in _COMPARED]
    ours, theirs = run.settings(), other.settings()
    differing = [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]
    rows = [(name, a, b) for name, a, b in figures if (a, b) != (NOTHING, NOTHING)]
    rows += [(key, ours.get(key, NOTHING), theirs.get(key, NOTHING)) for key in differing]
    return Section("comparison", "Both runs", table(("", run.name, other.name), rows), _apart(run, other))


_COMPARED = (
    ("test top-1", "test", "top1"),
    ("best validation top-1", "best", "top1"),
    ("last training loss", "step", "loss"),
    ("last validation loss", "validation", "loss"),
    ("images per second (median)", "rate", "images_per_second"),
)


def _figure(run: Run, kind: str, key: str) -> str:
    if kind == "rate":
        values = run.series("step", key)[1]
        return rate(float(np.median(values))) if values else NOTHING
    records = [best] if kind == "best" and (best := run.best()) else run.of_kind(kind)
    value = records[-1].get(key) if records else None
    if value is None:
        return NOTHING
    return percent(value) if key == "top1" else f"{value:.4g}"


def _apart(run: Run, other: Run) -> str:
    """How far the training losses of the same steps lie apart."""
    ours, theirs = (dict(zip(*one.series("step", "loss"), strict=True)) for one in (run, other))
    common = sorted(ours.keys() & theirs.keys())
    if not common:
        return ""
    apart = [abs(ours[step] - theirs[step]) for step in common]
    middle, most = np.median(apart), max(apart)
    return f"The training losses of the same steps differ by {middle:.2g} in the median and by {most:.2g} at most."
