"""Check of a data set in COCO layout before training: every annotation and every image file."""

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from posixpath import normpath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frs.dataset.classes import describe_class_difference
from frs.dataset.coco import CocoFile, read
from frs.dataset.coco_boxes import format_box
from frs.dataset.coco_images import CocoImage
from frs.dataset.image_files import MAX_PIXELS, ImageIssue, ImageTrait, inspect_image
from frs.dataset.issues import BOX_CODES, IssueCode, IssueCollector, printable
from frs.dataset.report import Depth, Report, build_report, describe_exclusions
from frs.dataset.trainable import count_excluded_boxes
from frs.errors import BadDataset, ClassMismatch

ProgressCallback = Callable[[int, int], None]
"""Receives the number of images checked so far and the total number of images."""

DECODE_UP_TO = 2_000
"""Number of images up to which a check decodes every image file completely."""
OUTSIDE_TOLERANCE = 1.0
"""Pixels that a box may extend beyond its image, to allow for rounding."""
_CHUNK = 256
_TRAITS: dict[ImageTrait, tuple[str, str]] = {
    "sixteen_bits": (
        "16 bits per value",
        "training uses the upper 8 bits. Convert to 8 bits if values fill only a part of the range.",
    ),
    "turned": (
        "EXIF orientation",
        "training turns the image, as browsers do. Boxes must fit the turned image.",
    ),
    "not_turned": (
        "EXIF orientation",
        "training does not turn WebP images. Boxes must fit the image as it is stored.",
    ),
}
"""The name of each trait, and what training does."""


@dataclass(frozen=True)
class CheckedSplit:
    """A split and the report on it."""

    images: Path
    """Folder of the image files."""
    coco: CocoFile
    report: Report

    def matching(self, classes: Collection[str]) -> "CheckedSplit":
        """Return the split with its placeholder category if another split uses it: see `CocoFile.matching`."""
        return replace(self, coco=self.coco.matching(classes), report=self.report.matching(classes))


def check_split(images: Path, annotations: Path, **options: Any) -> Report:
    """Return the report on one split: its counts and its issues. For arguments and errors see `inspect_split`."""
    return inspect_split(images, annotations, **options).report


def inspect_split(
    images: Path,
    annotations: Path,
    *,
    boxes: bool = True,
    read_images: bool = True,
    decode_up_to: int = DECODE_UP_TO,
    max_pixels: int = MAX_PIXELS,
    limit: int = 200,
    progress: ProgressCallback | None = None,
) -> CheckedSplit:
    """Return one split with the report on it.

    `images` is the folder of image files, `annotations` the COCO annotation file. With `boxes=False`, issues of boxes
    and categories are ignored. With `read_images=False`, no image file is opened. A split of at most `decode_up_to`
    images has every image file decoded; of a larger split, only the file headers are read. `max_pixels` is the largest
    accepted image area, `limit` the number of issues listed in the report. `progress(done, images)` is called after
    each chunk of images.

    Raises BadDataset if the folder is missing or the annotation file is unusable as a whole.
    """
    if not _is_folder(images):
        raise BadDataset(f"There is no images folder {printable(images.name)}.")
    issues = IssueCollector(limit, frozenset() if boxes else BOX_CODES)
    coco = read(annotations, issues)
    _check_names(coco, issues)
    _check_boxes(coco, printable(annotations.name), issues)
    depth: Depth = "annotations"
    files_by_trait: dict[ImageTrait, list[str]] = {trait: [] for trait in _TRAITS}
    if read_images:
        depth = "decoded" if len(coco.images) <= decode_up_to else "headers"
        _check_images(images, coco, issues, files_by_trait, progress, decode=depth == "decoded", max_pixels=max_pixels)
    warnings = [
        f"{_TRAITS[trait][0]} in {_describe_files(files)}: {_TRAITS[trait][1]}"
        for trait, files in files_by_trait.items()
        if files
    ]
    return CheckedSplit(images, coco, build_report(coco, issues, depth, warnings))


def check_pair(train: Report, val: Report) -> None:
    """Raise ClassMismatch unless both splits have the same classes in the same order."""
    train, val = train.matching(val.class_names), val.matching(train.class_names)
    if text := describe_class_difference(train.class_names, val.class_names, "The validation file"):
        raise ClassMismatch(text)


def describe_shared_images(train: CheckedSplit, val: CheckedSplit) -> list[str]:
    """Return a warning if images are listed in both splits, otherwise nothing."""
    paths = {_image_path(train, image) for image in train.coco.images}
    shared = [image.file_name for image in val.coco.images if _image_path(val, image) in paths]
    if not shared:
        return []
    return [f"Listed in both splits: {_describe_files(shared)}. Scores on images that were trained on are too high."]


