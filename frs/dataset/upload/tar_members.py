"""The members of a tar file, packed or not, trusting nothing it says of itself."""

import gzip
import io
import tarfile
from collections.abc import Callable, Iterator
from typing import BinaryIO

from frs.dataset.issues import printable
from frs.dataset.upload.archive_members import CHUNK, ArchiveLimits, Member, archive_errors, refuse_ratio
from frs.errors import ArchiveRefused, ArchiveTooLarge, ArchiveUnreadable

_HEADER = 1 << 20
"""Most bytes that may describe one member."""


def tar_gz_members(file: BinaryIO, caps: ArchiveLimits) -> Iterator[Member]:
    def inflate(size: int) -> bytes:
        content = stream.read(size)
        refuse_ratio(stream.tell(), file.tell(), caps)
        if stream.tell() > caps.bytes:
            raise ArchiveTooLarge(f"The archive unpacks to more than {caps.bytes >> 20:,} MiB.")
        return content

    with gzip.GzipFile(fileobj=file) as stream:
        tape = _ForwardStream(inflate)
        yield from _members_on(tape, caps)
        tape.run_out()  # the checksum comes last


def tar_members(file: BinaryIO, caps: ArchiveLimits) -> Iterator[Member]:
    return _members_on(_ForwardStream(file.read), caps)


class _ForwardStream(io.RawIOBase):
    """Goes forward only. tarfile may read `_HEADER` bytes between two members: more no header needs."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read, self._place, self._headers_left, self.last = read, 0, 0, b""

    def next_member(self) -> None:
        self._headers_left = _HEADER

    def read(self, size: int = -1, /) -> bytes:
        self._headers_left -= size
        if size < 0 or self._headers_left < 0:
            raise ArchiveRefused(f"A header of the archive has more than {_HEADER >> 20} MiB.")
        self.last = self.take(size)
        return self.last

    def take(self, size: int) -> bytes:
        content = self._read(size)
        self._place += len(content)
        return content

    def tell(self) -> int:
        return self._place

    def seek(self, place: int, whence: int = 0, /) -> int:
        if place < self._place:
            raise ValueError("a member lies before the one that it follows")
        while self._place < place and self.take(min(CHUNK, place - self._place)):
            pass
        return self._place

    def run_out(self) -> None:
        while self.take(CHUNK):
            pass


class _Archive(tarfile.TarFile):
    members: list[tarfile.TarInfo]

    def forget(self) -> None:
        """What came with the members so far: it would all be kept."""
        self.members, self.pax_headers = [], {}


def _members_on(tape: _ForwardStream, caps: ArchiveLimits) -> Iterator[Member]:
    tape.next_member()
    with _Archive(fileobj=tape) as archive:
        while (entry := archive.next()) is not None:
            _refuse_no_file(entry)
            yield Member(entry.name, entry.isdir(), entry.size, _taken(tape, entry))
            archive.forget()
            tape.next_member()
    if tape.last.strip(b"\0") or not tape.last:  # tarfile takes any end for the end
        raise ArchiveUnreadable("The archive is cut off, or broken between two of its files.")


def _refuse_no_file(entry: tarfile.TarInfo) -> None:
    if not (entry.isreg() or entry.isdir()) or entry.issparse():
        raise ArchiveRefused(f"{printable(entry.name)} is a link, a device or has holes.")


def _taken(tape: _ForwardStream, entry: tarfile.TarInfo) -> Iterator[bytes]:
    with archive_errors():
        tape.seek(entry.offset_data)
        left = entry.size
        while left and (chunk := tape.take(min(CHUNK, left))):
            left -= len(chunk)
            yield chunk
    if left:
        raise ArchiveUnreadable(f"The archive is cut off within {printable(entry.name)}.")
