"""Checkpoints: everything that a run needs to go on to the same weights, and the best weights on their own.

``checkpoints/step-00000120.pt`` is a dictionary of tensors and plain values, written by torch.save and read with
``weights_only=True``. It is a zip archive, whose directory stands at its end and whose members have checksums: a file
that is truncated or damaged is known as such, named, and the one before it taken. ``best.pt`` has under ``model`` what
was evaluated (the moving average where there is one), so that ``models.create(..., weights="best.pt")`` reads it.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from .errors import TrainError
from .files import remove_unfinished, write_whole

FORMAT = 1
BEST = "best.pt"


class Checkpoints:
    """The checkpoints of a run: the best, and the last ``keep``."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep

    def prepare(self) -> None:
        """Makes the folder, and removes what an earlier process left half-written."""
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_unfinished(self.folder)

    def save(self, step: int, content: dict[str, Any]) -> None:
        """Writes the state after this step; then removes the oldest, down to ``keep``."""
        write_whole(self.folder / f"step-{step:08d}.pt", serialised(content))
        for path in self.paths()[: -self.keep]:
            path.unlink()

    def save_best(self, content: dict[str, Any]) -> None:
        """Writes the best weights so far."""
        write_whole(self.folder / BEST, serialised(content))

    def paths(self) -> list[Path]:
        """The checkpoints, oldest first, the best one not among them."""
        return sorted(self.folder.glob("step-*.pt"))

    def newest(self, say: Callable[[str], None]) -> dict[str, Any] | None:
        """What the newest whole checkpoint holds, or None if there is none; says which damaged ones it passed over.

        Raises
        ------
        TrainError
            If there are checkpoints but none is whole.
        """
        paths = self.paths()
        for path in reversed(paths):
            try:
                return read(path)
            except ValueError as error:
                say(f"{error}; the one before it is taken")
        if paths:
            raise TrainError(f"{self.folder}: none of the {len(paths)} checkpoints is whole")
        return None


def serialised(content: dict[str, Any]) -> bytes:
    """As torch.save writes it; in memory first, so that a full disk is told by one plain write."""
    memory = io.BytesIO()
    torch.save({"format": FORMAT, **content}, memory)
    return memory.getvalue()


def read(path: Path) -> dict[str, Any]:
    """What a checkpoint holds, on the CPU.

    Raises
    ------
    ValueError
        If the file is truncated, damaged or no checkpoint.
    OSError
        If it cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"{damaged} has another checksum")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # whatever unpickling other bytes may raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path}: damaged or no checkpoint ({reason})") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{path}: no checkpoint of this format")
    return content
