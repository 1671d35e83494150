"""Report of a data-set check: counts, sizes and issues."""

import re
from collections.abc import Collection, Mapping, Sequence
from difflib import SequenceMatcher
from itertools import combinations, islice
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from frs.dataset.coco import CocoFile
from frs.dataset.issues import BOX_CODES, DatasetIssue, IssueCode, IssueCollector, printable
from frs.dataset.trainable import (
    BoxExclusion,
    ImageExclusion,
    count_excluded_boxes,
    count_excluded_images,
    labelled_images,
)
from frs.spec import MAX_DETECTIONS

Depth = Literal["annotations", "headers", "decoded"]
"""How far a check read the image files: not at all, their headers, or completely."""

_SMALL, _MEDIUM = 32**2, 96**2
"""COCO's limits of small and medium boxes, in square pixels."""


_REASONS: dict[BoxExclusion, str] = {
    "ignored": "marked `ignore` or difficult",
    "outside_image": "outside the image",
    "below_one_pixel": "less than one pixel wide or high",
    "crowd": "marked `iscrowd`",
}

SIMILAR_RATIO = 0.9
"""`difflib` ratio from which two class names count as similar: one letter is missing in a name of six or more."""
MAX_PAIRS_COMPARED, MAX_PAIRS_NAMED = 100_000, 5
"""Number of pairs of class names that are compared, and that a warning names."""
FEW_VALIDATION_IMAGES = 100
"""Below this number, plans say that the interval of a gain will be wide."""


class _FrozenModel(BaseModel):
    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class Counts(_FrozenModel):
    """Numbers of images and boxes."""

    images: int
    """Images listed in the annotation file, including invalid entries."""
    images_without_boxes: int
    """Valid image entries without a valid box."""
    boxes: int
    """Valid boxes, including crowds."""
    crowd: int
    """Boxes with `iscrowd: 1`."""


class ClassCount(_FrozenModel):
    """Numbers of boxes and images of one class."""

    id: int
    """Category id in the annotation file."""
    name: str
    boxes: int
    """Boxes of this class."""
    images: int
    """Images with at least one box of this class."""


class BoxSizes(_FrozenModel):
    """Numbers of boxes by COCO's sizes: area below 32 x 32 pixels, below 96 x 96 pixels, and larger."""

    small: int
    medium: int
    large: int


class ImageSizes(_FrozenModel):
    """Range of image sizes in pixels, as annotated."""

    min_width: int
    max_width: int
    min_height: int
    max_height: int


