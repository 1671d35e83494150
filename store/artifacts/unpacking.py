"""Convert uploaded archives, and unpack the archive of a converted data set on each machine that needs it."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import select

from frs.dataset.upload.convert import OVER_LIMIT
from frs.errors import ArchiveTooLarge, BadDataset, DatasetNotFound
from frs.events import ErrorInfo
from frs.files import digest
from frs.isolation.process import PARENT
from store.artifacts import packing
from store.artifacts.free_space import available_bytes
from store.artifacts.local_files import Abandoned, IsAbandoned, discard, exclusive_lock, filesystem_time, temporary_path
from store.artifacts.storage import Artifacts
from store.artifacts.uploads import ArchiveKey, unpacked_folder
from store.db.database import Database
from store.db.tables import Dataset
from store.errors import ArtifactNotFound
from store.settings import Settings

COMMAND: Sequence[str] = (sys.executable, "-m", "frs.dataset.upload.convert")
"""The converter's command line, without its arguments."""
_ENVIRONMENT = frozenset({"PATH", "PYTHONPATH", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH"})
_MAX_EXPANSION = 2
"""Maximum unpacked size as a multiple of `max_upload_bytes`: images are already compressed."""
_POLL_SECONDS = 0.2
SETTLED_SECONDS = 3600
"""Younger folders are never removed: if several machines share the folder, the lock may not work across them."""
_ARCHIVE_HINT = "Restore the file, or upload the data set again under a new name."
_FOLDER_NAME = re.compile(r"[0-9a-f]{64}(-val\d+)?")


class ConversionFailed(Exception):
    """The archive is invalid; another attempt would fail as well."""

    def __init__(self, error: ErrorInfo) -> None:
        super().__init__(error.message)
        self.error = error


def convert(
    settings: Settings, archive: Path, part: Path, val_fraction: float | None, is_abandoned: IsAbandoned = lambda: False
) -> None:
    """Convert the archive to a data set in `part/set`, in a process without secrets in its environment.

    `val_fraction` is the fraction of the training images to split off for validation. Raises ConversionFailed,
    Abandoned, or OSError: ENOMEM if the process was killed, ENOSPC before too little space is free.
    """
    available, max_bytes = available_bytes(settings, part.parent), _MAX_EXPANSION * settings.max_upload_bytes
    arguments = [str(archive), str(part), str(max(0, min(available, max_bytes)))]
    allowed = {name: value for name, value in os.environ.items() if name in _ENVIRONMENT}
    with subprocess.Popen(
        [*COMMAND, *arguments, *([str(val_fraction)] if val_fraction else [])],
        env={**allowed, PARENT: str(os.getpid())},
        stdout=subprocess.PIPE,
    ) as process:
        try:
            output = _output(process, is_abandoned)
        finally:
            process.kill()
    if process.returncode != 0:
        failure = _failure(output, process.returncode)
        is_too_large = isinstance(failure, ConversionFailed) and failure.error.code == ArchiveTooLarge.code
        if is_too_large and str(failure) != OVER_LIMIT and available < max_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise failure


def unpack_dataset(settings: Settings, artifacts: Artifacts, key: str, is_abandoned: IsAbandoned) -> Path:
    """Return the folder of the uploaded data set, after unpacking its archive unless that is done.

    Concurrent callers share one unpacking. Raises BadDataset, DatasetNotFound, Abandoned, OSError.
    """
    root, folder = settings.uploads_root, unpacked_folder(settings, key)
    if folder.is_dir():
        return folder
    with (
        exclusive_lock(root, ".unpacking", is_abandoned),
        temporary_path(root) as archive,
        temporary_path(root) as part,
    ):
        if not folder.is_dir():
            try:
                _fetch_set(settings, artifacts, key, archive, part, is_abandoned)
            except ArtifactNotFound:
                raise DatasetNotFound("The archive of the data set no longer exists.", _ARCHIVE_HINT) from None
            except ConversionFailed as failure:
                raise BadDataset(f"The archive cannot be unpacked. {failure}", failure.error.hint) from None
            with exclusive_lock(root, is_abandoned=is_abandoned):
                _move(part / "set", folder)
    return folder


def _fetch_set(
    settings: Settings, artifacts: Artifacts, key: str, archive: Path, part: Path, is_abandoned: IsAbandoned
) -> None:
    """Write the files of the data set to `part/set`; `archive` is the path of a temporary file."""
    archive_key = ArchiveKey.parse(key)
    artifacts.fetch(key, archive_key.sha256, archive, is_abandoned)
    if not archive_key.is_converted:
        convert(settings, archive, part, archive_key.val_fraction, is_abandoned)
    elif digest(archive) == archive_key.sha256:
        packing.unpack(archive, part / "set", is_abandoned)
    else:
        raise BadDataset("The archive of the data set is damaged.", _ARCHIVE_HINT)


def remove_unused(settings: Settings, database: Database) -> list[str]:
    """Delete the folders of data sets without a row; return their names.

    A data set that is being registered is kept: registration holds the lock.
    """
    root, removed = settings.uploads_root, []
    if not root.is_dir():
        return []
    with temporary_path(root) as parts:
        with exclusive_lock(root):
            with database.read() as session:
                keys = session.scalars(select(Dataset.upload_key).where(Dataset.upload_key.is_not(None))).all()
            settled = filesystem_time(root) - SETTLED_SECONDS
            used = {unpacked_folder(settings, str(key)) for key in keys}
            for folder in root.iterdir():
                if _FOLDER_NAME.fullmatch(folder.name) and folder not in used and folder.lstat().st_ctime < settled:
                    parts.mkdir(exist_ok=True)
                    folder.rename(parts / folder.name)
                    removed.append(folder.name)
        discard(parts)
    return removed


def _move(source: Path, folder: Path) -> None:
    try:
        source.rename(folder)
    except OSError:  # another process or machine has unpacked it meanwhile
        if not folder.is_dir():
            raise


def _output(process: subprocess.Popen[bytes], is_abandoned: IsAbandoned) -> bytes:
    """Wait for the process to end and return its standard output. Raise Abandoned."""
    while True:
        try:
            return process.communicate(timeout=_POLL_SECONDS)[0]
        except subprocess.TimeoutExpired:
            if is_abandoned():
                raise Abandoned from None


def _failure(output: bytes, status: int) -> ConversionFailed | OSError:
    """Return the error that the converter wrote to its standard output as JSON; `status` is its exit status."""
    try:
        failure = json.loads(output)
    except ValueError:  # no output: the process was killed, or crashed
        if status == -signal.SIGKILL:
            return OSError(errno.ENOMEM, "the process that unpacks the archive was killed")
        reason = f"signal {-status}" if status < 0 else f"status {status}"
        return ConversionFailed(
            ErrorInfo(
                code=BadDataset.code,
                message=f"The archive cannot be converted: the converter ended with {reason}.",
                hint="Convert the data set to COCO and upload it again.",
            )
        )
    if "errno" in failure:
        return OSError(failure["errno"], "error while unpacking the archive")
    return ConversionFailed(ErrorInfo(code=failure["code"], message=failure["message"], hint=failure["hint"]))
