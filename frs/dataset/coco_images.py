"""Image entries of a COCO annotation file."""

from typing import Any, NamedTuple

from frs.dataset.fields import Id, is_text, number_ids, read_id, read_size
from frs.dataset.issues import IssueCollector, printable

NO_IMAGE = -1
"""Index of an image whose entry is invalid."""


class CocoImage(NamedTuple):
    """Entry of one image in the annotation file."""

    id: int
    """Id in the annotation file; if the file has ids that are texts or beyond 2**53, the entry's position from 1."""
    file_name: str
    """Path of the image file relative to the images folder."""
    width: int
    """Width in pixels, as annotated."""
    height: int
    """Height in pixels, as annotated."""


def read_images(entries: list[Any], name: str, issues: IssueCollector) -> tuple[tuple[CocoImage, ...], dict[Id, int]]:
    """Return the valid images, and by the file's image id their index among them; `NO_IMAGE` for an invalid entry.

    Adds an issue for every invalid entry. `name` is the annotation file's name in messages.
    """
    images: list[CocoImage] = []
    index_by_id: dict[Id, int] = {}
    ids = [read_id(entry.get("id")) if isinstance(entry, dict) else None for entry in entries]
    numbers = number_ids(ids)
    for position, (entry, image_id) in enumerate(zip(entries, ids, strict=True)):
        if image_id is None:
            issues.add("image_invalid", f"Entry {position} of `images` in {name} has no `id`, an integer or a text.")
        elif image_id in index_by_id:
            message = f"Image id {printable(image_id)} is listed twice in {name}."
            file = _printable_file_name(entry)
            issues.add("image_id_duplicate", message, file=file, image_id=numbers[image_id])
        elif reason := _find_image_error(entry):
            message = f"Image {printable(image_id)} in {name} {reason}."
            issues.add("image_invalid", message, file=_printable_file_name(entry), image_id=numbers[image_id])
            index_by_id[image_id] = NO_IMAGE
        else:
            index_by_id[image_id] = len(images)
            width, height = int(entry["width"]), int(entry["height"])
            images.append(CocoImage(numbers[image_id], entry["file_name"], width, height))
    return tuple(images), index_by_id


def _find_image_error(entry: dict[str, Any]) -> str | None:
    if not is_text(entry.get("file_name"), 1024):
        return "has no `file_name` of 1 to 1,024 characters"
    for side in ("width", "height"):
        if read_size(entry.get(side)) is None:
            return f"has `{side}` {printable(entry.get(side))}, which is not an integer above 0"
    return None


def _printable_file_name(entry: dict[str, Any]) -> str | None:
    return printable(entry["file_name"]) if isinstance(entry.get("file_name"), str) else None
