"""Check of a data set in COCO layout before training: every annotation and every image file."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from posixpath import normpath

import numpy as np
from numpy.typing import NDArray

from frs.dataset.classes import describe_class_difference
from frs.dataset.coco import CocoFile, read
from frs.dataset.coco_images import CocoImage
from frs.dataset.image_files import MAX_PIXELS, ImageIssue, check_image
from frs.dataset.issues import BOX_CODES, IssueCode, IssueCollector, printable
from frs.dataset.report import Depth, Report, build_report
from frs.errors import BadDataset, ClassMismatch

ProgressCallback = Callable[[int, int], None]
"""Receives the number of images checked so far and the total number of images."""

DECODE_UP_TO = 2_000
"""Number of images up to which a check decodes every image file completely."""
OUTSIDE_TOLERANCE = 1.0
"""Pixels that a box may extend beyond its image, to allow for rounding."""
_CHUNK = 256


def check_split(
    images: Path,
    annotations: Path,
    *,
    boxes: bool = True,
    read_images: bool = True,
    decode_up_to: int = DECODE_UP_TO,
    max_pixels: int = MAX_PIXELS,
    limit: int = 200,
    progress: ProgressCallback | None = None,
) -> Report:
    """Return a report on one split: its counts and its issues.

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
    if read_images:
        depth = "decoded" if len(coco.images) <= decode_up_to else "headers"
        _check_images(images, coco, issues, progress, decode=depth == "decoded", max_pixels=max_pixels)
    return build_report(coco, issues, depth)


def check_pair(train: Report, val: Report) -> None:
    """Raise ClassMismatch unless both splits have the same classes in the same order."""
    if text := describe_class_difference(train.class_names, val.class_names, "The validation file"):
        raise ClassMismatch(text)


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
    if not len(coco.boxes):
        issues.add("boxes_missing", f"{name} has no valid boxes.")
    empty = _empty_mask(coco)
    for row in np.flatnonzero(empty):
        _add_box_issue(coco, int(row), "box_empty", "is empty", issues)
    for row in np.flatnonzero(~empty & _outside_mask(coco)):
        image = coco.images[coco.boxes.image[row]]
        text = f"extends beyond the image, which is {image.width}x{image.height}"
        _add_box_issue(coco, int(row), "box_outside", text, issues)
    for row in _duplicate_rows(coco.boxes.id):
        _add_box_issue(coco, int(row), "annotation_id_duplicate", "has the id of another box", issues)


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


def _duplicate_rows(ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the rows whose id also occurs in an earlier row."""
    order = np.argsort(ids, kind="stable")
    return np.sort(order[1:][ids[order][1:] == ids[order][:-1]])


def _add_box_issue(coco: CocoFile, row: int, code: IssueCode, text: str, issues: IssueCollector) -> None:
    image, box_id = coco.images[coco.boxes.image[row]], int(coco.boxes.id[row])
    numbers = ", ".join(f"{value:.10g}" for value in coco.boxes.xywh[row])
    message = f"{printable(image.file_name)}: box {box_id} [{numbers}] {text}."
    issues.add(code, message, file=image.file_name, image_id=image.id, annotation_id=box_id)


def _check_images(
    folder: Path,
    coco: CocoFile,
    issues: IssueCollector,
    progress: ProgressCallback | None,
    *,
    decode: bool,
    max_pixels: int,
) -> None:
    root = folder.resolve()
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        for start in range(0, len(coco.images), _CHUNK):
            chunk = coco.images[start : start + _CHUNK]
            results = pool.map(lambda image: check_image(root, image, decode=decode, max_pixels=max_pixels), chunk)
            _add_image_issues(zip(chunk, results, strict=True), issues)
            if progress:
                progress(start + len(chunk), len(coco.images))


def _add_image_issues(results: Iterator[tuple[CocoImage, ImageIssue | None]], issues: IssueCollector) -> None:
    for image, issue in results:
        if issue:
            code, message = issue
            issues.add(code, message, file=image.file_name, image_id=image.id)
