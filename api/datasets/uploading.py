"""A data set that comes as an archive: unpacked, converted, kept once however often it is sent."""

import errno
import threading
from pathlib import Path
from typing import Annotated

from fastapi import Query
from pydantic import BaseModel
from sqlalchemy import exists, select

from api.context import Context, ContextDep
from api.datasets import checks, service
from api.datasets.schemas import Dataset
from api.http import files
from api.http.auth import Caller, Submitter
from api.http.errors import ApiError
from api.upload_body import Upload
from frs.dataset.upload import archive, convert
from frs.errors import ArchiveTooLarge
from frs.spec import Name
from store.artifacts import local_files, unpacking
from store.artifacts.uploads import archive_key, folder_of, is_referenced
from store.db import tables
from store.db.database import insert
from store.db.ids import new_id
from store.errors import ArtifactNotFound
from store.settings import Settings

MEDIA_TYPES = ("application/zip", "application/x-tar", "application/gzip")
Share = Annotated[
    float | None,
    Query(ge=0.01, le=0.5, description="Of the training images, set aside where the archive has no validation half."),
]
_TURN_SECONDS = 60
_RELEASED = ".released"
_converting = threading.BoundedSemaphore(4)
"""Each takes a request's thread and up to 4 GiB."""


class UploadRequest(BaseModel):
    name: str
    val_fraction: float | None


def wanted(
    here: ContextDep, caller: Submitter, name: Annotated[Name, Query()], val_fraction: Share = None
) -> UploadRequest:
    """Raises ApiError 409 where the name is taken."""
    taken = exists().where(tables.Dataset.owner == caller.owner, tables.Dataset.name == name)
    with here.database.read() as session:
        if session.scalar(select(taken)):
            raise _name_taken()
    return UploadRequest(name=name, val_fraction=val_fraction and round(val_fraction, 2))


def register(context: Context, caller: Caller, wanted: UploadRequest, upload: Upload) -> Dataset:
    """Raises ApiError: 422 for an archive or a layout that cannot be used, 409 where the name is taken."""
    settings, root = context.settings, context.settings.uploads_root
    key = archive_key(upload.sha256, wanted.val_fraction, archive.suffix(upload.path))
    folder = folder_of(settings, key)
    with local_files.temporary(root) as part:
        released = _released(root)
        if folder.is_dir():
            _keep(context, key, upload)
        else:
            _convert(settings, upload, part, wanted.val_fraction)
            context.artifacts.put(upload.path, key, upload.sha256)  # before the lock: a bucket takes its time
        with local_files.exclusive_lock(root):
            if not folder.is_dir():
                if not part.is_dir():  # it was deleted this very moment
                    _convert(settings, upload, part, wanted.val_fraction)
                (part / "set").rename(folder)
            if _released(root) != released:  # perhaps this very archive
                _keep(context, key, upload)
            dataset = _add(context, caller, wanted.name, key)
    if dataset is None:
        release(context, key)
        raise _name_taken()
    checks.check_new(context.database, settings, dataset)
    return service.find(context.database, caller, dataset.id)


def release(context: Context, key: str | None) -> None:
    """Removes an archive and what it was unpacked to, unless a data set needs them. None: it was no upload."""
    if key is None:
        return
    root = context.settings.uploads_root
    with local_files.temporary(root) as part, local_files.exclusive_lock(root):
        with context.database.read() as session:
            if is_referenced(session, key):
                return
        folder = folder_of(context.settings, key)
        if folder.is_dir():
            folder.rename(part)
        files.delete_files(context.artifacts, key)
        _count_release(root)  # last: who reads the new count comes after what was deleted


def _released(root: Path) -> int:
    """How often `release` deleted anything: where it has again, what was seen without the lock may be gone."""
    path = root / _RELEASED
    return path.stat().st_size if path.is_file() else 0


def _count_release(root: Path) -> None:
    """By the size of a file without content, which a full disk can hold, too."""
    with (root / _RELEASED).open("ab") as file:
        file.truncate(file.tell() + 1)


def _keep(context: Context, key: str, upload: Upload) -> None:
    """Unless it is kept already."""
    try:
        context.artifacts.open(key).close()
    except ArtifactNotFound:
        context.artifacts.put(upload.path, key, upload.sha256)


def _convert(settings: Settings, upload: Upload, part: Path, val_fraction: float | None) -> None:
    """A few at a time. Raises ApiError."""
    if not _converting.acquire(timeout=_TURN_SECONDS):
        hint = "Send it again in a minute."
        raise ApiError(503, "busy", "Other archives are being unpacked.", hint, headers={"Retry-After": "60"})
    try:
        unpacking.convert(settings, upload.path, part, val_fraction)
    except unpacking.ConversionFailed as refused:
        told = refused.error
        raise ApiError(422, told.code, told.message, told.hint) from None
    except OSError as error:
        if error.errno != errno.ENOMEM:
            raise
        raise ApiError(422, ArchiveTooLarge.code, convert.OVER_LIMIT, ArchiveTooLarge.hint_by_default) from None
    finally:
        _converting.release()


def _add(context: Context, caller: Caller, name: str, key: str) -> tables.Dataset | None:
    """None where the name was taken meanwhile."""
    halves = {
        f"{split}_{what}": path
        for split in ("train", "val")
        for what, path in (("images", split), ("annotations", f"annotations/instances_{split}.json"))
    }
    with context.database.write() as session:
        values = {"id": new_id("ds"), "name": name, "owner": caller.owner, "upload_key": key, **halves}
        statement = insert(session, tables.Dataset).values(values)
        dataset = session.scalar(
            statement.on_conflict_do_nothing(index_elements=["owner", "name"]).returning(tables.Dataset)
        )
        session.commit()
    return dataset


def _name_taken() -> ApiError:
    hint = "Choose another name, or DELETE /datasets/{name} first."
    return ApiError(409, "name_taken", "There is a data set of this name.", hint)
