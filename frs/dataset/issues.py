"""What is wrong with a data set: issues named by a code, counted in full, listed up to a limit."""

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
"""What does not matter where only the images are used."""


class DatasetIssue(BaseModel):
    model_config = ConfigDict(frozen=True)
    code: IssueCode
    message: str
    file: str | None = None
    """The image's name in the annotation file."""
    image_id: int | None = None
    annotation_id: int | None = None


class IssueCollector:
    """Collects issues. However many there are, it keeps `limit` of each code and the ids of the images they touch."""

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
        if code in self.ignored:
            return
        self.counts[code] += 1
        if image_id is not None:
            self.image_ids.add(image_id)
        if self.counts[code] <= self.limit:
            issue = DatasetIssue(code=code, message=message, file=file, image_id=image_id, annotation_id=annotation_id)
            self._kept.append((self.counts[code], issue))

    def listed(self) -> list[DatasetIssue]:
        """At most `limit`, the first of every code before the second of any: no code hides another."""
        return [issue for _, issue in sorted(self._kept, key=lambda kept: kept[0])][: self.limit]


def printable(value: object, length: int = 120) -> str:
    """`value` for a message: short, on one line, control characters and lone surrogates escaped."""
    text = value if isinstance(value, str) else reprlib.repr(value)
    text = text if len(text) <= length else text[:length] + "..."
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
