"""Plots as SVG, made of text alone: a roofline, lines over the values of a sweep, bars of ratios.

Axes may be logarithmic.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from .machine import Peaks
from .report import times

COLOURS = ("#1f5fbf", "#c2571a", "#2a8f5b", "#8a3ea8", "#b8860b", "#0e8a94", "#b02a5b", "#5b6770")
WIDTH, HEIGHT = 860, 430
LEFT, RIGHT, TOP, BOTTOM = 70, 210, 26, 52
Points = Sequence[tuple[float, float, str]]  # x, y, what it is
Bars = Sequence[tuple[str, float, str]]  # name, ratio, what it is


@dataclass(frozen=True)
class Axis:
    """From values to pixels: ``low`` lies at ``start``, ``high`` at ``end``."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = True

    def at(self, value: float) -> float:
        low, high, value = (math.log10(v) if self.logarithmic else v for v in (self.low, self.high, value))
        return self.start + (value - low) / ((high - low) or 1.0) * (self.end - self.start)

    def ticks(self) -> list[float]:
        if not self.logarithmic:
            step = _step(self.high - self.low)
            first = math.ceil(self.low / step - 1e-9)
            return [n * step for n in range(first, math.floor(self.high / step + 1e-9) + 1)]
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        every = [m * 10.0**decade for decade in decades for m in ((1,) if len(decades) > 4 else (1, 2, 5))]
        return [value for value in every if self.low <= value * (1 + 1e-9) and value <= self.high * (1 + 1e-9)]


def _step(span: float) -> float:
    """A round step that gives about eight of them."""
    rough = (span or 1.0) / 8
    power = 10.0 ** math.floor(math.log10(rough))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= rough)


def _axis(values: Sequence[float], start: float, end: float, logarithmic: bool, margin: float = 1.3) -> Axis:
    low, high = min(values), max(values)
    if logarithmic:
        return Axis(low / margin, high * margin, start, end)
    return Axis(low, high if high > low else low + 1, start, end, False)


def roofline(peaks: Peaks, series: Mapping[str, Points], title: str) -> str:
    """Rates in GFLOP/s over operations per byte: ``series`` by contender, under the roofs of ``peaks``."""
    points = [point for found in series.values() for point in found]
    peak = max(peaks.flops.values()) / 1e9
    xs = [x for x, _, _ in points] + [1e9 * peak / level.bandwidth for level in peaks.levels]
    ys = [y for _, y, _ in points] + [peak]
    x, y = _axis(xs, LEFT, WIDTH - RIGHT, True, 2), _axis(ys, HEIGHT - BOTTOM, TOP, True, 1.6)
    roofs = []
    for level in peaks.levels:
        rate = level.bandwidth / 1e9  # GFLOP/s at one operation per byte
        first, last = max(x.low, y.low / rate), min(peak / rate, x.high)
        if first < last:
            roofs.append(_line(x.at(first), y.at(first * rate), x.at(last), y.at(last * rate), "roof"))
            roofs.append(_along(x, y, first, rate, f"{level.name} {rate:.0f} GB/s"))
    for dtype, flops in peaks.flops.items():
        ridge = min(flops / peaks.levels[0].bandwidth, x.high)
        roofs.append(_line(x.at(ridge), y.at(flops / 1e9), x.at(x.high), y.at(flops / 1e9), "roof"))
        roofs.append(_text(x.at(x.high) - 4, y.at(flops / 1e9) - 5, f"{dtype} {flops / 1e9:.0f} GFLOP/s", "note end"))
    return _figure(title, x, y, "operations of the algorithm per byte", "GFLOP/s", roofs, series, joined=False)


def lines(series: Mapping[str, Points], x_label: str, y_label: str, title: str, logarithmic_x: bool = False) -> str:
    """``series`` by name over x; y is logarithmic."""
    points = [point for found in series.values() for point in found]
    if not points:
        raise ValueError("nothing was measured: there is nothing to plot")
    x = _axis([p[0] for p in points], LEFT, WIDTH - RIGHT, logarithmic_x)
    y = _axis([p[1] for p in points], HEIGHT - BOTTOM, TOP, True)
    return _figure(title, x, y, x_label, y_label, [], series, joined=True)


