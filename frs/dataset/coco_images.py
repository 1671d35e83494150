"""Image entries of a COCO annotation file."""

from typing import Any, NamedTuple

from frs.dataset.fields import is_id, is_text
from frs.dataset.issues import IssueCollector, printable

NO_IMAGE = -1
"""Index of an image whose entry is invalid."""
_MAX_SIDE = 1 << 31


class CocoImage(NamedTuple):
    """Entry of one image in the annotation file."""

    id: int
    file_name: str
    """Path of the image file relative to the images folder."""
    width: int
    """Width in pixels, as annotated."""
    height: int
    """Height in pixels, as annotated."""


def read_images(entries: list[Any], name: str, issues: IssueCollector) -> tuple[tuple[CocoImage, ...], dict[int, int]]:
    """Return the valid images, and by image id their index among them; `NO_IMAGE` for an invalid entry.

    Adds an issue for every invalid entry. `name` is the annotation file's name in messages.
    """
    images: list[CocoImage] = []
    index_by_id: dict[int, int] = {}
    for number, entry in enumerate(entries):
        image_id = entry.get("id") if isinstance(entry, dict) else None
        if not is_id(image_id):
            issues.add("image_invalid", f"Entry {number} of `images` in {name} has no integer `id`.")
        elif image_id in index_by_id:
            message = f"Image id {image_id} is listed twice in {name}."
            issues.add("image_id_duplicate", message, file=_printable_file_name(entry), image_id=image_id)
        elif reason := _find_image_error(entry):
            message = f"Image {image_id} in {name} {reason}."
            issues.add("image_invalid", message, file=_printable_file_name(entry), image_id=image_id)
            index_by_id[image_id] = NO_IMAGE
        else:
            index_by_id[image_id] = len(images)
            images.append(CocoImage(image_id, entry["file_name"], entry["width"], entry["height"]))
    return tuple(images), index_by_id


def _find_image_error(entry: dict[str, Any]) -> str | None:
    if not is_text(entry.get("file_name"), 1024):
        return "has no `file_name` of 1 to 1,024 characters"
    for side in ("width", "height"):
        value = entry.get(side)
        if type(value) is not int or not 0 < value < _MAX_SIDE:
            return f"has `{side}` {printable(value)}, which is not an integer above 0"
    return None


def _printable_file_name(entry: dict[str, Any]) -> str | None:
    return printable(entry["file_name"]) if isinstance(entry.get("file_name"), str) else None
