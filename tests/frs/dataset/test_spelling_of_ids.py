"""COCO ids that are texts in one place and integers in another are the same ids."""

import json

import pytest
from small_uploads import converted, draw, format_coco, write

from frs.dataset.check import check_split
from frs.dataset.fields import match_id


@pytest.mark.parametrize(
    ("value", "ids", "expected"),
    [
        ("1", {1}, 1),
        (1, {"1"}, "1"),
        (1, {1, "1"}, 1),
        ("1", {1, "1"}, "1"),
        ("0", {0}, 0),
        ("01", {1}, 1),
        (-3, {"-3"}, "-3"),
        ("a", {1}, None),
        ("²", {2}, None),
        (2, {1}, None),
        (None, {None, 1}, None),
    ],
)
def test_an_id_matches_its_other_spelling_if_it_is_not_listed(value, ids, expected):
    match = match_id(value, ids)
    assert (match, type(match)) == (expected, type(expected))


@pytest.mark.parametrize("is_text", ["reference", "list"])
@pytest.mark.parametrize(
    ("rows", "list_field", "reference"), [("categories", "id", "category_id"), ("images", "id", "image_id")]
)
@pytest.mark.parametrize("val_fraction", [None, 0.5])
def test_boxes_belong_to_ids_of_the_other_spelling(tmp_path, is_text, rows, list_field, reference, val_fraction):
    names = {"train": ["a.jpg", "b.jpg"], "val": ["c.jpg", "d.jpg"]}
    for split in names if val_fraction is None else ("train",):
        document = json.loads(format_coco(names[split], ["cat", "dog"]))
        changed, field = (
            (document["annotations"], reference) if is_text == "reference" else (document[rows], list_field)
        )
        for row in changed:
            row[field] = str(row[field])
        write(tmp_path / f"in/annotations/instances_{split}.json", json.dumps(document))
        for name in names[split]:
            draw(tmp_path / f"in/images/{name}")
    target = converted(tmp_path / "in", val_fraction)
    for split in ("train", "val"):
        assert check_split(target / split, target / f"annotations/instances_{split}.json").issues == []
    content = json.loads((target / "annotations/instances_val.json").read_text())
    assert len(content["annotations"]) == len(content["images"])


def test_a_placeholder_category_that_a_text_id_uses_is_kept(tmp_path):
    for split in ("train", "val"):
        document = json.loads(format_coco([f"{split}.jpg"], ["cells"]))
        document["categories"] = [
            {"id": 0, "name": "cells", "supercategory": "none"},
            {"id": 1, "name": "cat", "supercategory": "cells"},
        ]
        document["annotations"][0]["category_id"] = "0"
        write(tmp_path / f"in/{split}/_annotations.coco.json", json.dumps(document))
        draw(tmp_path / f"in/{split}/{split}.jpg")
    target = converted(tmp_path / "in")
    rows = json.loads((target / "annotations/instances_train.json").read_text())["categories"]
    assert [row["name"] for row in rows] == ["cells", "cat"]
    assert check_split(target / "train", target / "annotations/instances_train.json").issues == []
