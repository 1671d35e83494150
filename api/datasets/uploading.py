"""Uploaded data sets: convert each upload once, and store each distinct result once.

What is stored is the converted data set, not the upload, so that another version of the converter changes nothing.
"""

import errno
import threading
from contextlib import suppress
from pathlib import Path
from typing import Annotated

from fastapi import Query
from pydantic import BaseModel
from sqlalchemy import select

from api import disk_quota
from api.context import Context, ContextDep
from api.datasets import checks, service
from api.datasets.schemas import Dataset
from api.http.auth import Caller, Submitter
from api.http.errors import ApiError
from api.upload_body import Upload
from frs.dataset.upload import convert
from frs.errors import ArchiveTooLarge
from frs.names import Name
from store.artifacts import free_space, local_files, packing, storage, unpacking
from store.artifacts.uploads import archive_key, is_referenced, unpacked_folder
from store.db import audit, tables
from store.db.database import insert
from store.db.ids import new_id
from store.errors import ArtifactNotFound
from store.settings import Settings
from store.states import DatasetStatus

MEDIA_TYPES = ("application/zip", "application/x-tar", "application/gzip")
ValFraction = Annotated[
    float | None,
    Query(
        ge=0.01,
        le=0.5,
        description="Fraction of the training images to use for validation if the archive has no validation split.",
    ),
]
_CONVERSION_WAIT_SECONDS = 60
_RELEASED = ".released"
_converting = threading.BoundedSemaphore(4)
"""Limits concurrent conversions, because each occupies a request thread and up to 4 GiB of memory."""


class UploadRequest(BaseModel):
    """Query parameters of an upload."""

    name: str
    val_fraction: float | None
    """Fraction of the training images to use for validation, rounded to 0.01."""
    replaced_bytes: int
    """Size of the data set of this name that the upload replaces; 0: there is none."""


def check_request(
    context: ContextDep, caller: Submitter, name: Annotated[Name, Query()], val_fraction: ValFraction = None
) -> UploadRequest:
    """Return the query parameters before the body is read. Raises ApiError 409 if the name is in use."""
    named = select(tables.Dataset).where(tables.Dataset.owner == caller.owner, tables.Dataset.name == name)
    with context.database.read() as session:
        earlier = session.scalar(named)
    if earlier is not None and earlier.status != DatasetStatus.HAS_PROBLEMS:  # others may be replaced: see `free_name`
        raise _name_taken_error()
    replaced_bytes = (earlier and earlier.bytes) or 0
    return UploadRequest(name=name, val_fraction=val_fraction and round(val_fraction, 2), replaced_bytes=replaced_bytes)


def register(context: Context, caller: Caller, upload_request: UploadRequest, upload: Upload) -> Dataset:
    """Unpack and convert an archive, register and check the data set, and return it.

    Raises ApiError 422 for an unusable archive or layout, 409 if the name is in use, 403 if the data set exceeds the
    owner's disk space, and 503 if too many other archives are being converted.
    """
    settings, root = context.settings, context.settings.uploads_root
    with local_files.temporary_path(root) as part, local_files.temporary_path(root) as archive:
        _convert(settings, upload, part, upload_request.val_fraction)
        upload.path.unlink()  # its space is needed for the archive
        size, sha256 = _pack(settings, part / "set", archive)
        disk_quota.check_upload(context, caller, size, upload_request.replaced_bytes)
        key, releases = archive_key(sha256), _count_releases(root)
        _store_archive(context, key, archive, sha256)  # before the lock, because object storage can be slow
        free_name(context, caller, upload_request.name)
        try:
            with local_files.exclusive_lock(root):
                folder = unpacked_folder(settings, key)
                if not folder.is_dir():
                    (part / "set").rename(folder)
                if _count_releases(root) != releases:  # this archive may be among the released ones
                    _store_archive(context, key, archive, sha256)
                dataset = _add(context, caller, upload_request.name, key, size)
        except Exception:  # if the commit has succeeded all the same, the archive is referred to and stays
            release(context, key)
            raise
    checks.check_new(context, dataset)
    return service.get_dataset(context.database, caller, dataset.id)


