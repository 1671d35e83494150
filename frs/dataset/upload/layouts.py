"""Detection of an unpacked data set's layout, and conversion to ours: `train/`, `val/`, `annotations/`."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from frs.dataset.issues import printable
from frs.dataset.upload import annotated_images, coco_folders, foreign, voc, yolo, yolo_config
from frs.dataset.upload.annotated_images import AnnotatedDataset, list_images
from frs.errors import BadDataset, LayoutUnknown

Layout = Literal["coco", "voc", "yolo"]
_MAX_WRAPPERS = 4
"""Levels of folders that are searched, if each holds only one folder."""
_READERS: dict[Layout, tuple[Callable[[Path], bool], Callable[[Path], AnnotatedDataset]]] = {
    "voc": (voc.is_layout, voc.read),
    "yolo": (yolo.is_layout, yolo.read),
}
_LISTED_NAMES = 8
_LOOKED_FOR = (
    "Looked for: a COCO file (JSON with `images`, `annotations` and `categories`, such as "
    "annotations/instances_train.json); Pascal VOC (JPEGImages/, Annotations/ and ImageSets/Main/, or XML files beside "
    "images); YOLO (text files of labels in labels/ or beside images)."
)


def convert(source: Path, target: Path, val_fraction: float | None = None) -> Layout:
    """Convert the data set in `source` to our COCO layout in the new folder `target`, and return its original layout.

    Image files are moved, so `source` is unusable afterwards. Without a validation split, `val_fraction` of the
    training images become one.

    Raises LayoutUnknown if the layout is not supported, NoValidationSplit if there is no validation split and no
    `val_fraction`, BadDataset with file and line if annotations are invalid, or without images.
    """
    folder, layout = _find_dataset(source)
    target.mkdir(parents=True)
    if layout == "coco":
        coco_folders.convert(folder, target, val_fraction)
    else:
        _, read = _READERS[layout]
        annotated_images.write_coco(read(folder), target, val_fraction)
    return layout


def _find_dataset(source: Path) -> tuple[Path, Layout]:
    """Return the folder of the data set, which may lie within single folders, and its layout."""
    folder = source
    for _ in range(_MAX_WRAPPERS):  # a folder that holds only a folder
        entries = list(folder.iterdir())
        if len(entries) != 1 or not entries[0].is_dir():
            break
        [folder] = entries
    top = folder
    if _lacks_images(top):
        raise BadDataset(
            "The archive has no images.",
            "Export with images (in CVAT: Save images) or add them, and upload again.",
        )
    for _ in range(_MAX_WRAPPERS):
        if layout := _detect_layout(folder):
            return folder, layout
        entries = sorted(folder.iterdir())
        folders = [path for path in entries if path.is_dir()]
        if len(folders) != 1:
            break
        [folder] = folders
    raise _describe_unknown(source, top)


def _lacks_images(folder: Path) -> bool:
    """Return whether there are annotations of a layout that is read, but no image file."""
    if list_images(folder):
        return False
    return coco_folders.is_layout(folder) or voc.is_layout(folder) or yolo_config.has_class_names(folder)


def _describe_unknown(source: Path, top: Path) -> LayoutUnknown:
    """Return the error for a data set of no layout that is read."""
    if known := foreign.recognise(top):
        name, file, export = known
        return LayoutUnknown(
            f"{printable(file.relative_to(source).as_posix())} is of the format {name}, which is not read.",
            f"{export} Then upload again.",
        )
    if others := [path for _, path in coco_folders.find_annotations(top)]:
        listed = ", ".join(printable(path.relative_to(source).as_posix()) for path in others[:_LISTED_NAMES])
        return LayoutUnknown(f"There is no COCO file of a training split, only {listed}.")
    names = ", ".join(printable(path.name, 40) for path in sorted(top.iterdir())[:_LISTED_NAMES])
    return LayoutUnknown(f"No annotations of a layout that is read. Top folder: {names or 'empty'}. {_LOOKED_FOR}")


def _detect_layout(folder: Path) -> Layout | None:
    if coco_folders.is_layout(folder):
        return "coco"
    return next((layout for layout, (is_layout, _) in _READERS.items() if is_layout(folder)), None)
