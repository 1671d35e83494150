"""Unpacking of an untrusted .zip or .tar file: only images and annotations, as regular files, in a new folder."""

import shutil
import unicodedata
from collections import Counter
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

_READ = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp"})
_NOT_READ = frozenset({".tif", ".tiff", ".gif", ".heic", ".heif", ".avif", ".jp2"})
IMAGE_SUFFIXES = _READ | _NOT_READ
"""Suffixes of image files, lower case. Those of kinds that are not read are unpacked so that the check names them."""
ACCEPTED_SUFFIXES = IMAGE_SUFFIXES | {".json", ".xml", ".txt", ".yaml", ".yml", ".names", ".data", ".labels"}
"""Suffixes of the files that are unpacked, lower case; all other files are skipped."""
DEFAULT_LIMITS = ArchiveLimits()
Suffix = Literal[".zip", ".tar", ".tar.gz"]
_READERS: dict[Suffix, Callable[[BinaryIO, ArchiveLimits], Iterator[Member]]] = {
    ".zip": zip_members,
    ".tar": tar_members,
    ".tar.gz": tar_gz_members,
}
_NAME_BYTES = 1024
_BIDI_CONTROLS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Bidirectional control characters: they make a displayed name differ from the stored one."""


@dataclass
class UnpackResult:
    """Counts of what was unpacked."""

    files: int = 0
    """Files written."""
    bytes: int = 0
    """Bytes written."""
    skipped: int = 0
    """Files of other kinds, including archives within the archive; they are not written."""
    skipped_suffixes: Counter[str] = field(default_factory=Counter)
    """Number of skipped files by suffix."""


def unpack(archive: Path, target: Path, limits: ArchiveLimits = DEFAULT_LIMITS) -> UnpackResult:
    """Unpack the archive into the new folder `target`; on failure the folder is removed.

    Raises ArchiveUnreadable if the archive is damaged or of another format, ArchiveRefused if it has unsafe entries,
    ArchiveTooLarge if it exceeds `limits`.
    """
    target.mkdir(parents=True)
    try:
        return _unpack(archive, target, limits)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise


def detect_suffix(archive: Path) -> Suffix:
    """Return the archive's format by its content, whatever its name. Raises ArchiveUnreadable if it is none of them."""
    with archive.open("rb") as file:
        head = file.read(512)
    if head.startswith(b"PK"):
        return ".zip"
    if head.startswith(b"\x1f\x8b"):
        return ".tar.gz"
    if head[257:262] == b"ustar":
        return ".tar"
    raise ArchiveUnreadable("The file is not a .zip, .tar or .tar.gz archive.")


def normalise_path(path: str) -> str:
    """Return a path with slashes and in Unicode's composed form, as files are unpacked and must be looked up."""
    return unicodedata.normalize("NFC", path.replace("\\", "/"))  # backslashes: old versions of .NET and PowerShell


def _unpack(archive: Path, target: Path, limits: ArchiveLimits) -> UnpackResult:
    result, names = UnpackResult(), _MemberNames(limits)
    for number, member in enumerate(_read_members(archive, limits), 1):
        if number > limits.members:
            raise ArchiveTooLarge(f"The archive has more than {limits.members:,} members.")
        parts = names.split(member.name)
        if member.is_folder:
            continue
        if not _is_accepted(parts):
            result.skipped += 1
            result.skipped_suffixes[PurePosixPath(parts[-1]).suffix.lower() if parts else ""] += 1
            continue
        names.claim(parts)
        result.files += 1
        _write_member(member, target.joinpath(*parts), result, limits)
    if not result.files:
        raise ArchiveUnreadable("The archive holds no images and no annotations.")
    return result


def _read_members(archive: Path, limits: ArchiveLimits) -> Iterator[Member]:
    read = _READERS[detect_suffix(archive)]
    with archive.open("rb") as file, archive_errors():
        yield from read(file, limits)


@dataclass
class _MemberNames:
    """Validator of member names; it also detects two names of the same file."""

    limits: ArchiveLimits
    _spelling_by_key: dict[str, str] = field(default_factory=dict)
    """Paths and their folders, by a key that ignores case and Unicode normalisation form."""

    def split(self, name: str) -> list[str]:
        """Return the parts of a path, in Unicode's composed form; a backslash separates them like a slash.

        Raises ArchiveRefused if the path could lead out of a folder, on any system.
        """
        if not is_text(name, _NAME_BYTES) or _BIDI_CONTROLS.intersection(name):
            raise ArchiveRefused(f"The archive holds a name with characters that are not allowed: {printable(name)}.")
        name = normalise_path(name)
        for form in (name, unicodedata.normalize("NFKC", name)):
            if form.startswith("/") or ".." in form.split("/") or form[1:3] == ":/":
                raise ArchiveRefused(f"{printable(name)} leads out of the archive's own folder.")
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if len(parts) - 1 > self.limits.depth:
            raise ArchiveTooLarge(f"{printable(name)} lies deeper than {self.limits.depth} folders.")
        if any(len(part.encode()) > self.limits.name_bytes for part in parts):
            raise ArchiveTooLarge(f"{printable(name)} has a name of more than {self.limits.name_bytes} bytes.")
        return parts

    def claim(self, parts: list[str]) -> None:
        """Reserve a path. Raises ArchiveRefused if a file system could take it for a path that is reserved already."""
        for end in range(1, len(parts) + 1):
            spelling = "/".join(parts[:end]) + ("/" if end < len(parts) else "")
            key = unicodedata.normalize("NFKC", spelling).casefold().rstrip("/")
            earlier = self._spelling_by_key.get(key)
            if earlier is not None and (earlier != spelling or end == len(parts)):
                raise ArchiveRefused(
                    f"The archive holds {printable(spelling)} twice; the first entry is {printable(earlier)}."
                )
            self._spelling_by_key[key] = spelling


def _is_accepted(parts: list[str]) -> bool:
    """Return whether a file is unpacked: not if hidden or left by macOS, as `__MACOSX/._1.jpg`, which is no image."""
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
    return bool(parts) and not hidden and PurePosixPath(parts[-1]).suffix.lower() in ACCEPTED_SUFFIXES


def _write_member(member: Member, path: Path, result: UnpackResult, limits: ArchiveLimits) -> None:
    size = 0
    if member.size > limits.member_bytes:
        raise _member_too_large(member, limits)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        for chunk in member.chunks:
            size += len(chunk)
            result.bytes += len(chunk)
            if size > limits.member_bytes:
                raise _member_too_large(member, limits)
            if result.bytes > limits.bytes:
                raise ArchiveTooLarge(f"The archive unpacks to more than {limits.bytes >> 20:,} MiB.")
            file.write(chunk)


def _member_too_large(member: Member, limits: ArchiveLimits) -> ArchiveTooLarge:
    return ArchiveTooLarge(f"{printable(member.name)} has more than {limits.member_bytes >> 20:,} MiB.")
