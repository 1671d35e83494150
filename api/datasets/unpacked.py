"""Folders of data sets, unpacked again where an uploaded one is missing: API replicas may have a disk each."""

import threading
from concurrent.futures import Future
from pathlib import Path

from api.context import Context
from api.http.errors import ApiError
from store.artifacts.unpacking import unpack_dataset
from store.artifacts.uploads import dataset_root
from store.db.tables import Dataset

WAIT_SECONDS = 5.0
"""Time that a request waits for an archive to be unpacked."""
_futures: dict[Path, Future[Path]] = {}
_futures_lock = threading.Lock()


def find_folder(context: Context, dataset: Dataset) -> Path:
    """Return the folder that the data set's paths are relative to.

    Raises BadDataset, DatasetNotFound or OSError if an upload has to be unpacked and cannot be.
    """
    if dataset.upload_key is None:
        return context.settings.datasets_root
    return unpack_dataset(context.settings, context.artifacts, dataset.upload_key, lambda: False)


def find_folder_soon(context: Context, dataset: Dataset) -> Path:
    """Like `find_folder`, but raise ApiError 503 after `WAIT_SECONDS`; unpacking continues."""
    folder = dataset_root(context.settings, dataset)
    if dataset.upload_key is None or folder.is_dir():
        return folder
    with _futures_lock:
        future = _futures.get(folder)
        if future is None:
            future = _futures[folder] = Future()
            threading.Thread(
                target=_unpack, args=(future, context, dataset, folder), name="unpacking", daemon=True
            ).start()
    try:
        return future.result(WAIT_SECONDS)
    except TimeoutError:
        hint = "Try again in 5 seconds."
        detail = "The files of the data set are being unpacked on this server."
        raise ApiError(503, "busy", detail, hint, headers={"Retry-After": "5"}) from None


def _unpack(future: Future[Path], context: Context, dataset: Dataset, folder: Path) -> None:
    try:
        future.set_result(find_folder(context, dataset))
    except BaseException as error:
        future.set_exception(error)
    finally:
        with _futures_lock:
            del _futures[folder]
