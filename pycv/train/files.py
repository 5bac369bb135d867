"""Files that are there whole or as they were before, whatever ends the process or the power."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from .errors import DiskFull

UNFINISHED = ".unfinished-"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file beside its place, to the disk, and moves it there.

    Raises
    ------
    DiskFull
        If it does not fit; what was written is removed.
    OSError
        If it cannot be written for another reason.
    """
    unfinished = path.with_name(UNFINISHED + path.name)

    def write() -> None:
        with open(unfinished, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
        _sync_folder(path.parent)

    try:
        guarded(path, write, len(content))
    except (OSError, DiskFull):
        unfinished.unlink(missing_ok=True)
        raise


def guarded(path: Path, write: Callable[[], None], size: int) -> None:
    """Runs what writes ``size`` bytes to a path; DiskFull where the disk is."""
    try:
        write()
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise DiskFull(f"{path}: {size:,} bytes do not fit: {os.strerror(error.errno).lower()}") from None


def remove_unfinished(folder: Path) -> None:
    """Removes what a process left that was ended while it wrote."""
    for path in folder.glob(UNFINISHED + "*"):
        path.unlink()


class Records:
    """``metrics.jsonl``: one JSON object per line, each there as soon as it was written."""

    def __init__(self, path: Path, kept: int) -> None:
        """Keeps the first so many lines of what is there and goes on behind them."""
        self.path, self.count = path, 0
        self._file = path.open("a+b")
        self._file.seek(0)
        end = 0
        for line in self._file:
            if self.count == kept or not line.endswith(b"\n"):
                break
            self.count, end = self.count + 1, end + len(line)
        self._file.truncate(end)

    def write(self, record: dict[str, Any]) -> None:
        """Appends a record; DiskFull as :func:`write_whole`."""
        line = json.dumps(record).encode() + b"\n"

        def append() -> None:
            self._file.write(line)
            self._file.flush()

        guarded(self.path, append, len(line))
        self.count += 1

    def sync(self) -> None:
        """Returns when all lines are on the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """What did not fit is tried again here, and an error of it would hide the one that is on its way."""
        with suppress(OSError):
            self._file.close()


def _sync_folder(folder: Path) -> None:
    """The new name, too, is on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
