"""What the commands share: how bad input ends, lists in options, the progress bar."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class UsageError(Exception):
    """The user asked for something that does not exist; the message says what."""


@contextmanager
def user_input() -> Iterator[None]:
    """Around the reading of what the user gave only: elsewhere a ValueError is a bug and looks like one."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise  # wherever that happens it is said in the same words
        if error.filename is None or error.strerror is None:  # the message is the package's own
            raise UsageError(str(error)) from None
        raise UsageError(f"{error.filename}: {error.strerror.lower()}") from None
    except ValueError as error:
        raise UsageError(str(error)) from None


def names(text: str) -> list[str]:
    """The parts of a list that commas separate."""
    return [name.strip() for name in text.split(",") if name.strip()]


@contextmanager
def progress_bar() -> Iterator[Callable[[int, int, str], None]]:
    """A progress bar where tqdm is installed, else a line per problem; on standard error."""
    try:
        from tqdm import tqdm
    except ImportError:
        yield lambda done, total, name: print(f"[{done}/{total}] {name}", file=sys.stderr, flush=True)
        return
    with tqdm(leave=False, total=1, bar_format=_BAR) as bar:

        def show(done: int, total: int, name: str) -> None:
            bar.total, bar.n = total, done
            bar.set_description_str(name)

        yield show


# What is going on now, how much of it is done, and how long all of it takes; rates mean nothing where problems differ.
_BAR = "{percentage:3.0f}% |{bar:20}| {n_fmt}/{total_fmt}, {elapsed}, {remaining} left  {desc}"
