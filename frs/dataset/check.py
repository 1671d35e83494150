"""Checks a COCO-layout data set before anything is trained on it: every file, every box."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from posixpath import normpath

import numpy as np
from numpy.typing import NDArray

from frs.dataset.classes import difference
from frs.dataset.coco import CocoFile, read
from frs.dataset.coco_images import CocoImage
from frs.dataset.image_files import MAX_PIXELS, ImageIssue, check_image
from frs.dataset.issues import BOX_CODES, IssueCode, IssueCollector, printable
from frs.dataset.report import Depth, Report, build_report
from frs.errors import BadDataset, ClassMismatch

Progress = Callable[[int, int], None]

DECODE_UP_TO = 2_000
OUTSIDE_TOLERANCE = 1.0
"""Pixels a box may reach beyond its image: rounding, not a mistake."""
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
    progress: Progress | None = None,
) -> Report:
    """Without `boxes` only the images count. Image files are decoded whole in sets of up to `decode_up_to` images, in larger ones known by their headers.

    `limit`: issues listed. `progress(done, images)`. Raises BadDataset where the set as a whole is unusable.
    """
    if not _is_folder(images):
        raise BadDataset(f"There is no images folder {printable(images.name)}.")
    found = IssueCollector(limit, frozenset() if boxes else BOX_CODES)
    coco = read(annotations, found)
    _check_names(coco, found)
    _check_boxes(coco, printable(annotations.name), found)
    depth: Depth = "annotations"
    if read_images:
        depth = "decoded" if len(coco.images) <= decode_up_to else "headers"
        _check_images(images, coco, found, progress, decode=depth == "decoded", max_pixels=max_pixels)
    return build_report(coco, found, depth)


def check_pair(train: Report, val: Report) -> None:
    """Raises ClassMismatch unless labels mean the same in both halves."""
    if text := difference(train.class_names, val.class_names, "The validation file"):
        raise ClassMismatch(text)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # not allowed to look, or a name too long
        return False


def _check_names(coco: CocoFile, found: IssueCollector) -> None:
    first: dict[str, CocoImage] = {}
    for image in coco.images:
        safetensors_copy = first.setdefault(normpath(image.file_name), image)
        if safetensors_copy is not image:
            text = (
                f"{printable(image.file_name)} is listed twice, as image {safetensors_copy.id} and as image {image.id}."
            )
            found.add("image_listed_twice", text, file=image.file_name, image_id=image.id)


def _check_boxes(coco: CocoFile, name: str, found: IssueCollector) -> None:
    if not len(coco.boxes):
        found.add("boxes_missing", f"{name} has no boxes to learn from.")
    empty = _empty(coco)
    for row in np.flatnonzero(empty):
        _add_row_issues(coco, int(row), "box_empty", "is empty", found)
    for row in np.flatnonzero(~empty & _outside_image(coco)):
        image = coco.images[coco.boxes.image[row]]
        _add_row_issues(coco, int(row), "box_outside", f"reaches beyond the image, {image.width}x{image.height}", found)
    for row in _duplicate_ids(coco.boxes.id):
        _add_row_issues(coco, int(row), "annotation_id_duplicate", "has an id that another box has, too", found)


def _empty(coco: CocoFile) -> NDArray[np.bool_]:
    return (coco.boxes.xywh[:, 2] <= 0) | (coco.boxes.xywh[:, 3] <= 0)


def _outside_image(coco: CocoFile) -> NDArray[np.bool_]:
    sides = np.array([(image.width, image.height) for image in coco.images], dtype=np.float64).reshape(-1, 2)
    x, y, w, h = coco.boxes.xywh.T
    width, height = sides[coco.boxes.image].T + OUTSIDE_TOLERANCE
    with np.errstate(over="ignore"):
        return (x < -OUTSIDE_TOLERANCE) | (y < -OUTSIDE_TOLERANCE) | (x + w > width) | (y + h > height)


def _duplicate_ids(ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows whose id occurred in a row before."""
    order = np.argsort(ids, kind="stable")
    return np.sort(order[1:][ids[order][1:] == ids[order][:-1]])


def _add_row_issues(coco: CocoFile, row: int, code: IssueCode, text: str, found: IssueCollector) -> None:
    image, box = coco.images[coco.boxes.image[row]], int(coco.boxes.id[row])
    numbers = ", ".join(f"{value:.10g}" for value in coco.boxes.xywh[row])
    message = f"{printable(image.file_name)}: box {box} [{numbers}] {text}."
    found.add(code, message, file=image.file_name, image_id=image.id, annotation_id=box)


def _check_images(
    folder: Path, coco: CocoFile, found: IssueCollector, progress: Progress | None, *, decode: bool, max_pixels: int
) -> None:
    root = folder.resolve()
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        for start in range(0, len(coco.images), _CHUNK):
            chunk = coco.images[start : start + _CHUNK]
            looked = pool.map(lambda image: check_image(root, image, decode=decode, max_pixels=max_pixels), chunk)
            _add_image_issues(zip(chunk, looked, strict=True), found)
            if progress:
                progress(start + len(chunk), len(coco.images))


def _add_image_issues(looked: Iterator[tuple[CocoImage, ImageIssue | None]], found: IssueCollector) -> None:
    for image, fault in looked:
        if fault:
            code, message = fault
            found.add(code, message, file=image.file_name, image_id=image.id)