def bars(groups: Mapping[str, Bars], title: str) -> str:
    """``groups`` by name, one below the other: bars that begin at a ratio of 1, to the right those above it."""
    ratios = [ratio for group in groups.values() for _, ratio, _ in group]
    reach = max([2.0, *(max(ratio, 1 / ratio) for ratio in ratios)])
    x = Axis(1 / reach, reach, 2.5 * LEFT, WIDTH - RIGHT)
    names = list(dict.fromkeys(name for group in groups.values() for name, _, _ in group))
    parts: list[str] = []
    top = TOP + 14
    for title_of_group, group in groups.items():
        parts.append(_text(8, top + 12, title_of_group, "title"))
        top += 18
        for name, ratio, words in group:
            left, right = sorted((x.at(1), x.at(ratio)))
            colour = COLOURS[names.index(name) % len(COLOURS)]
            place = f'x="{left:.1f}" y="{top}" width="{max(right - left, 1):.1f}" height="14" fill="{colour}"'
            parts.append(f"<rect {place}><title>{escape(f'{name}: {times(ratio)}, {words}')}</title></rect>")
            parts.append(_text(2.5 * LEFT - 6, top + 11, name, "end"))
            parts.append(_text(WIDTH - RIGHT + 8, top + 11, f"{times(ratio)}, {words}", ""))
            top += 18
        top += 8
    grid = []
    for value in x.ticks():
        grid.append(_line(x.at(value), TOP, x.at(value), top, "grid"))
        grid.append(_text(x.at(value), top + 16, f"{value:g}", "middle"))
    return "\n".join([*_opened(title, top + 30), *grid, _line(x.at(1), TOP, x.at(1), top, "roof"), *parts, "</svg>"])


STYLE = (
    "text{font:12px system-ui,sans-serif;fill:currentColor}.grid{stroke:#8884;stroke-width:.6}"
    ".roof{stroke:currentColor;stroke-width:1.5}.note{font-size:11px;opacity:.75}.end{text-anchor:end}"
    ".middle{text-anchor:middle}.title{font-weight:600}circle{fill-opacity:.75}polyline{fill:none;stroke-width:2}"
)


def _figure(
    title: str, x: Axis, y: Axis, x_label: str, y_label: str, behind: list[str], series: Mapping[str, Points],
    joined: bool,
) -> str:  # fmt: skip
    parts = _opened(title, HEIGHT)
    for value in x.ticks():
        parts.append(_line(x.at(value), TOP, x.at(value), HEIGHT - BOTTOM, "grid"))
        parts.append(_text(x.at(value), HEIGHT - BOTTOM + 16, f"{value:g}", "middle"))
    for value in y.ticks():
        parts.append(_line(LEFT, y.at(value), WIDTH - RIGHT, y.at(value), "grid"))
        parts.append(_text(LEFT - 6, y.at(value) + 4, f"{value:g}", "end"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 14, x_label, "middle"))
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(
        f'<text class="middle" transform="rotate(-90 16 {middle:.0f})" x="16" y="{middle:.0f}">{escape(y_label)}</text>'
    )
    parts += behind
    for number, (name, points) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        if joined:
            path = " ".join(f"{x.at(px):.1f},{y.at(py):.1f}" for px, py, _ in sorted(points))
            parts.append(f'<polyline points="{path}" stroke="{colour}"/>')
        for px, py, what in points:
            place = f'cx="{x.at(px):.1f}" cy="{y.at(py):.1f}" r="4" fill="{colour}"'
            parts.append(f"<circle {place}><title>{escape(what)}</title></circle>")
        row = TOP + 14 + 18 * number
        parts.append(f'<circle cx="{WIDTH - RIGHT + 18}" cy="{row - 4}" r="5" fill="{colour}"/>')
        parts.append(_text(WIDTH - RIGHT + 30, row, name, ""))
    return "\n".join([*parts, "</svg>"])


def _opened(title: str, height: float) -> list[str]:
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{escape(title)}"><style>{STYLE}</style>',
        _text(LEFT, 16, title, "title"),
    ]


def _along(x: Axis, y: Axis, first: float, rate: float, text: str) -> str:
    """A note above the start of the roof of a memory level, as steep as it is."""
    left, bottom, right, top = x.at(first), y.at(first * rate), x.at(2 * first), y.at(2 * first * rate)
    angle = math.degrees(math.atan2(top - bottom, right - left))
    place = f'transform="translate({left:.1f} {bottom:.1f}) rotate({angle:.1f})" x="6" y="-5"'
    return f'<text class="note" {place}>{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'
