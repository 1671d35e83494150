"""Data-set issues: each has a code; all are counted, and up to a limit they are listed."""

import reprlib
from collections import Counter
from typing import Literal

from pydantic import BaseModel, ConfigDict

IssueCode = Literal[
    "annotation_id_duplicate",
    "annotation_invalid",
    "box_empty",
    "box_invalid",
    "box_outside",
    "boxes_missing",
    "category_duplicate",
    "category_unknown",
    "image_id_duplicate",
    "image_invalid",
    "image_listed_twice",
    "image_missing",
    "image_outside_folder",
    "image_size_differs",
    "image_too_large",
    "image_unknown",
    "image_unreadable",
]
HINTS: dict[IssueCode, str] = {
    "annotation_id_duplicate": "Give each annotation an id of its own.",
    "annotation_invalid": "Give each annotation the fields `id`, `image_id`, `category_id` and `bbox`.",
    "box_empty": "Correct or remove the box: its width and height must be above 0.",
    "box_invalid": "Correct or remove the box: four finite numbers in pixels, within the image.",
    "box_outside": "Correct or remove the box: four finite numbers in pixels, within the image.",
    "boxes_missing": "Multiply fractions by the image size, or export boxes instead of masks (`iscrowd`).",
    "category_duplicate": "List each category once.",
    "category_unknown": "List the category in `categories`, or correct `category_id`.",
    "image_id_duplicate": "Give each image an id of its own.",
    "image_invalid": "Give each image one entry with `id`, `file_name`, `width` and `height`.",
    "image_listed_twice": "List each image once.",
    "image_missing": "Add the file below the images folder, or correct `file_name`.",
    "image_outside_folder": "Move the file below the images folder, or correct `file_name`.",
    "image_size_differs": "Annotate the image as it is, after its EXIF orientation.",
    "image_too_large": "Save the image with at most 50 million pixels (WebP: 12.5 million).",
    "image_unknown": "Remove the box, or add the image with its `image_id`.",
    "image_unreadable": "Save the image as JPEG, PNG, BMP or WebP.",
}
"""Next step for each kind of issue."""
BOX_CODES: frozenset[IssueCode] = frozenset(
    {
        "annotation_id_duplicate",
        "annotation_invalid",
        "box_empty",
        "box_invalid",
        "box_outside",
        "boxes_missing",
        "category_duplicate",
        "category_unknown",
        "image_unknown",
    }
)
"""Codes that are irrelevant if only the images are used, as for unlabelled images."""


class DatasetIssue(BaseModel):
    """One error in a data set."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)
    code: IssueCode
    """Kind of the issue."""
    message: str
    """One sentence that names the file and the box."""
    file: str | None = None
    """Image file name as in the annotation file; null if the issue concerns no image entry."""
    image_id: int | None = None
    """Image id as in the annotation file."""
    annotation_id: int | None = None
    """Box id as in the annotation file."""


class IssueCollector:
    """Collector of issues in bounded memory.

    It counts every issue by code, keeps the first `limit` issues of each code and the ids of all images that have
    issues. Issues whose code is in `ignored` are dropped.
    """

    def __init__(self, limit: int = 200, ignored: frozenset[IssueCode] = frozenset()) -> None:
        self.limit, self.ignored = limit, ignored
        self.counts: Counter[IssueCode] = Counter()
        self.image_ids: set[int] = set()
        self._kept: list[tuple[int, DatasetIssue]] = []

    def add(
        self,
        code: IssueCode,
        message: str,
        *,
        file: str | None = None,
        image_id: int | None = None,
        annotation_id: int | None = None,
    ) -> None:
        """Count an issue, and keep it unless `limit` issues of its code are kept already."""
        if code in self.ignored:
            return
        self.counts[code] += 1
        if image_id is not None:
            self.image_ids.add(image_id)
        if self.counts[code] <= self.limit:
            issue = DatasetIssue(code=code, message=message, file=file, image_id=image_id, annotation_id=annotation_id)
            self._kept.append((self.counts[code], issue))

    def listed(self) -> list[DatasetIssue]:
        """Return at most `limit` issues: the first of every code, then the second of every code, and so on.

        In this order, a frequent code does not push a rare one off the list.
        """
        return [issue for _, issue in sorted(self._kept, key=lambda kept: kept[0])][: self.limit]


def printable(value: object, length: int = 120) -> str:
    """Return `value` as text for a message: on one line, at most `length` characters before escaping.

    Longer text is cut and ends in "..."; control characters and lone surrogates are escaped.
    """
    text = value if isinstance(value, str) else reprlib.repr(value)
    text = text if len(text) <= length else text[:length] + "..."
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
