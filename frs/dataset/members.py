"""The members of a zip or tar file, one after the other, trusting nothing it says; `frs.dataset.archive` judges names.

The standard library's readers take whole headers into memory, so they read through files that count.
"""

import gzip
import io
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

from frs.dataset.problems import shown
from frs.errors import ArchiveRefused, ArchiveTooLarge, ArchiveUnreadable

Suffix = Literal[".zip", ".tar", ".tar.gz"]
CHUNK = 1 << 18
_HEADER = 1 << 20
"""Most bytes that may describe one member of a tar file."""
_DIRECTORY = 64 << 20
"""Most bytes of a zip file's table of contents."""
_LOCAL_HEADER = 30
_ANY_RATIO = 16 << 20
"""So much may unpack from next to nothing: it does no harm."""


class _Outside(OSError):
    """zipfile looks for some of its records before a file's beginning, and catches this."""


_BROKEN = (
    _Outside,
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
class Caps:
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


def members(archive: Path, caps: Caps) -> Iterator[Member]:
    """Raises ArchiveUnreadable, ArchiveRefused, ArchiveTooLarge; so do the members' `chunks`."""
    read = _READERS[suffix(archive)]
    with archive.open("rb") as file, _told():
        yield from read(file, caps)


def suffix(archive: Path) -> Suffix:
    """What its content is, whatever its name. Raises ArchiveUnreadable."""
    with archive.open("rb") as file:
        head = file.read(512)
    if head.startswith(b"PK"):
        return ".zip"
    if head.startswith(b"\x1f\x8b"):
        return ".tar.gz"
    if head[257:262] == b"ustar":
        return ".tar"
    raise ArchiveUnreadable("This is no .zip, .tar or .tar.gz file.")


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except _BROKEN as error:
        reason = shown(str(error) or type(error).__name__)
        raise ArchiveUnreadable(f"The archive is broken or cut off: {reason}.") from error


def _zip_members(file: BinaryIO, caps: Caps) -> Iterator[Member]:
    with zipfile.ZipFile(_WithShortReads(file, caps)) as archive:
        entries = archive.infolist()
        _refuse_overlaps(entries, archive.start_dir)
        for entry in entries:
            _refuse_special(entry)
            yield Member(entry.orig_filename, entry.is_dir(), entry.file_size, _inflated(archive, entry, caps))


class _WithShortReads(io.BufferedReader):
    """zipfile reads the whole table of contents at once, however long it is, and makes an object of every entry."""

    def __init__(self, file: BinaryIO, caps: Caps) -> None:
        super().__init__(io.FileIO(file.fileno(), closefd=False))
        self._caps = caps

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _DIRECTORY:
            raise ArchiveTooLarge(f"The archive's table of contents has more than {_DIRECTORY >> 20} MiB.")
        content = super().read(size)
        if len(content) > CHUNK and content.count(b"PK\1\2") > self._caps.members:
            raise _too_many(self._caps)
        return content

    def seek(self, offset: int, whence: int = 0, /) -> int:
        try:
            return super().seek(offset, whence)
        except OSError as error:
            raise _Outside("an entry lies outside the file") from error


def _refuse_overlaps(entries: list[zipfile.ZipInfo], end: int) -> None:
    """Entries that share their bytes are a bomb of any ratio."""
    starts = sorted((entry.header_offset, entry.compress_size) for entry in entries)
    for (start, size), (following, _) in pairwise([*starts, (end, 0)]):
        if start + _LOCAL_HEADER + size > following:
            raise ArchiveRefused("Entries of the zip file overlap.")


def _refuse_special(entry: zipfile.ZipInfo) -> None:
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise ArchiveRefused(f"{shown(entry.orig_filename)} is a link or a device.")
    if entry.flag_bits & 0x41:
        raise ArchiveUnreadable(f"{shown(entry.orig_filename)} is encrypted.")


def _inflated(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, caps: Caps) -> Iterator[bytes]:
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # the others unpack without bounds
        raise ArchiveUnreadable(f"{shown(entry.orig_filename)} is neither stored nor deflated.")
    size = 0
    with _told(), archive.open(entry) as content:
        while chunk := content.read(CHUNK):
            size += len(chunk)
            _refuse_ratio(size, entry.compress_size, caps)
            yield chunk
    if size != entry.file_size:
        raise ArchiveUnreadable(
            f"{shown(entry.orig_filename)} is said to have {entry.file_size:,} bytes, has {size:,}."
        )


def _tar_gz_members(file: BinaryIO, caps: Caps) -> Iterator[Member]:
    def inflate(size: int) -> bytes:
        content = stream.read(size)
        _refuse_ratio(stream.tell(), file.tell(), caps)
        if stream.tell() > caps.bytes:
            raise ArchiveTooLarge(f"The archive unpacks to more than {caps.bytes >> 20:,} MiB.")
        return content

    with gzip.GzipFile(fileobj=file) as stream:
        tape = _Tape(inflate)
        yield from _members_on(tape, caps)
        tape.run_out()  # the checksum comes last


def _tar_members(file: BinaryIO, caps: Caps) -> Iterator[Member]:
    return _members_on(_Tape(file.read), caps)


class _Tape(io.RawIOBase):
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


def _members_on(tape: _Tape, caps: Caps) -> Iterator[Member]:
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
        raise ArchiveRefused(f"{shown(entry.name)} is a link, a device or has holes.")


def _taken(tape: _Tape, entry: tarfile.TarInfo) -> Iterator[bytes]:
    with _told():
        tape.seek(entry.offset_data)
        left = entry.size
        while left and (chunk := tape.take(min(CHUNK, left))):
            left -= len(chunk)
            yield chunk
    if left:
        raise ArchiveUnreadable(f"The archive is cut off within {shown(entry.name)}.")


def _refuse_ratio(unpacked: int, packed: int, caps: Caps) -> None:
    if unpacked > _ANY_RATIO and unpacked > caps.ratio * packed:
        raise ArchiveTooLarge(f"The archive unpacks to more than {caps.ratio} times its size.")


def _too_many(caps: Caps) -> ArchiveTooLarge:
    return ArchiveTooLarge(f"The archive has more than {caps.members:,} members.")


_READERS: dict[Suffix, Callable[[BinaryIO, Caps], Iterator[Member]]] = {
    ".zip": _zip_members,
    ".tar": _tar_members,
    ".tar.gz": _tar_gz_members,
}
