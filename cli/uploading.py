"""Sending files: a data set as an archive or a folder, a detector's weights."""

import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from cli.client import Client, Json, ServiceError
from frs.dataset.upload.archive import WANTED, suffix
from frs.errors import ArchiveUnreadable

_MEDIA_TYPES = {".zip": "application/zip", ".tar": "application/x-tar", ".tar.gz": "application/gzip"}
_FIRST_DAY = (1980, 1, 1, 0, 0, 0)
_POLL_SECONDS = 1.0


def dataset(client: Client, name: str, source: Path, val_fraction: float | None, screen: Console | None) -> Json:
    """Raises ServiceError, FrsError."""
    with _as_archive(source) as archive, _bar(archive, screen) as progress:
        media_type = _MEDIA_TYPES[suffix(archive)]
        return client.upload("/datasets/upload", archive, media_type, progress, name=name, val_fraction=val_fraction)


def detector(client: Client, name: str, file: Path, description: Json, *, wait: bool, screen: Console | None) -> Json:
    """Raises ServiceError where the service refuses the file, now or once it has read it."""
    with _bar(file, screen) as progress:
        row = client.upload("/detectors/upload", file, "application/octet-stream", progress, name=name, **description)
    while wait and row["status"] == "importing":
        time.sleep(_POLL_SECONDS)
        row = client.get(f"/detectors/{row['id']}")
    if row["status"] == "refused":
        raise ServiceError(f"{row['error']['code']}: {row['error']['message']}", row["error"]["hint"])
    return row


@contextmanager
def _as_archive(source: Path) -> Iterator[Path]:
    if not source.is_dir():
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="frs-upload-") as folder:
        archive = Path(folder) / "folder.zip"
        _pack(source, archive)
        yield archive


def _pack(folder: Path, archive: Path) -> None:
    """The same folder makes the same archive. Pictures are packed already, so nothing is packed further."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in WANTED and path.is_file())
    if not paths:
        raise ArchiveUnreadable(f"{folder} holds no pictures and no annotations.", "Name the folder of a data set.")
    with zipfile.ZipFile(archive, "w") as packed:
        for path in paths:
            entry = zipfile.ZipInfo(path.relative_to(folder).as_posix(), _FIRST_DAY)
            entry.file_size = path.stat().st_size  # so that one of gigabytes gets the header it needs
            with path.open("rb") as content, packed.open(entry, "w") as target:
                while piece := content.read(1 << 20):
                    target.write(piece)


@contextmanager
def _bar(file: Path, screen: Console | None) -> Iterator[Callable[[int], None]]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=screen, disable=screen is None, transient=True) as progress:
        task = progress.add_task(file.name, total=file.stat().st_size)
        yield lambda sent: progress.advance(task, sent)
