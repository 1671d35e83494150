"""The members of a zip file, trusting nothing it says of itself."""

import io
import stat
import zipfile
from collections.abc import Iterator
from itertools import pairwise
from typing import BinaryIO

from frs.dataset.issues import printable
from frs.dataset.upload.archive_members import CHUNK, ArchiveLimits, Member, NegativeSeek, archive_errors, refuse_ratio
from frs.errors import ArchiveRefused, ArchiveTooLarge, ArchiveUnreadable

_DIRECTORY = 64 << 20
"""Most bytes of the table of contents."""
_LOCAL_HEADER = 30


def zip_members(file: BinaryIO, caps: ArchiveLimits) -> Iterator[Member]:
    with zipfile.ZipFile(_WithShortReads(file, caps)) as archive:
        entries = archive.infolist()
        _refuse_overlaps(entries, archive.start_dir)
        for entry in entries:
            _refuse_special(entry)
            yield Member(entry.orig_filename, entry.is_dir(), entry.file_size, _inflated(archive, entry, caps))


class _WithShortReads(io.BufferedReader):
    """zipfile reads the whole table of contents at once, however long it is, and makes an object of every entry."""

    def __init__(self, file: BinaryIO, caps: ArchiveLimits) -> None:
        super().__init__(io.FileIO(file.fileno(), closefd=False))
        self._caps = caps

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _DIRECTORY:
            raise ArchiveTooLarge(f"The archive's table of contents has more than {_DIRECTORY >> 20} MiB.")
        content = super().read(size)
        if len(content) > CHUNK and content.count(b"PK\1\2") > self._caps.members:
            raise ArchiveTooLarge(f"The archive has more than {self._caps.members:,} members.")
        return content

    def seek(self, offset: int, whence: int = 0, /) -> int:
        try:
            return super().seek(offset, whence)
        except OSError as error:
            raise NegativeSeek("an entry lies outside the file") from error


def _refuse_overlaps(entries: list[zipfile.ZipInfo], end: int) -> None:
    """Entries that share their bytes are a bomb of any ratio."""
    starts = sorted((entry.header_offset, entry.compress_size) for entry in entries)
    for (start, size), (following, _) in pairwise([*starts, (end, 0)]):
        if start + _LOCAL_HEADER + size > following:
            raise ArchiveRefused("Entries of the zip file overlap.")


def _refuse_special(entry: zipfile.ZipInfo) -> None:
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise ArchiveRefused(f"{printable(entry.orig_filename)} is a link or a device.")
    if entry.flag_bits & 0x41:
        raise ArchiveUnreadable(f"{printable(entry.orig_filename)} is encrypted.")


def _inflated(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, caps: ArchiveLimits) -> Iterator[bytes]:
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # the others unpack without bounds
        raise ArchiveUnreadable(f"{printable(entry.orig_filename)} is neither stored nor deflated.")
    size = 0
    with archive_errors(), archive.open(entry) as content:
        while chunk := content.read(CHUNK):
            size += len(chunk)
            refuse_ratio(size, entry.compress_size, caps)
            yield chunk
    if size != entry.file_size:
        raise ArchiveUnreadable(
            f"{printable(entry.orig_filename)} is said to have {entry.file_size:,} bytes, has {size:,}."
        )
