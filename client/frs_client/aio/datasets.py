"""`client.datasets`."""

import math
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from frs_client.aio.transport import AsyncTransport
from frs_client.answers import body_of, parse
from frs_client.files import archive_type, as_archive
from frs_client.models import Dataset, DatasetCheck, DatasetImage, SplitFiles
from frs_client.pausing import a_run
from frs_client.requests import Progress, no_progress, path_of

CHECK_POLL_SECONDS = 1.0
SplitPaths = SplitFiles | Mapping[str, Any]


class AsyncDatasets:
    """Data sets. `dataset` is an id or a name."""

    def __init__(self, client: AsyncTransport) -> None:
        self._client = client

    async def upload(
        self,
        name: str,
        source: Path | str,
        *,
        val_fraction: float | None = None,
        progress: Progress = no_progress,
    ) -> Dataset:
        """Upload a data set in COCO, Pascal VOC or YOLO layout, and return its check: `status`, `issues`.

        `source` is a folder or a .zip, .tar or .tar.gz file. `val_fraction` (0.01 to 0.5) of the training images are
        used for validation if there is no validation split. `progress` is called with the number of bytes sent and
        their total. A data set of this name that has issues and that no job uses is replaced.
        """
        query = {"name": name, "val_fraction": val_fraction}
        with TemporaryDirectory(prefix="frs-upload-") as folder:
            archive = await a_run(as_archive, Path(source), Path(folder))
            row = await self._client.upload("/datasets/upload", archive, archive_type(archive), progress, **query)
        return parse(Dataset, row)

    async def wait(self, dataset: str, timeout: float = math.inf) -> Dataset:
        """Wait until the check of the data set has ended and return it. Raises TimeoutError after `timeout` seconds.

        Data sets of more than 2,000 images have the status `checking` after `upload` and `register`.
        """
        async for answer in self._client.poll(path_of("datasets", dataset), CHECK_POLL_SECONDS, timeout):
            row = parse(Dataset, answer)
            if row.status != "checking":
                return row
        raise TimeoutError(f"Data set {dataset} has not been checked in time.")

    async def register(self, name: str, *, train: SplitPaths | None = None, val: SplitPaths | None = None) -> Dataset:
        """Register a data set in the service's data set folder; every file and box is checked.

        Absent splits are `NAME/train` with `NAME/annotations/instances_train.json`, and the same with `val`.
        """
        splits = {split: body_of(files) for split, files in (("train", train), ("val", val)) if files is not None}
        return parse(Dataset, await self._client.post("/datasets", {"name": name} | splits))

    async def list(self, *, own: bool = False) -> AsyncIterator[Dataset]:
        """Yield the data sets, newest first; with `own`, also with an admin key those of the key's owner only."""
        async for row in self._client.each("/datasets", own=own or None):
            yield parse(Dataset, row)

    async def get(self, dataset: str) -> Dataset:
        """Return a data set."""
        return parse(Dataset, await self._client.get(path_of("datasets", dataset)))

    async def check(self, dataset: str) -> DatasetCheck:
        """Return the full report of the data set's check."""
        return parse(DatasetCheck, await self._client.get(path_of("datasets", dataset, "check")))

    async def images(self, dataset: str, split: Literal["train", "val"]) -> AsyncIterator[DatasetImage]:
        """Yield the images of a split with their boxes."""
        async for row in self._client.each(path_of("datasets", dataset, "images"), split=split):
            yield parse(DatasetImage, row)

    async def delete(self, dataset: str) -> None:
        """Remove a data set. Uploaded files are deleted, files of the data set folder are kept."""
        await self._client.delete(path_of("datasets", dataset))
