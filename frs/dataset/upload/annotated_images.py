"""Annotated images, the common result of the Pascal VOC and YOLO readers, and the writer of our COCO layout."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from os.path import commonpath
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from frs.dataset.issues import printable
from frs.dataset.upload.archive import IMAGE_SUFFIXES
from frs.errors import BadDataset, NoValidationSplit

_LISTED_ERRORS = 5
_IMAGE_FOLDERS = ("images", "jpegimages", "data")
"""Usual names of folders of images, the surest first."""
ROBOFLOW_COPY = ".rf."
"""What follows in a file name the name of the image that Roboflow exported, once or in several augmented copies."""


class Box(NamedTuple):
    """Box of one object: class name and corners in pixels."""

    label: str
    left: float
    top: float
    right: float
    bottom: float
    ignored: bool = False
    """Whether the object is neither trained on nor counted against a detector, as Pascal VOC's difficult objects."""


@dataclass(frozen=True)
class AnnotatedImage:
    """Image file with its size in pixels and its boxes."""

    path: Path
    name: str
    """File name relative to the folder of the split."""
    width: int
    height: int
    boxes: tuple[Box, ...]


@dataclass(frozen=True)
class AnnotatedDataset:
    """Classes and images of an uploaded data set."""

    classes: tuple[str, ...]
    train: Sequence[AnnotatedImage]
    val: Sequence[AnnotatedImage] | None
    """None if the upload has no validation split."""


@dataclass
class AnnotationErrors:
    """Collector of annotation errors, so that one response lists several of them."""

    count: int = 0
    first: list[str] = field(default_factory=list)
    """The first errors, one sentence each."""

    def add(self, text: str) -> None:
        """Count an error, and keep its text if it is one of the first."""
        self.count += 1
        if self.count <= _LISTED_ERRORS:
            self.first.append(text)

    def raise_if_any(self) -> None:
        """Raise BadDataset with the first errors and the number of the others, if there are any."""
        if self.count:
            others = f" And {self.count - _LISTED_ERRORS:,} more." if self.count > _LISTED_ERRORS else ""
            raise BadDataset(" ".join(self.first) + others, "Correct these files and upload the archive again.")


def list_files(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """Return the files below `folder` of some suffixes, given in lower case and found in any case; sorted."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in suffixes and path.is_file())


def list_images(folder: Path) -> list[Path]:
    """Return the image files below `folder`, sorted."""
    return list_files(folder, IMAGE_SUFFIXES)


def common_folder(paths: Sequence[Path]) -> Path:
    """Return the innermost folder that holds all of the files; the root folder if there are none."""
    return Path(commonpath([path.parent for path in paths] or [Path("/")]))


def rank_folder(folder: PurePath) -> int:
    """Return how likely a folder holds images, 0 most of all, rather than masks or depths of the same file names."""
    names = {part.lower() for part in folder.parts}
    return next((rank for rank, name in enumerate(_IMAGE_FOLDERS) if name in names), len(_IMAGE_FOLDERS))


def write_coco(annotated: AnnotatedDataset, target: Path, val_fraction: float | None) -> None:
    """Write the data set below `target` in our COCO layout; the image files are moved.

    The layout is `train/`, `val/`, `annotations/instances_train.json` and `annotations/instances_val.json`. Without a
    validation split, `val_fraction` of the training images become one.

    Raises NoValidationSplit if there is no validation split and no `val_fraction`, BadDataset if a split has no images
    or an image is listed twice.
    """
    train, val = annotated.train, annotated.val
    for split, images in (("train", train), ("val", val)):
        if images is not None and not images:
            raise BadDataset(
                f"The {split} split has no images.",
                f"The name of a folder states the split of its images: name one {split}, and upload again.",
            )
    if val is None:
        val_names = split_off_validation([image.name for image in train], val_fraction)
        train, val = (
            [image for image in annotated.train if (image.name in val_names) is chosen] for chosen in (False, True)
        )
    _refuse_duplicate_images(train, val)
    for split, images in (("train", train), ("val", val)):
        move_files(((image.path, image.name) for image in images), target / split)
        write_json(annotations_file(target, split), _build_document(annotated.classes, images))


def split_off_validation(names: Sequence[str], fraction: float | None) -> set[str]:
    """Return the names of the images that become the validation split.

    The choice depends only on the names, so every machine makes the same one. Copies that Roboflow made of one image,
    `a.rf.1f3c.jpg` and `a.rf.9b2e.jpg`, stay together. At least one image is left in each split.

    Raises NoValidationSplit without a `fraction`, or if there are fewer than two images.
    """
    if fraction is None:
        raise NoValidationSplit("The data set has no validation split.")
    sources: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        sources[name.partition(ROBOFLOW_COPY)[0]].append(name)
    if len(sources) < 2:
        raise NoValidationSplit("A single image cannot be divided into two splits.", "Add images.")
    val_names: list[str] = []
    for source in sorted(sources, key=lambda source: hashlib.sha256(source.encode()).digest())[:-1]:
        if val_names and len(val_names) >= round(fraction * len(names)):
            break
        val_names += sources[source]
    return set(val_names)


def annotations_file(target: Path, split: str) -> Path:
    """Return the path of a split's annotation file in our COCO layout."""
    return target / "annotations" / f"instances_{split}.json"


def write_json(path: Path, document: Any) -> None:
    """Write compact JSON, and create the folder if it does not exist."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, separators=(",", ":")), "utf-8")


def move_files(pairs: Iterable[tuple[Path, str]], folder: Path) -> None:
    """Move each file to its name relative to `folder`; missing folders are created."""
    folder.mkdir(parents=True, exist_ok=True)
    for path, name in pairs:
        destination = folder / name
        destination.parent.mkdir(parents=True, exist_ok=True)
        path.rename(destination)


def _refuse_duplicate_images(train: Sequence[AnnotatedImage], val: Sequence[AnnotatedImage]) -> None:
    splits: dict[Path, str] = {}
    for split, images in (("training", train), ("validation", val)):
        for image in images:
            if first := splits.get(image.path):
                where = f"in the {first} and the {split} split" if first != split else f"in the {split} split"
                message = f"{printable(image.name)} is listed twice, {where}."
                raise BadDataset(message, "List each image once, in one split.")
            splits[image.path] = split


def _build_document(classes: Sequence[str], images: Sequence[AnnotatedImage]) -> dict[str, Any]:
    category_ids = {name: number for number, name in enumerate(classes, 1)}
    entries: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, image in enumerate(images, 1):
        entries.append({"id": image_id, "file_name": image.name, "width": image.width, "height": image.height})
        for box in image.boxes:
            annotations.append(_build_annotation(len(annotations) + 1, image_id, category_ids[box.label], box))
    categories = [{"id": number, "name": name} for name, number in category_ids.items()]
    return {"images": entries, "annotations": annotations, "categories": categories}


def _build_annotation(annotation_id: int, image_id: int, category_id: int, box: Box) -> dict[str, Any]:
    left, top, width, height = (
        round(value, 3) for value in (box.left, box.top, box.right - box.left, box.bottom - box.top)
    )
    area = max(0.0, width) * max(0.0, height)
    annotation = {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": category_id,
        "bbox": [left, top, width, height],
        "area": round(area, 3),
        "iscrowd": 0,
    }
    return annotation | {"ignore": 1} if box.ignored else annotation
