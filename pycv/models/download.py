"""Fetching one file whose hash is known. It can be broken off and gone on with, and is there as a whole or not at all.

What has arrived so far lies in ``NAME.part`` beside the destination; the next attempt asks the server for the rest
(HTTP range). Once the length is right the SHA-256 is compared, and only then does the file get its name, in one step.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path

from ..choice import files

ATTEMPTS = 3  # connections that break off in the middle, before the user is asked
TIMEOUT = 30.0  # seconds without a byte
CHUNK = 1 << 20


def fetch(url: str, destination: Path, sha256: str) -> Path:
    """Download ``url`` to ``destination`` unless it is there; says so, with the size, on standard error.

    ``sha256`` is the hash in hexadecimal digits, or how it begins. Processes that want the same file wait for the one
    that fetches it.

    Raises
    ------
    ConnectionError
        If the server cannot be reached, refuses, or breaks off again and again; the message says what to do.
    ValueError
        If the file that arrived (it is removed) or the one that is there (it is left) has another hash.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    with files.locked(files.cache_dir() / destination.name):
        if destination.exists():
            _require_hash(destination, sha256, "remove it, and it is downloaded again")
            return destination
        part = destination.with_name(destination.name + ".part")
        resumed = part.exists()
        _transfer(url, part, destination)
        if resumed and not _has_hash(part, sha256):  # perhaps what lay there was of another file
            part.unlink()
            _transfer(url, part, destination)
        try:
            _require_hash(part, sha256, f"what {url} serves is not the published file; it was removed")
        except ValueError:
            part.unlink()
            raise
        os.replace(part, destination)
        return destination


def _transfer(url: str, part: Path, destination: Path) -> None:
    """Until the file is complete; the attempts after the first go on where the one before broke off."""
    for _ in range(ATTEMPTS):
        if _receive(url, part, destination):
            return
    raise ConnectionError(
        f"{url}: the connection broke off {ATTEMPTS} times; {part.stat().st_size:,} bytes are kept in {part}, and the "
        "same call goes on from there"
    )


def _receive(url: str, part: Path, destination: Path) -> bool:
    """One connection; whether the file is complete."""
    have = part.stat().st_size if part.exists() else 0
    try:
        response = _open(url, have)
    except urllib.error.HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and have:  # nothing is left to send
            return True
        raise ConnectionError(f"{url}: the server answers {error.code} {error.reason}") from None
    except OSError as error:
        raise ConnectionError(
            f"{url}: cannot be reached ({getattr(error, 'reason', error)}). Without a connection, bring the file from "
            f"elsewhere and put it at {destination}, or give its path as weights="
        ) from None
    with response:
        if response.status != http.client.PARTIAL_CONTENT:  # the server sends all of it, asked for the rest or not
            have = 0
        rest = response.headers.get("Content-Length")
        total = None if rest is None else have + int(rest)
        _announce(url, destination, have, total)
        with part.open("ab" if have else "wb") as file:
            try:
                while chunk := response.read(CHUNK):
                    file.write(chunk)
            except (OSError, http.client.HTTPException):
                return False
            size = file.tell()
            file.flush()
            os.fsync(file.fileno())
    return total is None or size >= total


def _open(url: str, have: int) -> http.client.HTTPResponse:
    headers = {"User-Agent": "pycv", **({"Range": f"bytes={have}-"} if have else {})}
    return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)


def _announce(url: str, destination: Path, have: int, total: int | None) -> None:
    size = "size unknown" if total is None else f"{total / 1e6:.1f} MB"
    begun = f", {have / 1e6:.1f} MB of them are here already" if have else ""
    print(f"pycv: downloading {url} ({size}{begun}) to {destination}", file=sys.stderr, flush=True)


def _has_hash(path: Path, sha256: str) -> bool:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest().startswith(sha256)


def _require_hash(path: Path, sha256: str, what_to_do: str) -> None:
    if not _has_hash(path, sha256):
        raise ValueError(f"{path}: its SHA-256 does not begin with {sha256}: {what_to_do}")
