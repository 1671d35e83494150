"""The images an annotation file lists."""

from typing import Any, NamedTuple

from frs.dataset.fields import is_id, is_text
from frs.dataset.issues import IssueCollector, printable

UNPLACED = -1
_MAX_SIDE = 1 << 31


class CocoImage(NamedTuple):
    id: int
    file_name: str
    width: int
    height: int


def read_images(entries: list[Any], name: str, found: IssueCollector) -> tuple[tuple[CocoImage, ...], dict[int, int]]:
    """The usable images, and for every id its index among them, or -1 where its entry is unusable."""
    images: list[CocoImage] = []
    places: dict[int, int] = {}
    for number, entry in enumerate(entries):
        image_id = entry.get("id") if isinstance(entry, dict) else None
        if not is_id(image_id):
            found.add("image_invalid", f"Entry {number} of `images` in {name} has no whole number as `id`.")
        elif image_id in places:
            message = f"Image id {image_id} is listed twice in {name}."
            found.add("image_id_duplicate", message, file=_file_shown(entry), image_id=image_id)
        elif fault := _image_fault(entry):
            message = f"Image {image_id} in {name} {fault}."
            found.add("image_invalid", message, file=_file_shown(entry), image_id=image_id)
            places[image_id] = UNPLACED
        else:
            places[image_id] = len(images)
            images.append(CocoImage(image_id, entry["file_name"], entry["width"], entry["height"]))
    return tuple(images), places


def _image_fault(entry: dict[str, Any]) -> str | None:
    if not is_text(entry.get("file_name"), 1024):
        return "has no text of 1 to 1,024 characters as `file_name`"
    for side in ("width", "height"):
        value = entry.get(side)
        if type(value) is not int or not 0 < value < _MAX_SIDE:
            return f"has `{side}` {printable(value)}, which is no whole number above 0"
    return None


def _file_shown(entry: dict[str, Any]) -> str | None:
    return printable(entry["file_name"]) if isinstance(entry.get("file_name"), str) else None