class Report(_FrozenModel):
    """Result of checking one split."""

    counts: Counts
    classes: list[ClassCount]
    """Classes by ascending category id, which is the order of the labels."""
    box_sizes: BoxSizes
    image_sizes: ImageSizes | None
    """Null if the split has no valid image entry."""
    depth: Depth
    """How far image files were read: not at all (`annotations`), their `headers`, or completely (`decoded`)."""
    issues: list[DatasetIssue]
    """The first issues of each code; `issue_counts` counts all of them."""
    issue_counts: dict[IssueCode, int]
    """Number of issues by code."""
    invalid_images: int
    """Images that have issues, including invalid entries."""
    invalid_fraction: float
    """`invalid_images` as a fraction of all listed images, 0 to 1."""
    invalid_image_ids: list[int]
    """Ids of the images that have issues, ascending."""
    labelled_images: int | None = None
    """Images used for training once the invalid ones are excluded; null in reports of earlier versions."""
    excluded_boxes: dict[BoxExclusion, int] = {}
    """Number of valid boxes that training does not use, by reason."""
    excluded_images: dict[ImageExclusion, int] = {}
    """Number of images without issues that training does not use, by reason: their boxes are missing or not used."""
    repeated_boxes: int = 0
    """Number of boxes equal to another box of their image; each such box counts and is trained on once."""
    placeholder: str | None = None
    """Name of a category 0 that is left out because it is only the supercategory of others, as in Roboflow's files."""
    crowded_images: int = 0
    """Number of images with more than 100 objects, COCO's limit on detections."""
    max_objects: int = 0
    """Largest number of objects on an image: of its boxes that are neither crowds nor ignored."""
    warnings: list[str] = []
    """Sentences on what training does with image files that may not be intended."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class names in the order of the labels."""
        return tuple(row.name for row in self.classes)

    def trained_images(self, keep_background: bool) -> int:
        """Return the number of images that training uses; for a report of an earlier version, a lower bound."""
        counts = self.counts
        labelled = self.labelled_images
        if labelled is None:
            labelled = max(0, counts.images - counts.images_without_boxes - self.invalid_images)
        return labelled + (self.excluded_images.get("no_boxes", 0) if keep_background else 0)

    @property
    def notes(self) -> list[str]:
        """Sentences on the boxes and images that training does not use, then `warnings`."""
        boxes, background = describe_exclusions(self.excluded_boxes), self.excluded_images.get("no_boxes", 0)
        images = sum(self.excluded_images.values()) - background
        texts = [f"training does not use {boxes}."] if boxes else []
        if images:
            texts.append(f"training does not use {images:,} {_plural('image', images)} without a box that it uses.")
        if background and self.labelled_images is not None:
            texts.append(
                f"{background:,} {_plural('image', background)} without boxes: training uses {self.labelled_images:,} "
                f"images, with `schedule.keep_background_images` {self.labelled_images + background:,}."
            )
        if self.repeated_boxes:
            texts.append(f"{self.repeated_boxes:,} repeated {_plural('box', self.repeated_boxes)} left out.")
        if self.placeholder is not None:
            texts.append(f"category 0, {printable(self.placeholder)!r}, is left out: no box uses it.")
        if self.crowded_images:
            verb = "has" if self.crowded_images == 1 else "have"
            texts.append(
                f"{self.crowded_images:,} {_plural('image', self.crowded_images)} {verb} more than {MAX_DETECTIONS} "
                f"objects, up to {self.max_objects:,}: set `evaluation.max_detections` in jobs, because by default "
                f"{MAX_DETECTIONS} detections on an image count."
            )
        return texts + self.warnings

    def matching(self, classes: Collection[str]) -> "Report":
        """Return the report with its placeholder category as the first class if another split uses it: `classes`."""
        if self.placeholder is None or self.placeholder not in classes:
            return self
        first = ClassCount(id=0, name=self.placeholder, boxes=0, images=0)
        return self.model_copy(update={"classes": [first, *self.classes], "placeholder": None})

    def accepted(self, max_invalid_fraction: float = 0.0) -> bool:
        """Return whether training may use the split without its invalid images.

        A split with issues is accepted if `max_invalid_fraction` is above 0 and not exceeded. A duplicate category or
        a split without boxes concerns no single image, so it is never accepted.
        """
        if not self.issue_counts:
            return True
        never_accepted = {"category_duplicate", "boxes_missing"} & self.issue_counts.keys()
        return not never_accepted and 0 < max_invalid_fraction >= self.invalid_fraction


def describe_exclusions(excluded: Mapping[BoxExclusion, int]) -> str:
    """Return the number of boxes that training does not use, by reason, for a sentence."""
    return ", ".join(f"{count:,} {_plural('box', count)} {_REASONS[reason]}" for reason, count in excluded.items())


def describe_background(images: int, kept: bool) -> list[str]:
    """Return a sentence on the training images without boxes, if there are any."""
    if not images:
        return []
    if kept:
        return [f"{images:,} of them {'has' if images == 1 else 'have'} no boxes."]
    return [
        f"{images:,} {_plural('image', images)} without boxes {'is' if images == 1 else 'are'} left out; "
        "`schedule.keep_background_images` trains on such images."
    ]


def describe_validation(images: int) -> str:
    """Return a sentence on the number of validation images, and what follows if there are few."""
    count = f"{images:,} {_plural('image', images)} to validate on"
    return f"{count}: few, so the interval of a gain will be wide." if images < FEW_VALIDATION_IMAGES else f"{count}."


def describe_crowded(val: Report, max_detections: int) -> list[str]:
    """Return a sentence if a validation image has more objects than detections that count."""
    if val.max_objects <= max_detections:
        return []
    return [
        f"Validation images have up to {val.max_objects:,} objects, but only {max_detections:,} detections on an image "
        "count: set `evaluation.max_detections`."
    ]


def describe_similar_classes(classes: Sequence[str]) -> list[str]:
    """Return a sentence on pairs of class names that may be one class, such as `plate` and `Plates`."""
    names = [(name, _normalise(name)) for name in classes]
    pairs = [
        f"{printable(first)!r} and {printable(second)!r}"
        for (first, normal_first), (second, normal_second) in islice(combinations(names, 2), MAX_PAIRS_COMPARED)
        if _looks_equal(normal_first, normal_second)
    ]
    named = ", ".join(pairs[:MAX_PAIRS_NAMED])
    return [f"Are these the same class? {named}. Each name is trained as a class of its own."] if pairs else []


