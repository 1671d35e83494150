"""COCO data sets, as COCO itself, CVAT, FiftyOne, Label Studio and Roboflow lay them out.

The name of an annotation file, or of its folder, states its split. A single file without a split is the training
split; beside a training split, the images of such files are added to it. Test splits are left out. Boxes are not
changed; the data-set check reports the invalid ones.
"""

import mmap
import re
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any

from frs.dataset.coco import find_placeholder
from frs.dataset.fields import Id, match_id, read_id
from frs.dataset.issues import printable
from frs.dataset.upload.annotated_images import (
    annotations_file,
    move_files,
    split_off_validation,
    write_json,
)
from frs.dataset.upload.coco_images import ImageFiles
from frs.dataset.upload.coco_splits import KEYS, CocoSplit, Document, append, get_file_name, read_split
from frs.dataset.upload.split_names import SplitRole, find_role, take_unlisted
from frs.errors import BadDataset, LayoutUnknown, NoValidationSplit

_NAME = re.compile(r"instances_|_annotations\.coco\.json")
"""Names of COCO files; other files are recognised by `KEYS`."""
_BOXES = "instances_"
"""How the name of a file of boxes begins in COCO, beside those of captions and keypoints."""
_SPLITS: dict[SplitRole, str] = {"train": "training", "val": "validation"}
_MAX_DEPTH = 3
"""Number of folders, from the top, in which annotation files are looked for."""


def is_layout(folder: Path) -> bool:
    """Return whether the folder holds a COCO annotation file that may be a training split."""
    return any(role in ("train", None) for role, _ in find_annotations(folder))


def convert(folder: Path, target: Path, val_fraction: float | None) -> None:
    """Move images and annotations to their places below `target`, in our COCO layout.

    Without a validation split, `val_fraction` of the training images become one. Raises BadDataset if an annotation
    file is unusable or an image is listed in both splits, NoValidationSplit if there is no validation split and no
    `val_fraction`.
    """
    paths = _group_annotations(folder)
    files = _choose_annotations(folder, paths)
    images = ImageFiles(folder, files.values())
    splits = {role: read_split(folder, file, role, images) for role, file in files.items()}
    others = _read_others(folder, paths, splits, images)
    splits["train"] = reduce(append, others, splits["train"])
    is_changed = _drop_placeholder([split.document for split in splits.values()]) or bool(others)
    if "val" in splits and not splits["val"].files and not images.has_folder("val"):
        missing = splits.pop("val")
        if val_fraction is None:
            raise NoValidationSplit(f"None of the images listed in {printable(missing.name)} is in the archive.")
    if "val" not in splits:
        _divide_training(splits["train"], target, val_fraction)
        return
    _refuse_shared_images(splits["train"], splits["val"])
    for role, split in splits.items():
        names = _move_listed_images(split, split.document, target, role)
        if is_changed or any(old != new for old, new in names.items()):
            _write_document(split.document, names, target, role)
        else:
            annotations_file(target, role).parent.mkdir(parents=True, exist_ok=True)
            split.annotations.rename(annotations_file(target, role))


def find_annotations(folder: Path) -> Iterator[tuple[SplitRole | None, Path]]:
    """Yield the COCO annotation files with the split that each states in its own name or its folder's."""
    depth = len(folder.parts)
    for path in sorted(folder.rglob("*.json")):
        if len(path.parts) - depth <= _MAX_DEPTH and (_NAME.match(path.name) or _has_coco_keys(path)):
            inner = [path.stem, *(parent.name for parent in path.parents if len(parent.parts) > depth)]
            yield next(filter(None, map(find_role, inner)), None), path


def _has_coco_keys(path: Path) -> bool:
    """Return whether a file contains the keys of a COCO document, without parsing it."""
    with path.open("rb") as file:
        try:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:  # an empty file
            return False
        with content:
            return all(content.find(f'"{key}"'.encode()) >= 0 for key in KEYS)


def _group_annotations(folder: Path) -> dict[SplitRole | None, list[Path]]:
    """Return the annotation files by split; without a training split, the files of no split are it."""
    paths: dict[SplitRole | None, list[Path]] = {"train": [], "val": [], "test": [], None: []}
    for role, path in find_annotations(folder):
        paths[role].append(path)
    return paths if paths["train"] else paths | {"train": paths[None], None: []}


def _choose_annotations(folder: Path, paths: dict[SplitRole | None, list[Path]]) -> dict[SplitRole, Path]:
    """Return the annotation file of each split. Raises LayoutUnknown if several files may be one."""
    files: dict[SplitRole, Path] = {}
    for role, split in _SPLITS.items():
        if file := _choose_file(folder, split, paths[role]):
            files[role] = file
    return files


