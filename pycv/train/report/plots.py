"""Curves and confusion matrices as inline SVG: sharp at every width, a few kB each, no plotting library.

Every text that comes from outside is escaped here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

INK, GREY, RULE, BLUE, ORANGE, RED = "#22252a", "#6b727c", "#e4e7eb", "#2f6db3", "#e08a1e", "#c8352b"
WIDTH, HEIGHT = 460, 290
LEFT, RIGHT, TOP, BOTTOM = 54, 14, 12, 40  # margins around the axes
MOST_POINTS = 500  # of a curve: more than there are pixels
MOST_DOTS = 60


@dataclass(frozen=True)
class Curve:
    """One line of a chart; ``faint`` is what stands behind others, ``dashed`` the run that is compared.

    One without a name is not in the legend; ``dots`` mark the points if they are few.
    """

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    colour: str
    faint: bool = False
    dashed: bool = False
    dots: bool = False


def line_chart(
    title: str,
    curves: Sequence[Curve],
    form: Callable[[float], str] = "{:g}".format,
    bottom: float | None = 0.0,
    top: float | None = None,
    x_name: str = "step",
) -> str:
    """Curves over steps as an SVG figure with its legend; ``bottom`` and ``top`` bound the axis, None: as the data."""
    curves = [curve for curve in curves if len(curve.xs)]
    if not curves:
        return ""
    xs, ys = [x for curve in curves for x in curve.xs], [y for curve in curves for y in curve.ys]
    x_ticks = ticks(min(xs), max(xs), 5)
    y_ticks = ticks(min(ys) if bottom is None else bottom, max(ys) if top is None else top, 6)
    x_low, x_high = min(xs), max(max(xs), min(xs) + 1)
    y_low, y_high = y_ticks[0], y_ticks[-1]

    def at(x: float, y: float) -> tuple[float, float]:
        across, up = (x - x_low) / (x_high - x_low), (y - y_low) / (y_high - y_low)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">']
    for y in y_ticks:
        height = at(x_low, y)[1]
        parts.append(f'<path d="M{LEFT} {height:.1f}H{WIDTH - RIGHT}" stroke="{RULE}"/>')
        parts.append(_label(LEFT - 7, height + 4, form(y), "end"))
    for x in (x for x in x_ticks if x_low <= x <= x_high and x == round(x)):
        parts.append(_label(at(x, y_low)[0], HEIGHT - BOTTOM + 18, f"{x:,.0f}", "middle"))
    parts.append(_label((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 5, x_name, "middle"))
    parts += [_drawn(curve, at) for curve in curves]
    legend = "".join(f"<span>{_sample(curve)}{escape(curve.name)}</span>" for curve in curves if curve.name)
    return f'<figure><h3>{escape(title)}</h3>{"".join(parts)}</svg><p class="legend">{legend}</p></figure>'


def smoothed(ys: Sequence[float], span: int) -> list[float]:
    """The running mean of the last ``span`` values."""
    sums = np.concatenate([[0.0], np.cumsum(ys)])
    ends = np.arange(1, len(ys) + 1)
    starts = np.maximum(ends - span, 0)
    return list((sums[ends] - sums[starts]) / (ends - starts))


def _drawn(curve: Curve, at: Callable[[float, float], tuple[float, float]]) -> str:
    points = [at(x, y) for x, y in zip(*_thinned(curve.xs, curve.ys), strict=True)]
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    line = f'<path d="{path}" fill="none" {_stroke(curve)} stroke-linejoin="round"/>'
    if (not curve.dots and len(points) > 1) or len(points) > MOST_DOTS:
        return line
    hollow = f'r="3" fill="white" stroke="{curve.colour}" stroke-width="1.6"'
    return line + "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" {hollow}/>' for x, y in points)


def _stroke(curve: Curve) -> str:
    dash = ' stroke-dasharray="5 4"' if curve.dashed else ""
    width = 'stroke-width="1.2" opacity="0.45"' if curve.faint else 'stroke-width="2"'
    return f'stroke="{curve.colour}" {width}{dash}'


def _sample(curve: Curve) -> str:
    return f'<svg class="sample" viewBox="0 0 26 8"><path d="M1 4H25" {_stroke(curve)}/></svg>'


def _thinned(xs: Sequence[float], ys: Sequence[float]) -> tuple[Sequence[float], Sequence[float]]:
    """At most so many points as can be told apart: of each stretch the means."""
    if len(xs) <= MOST_POINTS:
        return xs, ys
    stretches = [np.array_split(np.asarray(values, float), MOST_POINTS) for values in (xs, ys)]
    means_x, means_y = ([float(stretch.mean()) for stretch in parts] for parts in stretches)
    return means_x, means_y


def ticks(low: float, high: float, count: int) -> list[float]:
    """Round numbers from at or below ``low`` to at or above ``high``, about so many."""
    if not high > low:
        high = low + (abs(low) or 1.0)
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * 0.999)
    first, last = math.floor(low / step + 1e-6), math.ceil(high / step - 1e-6)
    return [round(step * number, 12) for number in range(first, last + 1)]


def _label(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{GREY}" font-size="12">{escape(text)}</text>'


# ------------------------------------------------------------------------------------------------ confusion


def confusion_matrix(counts: np.ndarray, classes: Sequence[str]) -> str:
    """Counts of true class (row) against predicted class (column): right in blue, wrong in red, by share of the row."""
    cell, letters = 34, max(len(_short(name)) for name in classes)
    left, top = 30 + 7 * letters, 34 + (7 * letters if letters > 3 else 14)
    side = cell * len(classes)
    parts = [f'<svg viewBox="0 0 {left + side + 4} {top + side + 4}" role="img" aria-label="confusion matrix" ']
    parts.append(f'style="max-width:{min(1.3 * (left + side), 980):.0f}px">')
    parts.append(
        f'<text x="{left + side / 2}" y="14" text-anchor="middle" fill="{GREY}" font-size="13">predicted</text>'
    )
    middle = f"translate(14 {top + side / 2}) rotate(-90)"
    parts.append(f'<text transform="{middle}" text-anchor="middle" fill="{GREY}" font-size="13">true class</text>')
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    for number, name in enumerate(classes):
        y, x, text = top + cell * (number + 0.5) + 4, left + cell * (number + 0.5), _escaped(name)
        turned = f"rotate(-90 {x + 4} {top - 7})" if letters > 3 else ""
        anchor = "start" if letters > 3 else "middle"
        parts.append(f'<text x="{left - 7}" y="{y}" text-anchor="end" font-size="12">{text}</text>')
        parts.append(
            f'<text x="{x + (4 if turned else 0)}" y="{top - 7}" text-anchor="{anchor}" transform="{turned}" '
            f'font-size="12">{text}</text>'
        )
        for column, other in enumerate(classes):
            count, share = int(counts[number, column]), float(shares[number, column])
            x, y = left + cell * column, top + cell * number
            tip = f"{escape(name)} taken for {escape(other)}: {count}"
            shade = _shade(share, right=number == column)
            parts.append(f'<rect x="{x}" y="{y}" width="{cell - 2}" height="{cell - 2}" rx="3" fill="{shade}">')
            parts.append(f"<title>{tip}</title></rect>")
            if count:
                colour = "white" if number == column and share > 0.45 else INK
                parts.append(
                    f'<text x="{x + cell / 2 - 1}" y="{y + cell / 2 + 3}" text-anchor="middle" pointer-events="none" '
                    f'fill="{colour}" font-size="{12 if count < 1000 else 10}">{count}</text>'
                )
    return "".join(parts) + "</svg>"


def _shade(share: float, right: bool) -> str:
    """From near white to blue, or red already at a fifth of the row, so that few mistakes stand out."""
    if share == 0:
        return "#f5f6f8"
    end = (0x2F, 0x6D, 0xB3) if right else (0xE0, 0x6A, 0x5F)
    depth = min(1.0, 0.12 + 0.88 * share if right else 0.25 + 3.75 * share)
    return "#" + "".join(f"{round(255 + depth * (value - 255)):02x}" for value in end)


def _short(name: str) -> str:
    return name if len(name) <= 14 else name[:13] + "…"


def _escaped(name: str) -> str:
    return f"<title>{escape(name)}</title>{escape(_short(name))}"
