"""Check both splits of a registered data set and store the result in its row."""

import logging
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import chain, repeat
from pathlib import Path

from pydantic import BaseModel
from sqlalchemy import select, update

from api.context import Context
from api.datasets.schemas import SplitIssue, SplitName
from api.datasets.unpacked import find_folder
from frs.dataset.check import CheckedSplit, check_pair, describe_shared_images, inspect_split
from frs.dataset.issues import HINTS
from frs.dataset.report import Report, describe_similar_classes
from frs.errors import FrsError
from frs.files import digest
from frs.resolved import inside
from store.artifacts.uploads import dataset_root
from store.db.tables import Dataset
from store.states import DatasetStatus

MAX_SYNC_IMAGES = 2_000
"""Maximum number of images of a data set that is checked before the response."""
MAX_SYNC_BYTES = 64 << 20
"""Maximum size of an annotation file that is read during a request."""
_CHUNK_BYTES = 1 << 20
_RETRY_DELAYS = (1.0, 5.0, 30.0)
"""Seconds before each retry of failed background checks; the last delay repeats."""
_background_check_lock = threading.Lock()
_log = logging.getLogger(__name__)


class DatasetCheckResult(BaseModel):
    """Content of the column `Dataset.check_result`."""

    train: Report | None = None
    """Report on the training split; None if it cannot be read."""
    val: Report | None = None
    """Report on the validation split; None if it cannot be read."""
    unusable: list[SplitIssue] = []
    """Issues that make the data set unusable as a whole, regardless of the accepted fraction of invalid images."""
    similar_classes: list[str] = []
    """A warning if class names look alike; computed once, because a list of data sets shows it with every row."""
    shared_images: list[str] = []
    """A warning if images are listed in both splits."""
    test_folder: list[str] = []
    """A warning if there is a folder of a test split, which no job reads."""

    def accepted(self, max_invalid_fraction: float = 0.0) -> bool:
        """Return whether the data set is usable with at most this fraction of invalid images per split.

        Images to train on must be left.
        """
        splits = [split for split in (self.train, self.val) if split]
        if self.unusable or (self.train and self.train.labelled_images == 0):
            return False
        return all(split.accepted(max_invalid_fraction) for split in splits)

    @property
    def issues(self) -> list[SplitIssue]:
        """Issues of the whole data set, then the listed issues of each split."""
        return self.unusable + _split_issues("train", self.train) + _split_issues("val", self.val)

    @property
    def warnings(self) -> list[str]:
        """Sentences on what training does not use, and on what may not be intended."""
        reports = (("training", self.train), ("validation", self.val))
        texts = [f"The {split} split: {text}" for split, report in reports if report for text in report.notes]
        return texts + self.similar_classes + self.shared_images + self.test_folder

    @property
    def issue_count(self) -> int:
        """Number of all issues, including those that the reports do not list."""
        return len(self.unusable) + sum(sum(split.issue_counts.values()) for split in (self.train, self.val) if split)


def is_large(annotations: Sequence[Path]) -> bool:
    """Return whether a data set is too large to be checked before the response.

    Reads the annotation files only as far as necessary.
    """
    if sum(file.stat().st_size for file in annotations) > MAX_SYNC_BYTES:
        return True
    return sum(_count_images(file) for file in annotations) > MAX_SYNC_IMAGES


def check_new(context: Context, dataset: Dataset) -> None:
    """Check a new data set immediately, or in the background if it is large."""
    root = dataset_root(context.settings, dataset)
    if is_large([root / dataset.train_annotations, root / dataset.val_annotations]):
        run_later(context, [dataset])
        return
    try:
        run(context, dataset)
    except Exception:  # the row exists without a result: repeat the check in the background
        run_later(context, [dataset])
        raise


def run(context: Context, dataset: Dataset) -> None:
    """Check a data set and store the result, unless the data set has been deleted in the meantime."""
    try:
        root = find_folder(context, dataset)
    except FrsError:  # no archive: the check reports the files as missing
        root = dataset_root(context.settings, dataset)
    hashes = None if dataset.upload_key else _hash_annotations(root, dataset)  # before the check reads the files
    result = _check_splits(root, dataset)
    is_unchecked = (Dataset.id == dataset.id, Dataset.status == DatasetStatus.CHECKING)
    values = {
        "status": DatasetStatus.READY if result.accepted() else DatasetStatus.HAS_PROBLEMS,
        "check_result": result.model_dump(mode="json"),
        "hashes": hashes,
        "classes": list(result.train.class_names) if result.train else None,
    }
    with context.database.write() as session:
        session.execute(update(Dataset).where(*is_unchecked).values(values))
        session.commit()


