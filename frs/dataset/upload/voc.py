"""Pascal VOC: `JPEGImages/`, `Annotations/*.xml`, `ImageSets/Main/{train,val}.txt`.

In VOC, corners are counted from 1 and belong to the box, so they are shifted by one pixel. If any box of the data set
begins at 0, corners are used as they are: other tools write them that way.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree
from xml.parsers import expat

from frs.dataset import image_files
from frs.dataset.fields import is_text
from frs.dataset.issues import printable
from frs.dataset.upload.annotated_images import AnnotatedDataset, AnnotatedImage, AnnotationErrors, Box
from frs.dataset.upload.archive import IMAGE_SUFFIXES
from frs.errors import BadDataset

_MAX_BYTES = 4 << 20
_MAX_DEPTH = 20
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


class _AnnotationFile(NamedTuple):
    image: Path
    width: int
    height: int
    boxes: list[Box]
    """Boxes with corners as in the file."""


class _InvalidAnnotation(Exception):
    pass


def is_layout(folder: Path) -> bool:
    """Return whether the folder has the three folders of Pascal VOC."""
    return all((folder / name).is_dir() for name in ("JPEGImages", "Annotations", "ImageSets/Main"))


def read(folder: Path) -> AnnotatedDataset:
    """Return the annotated images. Raises BadDataset with the files and lines of the first errors."""
    errors = AnnotationErrors()
    image_by_stem = {
        path.stem: path for path in sorted((folder / "JPEGImages").iterdir()) if path.suffix.lower() in IMAGE_SUFFIXES
    }
    train, val = (_read_split(folder, split, image_by_stem, errors) for split in ("train", "val"))
    errors.raise_if_any()
    if train is None:
        raise BadDataset("There is no ImageSets/Main/train.txt.", "List the training images there, one name a line.")
    boxes = [box for split in (train, val) for file in split or () for box in file.boxes]
    origin = 0 if any(min(box.left, box.top) < 1 for box in boxes) else 1
    return AnnotatedDataset(
        classes=tuple(sorted({box.label for box in boxes})),
        train=_shift_boxes(train, origin),
        val=None if val is None else _shift_boxes(val, origin),
    )


def _read_split(
    folder: Path, split: str, image_by_stem: dict[str, Path], errors: AnnotationErrors
) -> list[_AnnotationFile] | None:
    image_set = folder / "ImageSets" / "Main" / f"{split}.txt"
    if not image_set.is_file():
        return None
    files = (_read_annotation(folder, name, where, image_by_stem, errors) for name, where in _read_names(image_set))
    return [file for file in files if file]


def _read_names(image_set: Path) -> Iterator[tuple[str, str]]:
    """Yield the listed image names, each with its file and line for messages."""
    try:
        lines = image_set.read_text("utf-8-sig").splitlines()
    except ValueError as error:
        raise BadDataset(f"ImageSets/Main/{image_set.name} is not UTF-8 text.") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield line.split()[0], f"ImageSets/Main/{image_set.name}, line {number}"


def _read_annotation(
    folder: Path, name: str, where: str, image_by_stem: dict[str, Path], errors: AnnotationErrors
) -> _AnnotationFile | None:
    """Return the annotations of one image, or None after adding an error."""
    image, xml = image_by_stem.get(name), folder / "Annotations" / f"{name}.xml"
    try:
        if image is None or not xml.is_file():
            missing = (
                f"image {printable(name)} in JPEGImages" if image is None else f"Annotations/{printable(name)}.xml"
            )
            raise _InvalidAnnotation(f"{where}: there is no {missing}")
        return _read_xml(xml, image)
    except _InvalidAnnotation as error:
        errors.add(f"{error}.")
        return None


def _read_xml(xml: Path, image: Path) -> _AnnotationFile:
    try:
        root = _parse(xml)
        width, height = _get_size(root, image)
        return _AnnotationFile(image, width, height, [_get_box(element) for element in root.iter("object")])
    except _InvalidAnnotation as error:
        raise _InvalidAnnotation(f"Annotations/{printable(xml.name)}{error}") from error


def _parse(xml: Path) -> ElementTree.Element:
    """Parse XML without declarations: entities can expand a few lines to gigabytes, or read other files."""
    if xml.stat().st_size > _MAX_BYTES:
        raise _InvalidAnnotation(f" has more than {_MAX_BYTES >> 20} MiB")
    builder = _LimitedBuilder()
    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = builder.start_element, builder.end_element
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = _refuse_declarations
    try:
        parser.Parse(xml.read_bytes(), True)
    except (expat.ExpatError, ValueError) as error:
        raise _InvalidAnnotation(f", line {parser.CurrentLineNumber}: is not well-formed XML") from error
    return builder.close()


class _LimitedBuilder(ElementTree.TreeBuilder):
    """Tree builder that limits the depth of nesting."""

    depth = 0

    def start_element(self, tag: str, attributes: dict[str, str]) -> None:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise _InvalidAnnotation(" is nested too deeply")
        self.start(tag, attributes)

    def end_element(self, tag: str) -> None:
        self.depth -= 1
        self.end(tag)


def _refuse_declarations(*_: object) -> None:
    raise _InvalidAnnotation(" declares a document type or entities, which are not allowed")


def _get_size(root: ElementTree.Element, image: Path) -> tuple[int, int]:
    """Return the image file's own size; for an unreadable image the annotated size, so that the check reports it."""
    annotated = tuple(int(_get_number(root, f"size/{side}", default=0)) for side in ("width", "height"))
    actual = image_files.read_image_size(image)
    if actual is None:
        return max(1, annotated[0]), max(1, annotated[1])
    if all(annotated) and annotated != actual:
        raise _InvalidAnnotation(
            f" says {annotated[0]}x{annotated[1]}, but {printable(image.name)} is {actual[0]}x{actual[1]}"
        )
    return actual


def _get_box(element: ElementTree.Element) -> Box:
    label = (element.findtext("name") or "").strip()
    if not is_text(label, 200):
        raise _InvalidAnnotation(" has an object without a name of 1 to 200 characters")
    box = element.find("bndbox")
    if box is None:
        raise _InvalidAnnotation(f" has an object, {printable(label)}, without a bndbox")
    return Box(label, *(_get_number(box, corner) for corner in _CORNERS))


def _get_number(element: ElementTree.Element, path: str, default: float | None = None) -> float:
    text = element.findtext(path)
    if text is None and default is not None:
        return default
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not abs(value) < 1e9:
        raise _InvalidAnnotation(f" has `{path}` {printable(text)}, which is not a number below 1e9 in magnitude")
    return value


def _shift_boxes(files: Sequence[_AnnotationFile], origin: int) -> list[AnnotatedImage]:
    """Return the images with boxes that count pixels from 0; `origin` is the first pixel's number in the files."""

    def shift(box: Box) -> Box:
        return box._replace(left=box.left - origin, top=box.top - origin)

    return [
        AnnotatedImage(file.image, file.image.name, file.width, file.height, tuple(map(shift, file.boxes)))
        for file in files
    ]
