"""Roboflow lists the project itself as category 0: left out if it is only the supercategory of others."""

import json
import shutil

import pytest

from frs.dataset.check import check_pair, inspect_split
from frs.dataset.upload.layouts import convert
from frs.errors import ClassMismatch

EXPORT = [
    {"id": 0, "name": "pets", "supercategory": "none"},
    {"id": 1, "name": "cat", "supercategory": "pets"},
    {"id": 2, "name": "dog", "supercategory": "pets"},
]
FLAT = [{"id": 0, "name": "cat", "supercategory": "none"}, {"id": 1, "name": "dog", "supercategory": "none"}]


def split(tiny, categories, category_ids):
    """Return the checked split with one box for each id."""
    tiny.categories, tiny.annotations = categories, []
    for number, category_id in enumerate(category_ids):
        tiny.box(number, number, 10, 10, category_id=category_id)
    return inspect_split(tiny.folder / "train", tiny.file)


@pytest.mark.parametrize(
    ("categories", "category_ids", "classes"),
    [
        (EXPORT, [1, 2], ("cat", "dog")),
        (EXPORT, [0, 1, 2], ("pets", "cat", "dog")),
        (FLAT, [0, 1], ("cat", "dog")),
        (FLAT, [1], ("cat", "dog")),
        ([{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}], [1], ("cat", "dog")),
        ([{"id": 1, "name": "pets"}, {"id": 2, "name": "cat", "supercategory": "pets"}], [2], ("pets", "cat")),
        ([{"id": 0, "name": "cat", "supercategory": "cat"}, {"id": 1, "name": "dog"}], [1], ("cat", "dog")),
    ],
)
def test_only_an_unused_category_0_that_is_a_supercategory_is_left_out(tiny, categories, category_ids, classes):
    checked = split(tiny, categories, category_ids)
    assert checked.coco.classes == checked.report.class_names == classes
    assert [classes[label] for label in checked.coco.boxes.label] == [
        next(category["name"] for category in categories if category["id"] == category_id)
        for category_id in category_ids
    ]


def test_a_category_that_one_split_uses_stays_in_both(tiny):
    train, val = split(tiny, EXPORT, [0, 1]), split(tiny, EXPORT, [1, 2])
    check_pair(train.report, val.report)
    val = val.matching(train.coco.classes)
    assert val.coco.classes == val.report.class_names == ("pets", "cat", "dog")
    assert val.coco.boxes.label.tolist() == [1, 2]


def test_splits_with_other_classes_still_differ(tiny):
    with pytest.raises(ClassMismatch, match="lacks 'dog'"):
        check_pair(split(tiny, EXPORT, [1]).report, split(tiny, EXPORT[:2], [1]).report)


@pytest.mark.parametrize(
    ("categories", "train", "val", "classes"),
    [
        (EXPORT, [1, 2], [1], ["cat", "dog"]),
        (EXPORT, [1, 2], [0], ["pets", "cat", "dog"]),
        (FLAT, [0, 1], [1], ["cat", "dog"]),
    ],
)
def test_an_upload_has_the_classes_of_the_registered_files(tmp_path, tiny, categories, train, val, classes):
    for name, category_ids in (("train", train), ("valid", val)):
        checked = split(tiny, categories, category_ids)
        folder = tmp_path / "in" / name
        folder.mkdir(parents=True)
        (folder / "_annotations.coco.json").write_text(tiny.file.read_text())
        shutil.copy(checked.images / "a.png", folder)
    convert(tmp_path / "in", tmp_path / "out")
    for name in ("train", "val"):
        file = tmp_path / "out" / "annotations" / f"instances_{name}.json"
        assert [entry["name"] for entry in json.loads(file.read_text())["categories"]] == classes
