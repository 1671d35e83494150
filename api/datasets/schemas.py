"""Request and response models of data sets."""

from typing import Literal

from api.http.schemas import ResponseModel, ResponseTime
from frs.dataset.report import ClassCount, Counts, Report
from frs.detector_spec import RelativePath
from frs.names import Name
from frs.spec_model import Spec
from store.states import DatasetStatus

SplitName = Literal["train", "val"]


class SplitFiles(Spec):
    """Files of one split of a data set, relative to the folder of data sets."""

    images: RelativePath
    """Folder of the images."""
    annotations: RelativePath
    """Annotation file in COCO format."""


class DatasetCreate(Spec):
    """A data set to register."""

    name: Name
    """Unique among the data sets of the owner."""
    train: SplitFiles | None = None
    """Training split. Default: `<name>/train` and `<name>/annotations/instances_train.json`."""
    val: SplitFiles | None = None
    """Validation split. Default: `<name>/val` and `<name>/annotations/instances_val.json`."""


class SplitIssue(ResponseModel):
    """An issue of a data set's files or annotations."""

    split: SplitName
    code: str
    message: str
    """Contains the file name of the image and the box."""
    hint: str = ""
    """What to do about it."""
    file: str | None = None
    """File name of the image."""
    image_id: int | None = None
    annotation_id: int | None = None


class SplitCounts(ResponseModel):
    """Counts of both splits; null for a split that cannot be read."""

    train: Counts | None
    val: Counts | None


class Dataset(ResponseModel):
    """A registered data set."""

    id: str
    name: str
    status: DatasetStatus
    """Jobs accept a `ready` data set, and one that `has_problems` within their `max_invalid_fraction`."""
    train: SplitFiles
    val: SplitFiles
    uploaded: bool
    """Whether it was uploaded; its paths are then relative to the unpacked archive."""
    counts: SplitCounts | None
    """Null while the data set is being checked, as are `classes`, `class_table` and `issue_count`."""
    classes: list[str] | None
    """Classes of the training split, in the order of the labels."""
    class_table: list[ClassCount] | None
    """Counts per class of the training split."""
    issue_count: int | None
    """Number of issues of both splits."""
    issues: list[SplitIssue]
    """The first 20 issues; `GET /datasets/{id}/check` returns more."""
    warnings: list[str]
    """Boxes and images that training does not use, by reason, and image files that training may read otherwise."""
    created_at: ResponseTime


class DatasetCheck(ResponseModel):
    """Result of the check of a data set."""

    id: str
    status: DatasetStatus
    train: Report | None
    """Report on the training split; null if it cannot be read or is not checked yet."""
    val: Report | None
    """Report on the validation split; null if it cannot be read or is not checked yet."""
    issues: list[SplitIssue]
    """Issues that make a split unusable as a whole, then the first 200 issues of each split."""
    warnings: list[str]
    """Boxes and images that training does not use, by reason, and image files that training may read otherwise."""


class LabelledBox(ResponseModel):
    """An object of an image."""

    bbox: tuple[float, float, float, float]
    """x, y, width and height in pixels."""
    category: str
    """Class name."""
    crowd: bool
    """Whether detections of this object are neither right nor wrong: `iscrowd`, or marked as difficult."""


class DatasetImage(ResponseModel):
    """An image of a split with its objects."""

    id: int
    """Id in the annotation file; its position from 1 if the file has ids that are texts or beyond 2**53."""
    file_name: str
    width: int
    """Width in pixels, as annotated."""
    height: int
    """Height in pixels, as annotated."""
    objects: list[LabelledBox]
