"""Free space of the disks, and the floor `min_free_mb` below which the service writes nothing more."""

import errno
import os
import shutil
from pathlib import Path

from store.settings import Settings


def available_bytes(settings: Settings, folder: Path) -> int:
    """Return the bytes that may still be written below the folder; negative if less than the floor is free."""
    return shutil.disk_usage(folder).free - (settings.min_free_mb << 20)


def check_available(settings: Settings, folder: Path, size: int = 0) -> None:
    """Raise OSError, ENOSPC, if less than the floor would be free after writing `size` bytes below the folder."""
    if size > available_bytes(settings, folder):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
