"""Data sets as the API takes and shows them."""

from typing import Literal

from api.http.schemas import ResponseModel, ResponseTime
from frs.dataset.report import ClassCount, Counts, Report
from frs.spec import Name, RelativePath, Spec
from store.states import DatasetStatus

SplitName = Literal["train", "val"]


class SplitFiles(Spec):
    """One half of a data set, relative to the folder of data sets."""

    images: RelativePath
    """Folder."""
    annotations: RelativePath
    """COCO file."""


class DatasetCreate(Spec):
    name: Name
    train: SplitFiles | None = None
    """Absent: `<name>/train` and `<name>/annotations/instances_train.json`."""
    val: SplitFiles | None = None
    """Absent: `<name>/val` and `<name>/annotations/instances_val.json`."""


class SplitIssue(ResponseModel):
    split: SplitName
    code: str
    message: str
    """Names the image's file and the box."""
    file: str | None = None
    image_id: int | None = None
    annotation_id: int | None = None


class SplitCounts(ResponseModel):
    """Null where the half could not be read at all."""

    train: Counts | None
    val: Counts | None


class Dataset(ResponseModel):
    id: str
    name: str
    status: DatasetStatus
    """Jobs take a set that is `ready`, and one that `has_problems` within their `max_invalid_fraction`."""
    train: SplitFiles
    val: SplitFiles
    uploaded: bool
    """Its paths are relative to what the archive was unpacked to."""
    counts: SplitCounts | None
    """Null while it is being checked; so are `classes`, `class_table` and `issue_count`."""
    classes: list[str] | None
    """Of the training half, in the order of the labels."""
    class_table: list[ClassCount] | None
    issue_count: int | None
    issues: list[SplitIssue]
    """The first 20; the others: `GET /datasets/{id}/check`."""
    created_at: ResponseTime


class DatasetCheck(ResponseModel):
    id: str
    status: DatasetStatus
    train: Report | None
    val: Report | None
    issues: list[SplitIssue]
    """Of both halves, the first 200 of each, with those that make a half unusable as a whole."""
