"""Pascal VOC: XML files of one image each, as VOC itself, CVAT, labelImg and Roboflow lay them out.

Images lie in `JPEGImages/` and XML files in `Annotations/`, with the splits in `ImageSets/Main/{train,val}.txt`; or
both lie beside each other, and the name of their folder states the split.

In VOC, corners are integers counted from 1 and belong to the box, so they are shifted by one pixel. If any corner of
the data set is a fraction or below 1, corners are used as they are: other tools write them that way.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from frs.dataset.issues import printable
from frs.dataset.upload.annotated_images import (
    AnnotatedDataset,
    AnnotatedImage,
    AnnotationErrors,
    Box,
    common_folder,
)
from frs.dataset.upload.archive import normalise_path
from frs.dataset.upload.split_names import SplitFolders, SplitRole, find_role
from frs.dataset.upload.voc_images import ImageIndex
from frs.dataset.upload.voc_xml import InvalidAnnotation, get_boxes, get_size, is_annotation, parse
from frs.errors import BadDataset

_LISTS = "ImageSets/Main"
_SAMPLES = 20
"""Number of XML files by which the layout is recognised."""


class _AnnotationFile(NamedTuple):
    image: Path
    width: int
    height: int
    boxes: list[Box]
    """Boxes with corners as in the file."""


def is_layout(folder: Path) -> bool:
    """Return whether the folder has the folders of Pascal VOC, or XML files of that format."""
    if all((folder / name).is_dir() for name in ("JPEGImages", "Annotations")):
        return True
    return any(is_annotation(path) for path in sorted(folder.rglob("*.xml"))[:_SAMPLES])


def read(folder: Path) -> AnnotatedDataset:
    """Return the annotated images. Raises BadDataset with the files and lines of the first errors."""
    folder = folder.resolve()
    errors, images = AnnotationErrors(), ImageIndex(folder)
    if (folder / _LISTS).is_dir():
        splits = {role: _read_listed(path, images, errors) for role, path in _find_lists(folder).items()}
    else:
        splits = _read_folders(folder, images, errors)
    errors.raise_if_any()
    boxes = [box for files in splits.values() for file in files for box in file.boxes]
    origin = 0 if any(_counts_from_0(box) for box in boxes) else 1
    return AnnotatedDataset(
        classes=tuple(sorted({box.label for box in boxes})),
        train=_shift_boxes(splits["train"], images.root, origin),
        val=_shift_boxes(splits["val"], images.root, origin) if "val" in splits else None,
    )


def _find_lists(folder: Path) -> dict[SplitRole, Path]:
    """Return the list of each split. Other lists, such as VOC's lists by class, are not used."""
    paths = sorted((folder / _LISTS).glob("*.txt"))
    lists = {find_role(path.stem): path for path in paths if path.stem.isalpha()}
    if train := lists.get("train") or next((path for path in paths if path.stem in ("trainval", "default")), None):
        splits: dict[SplitRole, Path] = {"train": train}
        return splits | ({"val": lists["val"]} if "val" in lists else {})
    names = ", ".join(printable(path.name) for path in paths[:8])
    raise BadDataset(
        f"There is no {_LISTS}/train.txt{f', only {names}' if names else ''}.",
        "List the training images there, one name a line.",
    )


def _read_listed(image_set: Path, images: ImageIndex, errors: AnnotationErrors) -> list[_AnnotationFile]:
    files = []
    for line, where in _read_lines(image_set):
        paths = (_find_below(images.annotations, f"{name}.xml") for name in _possible_names(line))
        if xml := next(filter(None, paths), None):
            files.append(_read_annotation(xml, images, errors))
        else:
            is_image = any(name in images.by_path for name in _possible_names(line))
            missing = f"Annotations/{printable(line)}.xml" if is_image else f"image {printable(line)} in JPEGImages"
            errors.add(f"{where}: there is no {missing}.")
    return [file for file in files if file]


def _read_folders(folder: Path, images: ImageIndex, errors: AnnotationErrors) -> dict[SplitRole, list[_AnnotationFile]]:
    """Return the annotations by split, as their folders' names state it; files without a split are for training."""
    files = sorted(images.annotations.rglob("*.xml"))
    folders = SplitFolders(xml.parent.relative_to(folder) for xml in files)
    by_role: dict[SplitRole | None, list[Path]] = {}
    for xml in files:
        by_role.setdefault(folders.find_role(xml.parent.relative_to(folder)), []).append(xml)
    splits: dict[SplitRole, list[Path]] = {"train": by_role.get("train", []) + by_role.get(None, [])}
    if "val" in by_role:
        splits["val"] = by_role["val"]
    return {
        role: [file for file in (_read_annotation(xml, images, errors) for xml in paths) if file]
        for role, paths in splits.items()
    }


def _read_lines(image_set: Path) -> Iterator[tuple[str, str]]:
    """Yield the lines of a list of images, each with its file and line for messages."""
    try:
        lines = image_set.read_text("utf-8-sig").splitlines()
    except ValueError as error:
        raise BadDataset(f"{_LISTS}/{printable(image_set.name)} is not UTF-8 text.") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield line.strip(), f"{_LISTS}/{printable(image_set.name)}, line {number}"


def _possible_names(line: str) -> Iterator[str]:
    """Yield the names that a line may mean: all of it, or without VOC's flag or an image suffix at its end."""
    line = normalise_path(line)
    without_flag = re.sub(r"\s+-?[01]$", "", line)
    for name in (line, without_flag):
        yield name
        yield re.sub(r"\.\w{3,4}$", "", name)


def _find_below(folder: Path, name: str) -> Path | None:
    """Return the file of a name from a list, if it lies below the folder."""
    try:
        path = (folder / name).resolve()
        return path if path.is_relative_to(folder.resolve()) and path.is_file() else None
    except (OSError, ValueError):  # such as a name that is too long
        return None


def _read_annotation(xml: Path, images: ImageIndex, errors: AnnotationErrors) -> _AnnotationFile | None:
    """Return the annotations of one image, or None after adding an error."""
    try:
        root = parse(xml)
        image = images.find(xml, root.findtext("filename"))
        if image is None:
            raise InvalidAnnotation(" belongs to no image")
        return _AnnotationFile(image, *get_size(root, image), get_boxes(root))
    except InvalidAnnotation as error:
        errors.add(f"{printable(xml.relative_to(images.top).as_posix())}{error}.")
        return None


def _counts_from_0(box: Box) -> bool:
    corners = (box.left, box.top, box.right, box.bottom)
    return min(box.left, box.top) < 1 or any(corner % 1 for corner in corners)


def _shift_boxes(files: Sequence[_AnnotationFile], root: Path | None, origin: int) -> list[AnnotatedImage]:
    """Return the images with boxes that count pixels from 0; `origin` is the first pixel's number in the files."""

    def shift(box: Box) -> Box:
        return box._replace(left=box.left - origin, top=box.top - origin)

    paths = [file.image for file in files]
    if root is None or not all(path.is_relative_to(root) for path in paths):
        root = common_folder(paths)
    return [
        AnnotatedImage(
            file.image, file.image.relative_to(root).as_posix(), file.width, file.height, tuple(map(shift, file.boxes))
        )
        for file in files
    ]
