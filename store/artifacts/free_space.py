"""Free space of the disks, and the floor `min_free_mb` below which the service writes nothing more."""

import errno
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from store.settings import Settings


def available_bytes(settings: Settings, folder: Path) -> int:
    """Return the bytes that may still be written below the folder; negative if less than the floor is free."""
    return shutil.disk_usage(folder).free - (settings.min_free_mb << 20)


def check_available(settings: Settings, folder: Path, size: int = 0) -> None:
    """Raise OSError, ENOSPC, if less than the floor would be free after writing `size` bytes below the folder."""
    if size > available_bytes(settings, folder):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def describe_lack_of_space(settings: Settings) -> str | None:
    """Return the end of a sentence about a worker that has too little space to start a job; None if it has enough."""
    for root in filter(None, (settings.work_root, settings.artifacts_root)):
        if (available := available_bytes(settings, root)) < 0:
            free = (available >> 20) + settings.min_free_mb
            return f"has {free} MiB of free disk space; a job requires {settings.min_free_mb} MiB to start."
    return None


@dataclass(frozen=True)
class Disk:
    """The disk of a folder of the service; sizes in bytes."""

    name: Literal["work", "uploads", "artifacts"]
    total: int
    free: int
    floor: int


def disks(settings: Settings) -> list[Disk]:
    """Return the disks of the folders that exist on this machine."""
    folders: dict[Literal["work", "uploads", "artifacts"], Path | None] = {
        "work": settings.work_root,
        "uploads": settings.uploads_root,
        "artifacts": settings.artifacts_root,
    }
    existing = {name: shutil.disk_usage(folder) for name, folder in folders.items() if folder and folder.is_dir()}
    return [Disk(name, usage.total, usage.free, settings.min_free_mb << 20) for name, usage in existing.items()]


def size_of(folder: Path) -> int:
    """Return the size of all files below the folder in bytes."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())
