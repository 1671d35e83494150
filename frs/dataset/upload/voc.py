"""Pascal VOC: XML files of one image each, as VOC itself, CVAT, labelImg and Roboflow lay them out.

Images lie in `JPEGImages/` and XML files in `Annotations/`, with the splits in `ImageSets/Main/{train,val}.txt`, in one
folder or in several, such as VOC2007 and VOC2012; or the name of a folder states the split.

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
    list_files,
)
from frs.dataset.upload.archive import normalise_path
from frs.dataset.upload.split_names import SplitFolders, SplitRole, find_role, take_unlisted
from frs.dataset.upload.voc_images import ImageIndex
from frs.dataset.upload.voc_xml import InvalidAnnotation, get_boxes, get_size, is_annotation, parse
from frs.errors import BadDataset

_LISTS = "ImageSets/Main"
_ANNOTATIONS = "Annotations"
_USED: tuple[SplitRole, ...] = ("train", "val")
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
    if all((folder / name).is_dir() for name in ("JPEGImages", _ANNOTATIONS)):
        return True
    return any(is_annotation(path) for path in list_files(folder, (".xml",))[:_SAMPLES])


def read(folder: Path) -> AnnotatedDataset:
    """Return the annotated images. Raises BadDataset with the files and lines of the first errors."""
    folder = folder.resolve()
    errors, images = AnnotationErrors(), ImageIndex(folder)
    splits = {
        role: [file for file in (_read_annotation(xml, images, errors) for xml in xmls) if file]
        for role, xmls in _find_splits(folder, images, errors).items()
    }
    errors.raise_if_any()
    boxes = [box for files in splits.values() for file in files for box in file.boxes]
    origin = 0 if any(_counts_from_0(box) for box in boxes) else 1
    return AnnotatedDataset(
        classes=tuple(sorted({box.label for box in boxes})),
        train=_shift_boxes(splits["train"], folder, origin),
        val=_shift_boxes(splits["val"], folder, origin) if "val" in splits else None,
    )


def _find_splits(folder: Path, images: ImageIndex, errors: AnnotationErrors) -> dict[SplitRole, list[Path]]:
    """Return the XML files of the training and of the validation split, if there is one.

    Each folder with lists is split by them, the XML files outside such folders by the names of their own folders.
    """
    roots = _find_roots(folder)
    outside = [xml for xml in _list_annotations(folder) if not any(xml.is_relative_to(root) for root in roots)]
    if roots:
        outside = [xml for xml in outside if is_annotation(xml)]
    parts = [*(_split_by_lists(root, images, errors) for root in roots), _split_by_folder(folder, outside)]
    splits: dict[SplitRole, list[Path]] = {"train": []}
    for role in _USED:
        for part in parts:
            if role in part:
                splits.setdefault(role, []).extend(part[role])
    if roots and not splits["train"]:
        raise _describe_missing_list(roots[0], folder)
    return splits


def _find_roots(folder: Path) -> list[Path]:
    """Return the folders that hold lists of images in `ImageSets/Main/`; of nested ones the outermost."""
    roots: list[Path] = []
    for lists in sorted(folder.rglob(_LISTS), key=lambda path: (len(path.parts), path)):
        root = lists.parents[1]
        if lists.is_dir() and not any(root.is_relative_to(outer) for outer in roots):
            roots.append(root)
    return roots


def _list_annotations(root: Path) -> list[Path]:
    return list_files(_annotations_folder(root), (".xml",))


def _annotations_folder(root: Path) -> Path:
    return root / _ANNOTATIONS if (root / _ANNOTATIONS).is_dir() else root


def _split_by_lists(root: Path, images: ImageIndex, errors: AnnotationErrors) -> dict[SplitRole, list[Path]]:
    """Return the XML files that the lists of one folder name, by split; without those of a test split.

    Lists of no split are for training, unless they name images of other lists. VOC's lists by class are used only if
    there is no other list for training, as VoTT exports.
    """
    xmls = _ListedFiles(root, images, errors)
    lists = sorted((root / _LISTS).glob("*.txt"))
    by_class = {role: [path for path in lists if find_role(path.stem) == role] for role in _USED}
    stated = {role: [path for path in paths if path.stem.isalpha()] for role, paths in by_class.items()}
    if not stated["train"]:
        stated["train"] = [path for name in ("trainval", "default") for path in lists if path.stem == name][:1]
    others = [path for path in lists if not _names_split(path) and path not in stated["train"]]
    splits = {role: xmls.read(paths) for role, paths in stated.items() if paths}
    if others:
        named = [xmls.find(path) for path in lists if path not in others]
        if unlisted := take_unlisted(named, map(xmls.find, others)):
            splits["train"] = splits.get("train", []) + unlisted
    return splits if "train" in splits else {role: xmls.read(paths) for role, paths in by_class.items() if paths}


def _names_split(image_set: Path) -> bool:
    return find_role(image_set.stem) is not None or "trainval" in image_set.stem.lower()


def _describe_missing_list(root: Path, folder: Path) -> BadDataset:
    lists = root / _LISTS
    names = ", ".join(printable(path.name) for path in sorted(lists.glob("*.txt"))[:8])
    return BadDataset(
        f"There is no {_relative_name(lists / 'train.txt', folder)}{f', only {names}' if names else ''}.",
        "List the training images there, one name a line.",
    )


class _ListedFiles:
    """XML files of one folder, found by the lines of its lists."""

    def __init__(self, root: Path, images: ImageIndex, errors: AnnotationErrors) -> None:
        self._root, self._images, self._errors = root, images, errors
        folder = _annotations_folder(root)
        self._by_name = {
            path.relative_to(folder).with_suffix("").as_posix(): path for path in list_files(folder, (".xml",))
        }

    def read(self, image_sets: Sequence[Path]) -> list[Path]:
        """Return the XML files that the lists name, each list without those of the lists before it.

        Adds an error for each line that names none.
        """
        xmls: list[Path] = []
        for image_set in image_sets:
            earlier = set(xmls)
            xmls += [xml for xml in self._read(image_set) if xml not in earlier]
        return xmls

    def find(self, image_set: Path) -> list[Path]:
        """Return the XML files that a list names, each once; other lines are ignored."""
        files = (self._find(line) for line, _ in _read_lines(image_set, self._images.top))
        return list(dict.fromkeys(filter(None, files)))

    def _read(self, image_set: Path) -> Iterator[Path]:
        for line, where in _read_lines(image_set, self._images.top):
            if xml := self._find(line):
                yield xml
            else:
                images = self._root / "JPEGImages"
                is_image = any(self._images.exists(images / name) for name in _possible_names(line))
                missing = f"Annotations/{printable(line)}.xml" if is_image else f"image {printable(line)} in JPEGImages"
                self._errors.add(f"{where}: there is no {missing}.")

    def _find(self, line: str) -> Path | None:
        return next(filter(None, map(self._by_name.get, _possible_names(line))), None)


def _split_by_folder(folder: Path, xmls: Sequence[Path]) -> dict[SplitRole, list[Path]]:
    """Return the XML files by split, as their folders' names state it; those without a split are for training."""
    parents = {xml.parent: xml.parent.relative_to(folder) for xml in xmls}
    folders = SplitFolders(parents.values())
    roles = {parent: folders.find_role(relative) for parent, relative in parents.items()}
    splits: dict[SplitRole, list[Path]] = {}
    for xml in xmls:
        splits.setdefault(roles[xml.parent] or "train", []).append(xml)
    return splits