def _read_others(
    folder: Path,
    paths: dict[SplitRole | None, list[Path]],
    splits: dict[SplitRole, CocoSplit],
    images: ImageFiles,
) -> list[CocoSplit]:
    """Return the files of no split whose images are for training: those with boxes, and no image of another file."""
    if not paths[None]:
        return []
    tests = [_try_to_read(folder, file, "test", images) for file in paths["test"]]
    used = [split.files.values() for split in (*splits.values(), *filter(None, tests))]
    files = sorted(paths[None], key=lambda path: not path.name.startswith(_BOXES))
    others = [split for split in (_try_to_read(folder, file, None, images) for file in files) if split]
    others = [split for split in others if split.files and any(map(_has_box, split.document["annotations"]))]
    taken = set(take_unlisted(used, (list(split.files.values()) for split in others)))
    return [split for split in others if taken.issuperset(split.files.values())]


def _try_to_read(folder: Path, file: Path, role: SplitRole | None, images: ImageFiles) -> CocoSplit | None:
    """Return a file that no split needs; None if it is no COCO file after all."""
    try:
        return read_split(folder, file, role, images)
    except BadDataset:
        return None


def _has_box(entry: Any) -> bool:
    return isinstance(entry, dict) and bool(entry.get("bbox"))


def _choose_file(folder: Path, split: str, paths: list[Path]) -> Path | None:
    """Return the only file, or the only one that is named as COCO names boxes; None if there is none."""
    instances = [path for path in paths if path.name.startswith(_BOXES)]
    candidates = instances if len(instances) == 1 else paths
    if len(candidates) > 1:
        names = ", ".join(printable(path.relative_to(folder).as_posix()) for path in candidates[:8])
        raise LayoutUnknown(
            f"Several COCO files may be the {split} split: {names}.",
            "Keep one file for each split, named instances_train.json and instances_val.json.",
        )
    return next(iter(candidates), None)


def _drop_placeholder(documents: list[Document]) -> bool:
    """Drop Roboflow's category 0, the supercategory of the others, if no box of any split uses it.

    Returns whether a document has changed.
    """
    boxes = (box for document in documents for box in document["annotations"] if isinstance(box, dict))
    if any(match_id(read_id(box.get("category_id")), (0,)) == 0 for box in boxes):
        return False
    with_placeholder = [document for document in documents if find_placeholder(document["categories"]) is not None]
    for document in with_placeholder:
        document["categories"] = [
            entry for entry in document["categories"] if not (isinstance(entry, dict) and entry.get("id") == 0)
        ]
    return bool(with_placeholder)


def _refuse_shared_images(train: CocoSplit, val: CocoSplit) -> None:
    paths = set(train.files.values())
    shared = [file_name for file_name, path in val.files.items() if path in paths]
    if shared:
        subject = f"{printable(shared[0])} is" if len(shared) == 1 else f"{len(shared):,} images are"
        example = "" if len(shared) == 1 else f", for example {printable(shared[0])}"
        raise BadDataset(
            f"{subject} listed in both splits, in {printable(train.name)} and {printable(val.name)}{example}.",
            "List each image in one split, and upload again.",
        )


def _divide_training(train: CocoSplit, target: Path, val_fraction: float | None) -> None:
    content = train.document
    first_spelling: dict[Path, str] = {}  # all entries of an image file go to the same split
    spellings = {name: first_spelling.setdefault(path, name) for name, path in train.files.items()}
    names = [spellings.get(name, name) for name in map(get_file_name, content["images"])]
    val_names = split_off_validation(list(filter(None, names)), val_fraction)
    listed = _get_ids(content["images"])
    for role in ("train", "val"):
        images = [
            image
            for image, name in zip(content["images"], names, strict=True)
            if (name in val_names) is (role == "val")
        ]
        ids = _get_ids(images)
        boxes = [box for box in content["annotations"] if _belongs(box, ids, listed, is_rest=role == "train")]
        part = content | {"images": images, "annotations": boxes}
        _write_document(part, _move_listed_images(train, part, target, role), target, role)


def _get_ids(images: list[Any]) -> set[Id | None]:
    return {read_id(image.get("id")) for image in images if isinstance(image, dict)} - {None}


def _belongs(box: Any, ids: set[Id | None], listed: set[Id | None], *, is_rest: bool) -> bool:
    """Return whether a box belongs to the images `ids`. A box of no image belongs to the rest: the check reports it."""
    image_id = match_id(read_id(box.get("image_id")) if isinstance(box, dict) else None, listed)
    return image_id in ids or (is_rest and image_id is None)


def _move_listed_images(split: CocoSplit, content: Document, target: Path, role: str) -> dict[str, str]:
    """Move the images that are listed in `content`; return their names below the split's folder, by `file_name`."""
    names: dict[str, str] = {}
    for file_name in filter(None, map(get_file_name, content["images"])):
        if path := split.files.get(file_name):
            is_below = path.is_relative_to(split.images)
            names[file_name] = path.relative_to(split.images).as_posix() if is_below else path.name
    move_files({split.files[old]: new for old, new in names.items()}.items(), target / role)
    return names


def _write_document(content: Document, names: dict[str, str], target: Path, role: str) -> None:
    """Write an annotation file of our layout, with the names of the moved images."""
    for image in content["images"]:
        if new := names.get(get_file_name(image)):
            image["file_name"] = new
    write_json(annotations_file(target, role), content)
