"""What can be wrong with data; a path that is not there is Python's own FileNotFoundError.

Each takes its message alone, so that it comes out of a worker process as it went in.
"""

from __future__ import annotations


class DataError(ValueError):
    """A file, archive or label is not what its format says. The message names the file."""


class CorruptImage(DataError):
    """One image cannot be decoded: it is truncated, damaged, of an unknown format, or too large to be decoded safely.

    Loaders skip such samples where they are asked to (``on_corrupt="skip"``).
    """
