"""The work folder of an attempt. Each attempt has its own, so that a trainer of an earlier attempt cannot change it.

At first it holds the trainer's inputs only: the spec, the weights and the committed checkpoints. It is removed when the
attempt ends; everything of value is an artifact by then.
"""

import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import structlog

from frs.errors import StorageFull
from frs.training.stop_request import STOP_FILE
from store.artifacts.free_space import describe_lack_of_space
from store.artifacts.local_files import IsAbandoned
from store.artifacts.storage import Artifacts
from store.db.tables import Checkpoint
from store.errors import ArtifactCorrupt, ArtifactNotFound
from store.settings import Settings

SPEC = "spec.json"
"""Name of the resolved spec's file."""
_log = structlog.get_logger()


def create(settings: Settings, folder: Path) -> None:
    """Create the empty work folder. Raise StorageFull if too little space is free to start."""
    check_space(settings)
    remove(folder)  # an attempt that was given back may have had the same number
    folder.mkdir(parents=True)


def fetch_checkpoints(
    folder: Path, checkpoints: Sequence[Checkpoint], artifacts: Artifacts, is_abandoned: IsAbandoned
) -> None:
    """Fetch the checkpoints, which are given newest first, into the work folder.

    The trainer resumes from the checkpoint of the highest step. A checkpoint of an older attempt with a higher step
    than the newest checkpoint is therefore left out. Raises Abandoned, ArtifactsUnavailable.
    """
    (folder / "checkpoints").mkdir()
    for checkpoint in checkpoints:
        if checkpoint.step <= checkpoints[0].step:
            _fetch(checkpoint, folder, artifacts, is_abandoned)


def request_stop(folder: Path) -> None:
    """Request that the trainer ends at its next step. Does nothing while the folder does not exist; call it again."""
    if folder.is_dir():
        (folder / STOP_FILE).touch()


def check_space(settings: Settings) -> None:
    """Raise StorageFull if too little space is free to start, instead of failing later at a checkpoint."""
    if reason := describe_lack_of_space(settings):
        raise StorageFull(f"The worker {reason}")


def remove(folder: Path) -> None:
    """Remove the work folder, and its job's folder if it is the last one. Idempotent."""
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):  # another attempt has a folder
        folder.parent.rmdir()


def list_attempts(work_root: Path) -> list[tuple[str, int]]:
    """Return the job's or worker request's id and the attempt number of every work folder."""
    return [(path.parent.name, int(path.name)) for path in _folders(work_root)]


def remove_abandoned(
    work_root: Path, attempts: Collection[tuple[str, int]], running: Collection[tuple[str, int]]
) -> None:
    """Remove the work folders of attempts that do not run, which killed workers have left.

    `running` must be queried after `attempts` are listed: attempt numbers only increase, so no new folder is removed.
    """
    for job_id, attempt in set(attempts) - set(running):
        remove(work_root / job_id / str(attempt))


def _folders(work_root: Path) -> Iterator[Path]:
    return (path for path in work_root.glob("*_*/*") if path.name.isdecimal())


def _fetch(checkpoint: Checkpoint, folder: Path, artifacts: Artifacts, is_abandoned: IsAbandoned) -> None:
    target = folder / "checkpoints" / f"step_{checkpoint.step:08d}-{checkpoint.sha256[:8]}.pth"
    try:
        artifacts.fetch(checkpoint.key, checkpoint.sha256, target, is_abandoned, checkpoint.bytes)
    except (ArtifactNotFound, ArtifactCorrupt) as error:  # the trainer falls back to the older checkpoint
        _log.error("A checkpoint is missing or corrupt.", key=checkpoint.key, error=error.message)
