"""Online backup of the artifacts folder: all files that the rows of a database dump refer to.

A row is inserted after its file is stored, and a file is deleted after its row. The backup is therefore complete if
every file deleted between `begin` and `end` is moved to a trash folder, which `pack` reads as well.
"""

import os
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from frs.errors import StorageFull
from store.artifacts import keys
from store.artifacts.local_files import filesystem_time, temporary_path
from store.errors import InvalidKey

TRASH = ".deleted"
"""Trash folder below the artifacts folder; exists during a backup. Artifact keys never begin with a dot."""
EXPIRY_SECONDS = 6 * 3600.0
"""A backup that has done nothing for this long was killed, and its trash is deleted."""
_ALIVE = ".alive"
"""File in the trash that a backup touches whenever it has packed a file."""
_SLASH = "%"
"""Replaces `/` in the names of files in the trash; artifact keys never contain it."""
_UNPACKED, _REPLACED = ".restored", ".replaced"


def begin(root: Path) -> None:
    """Start a backup: from now on, deleted files are moved to the trash."""
    end(root)  # remove the trash of a killed backup
    with temporary_path(root) as new:
        new.mkdir()
        (new / _ALIVE).touch()
        new.rename(root / TRASH)


def end(root: Path) -> None:
    """End the backup: delete the trash."""
    with temporary_path(root) as removed, suppress(FileNotFoundError):
        (root / TRASH).rename(removed)  # first, so that no file is moved to a trash that is being deleted


def end_killed(root: Path) -> bool:
    """End a backup that has done nothing for `EXPIRY_SECONDS`; return whether there was one."""
    try:
        is_killed = (root / TRASH / _ALIVE).stat().st_mtime < filesystem_time(root) - EXPIRY_SECONDS
    except FileNotFoundError:
        return False
    if is_killed:
        end(root)
    return is_killed


def move_to_trash(root: Path, name: str) -> None:
    """Move a file to the trash. Raise FileNotFoundError if there is no such file or no backup is running.

    The trash is a single folder that is never created here, so a late deletion cannot restore it after `end`.
    """
    (root / name).rename(root / TRASH / name.replace("/", _SLASH))


def pack(root: Path, stream: BinaryIO) -> None:
    """Write all artifacts since `begin` to the stream as a tar. Files may be added and deleted meanwhile.

    Raises FileNotFoundError if the backup was ended meanwhile: files may be missing then.
    """
    with tarfile.open(fileobj=stream, mode="w|") as archive:
        for folder in (root, root / TRASH):  # in this order: a file that leaves the first folder is in the second
            for path in _files(folder):
                key = path.relative_to(folder).as_posix().replace(_SLASH, "/")
                if keys.is_valid(key):
                    os.utime(root / TRASH / _ALIVE)
                    _add(archive, path, key)
        os.utime(root / TRASH / _ALIVE)


def unpack(root: Path, stream: BinaryIO, size: int) -> None:
    """Unpack a tar written by `pack` next to the existing artifacts; `size` is the unpacked size in bytes.

    Raises StorageFull before anything is written, and InvalidKey if the archive was not written by `pack`.
    """
    root.mkdir(parents=True, exist_ok=True)
    discard(root)
    if size > shutil.disk_usage(root).free:
        raise StorageFull(f"The artifacts need {size >> 20} MiB next to the existing ones; too little space is free.")
    (root / _UNPACKED).mkdir()
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            _extract(archive, member, root / _UNPACKED)
    os.sync()


def discard(root: Path) -> None:
    """Delete the output of `unpack`, complete or not."""
    shutil.rmtree(root / _UNPACKED, ignore_errors=True)


def replace_artifacts(root: Path) -> None:
    """Replace the artifacts by the unpacked ones. After a kill, another call continues."""
    replaced, unpacked = root / _REPLACED, root / _UNPACKED
    if not replaced.is_dir() and unpacked.is_dir():
        replaced.with_suffix(".part").mkdir(exist_ok=True)
        _move_all(root, replaced.with_suffix(".part"))
        replaced.with_suffix(".part").rename(replaced)
    if unpacked.is_dir():
        _move_all(unpacked, root)
        unpacked.rmdir()
    shutil.rmtree(replaced, ignore_errors=True)
    os.sync()


def _files(folder: Path) -> Iterator[Path]:
    """Yield the stored files; names with a leading dot are unfinished, in the trash or unpacked."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent, name) for name in sorted(names) if not name.startswith("."))


def _add(archive: tarfile.TarFile, path: Path, key: str) -> None:
    try:
        file = path.open("rb")
    except FileNotFoundError:  # deleted meanwhile: it is in the trash
        return
    with file:
        archive.addfile(archive.gettarinfo(arcname=key, fileobj=file), file)


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    keys.check(member.name)
    content = archive.extractfile(member) if member.isreg() else None
    if content is None:
        raise InvalidKey("An archive of artifacts contains regular files only.")
    target = folder / member.name
    target.parent.mkdir(parents=True, exist_ok=True)
    with content, target.open("xb") as file:
        shutil.copyfileobj(content, file)


def _move_all(source: Path, target: Path) -> None:
    for path in source.iterdir():
        if not path.name.startswith("."):
            path.rename(target / path.name)
