"""Reader of zip files; it relies on nothing that the file states about itself."""

import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from itertools import pairwise
from typing import BinaryIO

from frs.dataset.issues import printable
from frs.dataset.upload.archive_members import CHUNK, ArchiveLimits, Member, NegativeSeek, archive_errors, refuse_ratio
from frs.errors import ArchiveRefused, ArchiveTooLarge, ArchiveUnreadable

_DIRECTORY_BYTES = 64 << 20
"""Largest size of the central directory."""
_UNICODE_PATH = 0x7075
"""Extra field of an entry that holds its name in UTF-8."""
_LOCAL_HEADER = 30
"""Bytes of a local file header without its variable part."""


def zip_members(file: BinaryIO, limits: ArchiveLimits) -> Iterator[Member]:
    """Yield the members of a .zip file.

    Raises ArchiveUnreadable, ArchiveRefused for links, devices and overlapping entries, ArchiveTooLarge.
    """
    with zipfile.ZipFile(_LimitedReader(file, limits)) as archive:
        entries = archive.infolist()
        _refuse_overlaps(entries, archive.start_dir)
        for entry in entries:
            _refuse_special(entry)
            yield Member(_decode_name(entry), entry.is_dir(), entry.file_size, _read_content(archive, entry, limits))


class _LimitedReader(io.BufferedReader):
    """Reader that limits the size of the central directory.

    zipfile reads the whole directory at once, whatever its size, and creates an object for every entry.
    """

    def __init__(self, file: BinaryIO, limits: ArchiveLimits) -> None:
        super().__init__(io.FileIO(file.fileno(), closefd=False))
        self._limits = limits

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _DIRECTORY_BYTES:
            raise ArchiveTooLarge(f"The archive's central directory has more than {_DIRECTORY_BYTES >> 20} MiB.")
        content = super().read(size)
        if len(content) > CHUNK and content.count(b"PK\1\2") > self._limits.members:
            raise ArchiveTooLarge(f"The archive has more than {self._limits.members:,} members.")
        return content

    def seek(self, offset: int, whence: int = 0, /) -> int:
        try:
            return super().seek(offset, whence)
        except OSError as error:
            raise NegativeSeek("an entry lies outside the file") from error


def _refuse_overlaps(entries: list[zipfile.ZipInfo], end: int) -> None:
    """Raise ArchiveRefused if entries share bytes, which allows a zip bomb of any ratio."""
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


def _decode_name(entry: zipfile.ZipInfo) -> str:
    """Return the name of an entry: its Unicode path, UTF-8 also without its flag, as macOS packs, or code page 437."""
    if entry.flag_bits & 0x800:
        return entry.orig_filename
    raw = entry.orig_filename.encode("cp437")
    for name in (_find_unicode_path(entry.extra, raw), raw):
        try:
            if name:
                return name.decode("utf-8")
        except UnicodeError:
            continue
    return entry.orig_filename


def _find_unicode_path(extra: bytes, raw: bytes) -> bytes | None:
    """Return the UTF-8 name in Info-ZIP's extra field, if it belongs to the entry's name in a local code page.

    Source: APPNOTE.TXT 4.6.9, Info-ZIP Unicode Path Extra Field.
    """
    while len(extra) >= 4:
        kind, size = struct.unpack("<HH", extra[:4])
        content, extra = extra[4 : 4 + size], extra[4 + size :]
        if kind == _UNICODE_PATH and content[:5] == struct.pack("<BL", 1, zlib.crc32(raw)):
            return content[5:]
    return None


def _read_content(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, limits: ArchiveLimits) -> Iterator[bytes]:
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # other methods unpack without a bound
        raise ArchiveUnreadable(f"{printable(entry.orig_filename)} is neither stored nor deflated.")
    size = 0
    with archive_errors(), archive.open(entry) as content:
        while chunk := content.read(CHUNK):
            size += len(chunk)
            refuse_ratio(size, entry.compress_size, limits)
            yield chunk
    if size != entry.file_size:
        raise ArchiveUnreadable(
            f"{printable(entry.orig_filename)} unpacks to {size:,} bytes, but the archive states {entry.file_size:,}."
        )
