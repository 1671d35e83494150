"""Which layout an unpacked data set has, and its conversion into ours: `train/`, `val/`, `annotations/`."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from frs.dataset.issues import printable
from frs.dataset.upload import annotated_images, coco_folders, voc, yolo
from frs.dataset.upload.annotated_images import AnnotatedDataset
from frs.errors import LayoutUnknown

Layout = Literal["coco", "voc", "yolo"]
_WRAPPERS = 4
"""Folders around the data set that are looked into, each alone in the one before."""
_READERS: dict[Layout, tuple[Callable[[Path], bool], Callable[[Path], AnnotatedDataset]]] = {
    "voc": (voc.is_layout, voc.read),
    "yolo": (yolo.is_layout, yolo.read),
}
_SHOWN = 8


def convert(source: Path, target: Path, val_fraction: float | None = None) -> Layout:
    """Moves the pictures of `source` below `target`, which is new; what is left of `source` is of no use.

    `val_fraction`: of the training images, set aside where there is no validation half.
    Raises LayoutUnknown, NoValidationSplit, or BadDataset that names file and line.
    """
    folder, layout = _recognised(source)
    target.mkdir(parents=True)
    if layout == "coco":
        coco_folders.convert(folder, target, val_fraction)
    else:
        _, read = _READERS[layout]
        annotated_images.write_coco(read(folder), target, val_fraction)
    return layout


def _recognised(folder: Path) -> tuple[Path, Layout]:
    for _ in range(_WRAPPERS):
        if layout := _layout(folder):
            return folder, layout
        inner = sorted(folder.iterdir())
        folders = [path for path in inner if path.is_dir()]
        if len(folders) != 1:
            break
        [folder] = folders
    names = ", ".join(printable(path.name, 40) for path in sorted(folder.iterdir())[:_SHOWN])
    raise LayoutUnknown(f"This is no data set in a layout that is known. At its top lie: {names or 'nothing'}.")


def _layout(folder: Path) -> Layout | None:
    if coco_folders.is_layout(folder):
        return "coco"
    return next((layout for layout, (is_here, _) in _READERS.items() if is_here(folder)), None)