def _image_path(split: CheckedSplit, image: CocoImage) -> str:
    return normpath(f"{split.images.resolve()}/{image.file_name}")


def _describe_files(names: Sequence[str]) -> str:
    first = printable(names[0])
    return first if len(names) == 1 else f"{len(names):,} images, such as {first}"


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # no permission, or the name is too long
        return False


def _check_names(coco: CocoFile, issues: IssueCollector) -> None:
    """Add an issue for every image whose file name another image has listed before."""
    first_by_path: dict[str, CocoImage] = {}
    for image in coco.images:
        first = first_by_path.setdefault(normpath(image.file_name), image)
        if first is not image:
            text = f"{printable(image.file_name)} is listed twice, as image {first.id} and as image {image.id}."
            issues.add("image_listed_twice", text, file=image.file_name, image_id=image.id)


def _check_boxes(coco: CocoFile, name: str, issues: IssueCollector) -> None:
    if text := _describe_unusable(coco):
        issues.add("boxes_missing", f"{name} {text}")
    empty = _empty_mask(coco)
    for row in np.flatnonzero(empty):
        _add_box_issue(coco, int(row), "box_empty", "is empty", issues)
    for row in np.flatnonzero(~empty & _outside_mask(coco)):
        image = coco.images[coco.boxes.image[row]]
        text = f"extends beyond the image, which is {image.width}x{image.height}"
        _add_box_issue(coco, int(row), "box_outside", text, issues)


def _describe_unusable(coco: CocoFile) -> str:
    """Return the end of a sentence on why training can use none of the boxes; empty if it can use one."""
    if not len(coco.boxes):
        return "has no valid boxes."
    if coco.boxes.xywh.max() <= 1:
        return "has boxes that are fractions of the image size; COCO boxes are in pixels."
    excluded = count_excluded_boxes(coco)
    if sum(excluded.values()) < len(coco.boxes):
        return ""
    return f"has no box that training can use: {describe_exclusions(excluded)}."


def _empty_mask(coco: CocoFile) -> NDArray[np.bool_]:
    """Return (N,), true for each box without width or height."""
    return (coco.boxes.xywh[:, 2] <= 0) | (coco.boxes.xywh[:, 3] <= 0)


def _outside_mask(coco: CocoFile) -> NDArray[np.bool_]:
    """Return (N,), true for each box that extends beyond its image by more than the tolerance."""
    sizes = np.array([(image.width, image.height) for image in coco.images], dtype=np.float64).reshape(-1, 2)
    x, y, w, h = coco.boxes.xywh.T
    width, height = sizes[coco.boxes.image].T + OUTSIDE_TOLERANCE
    with np.errstate(over="ignore"):
        return (x < -OUTSIDE_TOLERANCE) | (y < -OUTSIDE_TOLERANCE) | (x + w > width) | (y + h > height)


def _add_box_issue(coco: CocoFile, row: int, code: IssueCode, text: str, issues: IssueCollector) -> None:
    image, box_id = coco.images[coco.boxes.image[row]], int(coco.boxes.id[row])
    message = f"{printable(image.file_name)}: box {box_id} [{format_box(coco.boxes.xywh[row])}] {text}."
    issues.add(code, message, file=image.file_name, image_id=image.id, annotation_id=box_id)


def _check_images(
    folder: Path,
    coco: CocoFile,
    issues: IssueCollector,
    files_by_trait: dict[ImageTrait, list[str]],
    progress: ProgressCallback | None,
    *,
    decode: bool,
    max_pixels: int,
) -> None:
    root = folder.resolve()
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        for start in range(0, len(coco.images), _CHUNK):
            chunk = coco.images[start : start + _CHUNK]
            results = pool.map(lambda image: inspect_image(root, image, decode=decode, max_pixels=max_pixels), chunk)
            _add_image_results(zip(chunk, results, strict=True), issues, files_by_trait)
            if progress:
                progress(start + len(chunk), len(coco.images))


def _add_image_results(
    results: Iterator[tuple[CocoImage, tuple[ImageIssue | None, frozenset[ImageTrait]]]],
    issues: IssueCollector,
    files_by_trait: dict[ImageTrait, list[str]],
) -> None:
    for image, (issue, traits) in results:
        for trait in traits:
            files_by_trait[trait].append(image.file_name)
        if issue:
            code, message = issue
            issues.add(code, message, file=image.file_name, image_id=image.id)
