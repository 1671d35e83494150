"""What a file hashes to, and that it is still there after a power cut."""

import hashlib
import os
from pathlib import Path


def digest(path: Path) -> str:
    """SHA-256, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Content of a file, or names in a folder, are on the disk when it returns."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
