"""Common parts of the zip and tar readers: limits, members and error conversion."""

import gzip
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from frs.dataset.issues import printable
from frs.errors import ArchiveTooLarge, ArchiveUnreadable

CHUNK = 1 << 18
"""Bytes read at once."""
_UNLIMITED_RATIO_BYTES = 16 << 20
"""Unpacked size up to which any compression ratio is harmless."""


class NegativeSeek(OSError):
    """A seek to before the beginning of the file.

    zipfile tries this for some of its records on malformed files, and catches OSError.
    """


_ARCHIVE_EXCEPTIONS = (
    NegativeSeek,
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    zlib.error,
    struct.error,
    EOFError,
    ValueError,
    LookupError,
    OverflowError,
    RuntimeError,  # includes RecursionError and NotImplementedError
)
"""Exceptions that the standard library raises on files that are not archives, are damaged or are malicious."""


@dataclass(frozen=True)
class ArchiveLimits:
    """Limits of an archive that is unpacked."""

    members: int = 300_000
    """Number of files and folders."""
    bytes: int = 40 << 30
    """Bytes of all unpacked files together."""
    member_bytes: int = 2 << 30
    """Bytes of one unpacked file."""
    ratio: int = 200
    """Unpacked bytes per packed byte, on average."""
    depth: int = 10
    """Levels of nested folders."""
    name_bytes: int = 255
    """Bytes in the name of one folder or file."""


class Member(NamedTuple):
    """One entry of an archive."""

    name: str
    is_folder: bool
    size: int
    """Unpacked bytes, as stated in the archive."""
    chunks: Iterator[bytes]
    """Content; to be consumed before the next member is requested, or not at all."""


@contextmanager
def archive_errors() -> Iterator[None]:
    """Raise ArchiveUnreadable instead of the standard library's exceptions on damaged archives."""
    try:
        yield
    except _ARCHIVE_EXCEPTIONS as error:
        reason = printable(str(error) or type(error).__name__)
        raise ArchiveUnreadable(f"The archive is damaged or incomplete: {reason}.") from error


def refuse_ratio(unpacked: int, packed: int, limits: ArchiveLimits) -> None:
    """Raise ArchiveTooLarge if `packed` bytes unpack to more bytes than the compression ratio's limit allows."""
    if unpacked > _UNLIMITED_RATIO_BYTES and unpacked > limits.ratio * packed:
        raise ArchiveTooLarge(f"The archive unpacks to more than {limits.ratio} times its size.")
