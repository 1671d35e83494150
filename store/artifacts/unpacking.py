"""From the archive of an uploaded data set to its folder on this machine, the same folder on every machine."""

import errno
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import select

from frs.errors import BadDataset, DatasetNotFound
from frs.events import ErrorInfo
from frs.isolation.process import PARENT
from store.artifacts.local_files import Abandoned, IsAbandoned, discard, exclusive_lock, filesystem_time, temporary
from store.artifacts.storage import Artifacts
from store.artifacts.uploads import folder_of, parse_archive_key
from store.db.database import Database
from store.db.tables import Dataset
from store.errors import ArtifactNotFound
from store.settings import Settings

COMMAND: Sequence[str] = (sys.executable, "-m", "frs.dataset.upload.convert")
_ENVIRONMENT = frozenset({"PATH", "PYTHONPATH", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH"})
_UNPACKS_TO = 2
"""Times the largest upload: pictures are packed already."""
_TICK = 0.2
_SETTLED_SECONDS = 3600
"""A folder as young as that stays: where machines share it, the lock may not reach across."""
_OURS = re.compile(r"[0-9a-f]{64}(-val\d+)?")


class ConversionFailed(Exception):
    """The archive cannot be used, whoever tries."""

    def __init__(self, error: ErrorInfo) -> None:
        super().__init__(error.message)
        self.error = error


def convert(
    settings: Settings, archive: Path, part: Path, val_fraction: float | None, give_up: IsAbandoned = lambda: False
) -> None:
    """Leaves the data set in `part/set`, by a process with none of our secrets in its environment.

    Raises ConversionFailed, Abandoned, or OSError: ENOMEM where the process was killed.
    """
    arguments = [str(archive), str(part), str(_UNPACKS_TO * settings.max_upload_bytes)]
    allowed = {name: value for name, value in os.environ.items() if name in _ENVIRONMENT}
    with subprocess.Popen(
        [*COMMAND, *arguments, *([str(val_fraction)] if val_fraction else [])],
        env={**allowed, PARENT: str(os.getpid())},
        stdout=subprocess.PIPE,
    ) as process:
        try:
            output = _output(process, give_up)
        finally:
            process.kill()
    if process.returncode != 0:
        raise _failure(output)


def unpack_dataset(settings: Settings, artifacts: Artifacts, key: str, give_up: IsAbandoned) -> Path:
    """Where the data set lies that came as this archive: unpacked now unless it is, once however many ask for it.

    Raises BadDataset, Abandoned, OSError.
    """
    root, folder = settings.uploads_root, folder_of(settings, key)
    if folder.is_dir():
        return folder
    with exclusive_lock(root, ".unpacking", give_up), temporary(root) as archive, temporary(root) as part:
        if not folder.is_dir():
            sha256, val_fraction = parse_archive_key(key)
            try:
                artifacts.fetch(key, sha256, archive, give_up)
                convert(settings, archive, part, val_fraction, give_up)
            except ArtifactNotFound:
                hint = "Restore the file, or upload the archive again under a new name."
                raise DatasetNotFound("The archive of the data set is gone.", hint) from None
            except ConversionFailed as refused:
                raise BadDataset(f"The archive cannot be unpacked. {refused}", refused.error.hint) from None
            with exclusive_lock(root, give_up=give_up):
                _put(part / "set", folder)
    return folder


def remove_unused(settings: Settings, database: Database) -> list[str]:
    """Removes the folders of data sets that no row refers to any more; says which. One being registered stays."""
    root, gone = settings.uploads_root, []
    if not root.is_dir():
        return []
    with temporary(root) as parts:
        with exclusive_lock(root):
            with database.read() as session:
                keys = session.scalars(select(Dataset.upload_key).where(Dataset.upload_key.is_not(None))).all()
            settled = filesystem_time(root) - _SETTLED_SECONDS
            used = {folder_of(settings, str(key)) for key in keys}
            for folder in root.iterdir():
                if _OURS.fullmatch(folder.name) and folder not in used and folder.lstat().st_ctime < settled:
                    parts.mkdir(exist_ok=True)
                    folder.rename(parts / folder.name)
                    gone.append(folder.name)
        discard(parts)
    return gone


def _put(source: Path, folder: Path) -> None:
    try:
        source.rename(folder)
    except OSError:  # somebody was faster: the API of this machine, or another one where machines share the folder
        if not folder.is_dir():
            raise


def _output(process: subprocess.Popen[bytes], give_up: IsAbandoned) -> bytes:
    while True:
        try:
            return process.communicate(timeout=_TICK)[0]
        except subprocess.TimeoutExpired:
            if give_up():
                raise Abandoned from None


def _failure(output: bytes) -> ConversionFailed | OSError:
    try:
        told = json.loads(output)
    except ValueError:  # it was killed
        return OSError(errno.ENOMEM, "The process that unpacks was killed")
    if "errno" in told:
        return OSError(told["errno"], "while unpacking")
    return ConversionFailed(ErrorInfo(code=told["code"], message=told["message"], hint=told["hint"]))
