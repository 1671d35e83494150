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
