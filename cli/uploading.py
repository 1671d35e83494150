"""Upload a data set or a detector's weights, with a progress bar."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress import Progress as Bar

from frs_client import Client, Json
from frs_client.models import Detector
from frs_client.requests import Progress


def upload_dataset(
    client: Client, name: str, source: Path, val_fraction: float | None, console: Console | None
) -> Json:
    """Upload a data set, an archive or a folder, and return its row. Draw a progress bar on `console` if there is one.

    Raises ServiceError if `source` has no data set files or the service refuses it.
    """
    with _progress_bar(source.name, console) as progress:
        row = client.datasets.upload(name, source, val_fraction=val_fraction, progress=progress)
    return row.model_dump(mode="json")


def upload_detector(
    client: Client,
    name: str,
    file: Path,
    description: Json,
    classes: str | None,
    *,
    wait: bool,
    console: Console | None,
) -> Json:
    """Upload a detector's weights and return its row; with `wait`, once a worker has imported them.

    Raises ServiceError if the service refuses the file, during the upload or the import.
    """
    names = classes.split(",") if classes else None
    with _progress_bar(file.name, console) as progress:
        row = client.detectors.upload(name, file, description, classes=names, progress=progress)

    def report(row: Detector) -> None:
        if console and row.error:
            console.print(f"The import waits: {row.error.message} {row.error.hint}", markup=False)

    if wait:
        row = client.detectors.wait(row.id, report=report)
    return row.model_dump(mode="json")


@contextmanager
def _progress_bar(name: str, console: Console | None) -> Iterator[Progress]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=console, disable=console is None, transient=True) as bar:
        task = bar.add_task(name, total=None)
        yield lambda sent, total: bar.update(task, completed=sent, total=total)
