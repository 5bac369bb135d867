"""How far a training run is, on a terminal: a bar that stays, above it a line per evaluation; elsewhere plain lines.

Both take the lines of metrics.jsonl as they are written. The time left is what the remaining steps take at the pace
since the start of this process; a resumed run counts its own steps only.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as RichProgress
from rich.table import Column

LINE_SECONDS = 5.0  # at most one plain line about steps in this time

Clock = Callable[[], float]


class Progress(Protocol):
    """Takes the records of a run. ``start`` before the first, ``close`` after the last, also of a run that failed."""

    def start(self, total_steps: int, done_steps: int) -> None: ...
    def record(self, record: dict[str, Any]) -> None: ...
    def close(self) -> None: ...


def progress(stream: TextIO | None = None) -> Progress:
    """A bar where ``stream`` (standard error if None) is a terminal, else plain lines."""
    stream = stream or sys.stderr
    console = Console(file=stream, highlight=False)
    return Bar(console) if console.is_terminal and not console.is_dumb_terminal else Lines(stream)


class Bar:
    """rich's progress bar with the last step's figures; evaluations are printed above it and stay."""

    def __init__(self, console: Console, clock: Clock = time.monotonic) -> None:
        self._pace = _Pace(clock)
        self._console = console
        figures = TextColumn("{task.fields[figures]}", table_column=Column(no_wrap=True, overflow="ellipsis"))
        place = TextColumn("{task.description}", table_column=Column(no_wrap=True))
        self._bar = RichProgress(place, BarColumn(None, style="bar.back"), figures, console=console, expand=True)
        self._task = self._bar.add_task("starting", total=None, figures="")

    def start(self, total_steps: int, done_steps: int) -> None:
        self._pace.start(total_steps, done_steps)
        self._bar.update(self._task, total=total_steps, completed=done_steps)
        self._bar.start()

    def record(self, record: dict[str, Any]) -> None:
        if record["kind"] != "step":
            self._bar.print(_evaluation(record), markup=False)
            return
        step = record["step"]
        figures = _figures(record)[: 2 if self._console.width < 80 else None]
        shown = "  ".join([*figures, f"{_duration(self._pace.seconds_left(step))} left"])
        place = f"epoch {record['epoch']}  {step:,}/{self._pace.total:,}"
        self._bar.update(self._task, completed=step, description=place, figures=shown)

    def close(self) -> None:
        self._bar.stop()


class Lines:
    """A line for every evaluation, and one about the steps every few seconds."""

    def __init__(self, stream: TextIO, clock: Clock = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._pace = _Pace(clock)
        self._next = clock()

    def start(self, total_steps: int, done_steps: int) -> None:
        self._pace.start(total_steps, done_steps)
        self._next = self._clock()

    def record(self, record: dict[str, Any]) -> None:
        if record["kind"] != "step":
            self._print(_evaluation(record))
        elif self._clock() >= self._next:
            self._next = self._clock() + LINE_SECONDS
            place = f"step {record['step']:,}/{self._pace.total:,}  epoch {record['epoch']}"
            left = f"{_duration(self._pace.seconds_left(record['step']))} left"
            self._print("  ".join([place, *_figures(record), left]))

    def close(self) -> None:
        self._stream.flush()

    def _print(self, line: str) -> None:
        print(line, file=self._stream, flush=True)


class _Pace:
    """Steps done and to do, and how long the latter will take."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.total = self._before = 0
        self._began = clock()

    def start(self, total_steps: int, done_steps: int) -> None:
        self.total, self._before, self._began = total_steps, done_steps, self._clock()

    def seconds_left(self, step: int) -> float | None:
        done = step - self._before
        return (self.total - step) * (self._clock() - self._began) / done if done > 0 else None


def _figures(record: dict[str, Any]) -> list[str]:
    """What a record says, in the order in which it is worth the room; what it lacks is left out."""
    forms: dict[str, Callable[[float], str]] = {
        "loss": lambda loss: f"loss {loss:#.4g}",
        "top1": lambda share: f"top-1 {100 * share:.2f} %",
        "top5": lambda share: f"top-5 {100 * share:.2f} %",
        "images_per_second": lambda rate: f"{rate:,.0f} images/s" if rate >= 10 else f"{rate:.2g} images/s",
    }
    del forms["top5" if record["kind"] == "step" else "images_per_second"]
    return [form(record[key]) for key, form in forms.items() if record.get(key) is not None]


def _evaluation(record: dict[str, Any]) -> str:
    return "  ".join([f"epoch {record['epoch']}  {record['kind']}", *_figures(record)])


def _duration(seconds: float | None) -> str:
    """``0:07``, ``12:34``, ``3:04:05`` or ``2 d 3:04:05``; ``?`` where nothing is known yet."""
    if seconds is None:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    short = f"{hours}:{minutes:02}:{rest:02}" if hours or days else f"{minutes}:{rest:02}"
    return f"{days} d {short}" if days else short