def _read_lines(image_set: Path, top: Path) -> Iterator[tuple[str, str]]:
    """Yield the lines of a list of images, each with its file and line for messages."""
    name = _relative_name(image_set, top)
    try:
        lines = image_set.read_text("utf-8-sig").splitlines()
    except ValueError as error:
        raise BadDataset(f"{name} is not UTF-8 text.") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield line.strip(), f"{name}, line {number}"


def _relative_name(path: Path, top: Path) -> str:
    return printable(path.relative_to(top).as_posix())


def _possible_names(line: str) -> Iterator[str]:
    """Yield the names that a line may mean: all of it, or without VOC's flag or an image suffix at its end."""
    line = normalise_path(line)
    without_flag = re.sub(r"\s+-?[01]$", "", line)
    for name in (line, without_flag):
        yield name
        yield re.sub(r"\.\w{3,4}$", "", name)


def _read_annotation(xml: Path, images: ImageIndex, errors: AnnotationErrors) -> _AnnotationFile | None:
    """Return the annotations of one image, or None after adding an error."""
    try:
        root = parse(xml)
        image = images.find(xml, root.findtext("filename"))
        if image is None:
            raise InvalidAnnotation(" belongs to no image")
        return _AnnotationFile(image, *get_size(root, image), get_boxes(root))
    except InvalidAnnotation as error:
        errors.add(f"{_relative_name(xml, images.top)}{error}.")
        return None


def _counts_from_0(box: Box) -> bool:
    corners = (box.left, box.top, box.right, box.bottom)
    return min(box.left, box.top) < 1 or any(corner % 1 for corner in corners)


def _shift_boxes(files: Sequence[_AnnotationFile], top: Path, origin: int) -> list[AnnotatedImage]:
    """Return the images with boxes that count pixels from 0; `origin` is the first pixel's number in the files."""

    def shift(box: Box) -> Box:
        return box._replace(left=box.left - origin, top=box.top - origin)

    root = _find_images_root([file.image for file in files], top)
    return [
        AnnotatedImage(
            file.image, file.image.relative_to(root).as_posix(), file.width, file.height, tuple(map(shift, file.boxes))
        )
        for file in files
    ]


def _find_images_root(images: Sequence[Path], top: Path) -> Path:
    """Return the folder that the images' names are relative to: `JPEGImages`, otherwise the innermost of all."""
    common = common_folder(images)
    folders = (path for path in (common, *common.parents) if path.is_relative_to(top))
    return next((path for path in folders if path.name == "JPEGImages"), common)
