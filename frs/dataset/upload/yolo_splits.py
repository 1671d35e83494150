"""The splits of a YOLO data set.

They are those that `data.yaml` or `obj.data` names. If it names none that the archive holds, the names of folders state
them: `images/train`, `valid/images`, `train2017`. Images in no such folder are for training; beside a training folder,
only the labelled ones. Several exports in one archive are split each by its own file, and joined.
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from frs.dataset.issues import printable
from frs.dataset.upload.annotated_images import common_folder, list_images, rank_folder
from frs.dataset.upload.archive import IMAGE_SUFFIXES
from frs.dataset.upload.split_names import SplitFolders, SplitRole, take_unlisted
from frs.dataset.upload.yolo_config import YoloConfig, read_text, resolve
from frs.dataset.upload.yolo_labels import LabelFiles
from frs.errors import BadDataset

_Splits = dict[SplitRole, list[Path]]
_MAX_LIST_BYTES = 64 << 20


def find_splits(folder: Path, configs: Sequence[YoloConfig], labels: LabelFiles) -> _Splits:
    """Return the images of each split that exists.

    A configuration that states images of an earlier one, such as another fold, is not used.

    Raises BadDataset if an image for training is also listed in the test split.
    """
    by_folder = _find_split_folders(folder, labels)
    stated = [_find_stated(folder, config) for config in configs]
    several = len(configs) > 1 and any(stated)
    others = _divide_by_config(by_folder, configs) if several else [by_folder for _ in configs]
    splits: _Splits = {"train": []}
    used: set[Path] = set()
    for config, own, rest in zip(configs, stated, others, strict=True):
        part = _complete(folder, config, rest | own, labels)
        images = set(chain.from_iterable(part.values()))
        if used.isdisjoint(images):
            used |= images
            for role, paths in part.items():
                splits.setdefault(role, []).extend(paths)
    return splits


def _find_stated(folder: Path, config: YoloConfig) -> _Splits:
    """Return the images of the splits that a configuration names, as far as the archive holds them."""
    splits: _Splits = {}
    for role in config.splits:
        images = [image for path in _resolve_all(folder, config, role) for image in _expand(folder, config, path)]
        splits |= {role: list(dict.fromkeys(images))} if images else {}
    return splits


def _divide_by_config(splits: _Splits, configs: Sequence[YoloConfig]) -> list[_Splits]:
    """Return the part of the splits that belongs to each configuration: the innermost one around an image."""
    numbers = {config.file.parent: number for number, config in reversed(list(enumerate(configs)))}
    parents = {image.parent for images in splits.values() for image in images}
    owners = {
        parent: next((numbers[path] for path in (parent, *parent.parents) if path in numbers), None)
        for parent in parents
    }
    parts: list[_Splits] = [{} for _ in configs]
    for role, images in splits.items():
        for image in images:
            owner = owners[image.parent]
            if owner is not None:
                parts[owner].setdefault(role, []).append(image)
    return parts


def _complete(folder: Path, config: YoloConfig, splits: _Splits, labels: LabelFiles) -> _Splits:
    """Return the splits of one configuration with the labelled images of its lists of no split, which are for training.

    A validation split equal to the training split, as in small examples, counts as none.
    """
    train = splits.get("train", [])
    splits = {role: images for role, images in splits.items() if role != "val" or images != train}
    others = ([image for image in images if labels.find(image)] for images in _read_others(folder, config))
    train = [*train, *take_unlisted(splits.values(), others)]
    train_folders = [path for path in _resolve_all(folder, config, "train") if path.is_dir()]
    return splits | {"train": _without_nested(splits | {"train": train}, train_folders)}


def _read_others(folder: Path, config: YoloConfig) -> Iterator[list[Path]]:
    """Yield the images of each list of no split; lists with images that the archive does not hold are ignored."""
    for entry in config.others:
        path = resolve(config, entry, folder)
        if path and path.is_file():
            try:
                yield list(dict.fromkeys(_expand(folder, config, path)))
            except BadDataset:
                continue


def _find_split_folders(folder: Path, labels: LabelFiles) -> dict[SplitRole, list[Path]]:
    """Return the images of each split that names of folders state; `train` is always there."""
    images, labelled = _list_images(folder, labels)
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


def _list_images(folder: Path, labels: LabelFiles) -> tuple[list[Path], set[Path]]:
    """Return the images, without those that are masks of others, and the set of those with a label file.

    A mask has no labels, and the name of a labelled image that lies in a likelier folder, such as `images`.
    """
    images = list_images(folder)
    labelled = {image for image in images if labels.find(image)}
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
    train = splits.get("train", [])
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
