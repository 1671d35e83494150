"""What the readers of zip and tar files share: what an archive may hold, and how its members are handed on."""

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
_ANY_RATIO = 16 << 20
"""So much may unpack from next to nothing: it does no harm."""


class NegativeSeek(OSError):
    """zipfile looks for some of its records before a file's beginning, and catches this."""


_BROKEN = (
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
    RuntimeError,  # with it RecursionError, and NotImplementedError
)
"""What the standard library raises on files that are no archives, or are broken, or were broken on purpose."""


@dataclass(frozen=True)
class ArchiveLimits:
    members: int = 300_000
    bytes: int = 40 << 30
    """Of all that is written."""
    member_bytes: int = 2 << 30
    ratio: int = 200
    """Bytes that one byte of the archive may stand for, on the average."""
    depth: int = 10
    """Folders within folders."""
    name_bytes: int = 255
    """Of one folder's or file's name."""


class Member(NamedTuple):
    name: str
    is_folder: bool
    size: int
    """As the archive says."""
    chunks: Iterator[bytes]
    """To be read before the next member, or not at all."""


@contextmanager
def archive_errors() -> Iterator[None]:
    """Raises ArchiveUnreadable for whatever the standard library raises."""
    try:
        yield
    except _BROKEN as error:
        reason = printable(str(error) or type(error).__name__)
        raise ArchiveUnreadable(f"The archive is broken or cut off: {reason}.") from error


def refuse_ratio(unpacked: int, packed: int, caps: ArchiveLimits) -> None:
    if unpacked > _ANY_RATIO and unpacked > caps.ratio * packed:
        raise ArchiveTooLarge(f"The archive unpacks to more than {caps.ratio} times its size.")
