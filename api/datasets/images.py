"""The images of a data set with their boxes, for pictures of the data."""

import threading
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from starlette.responses import FileResponse

from api.context import Context
from api.datasets.checks import MAX_SYNC_BYTES
from api.datasets.schemas import DatasetImage, LabelledBox, SplitName
from api.datasets.service import get_row
from api.datasets.unpacked import find_folder_soon
from api.http.auth import Caller
from api.http.errors import ApiError
from api.http.files import BINARY
from api.http.pagination import parse_sequence_cursor
from api.http.schemas import Page
from frs.dataset import coco
from frs.dataset.coco import CocoFile
from frs.errors import FrsError, InvalidSpec
from frs.resolved import inside

MEDIA_TYPES = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
    ".bmp": "image/bmp",
    ".gif": "image/gif",
}
"""Media types that a browser may show, by suffix. Any other file is sent as `application/octet-stream`."""
_CACHED_FILES = 4
_lock = threading.Lock()
"""Held while an annotation file is read: requests for the images of one page read it once."""


def list_images(
    context: Context, caller: Caller, dataset: str, split: SplitName, limit: int, cursor: str | None
) -> Page[DatasetImage]:
    """Return a page of images in the order of the annotation file.

    Raises DatasetNotFound, InvalidField for an invalid cursor, and ApiError 409 if the annotations cannot be read.
    """
    file, _ = _open_split(context, caller, dataset, split)
    start = parse_sequence_cursor(cursor)
    stop = min(start + limit, len(file.images))
    images = [_to_response(file, index) for index in range(start, stop)]
    return Page(data=images, next_cursor=str(stop) if stop < len(file.images) else None)


def image_file(context: Context, caller: Caller, dataset: str, split: SplitName, image_id: int) -> FileResponse:
    """Return the file of an image, undecoded. Raises DatasetNotFound, and ApiError 404 if there is no such file."""
    file, folder = _open_split(context, caller, dataset, split)
    name = next((image.file_name for image in file.images if image.id == image_id), None)
    path = None
    with suppress(InvalidSpec):  # a path that leads out of the folder
        path = inside(folder, name) if name is not None else None
    if path is None or not path.is_file():
        hint = "The list of the split's images has the ids; the health report of the data set lists missing files."
        raise ApiError(404, "image_not_found", f"The {split} split has no file for image {image_id}.", hint)
    return FileResponse(
        path,
        media_type=MEDIA_TYPES.get(path.suffix.lower(), BINARY),
        headers={"Cache-Control": "private, max-age=3600", "X-Content-Type-Options": "nosniff"},
    )


def _open_split(context: Context, caller: Caller, dataset: str, split: SplitName) -> tuple[CocoFile, Path]:
    """Return the annotations of a split and the folder of its images. Raises ApiError and DatasetNotFound."""
    with context.database.read() as session:
        row = get_row(session, caller, dataset)
    annotations, images = (
        (row.train_annotations, row.train_images) if split == "train" else (row.val_annotations, row.val_images)
    )
    try:
        root = find_folder_soon(context, row)
    except FrsError as error:
        raise _unreadable(error.message) from error
    path = inside(root, annotations)
    try:
        state = path.stat()
        if state.st_size > MAX_SYNC_BYTES:
            raise _unreadable(f"{path.name} is larger than {MAX_SYNC_BYTES >> 20} MiB")
        with _lock:
            return _read(path, state.st_mtime_ns), inside(root, images)
    except (OSError, FrsError) as error:
        raise _unreadable(getattr(error, "message", type(error).__name__)) from error


@lru_cache(maxsize=_CACHED_FILES)
def _read(path: Path, modified_ns: int) -> CocoFile:
    """Return the annotations. `modified_ns` makes a changed file another entry of the cache."""
    return coco.read(path)


def _to_response(file: CocoFile, index: int) -> DatasetImage:
    image, boxes = file.images[index], file.boxes_of(index)
    columns = zip(boxes.xywh.tolist(), boxes.label.tolist(), boxes.optional.tolist(), strict=True)
    objects = [LabelledBox(bbox=box, category=file.classes[label], crowd=crowd) for box, label, crowd in columns]
    return DatasetImage(**image._asdict(), objects=objects)


def _unreadable(reason: str) -> ApiError:
    hint = "The health report of the data set lists the issues of its files."
    return ApiError(409, "annotations_unreadable", f"The annotations cannot be shown: {reason.rstrip('.')}.", hint)