def _normalise(name: str) -> tuple[list[str], str]:
    """Return the numbers in a name, and its letters and digits without case and a final s."""
    return re.findall(r"\d+", name), "".join(filter(str.isalnum, name.casefold())).removesuffix("s")


def _looks_equal(normal_first: tuple[list[str], str], normal_second: tuple[list[str], str]) -> bool:
    """Return whether two names differ in case, separators, a plural or one typing error only; numbers must be equal."""
    (first_numbers, first), (second_numbers, second) = normal_first, normal_second
    if first_numbers != second_numbers:
        return False
    if first == second or len(first) > 3 and sorted(first) == sorted(second):
        return True
    matcher = SequenceMatcher(None, first, second)
    bounds = (matcher.real_quick_ratio, matcher.quick_ratio, matcher.ratio)  # two upper bounds, which are fast
    return all(bound() >= SIMILAR_RATIO for bound in bounds)


def usable_without_boxes(report: Report, max_invalid_fraction: float = 0.0) -> bool:
    """Return whether the images may be used without their boxes; issues of boxes are ignored."""
    return not report.issue_counts.keys() - BOX_CODES or 0 < max_invalid_fraction >= report.invalid_fraction


def build_report(coco: CocoFile, issues: IssueCollector, depth: Depth, warnings: list[str]) -> Report:
    """Return the report on the content of an annotation file and the issues collected from it."""
    invalid = coco.images_listed - len(coco.images) + sum(image.id in issues.image_ids for image in coco.images)
    objects = np.bincount(coco.boxes.image[~coco.boxes.optional], minlength=1)
    return Report(
        counts=_count_entries(coco),
        classes=_count_classes(coco),
        box_sizes=_count_box_sizes(coco),
        image_sizes=_measure_images(coco),
        depth=depth,
        issues=issues.listed(),
        issue_counts=dict(issues.counts),
        invalid_images=invalid,
        invalid_fraction=invalid / coco.images_listed,
        invalid_image_ids=sorted(issues.image_ids),
        labelled_images=len(labelled_images(coco, issues.image_ids)),
        excluded_boxes=count_excluded_boxes(coco),
        excluded_images=count_excluded_images(coco, issues.image_ids),
        repeated_boxes=coco.repeated_boxes,
        placeholder=coco.placeholder,
        crowded_images=int((objects > MAX_DETECTIONS).sum()),
        max_objects=int(objects.max()),
        warnings=warnings,
    )


def _count_entries(coco: CocoFile) -> Counts:
    return Counts(
        images=coco.images_listed,
        images_without_boxes=len(coco.images) - len(np.unique(coco.boxes.image)),
        boxes=len(coco.boxes),
        crowd=int(coco.boxes.crowd.sum()),
    )


def _count_classes(coco: CocoFile) -> list[ClassCount]:
    boxes = np.bincount(coco.boxes.label, minlength=len(coco.classes))
    pairs = np.unique(coco.boxes.image.astype(np.int64) * len(coco.classes) + coco.boxes.label)
    images = np.bincount(pairs % len(coco.classes), minlength=len(coco.classes))
    return [
        ClassCount(id=category_id, name=name, boxes=int(boxes[label]), images=int(images[label]))
        for label, (category_id, name) in enumerate(zip(coco.category_ids, coco.classes, strict=True))
    ]


def _count_box_sizes(coco: CocoFile) -> BoxSizes:
    area = coco.boxes.area
    below_small, below_medium = int((area < _SMALL).sum()), int((area < _MEDIUM).sum())
    return BoxSizes(small=below_small, medium=below_medium - below_small, large=len(area) - below_medium)


def _measure_images(coco: CocoFile) -> ImageSizes | None:
    if not coco.images:
        return None
    widths, heights = zip(*((image.width, image.height) for image in coco.images), strict=True)
    return ImageSizes(min_width=min(widths), max_width=max(widths), min_height=min(heights), max_height=max(heights))


def _plural(noun: str, count: int) -> str:
    return noun if count == 1 else {"box": "boxes", "image": "images"}[noun]
