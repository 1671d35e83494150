"""Pictures with boxes as the readers of other layouts hand them on, and how they become our COCO layout."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from frs.dataset.issues import printable
from frs.errors import BadDataset, NoValidationSplit

_TOLD = 5


class Box(NamedTuple):
    label: str
    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True)
class AnnotatedImage:
    path: Path
    name: str
    """Below the half's folder."""
    width: int
    height: int
    boxes: tuple[Box, ...]


@dataclass(frozen=True)
class AnnotatedDataset:
    classes: tuple[str, ...]
    train: Sequence[AnnotatedImage]
    val: Sequence[AnnotatedImage] | None


@dataclass
class AnnotationErrors:
    """Collects what is wrong with annotations: a client should not have to upload again for every line."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, text: str) -> None:
        self.count += 1
        if self.count <= _TOLD:
            self.first.append(text)

    def refuse(self) -> None:
        """Raises BadDataset if there were any."""
        if self.count:
            more = f" And {self.count - _TOLD:,} more." if self.count > _TOLD else ""
            raise BadDataset(" ".join(self.first) + more, "Correct these files and upload the archive again.")


def write_coco(annotated: AnnotatedDataset, target: Path, val_fraction: float | None) -> None:
    """Moves the pictures into `train/` and `val/` below `target` and writes `annotations/`. Raises NoValidationSplit."""
    train, val = annotated.train, annotated.val
    if val is None:
        aside = split_off_validation([picture.name for picture in train], val_fraction)
        train, val = (
            [picture for picture in annotated.train if (picture.name in aside) is chosen] for chosen in (False, True)
        )
    _refuse_duplicate_names([*train, *val])
    for split, pictures in (("train", train), ("val", val)):
        if not pictures:
            raise BadDataset(f"The {split} half holds no pictures.")
        move(((picture.path, picture.name) for picture in pictures), target / split)
        write_json(annotations_file(target, split), _document(annotated.classes, pictures))


def split_off_validation(names: Sequence[str], share: float | None) -> set[str]:
    """Which pictures become the validation half: the same ones for the same names. Raises NoValidationSplit."""
    if share is None:
        raise NoValidationSplit("The data set has no validation half.")
    if len(names) < 2:
        raise NoValidationSplit("One picture cannot be shared out.", "Add pictures.")
    at_random = sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())
    return set(at_random[: min(max(1, round(share * len(names))), len(names) - 1)])


def annotations_file(target: Path, split: str) -> Path:
    return target / "annotations" / f"instances_{split}.json"


def write_json(path: Path, document: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, separators=(",", ":")), "utf-8")


def move(pairs: Iterable[tuple[Path, str]], folder: Path) -> None:
    """Moves files to their names below `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for path, name in pairs:
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        path.rename(place)


def _refuse_duplicate_names(pictures: Sequence[AnnotatedImage]) -> None:
    seen: set[Path] = set()
    for picture in pictures:
        if picture.path in seen:
            raise BadDataset(f"{printable(picture.name)} is listed twice.", "List a picture in one half, once.")
        seen.add(picture.path)


def _document(classes: Sequence[str], pictures: Sequence[AnnotatedImage]) -> dict[str, Any]:
    ids = {name: number for number, name in enumerate(classes, 1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, picture in enumerate(pictures, 1):
        images.append({"id": image_id, "file_name": picture.name, "width": picture.width, "height": picture.height})
        for box in picture.boxes:
            annotations.append(_annotation(len(annotations) + 1, image_id, ids[box.label], box))
    categories = [{"id": number, "name": name} for name, number in ids.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


def _annotation(number: int, image_id: int, category_id: int, box: Box) -> dict[str, Any]:
    left, top, width, height = (
        round(value, 3) for value in (box.left, box.top, box.right - box.left, box.bottom - box.top)
    )
    return {
        "id": number,
        "image_id": image_id,
        "category_id": category_id,
        "bbox": [left, top, width, height],
        "area": round(width * height, 3),
        "iscrowd": 0,
    }
