"""The artifacts' part of a backup: all that the rows of a database dump name, from a folder that is in use meanwhile.

A row is written after its file, and a file deleted after its row. So it is enough that nothing deleted since `begin` is
really gone when `pack` reads: it is set aside until `end`.
"""

import os
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from frs.errors import StorageFull
from store.artifacts import keys
from store.errors import InvalidKey

TRASH = ".deleted"
"""Below the folder of artifacts, while a backup is made; no key begins with a dot."""
_SLASH = "%"
"""In the names of what is set aside; no key has one."""
_UNPACKED, _REPLACED = ".restored", ".replaced"


def begin(root: Path) -> None:
    """From now on what is deleted is set aside."""
    end(root)  # what a killed backup left
    (root / TRASH).mkdir()


def end(root: Path) -> None:
    shutil.rmtree(root / TRASH, ignore_errors=True)


def move_to_trash(root: Path, name: str) -> None:
    """Raises FileNotFoundError where nothing is to be set aside. One folder for all: never made again once it is gone."""
    (root / name).rename(root / TRASH / name.replace("/", _SLASH))


def pack(root: Path, stream: BinaryIO) -> None:
    """Everything since `begin`, as a tar. Files come and go meanwhile."""
    with tarfile.open(fileobj=stream, mode="w|") as archive:
        for folder in (root, root / TRASH):  # in this order: what leaves the first is then in the second
            for path in _files(folder):
                key = path.relative_to(folder).as_posix().replace(_SLASH, "/")
                if keys.is_valid(key):
                    _add(archive, path, key)


def unpack(root: Path, stream: BinaryIO, size: int) -> None:
    """Beside what is there. `size`: bytes that it will take.

    Raises StorageFull before anything is written, InvalidKey for an archive that `pack` has not made.
    """
    root.mkdir(parents=True, exist_ok=True)
    discard(root)
    if size > shutil.disk_usage(root).free:
        raise StorageFull(f"The artifacts take {size >> 20} MB beside those that are there; too little is free.")
    (root / _UNPACKED).mkdir()
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            _extract(archive, member, root / _UNPACKED)
    os.sync()


def discard(root: Path) -> None:
    """What `unpack` has left, whole or not."""
    shutil.rmtree(root / _UNPACKED, ignore_errors=True)


def replace_artifacts(root: Path) -> None:
    """What was unpacked, in place of what is there. Goes on where it was killed."""
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
    """Under keys: nothing half written, set aside or unpacked."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent, name) for name in sorted(names) if not name.startswith("."))


def _add(archive: tarfile.TarFile, path: Path, key: str) -> None:
    try:
        file = path.open("rb")
    except FileNotFoundError:  # deleted since: it is aside
        return
    with file:
        archive.addfile(archive.gettarinfo(arcname=key, fileobj=file), file)


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    keys.check(member.name)
    content = archive.extractfile(member) if member.isreg() else None
    if content is None:
        raise InvalidKey("An archive of artifacts holds files only.")
    target = folder / member.name
    target.parent.mkdir(parents=True, exist_ok=True)
    with content, target.open("xb") as file:
        shutil.copyfileobj(content, file)


def _move_all(source: Path, target: Path) -> None:
    for path in source.iterdir():
        if not path.name.startswith("."):
            path.rename(target / path.name)
