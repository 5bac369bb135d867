"""The records of a run for TensorBoard: ``tensorboard --logdir runs`` shows every run's curves side by side."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

_PLACE = ("kind", "epoch", "step", "seconds")  # what says where a record belongs; everything else is a curve


class TensorBoard:
    """Writes every number of the records as a scalar, ``loss/validation`` by step, into ``RUN/tensorboard``.

    A resumed run goes on in the same folder; what an earlier process wrote beyond the step of the checkpoint is hidden.
    A full disk ends these curves and not the run: that is for metrics.jsonl and the checkpoints to say.
    """

    def __init__(self, run: Path) -> None:
        """
        Raises
        ------
        ImportError
            If tensorboard is not installed.
        """
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ImportError('tensorboard is not installed: pip install "pycv[train]"') from None
        self._make = lambda **keywords: SummaryWriter(str(run / "tensorboard"), **keywords)
        self._writer: Any = None

    def start(self, total_steps: int, done_steps: int) -> None:
        with suppress(OSError):
            self._writer = self._make(purge_step=done_steps + 1 if done_steps else None)

    def record(self, record: dict[str, Any]) -> None:
        if self._writer is None:
            return
        try:
            for name, value in record.items():
                if name not in _PLACE and isinstance(value, int | float):
                    self._writer.add_scalar(f"{name}/{record['kind']}", value, record["step"])
        except OSError:  # of the thread that writes
            self._writer = None

    def close(self) -> None:
        if self._writer is not None:
            with suppress(OSError):
                self._writer.close()
