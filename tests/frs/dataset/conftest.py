import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from frs.dataset.check import check_split
from frs.dataset.issues import DatasetIssue
from frs.dataset.report import Report


@dataclass
class TinySet:
    """Data set with two classes, to which a test adds images and boxes."""

    folder: Path
    images: list[Any] = field(default_factory=list)
    annotations: list[Any] = field(default_factory=list)
    categories: list[Any] = field(default_factory=lambda: [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}])

    def image(self, name: str = "a.png", size: tuple[int, int] = (40, 30), **changes: Any) -> Path:
        """Add an image entry and write its file; `changes` override fields of the entry."""
        entry = {"id": len(self.images) + 1, "file_name": name, "width": size[0], "height": size[1]}
        self.images.append(entry | changes)
        path = self.folder / "train" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.radial_gradient("L").resize(size).convert("RGB").save(path)
        return path

    def box(self, *bbox: float, **changes: Any) -> None:
        """Add a box entry; `changes` override its fields."""
        entry = {"id": len(self.annotations) + 1, "image_id": 1, "category_id": 1, "bbox": list(bbox or (1, 2, 10, 10))}
        self.annotations.append(entry | changes)

    @property
    def file(self) -> Path:
        """Annotation file, written anew."""
        document = {"images": self.images, "annotations": self.annotations, "categories": self.categories}
        path = self.folder / "instances_train.json"
        path.write_text(json.dumps(document))
        return path

    def check(self, **options: Any) -> Report:
        """Return the report of the check."""
        return check_split(self.folder / "train", self.file, **options)

    def only_issue(self, **options: Any) -> DatasetIssue:
        """Return the issue of the check, which must be the only one."""
        (issue,) = self.check(**options).issues
        return issue


@pytest.fixture
def tiny(tmp_path: Path) -> TinySet:
    """Valid data set of one image with one box."""
    tiny = TinySet(tmp_path)
    tiny.image()
    tiny.box()
    return tiny