def run_later(context: Context, datasets: Sequence[Dataset]) -> None:
    """Check data sets in a daemon thread. After a restart, `resume` continues with the unfinished checks."""
    threading.Thread(target=_run_all, args=(context, datasets), name="checking", daemon=True).start()


def resume(context: Context) -> None:
    """Check all data sets whose check an earlier process did not finish, or another one has not finished yet."""
    with context.database.read() as session:
        unfinished = session.scalars(select(Dataset).where(Dataset.status == DatasetStatus.CHECKING)).all()
    if unfinished:
        run_later(context, unfinished)


def _run_all(context: Context, datasets: Sequence[Dataset]) -> None:
    """Check data sets in rounds until the result of each is stored, also after a long outage of the database."""
    delays = chain(_RETRY_DELAYS, repeat(_RETRY_DELAYS[-1]))
    while datasets := [dataset for dataset in datasets if not _try_run(context, dataset)]:
        time.sleep(next(delays))


def _try_run(context: Context, dataset: Dataset) -> bool:
    """Check a data set; return whether its result is stored."""
    try:
        with _background_check_lock:
            run(context, dataset)
    except Exception:  # continue with the other data sets
        _log.exception("check result not stored", extra={"dataset_id": dataset.id})
        return False
    return True


def _hash_annotations(root: Path, dataset: Dataset) -> dict[str, str]:
    """Return the SHA-256 of the annotation file of each split; unreadable files are omitted, the check reports them."""
    hashes = {}
    for split, annotations in (("train", dataset.train_annotations), ("val", dataset.val_annotations)):
        with suppress(FrsError, OSError):
            hashes[split] = digest(inside(root, annotations))
    return hashes


def _check_splits(root: Path, dataset: Dataset) -> DatasetCheckResult:
    result = DatasetCheckResult(test_folder=_describe_test_folder(root, dataset))
    train = _inspect_split(result, "train", root, dataset.train_images, dataset.train_annotations)
    val = _inspect_split(result, "val", root, dataset.val_images, dataset.val_annotations)
    if train and val:
        train, val = train.matching(val.coco.classes), val.matching(train.coco.classes)
        result.shared_images = describe_shared_images(train, val)
        try:
            check_pair(train.report, val.report)
        except FrsError as error:
            result.unusable.append(SplitIssue(split="val", code=error.code, message=error.message, hint=error.hint))
    result.train, result.val = (split.report if split else None for split in (train, val))
    if train:
        result.similar_classes = describe_similar_classes([item.name for item in train.report.classes])
    return result


def _describe_test_folder(root: Path, dataset: Dataset) -> list[str]:
    """Return a sentence if a folder `test` lies beside that of the training images, in the data set's own folder."""
    beside = (root / dataset.train_images).parent
    is_shared = beside == root and not dataset.upload_key
    if is_shared or not (beside / "test").is_dir():
        return []
    return [
        "The folder test: no job reads it; training and evaluation use the training and the validation split. To score "
        "a detector on it, register it as the validation split of another data set."
    ]


def _inspect_split(
    result: DatasetCheckResult, split: SplitName, root: Path, images: str, annotations: str
) -> CheckedSplit | None:
    """Return a split and the report on it; if it cannot be read, add an issue to `result` and return None."""
    try:
        return inspect_split(inside(root, images), inside(root, annotations))
    except FrsError as error:
        issue = SplitIssue(split=split, code=error.code, message=error.message, hint=error.hint)
    except Exception:  # an internal error must not leave the data set in the status `checking`
        _log.exception("check failed")
        message = "The check failed with an internal error; see the log of the service."
        issue = SplitIssue(split=split, code="internal_error", message=message)
    result.unusable.append(issue)
    return None


def _split_issues(split: SplitName, report: Report | None) -> list[SplitIssue]:
    issues = report.issues if report else []
    return [SplitIssue(split=split, hint=HINTS[issue.code], **dict(issue)) for issue in issues]


def _count_images(annotations: Path) -> int:
    """Return the approximate number of images, without parsing; stop at more than `MAX_SYNC_IMAGES`."""
    count = 0
    with annotations.open("rb") as file:
        while count <= MAX_SYNC_IMAGES and (chunk := file.read(_CHUNK_BYTES)):
            count += chunk.count(b'"file_name"')
    return count
