"""YOLO: text files with a line for each object, as Ultralytics, Darknet, CVAT, Label Studio and labelImg lay them out.

The splits are those that `data.yaml` or `obj.data` names. If it names none that the archive holds, the names of
folders state them: `images/train`, `valid/images`, `train2017`. Images in no such folder are for training; beside a
training folder, only the labelled ones.

The labels of `images/x.jpg` are in `labels/x.txt`, otherwise beside the image. A line holds a class and a box, with
`kpt_shape` also keypoints, or a class and a polygon; coordinates are fractions of the image's width and height. An
image without a label file has no objects.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from frs.dataset import image_files
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
from frs.dataset.upload.archive import IMAGE_SUFFIXES
from frs.dataset.upload.split_names import SplitFolders, SplitRole
from frs.dataset.upload.yolo_config import YoloConfig, find_config, read_text, resolve
from frs.errors import BadDataset

_MAX_LABEL_BYTES, _MAX_LIST_BYTES = 16 << 20, 64 << 20
_TOLERANCE = 0.01
"""Fraction of the width or height that a box may extend beyond the image; the box is clipped."""


class _InvalidLabel(Exception):
    pass


def is_layout(folder: Path) -> bool:
    """Return whether an image of the folder has a label file."""
    return any(_find_labels(image, folder) for image in list_images(folder))


def read(folder: Path) -> AnnotatedDataset:
    """Return the annotated images. Raises BadDataset with the files and lines of the first errors."""
    config, errors = find_config(folder), AnnotationErrors()
    if config is None:
        raise BadDataset(
            "There are YOLO labels but no class names: neither a data.yaml with `names` nor a classes.txt.",
            "Add classes.txt with one name a line, in the order of the class numbers, and upload again.",
        )
    splits = _find_splits(folder, config)
    _report_unused_labels(folder, errors)
    train, val = (_read_images(folder, splits.get(role), config, errors) for role in ("train", "val"))
    errors.raise_if_any()
    return AnnotatedDataset(config.classes, train or [], val)


def _find_splits(folder: Path, config: YoloConfig) -> dict[SplitRole, list[Path]]:
    """Return the images of each split that exists: as the configuration states them, otherwise by names of folders.

    Raises BadDataset if an image for training is also listed in the test split.
    """
    splits = _find_split_folders(folder)
    for role in config.splits:
        images = [image for path in _resolve_all(folder, config, role) for image in _expand(folder, config, path)]
        splits |= {role: list(dict.fromkeys(images))} if images else {}
    if splits.get("val") == splits["train"]:  # as in small examples: no validation split of its own
        del splits["val"]
    train_folders = [path for path in _resolve_all(folder, config, "train") if path.is_dir()]
    return splits | {"train": _without_nested(splits, train_folders)}


def _find_split_folders(folder: Path) -> dict[SplitRole, list[Path]]:
    """Return the images of each split that names of folders state; `train` is always there."""
    images, labelled = _list_images(folder)
    parents = {image.parent: image.parent.relative_to(folder) for image in images}
    folders = SplitFolders(parents.values())
    roles = {parent: folders.find_role(relative) for parent, relative in parents.items()}
    by_role: dict[SplitRole | None, list[Path]] = {}
    for image in images:
        by_role.setdefault(roles[image.parent], []).append(image)
    others = by_role.pop(None, [])
    if train := by_role.get("train"):
        others = train + [image for image in others if image in labelled]
    return {role: paths for role, paths in by_role.items() if role} | {"train": others}


def _list_images(folder: Path) -> tuple[list[Path], set[Path]]:
    """Return the images, without those that are masks of others, and the set of those with a label file.

    A mask has no labels, and the name of a labelled image that lies in a likelier folder, such as `images`.
    """
    images = list_images(folder)
    labelled = {image for image in images if _find_labels(image, folder)}
    ranks = {parent: rank_folder(parent.relative_to(folder)) for parent in {image.parent for image in images}}
    best: dict[str, int] = {}
    for image in labelled:
        best[image.stem] = min(ranks[image.parent], best.get(image.stem, ranks[image.parent]))
    masks = {image for image in images if ranks[image.parent] > best.get(image.stem, ranks[image.parent])} - labelled
    return [image for image in images if image not in masks], labelled


def _resolve_all(folder: Path, config: YoloConfig, role: SplitRole) -> list[Path]:
    others = [entry for other, entries in config.splits.items() if other != role for entry in entries]
    paths = (resolve(config, entry, folder, others=others) for entry in config.splits.get(role, []))
    return [path for path in paths if path]


def _without_nested(splits: dict[SplitRole, list[Path]], train_folders: list[Path]) -> list[Path]:
    """Return the images for training, without those in folders of other splits within a training folder."""
    train = splits["train"]
    for role in ("val", "test"):
        images = splits.get(role, [])
        nested = common_folder(images)
        if any(nested != outer and nested.is_relative_to(outer) for outer in train_folders):
            train = [image for image in train if not image.is_relative_to(nested)]
        if role == "test" and (shared := set(train).intersection(images)):
            name = printable(min(shared).name)
            raise BadDataset(
                f"{name} is listed in the training and the test split.", "List each image once, in one split."
            )
    return train


def _expand(folder: Path, config: YoloConfig, path: Path) -> list[Path]:
    """Return the images that a path of the configuration means: a folder, a list of images or an image.

    Raises BadDataset if a list names images that are not in the archive.
    """
    if path.is_dir():
        return list_images(path)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return [path]
    lines = filter(None, map(str.strip, read_text(path, _MAX_LIST_BYTES).splitlines()))
    images, missing = [], []
    for line in lines:
        image = resolve(config, line, folder, path.parent)
        images.append(image) if image and image.suffix.lower() in IMAGE_SUFFIXES else missing.append(line)
    if missing:
        raise BadDataset(
            f"{printable(path.relative_to(folder).as_posix())} lists {printable(missing[0])}, which is not in the "
            f"archive{f', nor are {len(missing) - 1:,} other images' if len(missing) > 1 else ''}.",
            "Pack the listed images with their labels, or correct the list.",
        )
    return images


def _read_images(
    folder: Path, paths: list[Path] | None, config: YoloConfig, errors: AnnotationErrors
) -> list[AnnotatedImage] | None:
    if paths is None:
        return None
    root = common_folder(paths)
    return [_read_image(folder, path, path.relative_to(root).as_posix(), config, errors) for path in paths]


def _report_unused_labels(folder: Path, errors: AnnotationErrors) -> None:
    """Add an error for each label file in a folder `labels` that belongs to no image."""
    used = {_find_labels(image, folder) for image in list_images(folder)}
    for labels in sorted(folder.rglob("*.txt")):
        name = labels.relative_to(folder)
        if labels not in used and "labels" in name.parts[:-1] and labels.name not in ("classes.txt", "names.txt"):
            errors.add(f"{printable(name.as_posix())} belongs to no image.")


def _find_labels(image: Path, folder: Path) -> Path | None:
    """Return the label file of an image: below `labels` instead of the last `images` in its path, or beside it."""
    parts = list(image.relative_to(folder).parts)
    if "images" in parts[:-1]:
        last = len(parts) - 2 - parts[-2::-1].index("images")
        labels = folder.joinpath(*parts[:last], "labels", *parts[last + 1 :]).with_suffix(".txt")
        if labels.is_file():
            return labels
    beside = image.with_suffix(".txt")
    return beside if beside.is_file() else None


def _read_image(folder: Path, path: Path, name: str, config: YoloConfig, errors: AnnotationErrors) -> AnnotatedImage:
    """Return the image with its boxes. An unreadable image gets size 1x1, so that the check reports it."""
    size, labels = image_files.read_image_size(path), _find_labels(path, folder)
    if size is None or labels is None:
        return AnnotatedImage(path, name, *(size or (1, 1)), boxes=())
    boxes = []
    for number, line in _read_lines(labels):
        try:
            boxes.append(_parse_label(line.split(), config, *size))
        except _InvalidLabel as error:
            errors.add(f"{printable(labels.relative_to(folder).as_posix())}, line {number}: {error}.")
    return AnnotatedImage(path, name, *size, boxes=tuple(boxes))


def _read_lines(labels: Path) -> Iterator[tuple[int, str]]:
    lines = read_text(labels, _MAX_LABEL_BYTES).splitlines()
    return ((number, line) for number, line in enumerate(lines, 1) if line.strip())


def _parse_label(fields: Sequence[str], config: YoloConfig, width: int, height: int) -> Box:
    label = _parse_class(fields[0], config.classes)
    x, y = _get_extent(_select_numbers(fields[1:], config.keypoint_values))
    return Box(label, x[0] * width, y[0] * height, x[1] * width, y[1] * height)


def _select_numbers(fields: Sequence[str], keypoint_values: int | None) -> list[float]:
    """Return the numbers of the box or polygon; with keypoints, the box that precedes them."""
    if keypoint_values is None or len(fields) == 4:
        return [_parse_fraction(text) for text in fields]
    if len(fields) != 4 + keypoint_values:
        raise _InvalidLabel(f"{len(fields) + 1} fields; with this `kpt_shape`, {5 + keypoint_values} are expected")
    return [_parse_fraction(text) for text in fields[:4]]


def _parse_class(text: str, classes: Sequence[str]) -> str:
    digits = text.partition(".")[0] if text.partition(".")[2].strip("0") == "" else text  # such as 1.0
    if not (digits.isascii() and digits.isdigit() and len(digits) < 10 and int(digits) < len(classes)):
        raise _InvalidLabel(f"class {printable(text, 40)} is not one of 0 to {len(classes) - 1}")
    return classes[int(digits)]


def _parse_fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not -_TOLERANCE <= value <= 1 + _TOLERANCE:
        raise _InvalidLabel(f"{printable(text, 40)} is not a number from 0 to 1")
    return value


def _get_extent(fractions: Sequence[float]) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return (left, right) and (top, bottom) of a box or polygon, clipped to the image."""
    if len(fractions) == 4:
        x, y, width, height = fractions
        extent = (x - width / 2, x + width / 2), (y - height / 2, y + height / 2)
    elif len(fractions) >= 6 and len(fractions) % 2 == 0:
        extent = (min(fractions[::2]), max(fractions[::2])), (min(fractions[1::2]), max(fractions[1::2]))
    else:
        raise _InvalidLabel(f"{len(fractions) + 1} fields; a class and the 4 numbers of a box are expected")
    (left, right), (top, bottom) = extent
    return (max(0.0, left), min(1.0, right)), (max(0.0, top), min(1.0, bottom))
