"""Pascal VOC: `JPEGImages/`, `Annotations/*.xml`, `ImageSets/Main/{train,val}.txt`.

Corners are counted from 1 and belong to the box, as in VOC itself; in sets where some box begins at 0 they are taken
as they are, for so other tools write them.
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
    picture: Path
    width: int
    height: int
    boxes: list[Box]
    """As written."""


def is_layout(folder: Path) -> bool:
    return all((folder / name).is_dir() for name in ("JPEGImages", "Annotations", "ImageSets/Main"))


def read(folder: Path) -> AnnotatedDataset:
    """Raises BadDataset, naming file and line."""
    faults = AnnotationErrors()
    files = {
        path.stem: path for path in sorted((folder / "JPEGImages").iterdir()) if path.suffix.lower() in IMAGE_SUFFIXES
    }
    halves = [_read_split(folder, split, files, faults) for split in ("train", "val")]
    faults.refuse()
    train, val = halves
    if train is None:
        raise BadDataset("There is no ImageSets/Main/train.txt.", "List the training pictures there, one name a line.")
    boxes = [box for half in halves for described in half or () for box in described.boxes]
    first = 0 if any(min(box.left, box.top) < 1 for box in boxes) else 1
    return AnnotatedDataset(
        classes=tuple(sorted({box.label for box in boxes})),
        train=_pictures(train, first),
        val=None if val is None else _pictures(val, first),
    )


def _read_split(
    folder: Path, split: str, files: dict[str, Path], faults: AnnotationErrors
) -> list[_AnnotationFile] | None:
    listing = folder / "ImageSets" / "Main" / f"{split}.txt"
    if not listing.is_file():
        return None
    described = (_read_annotation(folder, name, where, files, faults) for name, where in _listed(listing))
    return [one for one in described if one]


def _listed(listing: Path) -> Iterator[tuple[str, str]]:
    """Names, each with its place for a message."""
    try:
        lines = listing.read_text("utf-8-sig").splitlines()
    except ValueError as error:
        raise BadDataset(f"ImageSets/Main/{listing.name} is no text.") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield line.split()[0], f"ImageSets/Main/{listing.name}, line {number}"


def _read_annotation(
    folder: Path, name: str, where: str, files: dict[str, Path], faults: AnnotationErrors
) -> _AnnotationFile | None:
    picture, xml = files.get(name), folder / "Annotations" / f"{name}.xml"
    try:
        if picture is None or not xml.is_file():
            what = (
                f"picture {printable(name)} in JPEGImages" if picture is None else f"Annotations/{printable(name)}.xml"
            )
            raise _InvalidAnnotation(f"{where}: there is no {what}")
        return _read(xml, picture)
    except _InvalidAnnotation as error:
        faults.add(f"{error}.")
        return None


class _InvalidAnnotation(Exception):
    pass


def _read(xml: Path, picture: Path) -> _AnnotationFile:
    try:
        root = _parsed(xml)
        width, height = _size(root, picture)
        return _AnnotationFile(picture, width, height, [_box(element) for element in root.iter("object")])
    except _InvalidAnnotation as error:
        raise _InvalidAnnotation(f"Annotations/{printable(xml.name)}{error}") from error


def _parsed(xml: Path) -> ElementTree.Element:
    """Without entities of its own: with them a few lines become gigabytes, or what lies in other files."""
    if xml.stat().st_size > _MAX_BYTES:
        raise _InvalidAnnotation(f" has more than {_MAX_BYTES >> 20} MiB")
    builder = _Builder()
    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = builder.start_element, builder.end_element
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = _refuse_declarations
    try:
        parser.Parse(xml.read_bytes(), True)
    except (expat.ExpatError, ValueError) as error:
        raise _InvalidAnnotation(f", line {parser.CurrentLineNumber}: is not well-formed XML") from error
    return builder.close()


class _Builder(ElementTree.TreeBuilder):
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
    raise _InvalidAnnotation(" declares a document type or entities, which annotations have no need of")


def _size(root: ElementTree.Element, picture: Path) -> tuple[int, int]:
    """The picture's own; that of a broken one as written, so that the check can tell of it."""
    written = tuple(int(_number(root, f"size/{side}", default=0)) for side in ("width", "height"))
    found = image_files.image_size(picture)
    if found is None:
        return max(1, written[0]), max(1, written[1])
    if all(written) and written != found:
        raise _InvalidAnnotation(
            f" says {written[0]}x{written[1]}, but {printable(picture.name)} is {found[0]}x{found[1]}"
        )
    return found


def _box(element: ElementTree.Element) -> Box:
    label = (element.findtext("name") or "").strip()
    if not is_text(label, 200):
        raise _InvalidAnnotation(" has an object without a name of 1 to 200 characters")
    box = element.find("bndbox")
    if box is None:
        raise _InvalidAnnotation(f" has an object, {printable(label)}, without a bndbox")
    return Box(label, *(_number(box, corner) for corner in _CORNERS))


def _number(element: ElementTree.Element, path: str, default: float | None = None) -> float:
    text = element.findtext(path)
    if text is None and default is not None:
        return default
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not abs(value) < 1e9:
        raise _InvalidAnnotation(f" has `{path}` {printable(text)}, which is no number")
    return value


def _pictures(half: Sequence[_AnnotationFile], first: int) -> list[AnnotatedImage]:
    def moved(box: Box) -> Box:
        return box._replace(left=box.left - first, top=box.top - first)

    return [
        AnnotatedImage(one.picture, one.picture.name, one.width, one.height, tuple(map(moved, one.boxes)))
        for one in half
    ]
