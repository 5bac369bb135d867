"""How a training run can end before its time. Each message says what was saved."""

from __future__ import annotations


class TrainError(RuntimeError):
    """The run cannot go on; the message says why, and where what was reached is kept."""


class Diverged(TrainError):
    """The loss or the gradient is no number any more, or the gradient's norm beyond what the recipe allows."""


class DiskFull(TrainError):
    """A file could not be written whole; the one that was there before is untouched."""


class Interrupted(TrainError):
    """Somebody asked it to stop (Ctrl-C, SIGTERM); everything is saved."""
