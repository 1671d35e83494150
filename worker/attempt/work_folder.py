"""Where one attempt works: a folder of its own, so that a forgotten trainer of an earlier attempt cannot disturb it.

It begins with what its trainer reads, weights and the committed checkpoints, and nothing else, and is removed in the end: whatever counts is an artifact.
"""

import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import structlog

from frs.errors import StorageFull
from frs.resolved import ResolvedSpec
from frs.training.stop_request import STOP_FILE
from store.artifacts.local_files import IsAbandoned
from store.artifacts.storage import Artifacts
from store.db.tables import Checkpoint
from store.errors import ArtifactCorrupt, ArtifactNotFound
from store.jobs.lease import Lease
from store.settings import Settings
from worker.attempt.inputs import AttemptInputs

SPEC = "spec.json"
_log = structlog.get_logger()


def folder_of(work_root: Path, lease: Lease) -> Path:
    return work_root / lease.job_id / str(lease.attempt)


def prepare(
    folder: Path,
    spec: ResolvedSpec,
    inputs: AttemptInputs,
    checkpoints: Sequence[Checkpoint],
    artifacts: Artifacts,
    give_up: IsAbandoned,
) -> None:
    """`checkpoints`: newest first. The trainer goes on from the one of the highest step, so that must be the newest:

    an older attempt may have left a later step, which a newer attempt's checkpoint voids. Raises GivenUp.
    """
    remove(folder)
    (folder / "checkpoints").mkdir(parents=True)
    (folder / SPEC).write_text(spec.model_dump_json())
    inputs.fetch(artifacts, give_up)
    for checkpoint in checkpoints:
        if checkpoint.step <= checkpoints[0].step:
            _fetch(checkpoint, folder, artifacts, give_up)


def ask_to_stop(folder: Path) -> None:
    """Tells the trainer to end at its next step; one that is not there yet is told when it is."""
    if folder.is_dir():
        (folder / STOP_FILE).touch()


def check_space(settings: Settings) -> None:
    """Raises StorageFull where too little is left to begin: better told now than in the midst of a checkpoint."""
    for root in filter(None, (settings.work_root, settings.artifacts_root)):
        free = shutil.disk_usage(root).free
        if free < settings.min_free_mb << 20:
            raise StorageFull(f"{free >> 20} MB are free; a job begins with {settings.min_free_mb} MB or more.")


def remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):  # another attempt is there
        folder.parent.rmdir()


def attempts(work_root: Path) -> list[tuple[str, int]]:
    """Job or worker_request, and number, of every attempt that has a folder."""
    return [(path.parent.name, int(path.name)) for path in _folders(work_root)]


def remove_abandoned(work_root: Path, found: Collection[tuple[str, int]], running: Collection[tuple[str, int]]) -> None:
    """Removes what killed workers left. `running` must have been looked up after `found`: numbers only grow."""
    for job_id, attempt in set(found) - set(running):
        remove(work_root / job_id / str(attempt))


def _folders(work_root: Path) -> Iterator[Path]:
    return (path for path in work_root.glob("*_*/*") if path.name.isdecimal())


def _fetch(checkpoint: Checkpoint, folder: Path, artifacts: Artifacts, give_up: IsAbandoned) -> None:
    target = folder / "checkpoints" / f"step_{checkpoint.step:08d}-{checkpoint.sha256[:8]}.pth"
    try:
        artifacts.fetch(checkpoint.key, checkpoint.sha256, target, give_up, checkpoint.bytes)
    except (ArtifactNotFound, ArtifactCorrupt) as error:  # the trainer falls back to the older one
        _log.error("checkpoint missing", key=checkpoint.key, said=error.message)
