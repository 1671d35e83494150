"""Checks a registered data set, both halves, and keeps what was found in its row."""

import logging
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel
from sqlalchemy import select, update

from api.datasets.schemas import SplitIssue, SplitName
from frs.dataset.check import check_pair, check_split
from frs.dataset.report import Report
from frs.errors import FrsError
from frs.files import digest
from frs.resolved import inside
from store.artifacts.uploads import root_of
from store.db.database import Database
from store.db.tables import Dataset
from store.settings import Settings
from store.states import DatasetStatus

MAX_SYNC_IMAGES = 2_000
"""Images that are checked while the client waits."""
_AT_ONCE_BYTES = 64 << 20
_CHUNK = 1 << 20
_PAUSES = (1.0, 5.0, 30.0)
"""Seconds between tries to keep what was found."""
_one_at_a_time = threading.Lock()
_log = logging.getLogger(__name__)


class DatasetCheckResult(BaseModel):
    """What `Dataset.check_result` holds."""

    train: Report | None = None
    val: Report | None = None
    unusable: list[SplitIssue] = []
    """What makes the set useless as a whole: no share of bad images excuses it."""

    def accepted(self, max_invalid_fraction: float = 0.0) -> bool:
        halves = [half for half in (self.train, self.val) if half]
        return not self.unusable and all(half.accepted(max_invalid_fraction) for half in halves)

    @property
    def issues(self) -> list[SplitIssue]:
        return self.unusable + _told("train", self.train) + _told("val", self.val)

    @property
    def issue_count(self) -> int:
        return len(self.unusable) + sum(sum(half.issue_counts.values()) for half in (self.train, self.val) if half)


def is_large(annotations: Sequence[Path]) -> bool:
    """Whether the check takes longer than a client should wait; reads no more than it needs to know."""
    if sum(file.stat().st_size for file in annotations) > _AT_ONCE_BYTES:
        return True
    return sum(_images_listed(file) for file in annotations) > MAX_SYNC_IMAGES


def check_new(database: Database, settings: Settings, dataset: Dataset) -> None:
    """At once, or later where that takes too long."""
    root = root_of(settings, dataset)
    if is_large([root / dataset.train_annotations, root / dataset.val_annotations]):
        run_later(database, settings, [dataset])
        return
    try:
        run(database, settings, dataset)
    except Exception:  # the set is there: what could not be kept now is found once more
        run_later(database, settings, [dataset])
        raise


def run(database: Database, settings: Settings, dataset: Dataset) -> None:
    """Checks and keeps the findings, unless the data set was deleted meanwhile."""
    root = root_of(settings, dataset)
    hashes = None if dataset.upload_key else _hashes(root, dataset)  # of what is then checked
    findings = _examine(root, dataset)
    this_one = (Dataset.id == dataset.id, Dataset.status == DatasetStatus.CHECKING)
    values = {
        "status": DatasetStatus.READY if findings.accepted() else DatasetStatus.HAS_PROBLEMS,
        "check_result": findings.model_dump(mode="json"),
        "hashes": hashes,
        "classes": list(findings.train.class_names) if findings.train else None,
    }
    with database.write() as session:
        session.execute(update(Dataset).where(*this_one).values(values))
        session.commit()


def run_later(database: Database, settings: Settings, datasets: Sequence[Dataset]) -> None:
    """In a thread that ends with the process; `resume` goes on with what it left."""
    threading.Thread(target=_run_all, args=(database, settings, datasets), name="checking", daemon=True).start()


def resume(database: Database, settings: Settings) -> None:
    """Checks again what an earlier process did not finish."""
    with database.read() as session:
        left = session.scalars(select(Dataset).where(Dataset.status == DatasetStatus.CHECKING)).all()
    if left:
        run_later(database, settings, left)


def _run_all(database: Database, settings: Settings, datasets: Sequence[Dataset]) -> None:
    for dataset in datasets:
        with _one_at_a_time:
            for pause in (*_PAUSES, None):
                try:
                    run(database, settings, dataset)
                    break
                except Exception:  # the others are still to be checked; this one is again at the next start
                    _log.exception("check not kept", extra={"dataset_id": dataset.id})
                    time.sleep(pause or 0)


def _hashes(root: Path, dataset: Dataset) -> dict[str, str]:
    """By half, without what cannot be read: the check tells."""
    found = {}
    for half, annotations in (("train", dataset.train_annotations), ("val", dataset.val_annotations)):
        with suppress(FrsError, OSError):
            found[half] = digest(inside(root, annotations))
    return found


def _examine(root: Path, dataset: Dataset) -> DatasetCheckResult:
    findings = DatasetCheckResult()
    findings.train = _half(findings, "train", root, dataset.train_images, dataset.train_annotations)
    findings.val = _half(findings, "val", root, dataset.val_images, dataset.val_annotations)
    if findings.train and findings.val:
        try:
            check_pair(findings.train, findings.val)
        except FrsError as error:
            findings.unusable.append(SplitIssue(split="val", code=error.code, message=error.message))
    return findings


def _half(findings: DatasetCheckResult, split: SplitName, root: Path, images: str, annotations: str) -> Report | None:
    try:
        return check_split(inside(root, images), inside(root, annotations))
    except FrsError as error:
        issue = SplitIssue(split=split, code=error.code, message=error.message)
    except Exception:  # a fault of ours must not leave the set in `checking` for ever
        _log.exception("check failed")
        message = "The check itself failed; the service's log says how."
        issue = SplitIssue(split=split, code="internal_error", message=message)
    findings.unusable.append(issue)
    return None


def _told(split: SplitName, half: Report | None) -> list[SplitIssue]:
    return [SplitIssue(split=split, **dict(issue)) for issue in half.issues] if half else []


def _images_listed(annotations: Path) -> int:
    """Roughly, without parsing; no more than it takes to be large."""
    found = 0
    with annotations.open("rb") as file:
        while found <= MAX_SYNC_IMAGES and (chunk := file.read(_CHUNK)):
            found += chunk.count(b'"file_name"')
    return found
