"""Progress: what a terminal and a file get, how often, and the time left; the curves that TensorBoard reads back."""

from __future__ import annotations

import gc
import io
import resource

import pytest
from rich.console import Console

from pycv.train.progress import LINE_SECONDS, Bar, Lines, progress
from pycv.train.tensorboard import TensorBoard


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def step(number: int, **values) -> dict:
    return {
        "kind": "step",
        "epoch": 2,
        "step": number,
        "loss": 0.25,
        "top1": 0.975,
        "images_per_second": 1234.5,
    } | values


VALIDATION = {"kind": "validation", "epoch": 2, "step": 40, "loss": 0.5, "top1": 0.9, "top5": 1.0, "seconds": 3.0}


def test_a_file_gets_few_lines():
    stream, clock = io.StringIO(), Clock()
    lines = Lines(stream, clock)
    lines.start(1000, 0)
    for number in range(1, 41):  # a second each: 8 times 5 seconds
        clock.now += 1.0
        lines.record(step(number))
    lines.record(VALIDATION)
    lines.close()
    *steps, evaluation = stream.getvalue().splitlines()
    assert LINE_SECONDS == 5 and len(steps) == 8
    assert steps[0] == "step 1/1,000  epoch 2  loss 0.2500  top-1 97.50 %  1,234 images/s  16:39 left"
    assert evaluation == "epoch 2  validation  loss 0.5000  top-1 90.00 %  top-5 100.00 %"


def test_the_time_left_is_that_of_this_process():
    """200 of 1000 steps were done before; 10 take 20 seconds, so 790 take 1580."""
    stream, clock = io.StringIO(), Clock()
    lines = Lines(stream, clock)
    lines.start(1000, 200)
    clock.now += 20
    lines.record(step(210))
    assert stream.getvalue().endswith("  26:20 left\n")


@pytest.mark.parametrize(("width", "rate"), [(110, True), (60, False)])
def test_a_terminal_gets_a_bar(width, rate):
    stream = io.StringIO()
    bar = Bar(Console(file=stream, force_terminal=True, width=width, color_system=None, highlight=False), Clock())
    bar.start(1000, 0)
    bar.record(step(500))
    bar.record(VALIDATION)
    bar.record({"kind": "validation", "epoch": 2, "step": 500, "loss": float("nan")})
    bar.close()
    last = "".join(stream.getvalue().splitlines()[-2:])
    assert "epoch 2  500/1,000" in last and "loss 0.2500  top-1 97.50 %" in last and "left" in last and "━" in last
    assert ("1,234 images/s" in last) == rate
    assert "epoch 2  validation  loss 0.5000  top-1 90.00 %" in stream.getvalue()
    assert "epoch 2  validation  loss nan" in stream.getvalue()


def test_a_file_is_no_terminal(monkeypatch):
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    assert isinstance(progress(io.StringIO()), Lines)


def test_a_run_that_never_started_closes(tmp_path):
    Lines(io.StringIO()).close()
    Bar(Console(file=io.StringIO())).close()
    TensorBoard(tmp_path).close()


def test_tensorboard_reads_the_curves_back(tmp_path):
    """A resumed run hides the steps that an earlier process took beyond the checkpoint."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for done, numbers in ((0, (10, 20, 30)), (20, (30, 40))):
        board = TensorBoard(tmp_path)
        board.start(100, done)
        for number in numbers:
            board.record(step(number, loss=number + done))
        board.record(VALIDATION)
        board.close()
    found = EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    assert set(found.Tags()["scalars"]) == {
        "loss/step", "top1/step", "images_per_second/step", "loss/validation", "top1/validation", "top5/validation",
    }  # fmt: skip
    assert [(event.step, event.value) for event in found.Scalars("loss/step")] == [
        (10, 10), (20, 20), (30, 50), (40, 60)
    ]  # fmt: skip


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_full_disk_ends_the_curves_of_tensorboard_only(tmp_path):
    """The thread that writes ends with the system's error, and what is recorded later meets it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    board = TensorBoard(tmp_path)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
        board.start(10, 0)
        for number in range(1, 4):
            board.record(step(number))
        board.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    gc.collect()