def free_name(context: Context, caller: Caller, name: str) -> None:
    """Delete the caller's data set of this name if its check found issues and no job refers to it.

    So corrected files can be registered or uploaded under the same name.
    """
    with context.database.read() as session:
        dataset_id = session.scalar(
            select(tables.Dataset.id).where(
                tables.Dataset.owner == caller.owner,
                tables.Dataset.name == name,
                tables.Dataset.status == DatasetStatus.HAS_PROBLEMS,
            )
        )
    if dataset_id is not None:
        with suppress(ApiError):  # a job refers to it: the name stays in use
            release(context, service.delete(context.database, caller, dataset_id))


def release(context: Context, key: str | None) -> None:
    """Delete an archive and its unpacked folder, unless a data set refers to them. None: nothing to delete."""
    if key is None:
        return
    root = context.settings.uploads_root
    with local_files.temporary_path(root) as part, local_files.exclusive_lock(root):
        with context.database.read() as session:
            if is_referenced(session, key):
                return
        folder = unpacked_folder(context.settings, key)
        if folder.is_dir():
            folder.rename(part)
        storage.delete_files(context.artifacts, key)
        _increment_releases(root)  # last, so that a reader of the new count sees the deletions


def _count_releases(root: Path) -> int:
    """Return how often `release` has deleted files.

    If the count has changed, files that were seen without the lock may be gone.
    """
    path = root / _RELEASED
    return path.stat().st_size if path.is_file() else 0


def _increment_releases(root: Path) -> None:
    """Increment the count, stored as the size of a sparse file, which also fits on a full disk."""
    with (root / _RELEASED).open("ab") as file:
        file.truncate(file.tell() + 1)


def _pack(settings: Settings, folder: Path, archive: Path) -> tuple[int, str]:
    """Write the files of a converted data set to `archive`; return the bytes of both, and the archive's SHA-256.

    Raises OSError if the disk has no space for the archive.
    """
    size = free_space.size_of(folder)
    free_space.check_available(settings, archive.parent, size)
    sha256 = packing.pack(folder, archive)
    return size + archive.stat().st_size, sha256


def _store_archive(context: Context, key: str, archive: Path, sha256: str) -> None:
    """Store an archive unless it is stored already."""
    try:
        context.artifacts.open(key).close()
    except ArtifactNotFound:
        context.artifacts.put(archive, key, sha256)


def _convert(settings: Settings, upload: Upload, part: Path, val_fraction: float | None) -> None:
    """Unpack and convert an archive in a limited number of concurrent processes. Raises ApiError 422 or 503."""
    if not _converting.acquire(timeout=_CONVERSION_WAIT_SECONDS):
        hint = "Send the archive again in a minute."
        raise ApiError(503, "busy", "Too many archives are being unpacked.", hint, headers={"Retry-After": "60"})
    try:
        unpacking.convert(settings, upload.path, part, val_fraction)
    except unpacking.ConversionFailed as failure:
        reason = failure.error
        raise ApiError(422, reason.code, reason.message, reason.hint) from None
    except OSError as error:
        if error.errno != errno.ENOMEM:
            raise
        raise ApiError(422, ArchiveTooLarge.code, convert.OVER_LIMIT, ArchiveTooLarge.hint_by_default) from None
    finally:
        _converting.release()


def _add(context: Context, caller: Caller, name: str, key: str, size: int) -> tables.Dataset:
    """Insert the row of a data set of `size` bytes and return it.

    Raises ApiError, 409 if the name is in use, 403 if the owner has too little disk space left.
    """
    split_paths = {
        f"{split}_{column}": path
        for split in ("train", "val")
        for column, path in (("images", split), ("annotations", f"annotations/instances_{split}.json"))
    }
    with context.database.write() as session:
        disk_quota.check_added(session, context.settings, caller, size)
        columns = {"id": new_id("ds"), "name": name, "owner": caller.owner, "upload_key": key, "bytes": size}
        values = {**columns, **split_paths}
        statement = insert(session, tables.Dataset).values(values)
        dataset = session.scalar(
            statement.on_conflict_do_nothing(index_elements=["owner", "name"]).returning(tables.Dataset)
        )
        if dataset is None:
            raise _name_taken_error()
        audit.record(session, caller.actor, "dataset.upload", [dataset.id], name=name)
        session.commit()
    return dataset


def _name_taken_error() -> ApiError:
    hint = "Choose another name, or delete that data set first."
    return ApiError(409, "name_taken", "A data set of this name exists already.", hint)
