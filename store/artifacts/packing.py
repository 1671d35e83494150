"""The archive of a converted data set: a tar file that depends on nothing but the names and contents of its files."""

import tarfile
from pathlib import Path

from frs.files import digest
from store.artifacts.local_files import Abandoned, IsAbandoned


def pack(folder: Path, archive: Path) -> str:
    """Write the files of `folder` to `archive` and return its SHA-256, lower-case hex."""
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            member = tarfile.TarInfo(path.relative_to(folder).as_posix())
            member.size = path.stat().st_size
            with path.open("rb") as file:
                tar.addfile(member, file)
    return digest(archive)


def unpack(archive: Path, folder: Path, is_abandoned: IsAbandoned) -> None:
    """Write the files of an archive that `pack` wrote to `folder`. Raises Abandoned, OSError, tarfile.TarError."""
    with tarfile.open(archive, "r:") as tar:
        for member in tar:
            if is_abandoned():
                raise Abandoned
            tar.extract(member, folder, filter="data")
