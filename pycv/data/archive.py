"""Archives that nobody vouches for: tar (plain, gzip, bzip2, xz) and zip.

Only plain files with names inside the target are taken out: a link, a device, an absolute path or one with ``..`` ends
the extraction with its name. Owners, modes and times are not restored. What is unpacked is counted, so that an archive
that unpacks to a hundred times its size is refused before it fills the disk. What follows the last member of a
compressed tar is read, too, up to the checksum at its end.
"""

from __future__ import annotations

import errno
import lzma
import os
import stat
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, cast

from .errors import DataError

LARGEST_RATIO = 100  # unpacked to packed: images hardly shrink, the IDX files of MNIST by 5
SLACK = 1 << 20  # small archives of much padding are none of our business
CHUNK = 1 << 20
DAMAGE = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError,
    ValueError, OverflowError, NotImplementedError,  # of headers: numbers, texts, unknown methods of compression
)  # fmt: skip
UNUSABLE = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ)  # names of files


@dataclass(frozen=True)
class Member:
    """A plain file in an archive."""

    name: str
    open: Callable[[], IO[bytes]]


def extract(archive: str | Path, folder: str | Path) -> Path:
    """Unpacks an archive into a new folder, which appears when all of it is there, and gives the folder.

    Raises
    ------
    FileNotFoundError
        If the archive is not there.
    FileExistsError
        If the folder is.
    DataError
        If the archive is damaged or holds what it should not; the message names the member.
    """
    archive, folder = Path(archive), Path(folder)
    if folder.exists():
        raise FileExistsError(f"folder={str(folder)!r}: is there already")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
        unpacked = Path(temporary) / "unpacked"
        unpacked.mkdir()
        budget = _Budget(archive)
        with members(archive, budget) as files:
            for member in files:
                with _new_file(unpacked / _inside(member.name, archive), member, archive) as sink:
                    for chunk in budget.chunks(member):
                        sink.write(chunk)
        os.replace(unpacked, folder)
    return folder


def _new_file(path: Path, member: Member, archive: Path) -> IO[bytes]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return open(path, "xb")
    except OSError as error:
        if error.errno not in UNUSABLE:
            raise
        problem = "is there already" if error.errno == errno.EEXIST else os.strerror(error.errno).lower()
        raise DataError(f"{archive}: member {member.name!r}: {problem}") from None


def read(archive: Path, wanted: set[str]) -> dict[str, bytes]:
    """The contents of the members with these file names (whatever their folders), of those that are there.

    Raises as :func:`extract`.
    """
    found: dict[str, bytes] = {}
    budget = _Budget(archive)
    with members(archive, budget) as files:
        for member in files:
            name = _inside(member.name, archive).name
            if name in wanted:
                found[name] = b"".join(budget.chunks(member))
    return found


@contextmanager
def members(archive: Path, budget: _Budget) -> Iterator[Iterator[Member]]:
    """The plain files of an archive, one after the other; each can be opened until the next is asked for."""
    if not archive.exists():
        raise FileNotFoundError(f"archive={str(archive)!r}: no such file")
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as zipped:
                yield _zip_members(zipped, archive)
        else:
            with tarfile.open(archive, "r:*") as tar:
                yield _tar_members(tar, archive, budget)
    except DataError:
        raise
    except DAMAGE as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # EINVAL: of an impossible offset
            raise  # the operating system's: no right to read, a full disk
        raise DataError(f"{archive}: {error or type(error).__name__}") from error


def _tar_members(tar: tarfile.TarFile, archive: Path, budget: _Budget) -> Iterator[Member]:
    for info in tar:
        if info.isdir():
            continue
        if not info.isreg():
            kind = "a link" if info.islnk() or info.issym() else "neither file nor folder"
            raise DataError(f"{archive}: member {info.name!r} is {kind}")

        def open_member(info: tarfile.TarInfo = info) -> IO[bytes]:
            file = tar.extractfile(info)
            assert file is not None  # of a plain file there is one
            return file

        yield Member(info.name, open_member)
    check_end(tar)
    rest = cast(IO[bytes], tar.fileobj)
    for _ in budget.chunks(Member("after the last", lambda: rest)):
        pass  # the checksum is looked at where the file ends


def check_end(tar: tarfile.TarFile) -> None:
    """After the last member: tarfile.ReadError if the file is cut off there or damaged.

    tarfile takes a damaged header for the end; the true end is a block of zeros.
    """
    file = tar.fileobj
    assert file is not None
    file.seek(tar.offset)
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError(f"truncated or damaged after byte {tar.offset}")


def _zip_members(zipped: zipfile.ZipFile, archive: Path) -> Iterator[Member]:
    for info in zipped.infolist():
        if info.filename.endswith("/"):  # is_dir() takes no empty name
            continue
        mode = info.external_attr >> 16
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            kind = "a link" if stat.S_ISLNK(mode) else "neither file nor folder"
            raise DataError(f"{archive}: member {info.filename!r} is {kind}")
        if info.flag_bits & 1:
            raise DataError(f"{archive}: member {info.filename!r} is encrypted")
        yield Member(info.filename, lambda info=info: zipped.open(info))  # type: ignore[misc]


def _inside(name: str, archive: Path) -> PurePosixPath:
    path = PurePosixPath(name.replace("\\", "/"))
    if not path.name or "\0" in name:
        raise DataError(f"{archive}: member {name!r} names no file")
    if path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
        raise DataError(f"{archive}: member {name!r} would be written outside of the folder")
    return path


class _Budget:
    """How many bytes an archive may still unpack to."""

    def __init__(self, archive: Path) -> None:
        self.archive = archive
        self.left = LARGEST_RATIO * archive.stat().st_size + SLACK if archive.exists() else 0

    def chunks(self, member: Member) -> Iterator[bytes]:
        """The contents of a member; DataError as soon as there is more than is left."""
        with member.open() as source:
            while chunk := source.read(CHUNK):
                self.left -= len(chunk)
                if self.left < 0:
                    raise DataError(
                        f"{self.archive}: unpacks to more than {LARGEST_RATIO} times its size "
                        f"(at member {member.name!r}): a bomb?"
                    )
                yield chunk
