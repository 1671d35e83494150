"""Reader of tar files, gzip-compressed or not; it relies on nothing that the file states about itself."""

import gzip
import io
import tarfile
from collections.abc import Callable, Iterator
from typing import BinaryIO

from frs.dataset.issues import printable
from frs.dataset.upload.archive_members import CHUNK, ArchiveLimits, Member, archive_errors, refuse_ratio
from frs.errors import ArchiveRefused, ArchiveTooLarge, ArchiveUnreadable

_HEADER_BYTES = 1 << 20
"""Largest size of the headers of one member."""


def tar_gz_members(file: BinaryIO, limits: ArchiveLimits) -> Iterator[Member]:
    """Yield the members of a .tar.gz file.

    Raises ArchiveUnreadable, ArchiveRefused for links, devices and sparse files, ArchiveTooLarge.
    """

    def inflate(size: int) -> bytes:
        content = stream.read(size)
        refuse_ratio(stream.tell(), file.tell(), limits)
        if stream.tell() > limits.bytes:
            raise ArchiveTooLarge(f"The archive unpacks to more than {limits.bytes >> 20:,} MiB.")
        return content

    with gzip.GzipFile(fileobj=file) as stream:
        forward = _ForwardStream(inflate)
        yield from _read_members(forward)
        forward.read_to_end()  # verifies the checksum at the end


def tar_members(file: BinaryIO, limits: ArchiveLimits) -> Iterator[Member]:
    """Yield the members of a .tar file.

    Raises ArchiveUnreadable, and ArchiveRefused for links, devices and sparse files.
    """
    return _read_members(_ForwardStream(file.read))


class _ForwardStream(io.RawIOBase):
    """Stream without backward seeks, on which tarfile may read at most `_HEADER_BYTES` between two members."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read, self._position, self._header_bytes_left, self.last = read, 0, 0, b""

    def next_member(self) -> None:
        self._header_bytes_left = _HEADER_BYTES

    def read(self, size: int = -1, /) -> bytes:
        self._header_bytes_left -= size
        if size < 0 or self._header_bytes_left < 0:
            raise ArchiveRefused(f"A header of the archive has more than {_HEADER_BYTES >> 20} MiB.")
        self.last = self.read_content(size)
        return self.last

    def read_content(self, size: int) -> bytes:
        content = self._read(size)
        self._position += len(content)
        return content

    def tell(self) -> int:
        return self._position

    def seek(self, position: int, whence: int = 0, /) -> int:
        if position < self._position:
            raise ValueError("a member lies before the previous one")
        while self._position < position and self.read_content(min(CHUNK, position - self._position)):
            pass
        return self._position

    def read_to_end(self) -> None:
        while self.read_content(CHUNK):
            pass


class _Archive(tarfile.TarFile):
    members: list[tarfile.TarInfo]

    def forget(self) -> None:
        """Drop the headers read so far; TarFile keeps all of them."""
        self.members, self.pax_headers = [], {}


def _read_members(stream: _ForwardStream) -> Iterator[Member]:
    stream.next_member()
    with _Archive(fileobj=stream) as archive:
        while (entry := archive.next()) is not None:
            _refuse_special(entry)
            yield Member(entry.name, entry.isdir(), entry.size, _read_content(stream, entry))
            archive.forget()
            stream.next_member()
    if stream.last.strip(b"\0") or not stream.last:  # tarfile accepts an archive without its end marker
        raise ArchiveUnreadable("The archive is incomplete, or damaged between two of its files.")


def _refuse_special(entry: tarfile.TarInfo) -> None:
    if not (entry.isreg() or entry.isdir()) or entry.issparse():
        raise ArchiveRefused(f"{printable(entry.name)} is a link, a device or a sparse file.")


def _read_content(stream: _ForwardStream, entry: tarfile.TarInfo) -> Iterator[bytes]:
    with archive_errors():
        stream.seek(entry.offset_data)
        remaining = entry.size
        while remaining and (chunk := stream.read_content(min(CHUNK, remaining))):
            remaining -= len(chunk)
            yield chunk
    if remaining:
        raise ArchiveUnreadable(f"The archive ends within {printable(entry.name)}.")
