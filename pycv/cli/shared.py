"""What the commands share: how bad input ends, lists in options, the progress bar."""

from __future__ import annotations

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
    with tqdm(unit="problem", leave=False) as bar:

        def show(done: int, total: int, name: str) -> None:
            bar.total = total
            bar.set_description(name, refresh=False)
            bar.update(done - bar.n)
            bar.refresh()

        yield show
