"""Pascal VOC: XML files of one image each, as VOC itself, CVAT, labelImg and Roboflow lay them out.

Images lie in `JPEGImages/` and XML files in `Annotations/`, with the splits in `ImageSets/Main/{train,val}.txt`; or
both lie beside each other, and the name of their folder states the split.

In VOC, corners are integers counted from 1 and belong to the box, so they are shifted by one pixel. If any corner of
the data set is a fraction or below 1, corners are used as they are: other tools write them that way.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree
from xml.parsers import expat

from frs.dataset import image_files
from frs.dataset.fields import is_text
from frs.dataset.issues import printable
from frs.dataset.upload.annotated_images import (
    AnnotatedDataset,
    AnnotatedImage,
    AnnotationErrors,
    Box,
    common_folder,
    list_images,
    rank_folder,
)
from frs.dataset.upload.archive import normalise_path
from frs.dataset.upload.split_names import SplitFolders, SplitRole, find_role
from frs.errors import BadDataset

_MAX_BYTES = 4 << 20
_MAX_DEPTH = 20
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_LISTS = "ImageSets/Main"
_SAMPLES = 20
"""Number of XML files by which the layout is recognised."""
_ENCODING = re.compile(rb"""^\s*<\?xml[^>]*encoding=["']([A-Za-z0-9_.-]+)["']""")
_ENCODINGS = (
    *("gbk", "gb2312", "gb18030", "big5", "cp936"),
    *("shift_jis", "euc-jp", "euc-kr", "cp949"),
    *("cp1250", "cp1251", "cp1252"),
)
"""Encodings that are read although expat does not know them."""


class _AnnotationFile(NamedTuple):
    image: Path
    width: int
    height: int
    boxes: list[Box]
    """Boxes with corners as in the file."""


class _InvalidAnnotation(Exception):
    pass


def is_layout(folder: Path) -> bool:
    """Return whether the folder has the folders of Pascal VOC, or XML files of that format."""
    if all((folder / name).is_dir() for name in ("JPEGImages", "Annotations")):
        return True
    return any(_is_annotation(path) for path in sorted(folder.rglob("*.xml"))[:_SAMPLES])


def read(folder: Path) -> AnnotatedDataset:
    """Return the annotated images. Raises BadDataset with the files and lines of the first errors."""
    folder = folder.resolve()
    errors, images = AnnotationErrors(), _Images(folder)
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


def _is_annotation(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(4096).replace(b"\0", b"")  # of UTF-16, the ASCII characters are left
        return re.search(rb"<annotation[\s>]", head) is not None


class _Images:
    """Index of the image files and of the XML files."""

    def __init__(self, folder: Path) -> None:
        self.top = folder
        self.root = folder / "JPEGImages" if (folder / "JPEGImages").is_dir() else None
        """Folder that listed names are relative to; None if images lie beside their XML files."""
        self.annotations = folder / "Annotations" if (folder / "Annotations").is_dir() else folder
        self._annotated = {path.stem for path in self.annotations.rglob("*.xml")}
        self.by_path: defaultdict[str, list[Path]] = defaultdict(list)
        """Images by their path relative to `root`, with and without suffix."""
        by_name = defaultdict[str, list[Path]](list)
        for path in list_images(folder):
            relative = self._relative(path, self.root or self.annotations)
            for name in (relative, relative.with_suffix("")):
                self.by_path[name.as_posix()].append(path)
                by_name[name.name].append(path)
        self._by_name = {name: self._choose_likely(name, paths) for name, paths in by_name.items()}

    def find(self, xml: Path, file_name: str | None) -> Path | None:
        """Return the image of an XML file: the one that `<filename>` names, or the one of the XML file's own name.

        The latter lies in the corresponding folder, or is the only image of that name. Of images of one name in several
        folders, the one in the corresponding folder is used, then the one in a folder of images.

        A `<filename>` that belongs to another XML file is ignored: tools that copy images forget to change it.

        Raises _InvalidAnnotation if several images are equally likely.
        """
        named = Path(normalise_path(file_name or "")).name  # Label Studio omits the suffix
        stated, own = self._find_named(xml, named), self._find_beside(xml, xml.stem)
        free = [image for image in stated if image.stem not in self._annotated]
        same = [image for image in stated if image.stem == xml.stem]
        choices = (
            free if len(free) == 1 else [],
            [image for image in own if image in same],
            own,
            free or same,
            self._find_named(xml, xml.stem),
        )
        images = next(filter(None, choices), [])
        if len(images) > 1:
            names = " or ".join(printable(image.relative_to(self.top).as_posix()) for image in images[:2])
            raise _InvalidAnnotation(f" may belong to {names}: keep one of them, or state its name in <filename>")
        return next(iter(images), None)

    def _find_named(self, xml: Path, name: str) -> list[Path]:
        return self._find_beside(xml, name) or self._by_name.get(name, [])

    def _find_beside(self, xml: Path, name: str) -> list[Path]:
        """Return the images of a name, with or without suffix, in the folder that corresponds to the XML file's."""
        folder = self._relative(xml.parent, self.annotations)
        return self.by_path.get((folder / name).as_posix(), [])

    def _choose_likely(self, name: str, images: list[Path]) -> list[Path]:
        """Return the image of a name that is likely meant, or two if several are; suffixes count before folders."""
        exact = [image for image in images if image.name == name] or images
        ranks = [rank_folder(image.parent.relative_to(self.top)) for image in exact]
        best = min(ranks)
        return [image for image, rank in zip(exact, ranks, strict=True) if rank == best][:2]

    def _relative(self, path: Path, root: Path) -> Path:
        return path.relative_to(root if path.is_relative_to(root) else self.top)


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


def _read_listed(image_set: Path, images: _Images, errors: AnnotationErrors) -> list[_AnnotationFile]:
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


def _read_folders(folder: Path, images: _Images, errors: AnnotationErrors) -> dict[SplitRole, list[_AnnotationFile]]:
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


def _read_annotation(xml: Path, images: _Images, errors: AnnotationErrors) -> _AnnotationFile | None:
    """Return the annotations of one image, or None after adding an error."""
    try:
        root = _parse(xml)
        image = images.find(xml, root.findtext("filename"))
        if image is None:
            raise _InvalidAnnotation(" belongs to no image")
        width, height = _get_size(root, image)
        return _AnnotationFile(image, width, height, [_get_box(element) for element in root.iter("object")])
    except _InvalidAnnotation as error:
        errors.add(f"{printable(xml.relative_to(images.top).as_posix())}{error}.")
        return None


def _parse(xml: Path) -> ElementTree.Element:
    """Parse XML without declarations: entities can expand a few lines to gigabytes, or read other files."""
    if xml.stat().st_size > _MAX_BYTES:
        raise _InvalidAnnotation(f" has more than {_MAX_BYTES >> 20} MiB")
    content, encoding = _decode(xml.read_bytes())
    builder = _LimitedBuilder()
    parser = expat.ParserCreate(encoding)
    parser.StartElementHandler, parser.EndElementHandler = builder.start_element, builder.end_element
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = _refuse_declarations
    try:
        parser.Parse(content, True)
    except (expat.ExpatError, ValueError, LookupError) as error:  # LookupError: an encoding that does not exist
        raise _InvalidAnnotation(f", line {parser.CurrentLineNumber}: is not well-formed XML") from error
    return builder.close()


def _decode(content: bytes) -> tuple[bytes, str | None]:
    """Return the file as UTF-8 and that encoding if it declares one that expat does not know; otherwise unchanged."""
    declaration = _ENCODING.match(content[:200])
    name = declaration[1].decode().lower().replace("_", "-") if declaration else ""
    encoding = next((known for known in _ENCODINGS if known.replace("_", "-") == name), None)
    try:
        return (content.decode(encoding).encode(), "utf-8") if encoding else (content, None)
    except UnicodeDecodeError as error:
        raise _InvalidAnnotation(f" declares the encoding {encoding}, but has bytes of another") from error


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
    left, top, right, bottom = (_get_number(box, corner) for corner in _CORNERS)
    return Box(label, left, top, right, bottom, ignored=_is_difficult(element))


def _is_difficult(element: ElementTree.Element) -> bool:
    text = (element.findtext("difficult") or "").strip().lower()
    return text == "true" or (
        text not in ("false", "unspecified") and _get_number(element, "difficult", default=0) != 0
    )


def _get_number(element: ElementTree.Element, path: str, default: float | None = None) -> float:
    text = element.findtext(path)
    if default is not None and not (text or "").strip():
        return default
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not abs(value) < 1e9:
        raise _InvalidAnnotation(f" has `{path}` {printable(text)}, which is not a number below 1e9 in magnitude")
    return value


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
