"""What is in a data set, in numbers, and what is wrong with it."""

from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from frs.dataset.coco import CocoFile
from frs.dataset.issues import BOX_CODES, DatasetIssue, IssueCode, IssueCollector
from frs.dataset.trainable import labelled_images

Depth = Literal["annotations", "headers", "decoded"]

_SMALL, _MEDIUM = 32**2, 96**2


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class Counts(_Part):
    images: int
    """Listed in the annotation file, usable or not."""
    images_without_boxes: int
    boxes: int
    crowd: int


class ClassCount(_Part):
    id: int
    name: str
    boxes: int
    images: int


class BoxSizes(_Part):
    """Boxes by COCO's sizes: area below 32 x 32, below 96 x 96, the rest."""

    small: int
    medium: int
    large: int


class ImageSizes(_Part):
    min_width: int
    max_width: int
    min_height: int
    max_height: int


class Report(_Part):
    counts: Counts
    classes: list[ClassCount]
    """By ascending category id: the order of the labels."""
    box_sizes: BoxSizes
    image_sizes: ImageSizes | None
    depth: Depth
    """How far image files were read."""
    issues: list[DatasetIssue]
    """The first of each kind; `issue_counts` has all."""
    issue_counts: dict[IssueCode, int]
    invalid_images: int
    invalid_fraction: float
    invalid_image_ids: list[int]
    labelled_images: int | None = None
    """Images that training uses once the bad ones are left out. Null: an earlier version made this report."""

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(row.name for row in self.classes)

    def accepted(self, max_invalid_fraction: float = 0.0) -> bool:
        """Whether to train on it, leaving the bad images out. Some issues no image can be blamed for."""
        if not self.issue_counts:
            return True
        beyond_images = {"category_duplicate", "boxes_missing"} & self.issue_counts.keys()
        return not beyond_images and 0 < max_invalid_fraction >= self.invalid_fraction


def usable_without_boxes(report: Report, max_invalid_fraction: float = 0.0) -> bool:
    """Whether the images alone may be used, whatever is wrong with boxes."""
    return not report.issue_counts.keys() - BOX_CODES or 0 < max_invalid_fraction >= report.invalid_fraction


def build_report(coco: CocoFile, found: IssueCollector, depth: Depth) -> Report:
    bad = coco.images_listed - len(coco.images) + sum(image.id in found.image_ids for image in coco.images)
    return Report(
        counts=_counts(coco),
        classes=_classes(coco),
        box_sizes=_box_sizes(coco),
        image_sizes=_image_sizes(coco),
        depth=depth,
        issues=found.listed(),
        issue_counts=dict(found.counts),
        invalid_images=bad,
        invalid_fraction=bad / coco.images_listed,
        invalid_image_ids=sorted(found.image_ids),
        labelled_images=len(labelled_images(coco, found.image_ids)),
    )


def _counts(coco: CocoFile) -> Counts:
    return Counts(
        images=coco.images_listed,
        images_without_boxes=len(coco.images) - len(np.unique(coco.boxes.image)),
        boxes=len(coco.boxes),
        crowd=int(coco.boxes.crowd.sum()),
    )


def _classes(coco: CocoFile) -> list[ClassCount]:
    boxes = np.bincount(coco.boxes.label, minlength=len(coco.classes))
    pairs = np.unique(coco.boxes.image.astype(np.int64) * len(coco.classes) + coco.boxes.label)
    images = np.bincount(pairs % len(coco.classes), minlength=len(coco.classes))
    return [
        ClassCount(id=category_id, name=name, boxes=int(boxes[label]), images=int(images[label]))
        for label, (category_id, name) in enumerate(zip(coco.category_ids, coco.classes, strict=True))
    ]


def _box_sizes(coco: CocoFile) -> BoxSizes:
    area = coco.boxes.area
    small, medium = int((area < _SMALL).sum()), int((area < _MEDIUM).sum())
    return BoxSizes(small=small, medium=medium - small, large=len(area) - medium)


def _image_sizes(coco: CocoFile) -> ImageSizes | None:
    if not coco.images:
        return None
    widths, heights = zip(*((image.width, image.height) for image in coco.images), strict=True)
    return ImageSizes(min_width=min(widths), max_width=max(widths), min_height=min(heights), max_height=max(heights))
