"""Upload a data set (archive or folder) or a detector's weights."""

import os
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from cli.client import Client, Json
from cli.errors import ServiceError
from frs.dataset.upload.archive import ACCEPTED_SUFFIXES, detect_suffix
from frs.errors import ArchiveUnreadable

_MEDIA_TYPES = {".zip": "application/zip", ".tar": "application/x-tar", ".tar.gz": "application/gzip"}
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)
POLL_SECONDS = 1.0
"""Interval of the queries for the state of an import."""


def upload_dataset(
    client: Client, name: str, source: Path, val_fraction: float | None, console: Console | None
) -> Json:
    """Upload a data set and return its row. Draw a progress bar on `console` unless it is None.

    Raises FrsError if `source` is not a supported archive or has no data set files, and ServiceError if the service
    refuses it.
    """
    with _as_archive(source) as archive, _progress_bar(archive, console) as progress:
        media_type = _MEDIA_TYPES[detect_suffix(archive)]
        return client.upload("/datasets/upload", archive, media_type, progress, name=name, val_fraction=val_fraction)


def upload_detector(client: Client, file: Path, query: dict[str, str], *, wait: bool, console: Console | None) -> Json:
    """Upload a detector's weights and return its row; with `wait`, once a worker has imported them.

    `query` has its `name`, `description` as JSON, and `classes`.

    Raises ServiceError if the service refuses the file, during the upload or the import.
    """
    with _progress_bar(file, console) as progress:
        row = client.upload("/detectors/upload", file, "application/octet-stream", progress, **query)
    reported: Json | None = None
    while wait and row["status"] == "importing":
        error = row.get("error")
        if error and error != reported and console:
            console.print(f"The import waits: {error['message']} {error['hint']}", markup=False)
        reported = error
        time.sleep(POLL_SECONDS)
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
    """Write the data set files of `folder` to `archive`. Equal folders give equal archives.

    Nothing is compressed: images already are.
    """
    paths = sorted(_find_files(folder))
    if not paths:
        raise ArchiveUnreadable(f"{folder} contains no images and no annotations.", "Name the folder of a data set.")
    with zipfile.ZipFile(archive, "w") as target:
        for path in paths:
            entry = zipfile.ZipInfo(path.relative_to(folder).as_posix(), _ZIP_EPOCH)
            entry.file_size = path.stat().st_size  # files of several GiB need a ZIP64 header
            with path.open("rb") as content, target.open(entry, "w") as output:
                while chunk := content.read(1 << 20):
                    output.write(chunk)


def _find_files(folder: Path) -> Iterator[Path]:
    """Yield the data set files below `folder`, also in linked folders; a link to a folder above is not followed."""
    for current, folders, names in os.walk(folder, followlinks=True):
        path = Path(current)
        above = {parent.resolve() for parent in (path, *path.parents)}
        folders[:] = [name for name in folders if (path / name).resolve() not in above and not name.startswith(".")]
        yield from (path / name for name in names if Path(name).suffix.lower() in ACCEPTED_SUFFIXES)


@contextmanager
def _progress_bar(file: Path, console: Console | None) -> Iterator[Callable[[int], None]]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=console is None, transient=True) as progress:
        task = progress.add_task(file.name, total=file.stat().st_size)
        yield lambda sent_bytes: progress.advance(task, sent_bytes)
