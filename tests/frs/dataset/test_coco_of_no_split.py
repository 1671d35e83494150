"""COCO files of no split beside those of the splits: tasks of CVAT without a subset are for training."""

import json

import pytest
from layout_writers import all_boxes, annotations
from small_uploads import converted, draw, format_coco, split_names, write

from frs.dataset.check import check_split
from frs.errors import BadDataset


def add(folder, split, names, categories=("cat",), file=None):
    for name in names:
        draw(folder / f"images/{split}/{name}")
    write(folder / (file or f"annotations/instances_{split}.json"), format_coco(names, categories))


@pytest.mark.parametrize("others", [("default",), ("default", "Extra")])
@pytest.mark.parametrize("names", ["{}_{}.jpg", "{1}.jpg"])
def test_cvats_tasks_of_no_split_are_for_training(tmp_path, others, names):
    for split in ("Train", "Validation", *others):
        add(tmp_path / "in", split, [names.format(split, n) for n in (0, 1)])
    target = converted(tmp_path / "in")
    content = annotations(target, "train")
    assert len(content["images"]) == 2 + 2 * len(others)
    assert len({image["file_name"] for image in content["images"]}) == 2 + 2 * len(others)
    assert all(all_boxes(target, "train").values())
    assert check_split(target / "train", target / "annotations/instances_train.json").issues == []
    assert len(annotations(target, "val")["images"]) == 2


def test_categories_of_a_file_of_no_split_are_matched_by_name(tmp_path):
    add(tmp_path / "in", "Train", ["a.jpg"], ["cat", "dog"])
    add(tmp_path / "in", "Validation", ["b.jpg"], ["cat", "dog"])
    add(tmp_path / "in", "default", ["c.jpg"], ["dog", "bird", "cat"])
    boxes = all_boxes(converted(tmp_path / "in"), "train")
    assert {name: next(iter(found))[0] for name, found in boxes.items()} == {
        "Train/a.jpg": "dog",
        "default/c.jpg": "cat",
    }


def test_a_validation_fraction_takes_images_of_both(tmp_path):
    for split in ("Train", "default"):
        add(tmp_path / "in", split, [f"{split}{n}.jpg" for n in (0, 1)])
    names = split_names(tmp_path / "in", 0.25)
    assert names["train"] | names["val"] == {"Train0.jpg", "Train1.jpg", "default0.jpg", "default1.jpg"}


@pytest.mark.parametrize(
    ("file", "listed"),
    [
        ("annotations/all.json", ["train.jpg", "val.jpg", "test.jpg", "more.jpg"]),
        ("annotations/instances_minival.json", ["val.jpg"]),
        ("annotations/held_out.json", ["test.jpg", "more.jpg"]),
        ("result.json", ["gone.jpg"]),
    ],
)
def test_a_file_of_no_split_that_lists_other_images_again_is_not_used(tmp_path, file, listed):
    for name in ("train", "val", "test", "more"):
        draw(tmp_path / f"in/images/{name}.jpg")
    for split in ("train", "val", "test"):
        write(tmp_path / f"in/annotations/instances_{split}.json", format_coco([f"{split}.jpg"]))
    write(tmp_path / "in" / file, format_coco(listed))
    assert split_names(tmp_path / "in") == {"train": {"train.jpg"}, "val": {"val.jpg"}}


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document | {"annotations": []},
        lambda document: document | {"annotations": [{"id": 1, "image_id": 1, "caption": "a cat"}]},
        lambda document: document | {"images": {}},
    ],
)
def test_a_file_of_no_split_without_boxes_is_not_used(tmp_path, change):
    for split in ("train", "val"):
        add(tmp_path / "in", split, [f"{split}.jpg"])
    draw(tmp_path / "in/images/more/more.jpg")
    write(tmp_path / "in/annotations/more.json", json.dumps(change(json.loads(format_coco(["more.jpg"])))))
    assert split_names(tmp_path / "in") == {"train": {"train.jpg"}, "val": {"val.jpg"}}


def test_invalid_entries_of_a_file_of_no_split_are_reported(tmp_path):
    for split in ("train", "val", "default"):
        add(tmp_path / "in", split, [f"{split}.jpg"])
    path = tmp_path / "in/annotations/instances_default.json"
    document = json.loads(path.read_text())
    document["annotations"] += [{"id": 2, "image_id": 7, "category_id": 1, "bbox": [1, 2, 3, 4]}, 5]
    document["annotations"] += [{"id": 3, "image_id": 1, "category_id": 8, "bbox": [1, 2, 3, 4]}]
    path.write_text(json.dumps(document))
    target = converted(tmp_path / "in")
    report = check_split(target / "train", target / "annotations/instances_train.json")
    assert sorted(issue.code for issue in report.issues) == ["annotation_invalid", "category_unknown", "image_unknown"]


@pytest.mark.parametrize("category", [{"id": 2, "name": ["cat"]}, {"id": 2, "name": None}, "cat"])
@pytest.mark.parametrize("file", ["Train", "default"])
def test_invalid_categories_are_left_to_the_check(tmp_path, file, category):
    for split in ("Train", "Validation", "default"):
        add(tmp_path / "in", split, [f"{split}.jpg"])
    path = tmp_path / f"in/annotations/instances_{file}.json"
    document = json.loads(path.read_text())
    document["categories"].append(category)
    path.write_text(json.dumps(document))
    target = converted(tmp_path / "in")
    with pytest.raises(BadDataset, match="categor"):
        check_split(target / "train", target / "annotations/instances_train.json")
