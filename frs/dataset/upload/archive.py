"""Unpacks the zip or tar file of a stranger: pictures and annotations only, as plain files, in a folder of their own."""

import shutil
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Literal

from frs.dataset.fields import is_text
from frs.dataset.issues import printable
from frs.dataset.upload.archive_members import ArchiveLimits, Member, archive_errors
from frs.dataset.upload.tar_members import tar_gz_members, tar_members
from frs.dataset.upload.zip_members import zip_members
from frs.errors import ArchiveRefused, ArchiveTooLarge, ArchiveUnreadable

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
WANTED = IMAGE_SUFFIXES | {".json", ".xml", ".txt", ".yaml", ".yml"}
DEFAULT_LIMITS = ArchiveLimits()
Suffix = Literal[".zip", ".tar", ".tar.gz"]
_READERS: dict[Suffix, Callable[[BinaryIO, ArchiveLimits], Iterator[Member]]] = {
    ".zip": zip_members,
    ".tar": tar_members,
    ".tar.gz": tar_gz_members,
}
_NAME_BYTES = 1024
_TURNS_TEXT = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""They make a name read otherwise than it is."""


@dataclass
class UnpackResult:
    files: int = 0
    bytes: int = 0
    left_out: int = 0
    """Files of other kinds, archives within the archive among them."""


def unpack(archive: Path, target: Path, caps: ArchiveLimits = DEFAULT_LIMITS) -> UnpackResult:
    """Makes the folder `target`, which is there whole or not at all.

    Raises ArchiveUnreadable, ArchiveRefused, ArchiveTooLarge.
    """
    target.mkdir(parents=True)
    try:
        return _unpack(archive, target, caps)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise


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


def _unpack(archive: Path, target: Path, caps: ArchiveLimits) -> UnpackResult:
    done, names = UnpackResult(), _Names(caps)
    for number, member in enumerate(_members(archive, caps), 1):
        if number > caps.members:
            raise ArchiveTooLarge(f"The archive has more than {caps.members:,} members.")
        parts = names.parts(member.name)
        if member.is_folder:
            continue
        if not _is_wanted(parts):
            done.left_out += 1
            continue
        names.claim(parts)
        done.files += 1
        _write(member, target.joinpath(*parts), done, caps)
    if not done.files:
        raise ArchiveUnreadable("The archive holds no pictures and no annotations.")
    return done


def _members(archive: Path, caps: ArchiveLimits) -> Iterator[Member]:
    read = _READERS[suffix(archive)]
    with archive.open("rb") as file, archive_errors():
        yield from read(file, caps)


@dataclass
class _Names:
    caps: ArchiveLimits
    _spelt: dict[str, str] = field(default_factory=dict)
    """By what is left of a path where case and Unicode forms do not count."""

    def parts(self, name: str) -> list[str]:
        """Raises ArchiveRefused for a name that could lead out of a folder, here or elsewhere."""
        if not is_text(name, _NAME_BYTES) or _TURNS_TEXT.intersection(name) or "\\" in name:
            raise ArchiveRefused(
                f"The archive holds a name with characters that names should not have: {printable(name)}."
            )
        for form in (name, unicodedata.normalize("NFKC", name)):
            if form.startswith("/") or ".." in form.split("/") or form[1:3] == ":/":
                raise ArchiveRefused(f"{printable(name)} leads out of the archive's own folder.")
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if len(parts) - 1 > self.caps.depth:
            raise ArchiveTooLarge(f"{printable(name)} lies deeper than {self.caps.depth} folders.")
        if any(len(part.encode()) > self.caps.name_bytes for part in parts):
            raise ArchiveTooLarge(f"{printable(name)} has a name of more than {self.caps.name_bytes} bytes.")
        return parts

    def claim(self, parts: list[str]) -> None:
        """Raises ArchiveRefused where another file has that name, or one that some file systems take for it."""
        for end in range(1, len(parts) + 1):
            spelt = "/".join(parts[:end]) + ("/" if end < len(parts) else "")
            folded = unicodedata.normalize("NFKC", spelt).casefold().rstrip("/")
            before = self._spelt.get(folded)
            if before is not None and (before != spelt or end == len(parts)):
                raise ArchiveRefused(f"{printable(spelt)} is there twice, before as {printable(before)}.")
            self._spelt[folded] = spelt


def _is_wanted(parts: list[str]) -> bool:
    """Not what macOS and editors leave behind: `__MACOSX/._1.jpg` is no picture."""
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
    return bool(parts) and not hidden and PurePosixPath(parts[-1]).suffix.lower() in WANTED


def _write(member: Member, path: Path, done: UnpackResult, caps: ArchiveLimits) -> None:
    size = 0
    if member.size > caps.member_bytes:
        raise _too_large(member, caps)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        for chunk in member.chunks:
            size += len(chunk)
            done.bytes += len(chunk)
            if size > caps.member_bytes:
                raise _too_large(member, caps)
            if done.bytes > caps.bytes:
                raise ArchiveTooLarge(f"The archive unpacks to more than {caps.bytes >> 20:,} MiB.")
            file.write(chunk)


def _too_large(member: Member, caps: ArchiveLimits) -> ArchiveTooLarge:
    return ArchiveTooLarge(f"{printable(member.name)} has more than {caps.member_bytes >> 20:,} MiB.")
