"""Ids and sizes as tools write them: 64-bit hashes, texts, and integers that pandas has turned into floats."""

import json

import numpy as np
import pytest

from frs.dataset.coco import read
from frs.evaluation.coco_scores import score

PAIRS = [
    (1, 2),
    (1234567890123456789, 1234567890123456790),
    (2**63 - 1, 2**63 - 2),
    (2**53 + 1, 2**53 + 2),
    ("a1", "a2"),
    ("img/1.png", "img/2.png"),
    ("000001", "000002"),
    (7.0, 8.0),
    (-1, -2),
]


def with_ids(tiny, first, second):
    """Give the data set two images with these ids and a box each."""
    tiny.images[0]["id"] = first
    tiny.image("b.png", id=second)
    tiny.annotations[0]["image_id"] = first
    tiny.box(5, 5, 12, 12, image_id=second, category_id=2)


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_images_with_any_ids_keep_their_boxes(tiny, first, second):
    with_ids(tiny, first, second)
    assert tiny.check().issues == []
    coco = read(tiny.file)
    assert [coco.boxes_of(index).xywh.tolist() for index in (0, 1)] == [[[1, 2, 10, 10]], [[5, 5, 12, 12]]]


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_perfect_detections_score_1_whatever_the_image_ids(tiny, first, second):
    with_ids(tiny, first, second)
    coco = read(tiny.file)
    ids = np.array([[coco.images[index].id] for index in coco.boxes.image], dtype=np.float64)
    detections = np.hstack([ids, coco.boxes.xywh, np.ones((2, 1)), coco.boxes.label[:, None]])
    assert score(detections, coco, [image.id for image in coco.images]).mAP == pytest.approx(1)


@pytest.mark.parametrize("ids", [(2**60, 2**60 + 1), ("cat", "dog"), (1.0, 2.0), (10, "x"), (0, 1)])
def test_categories_with_any_ids_keep_their_names(tiny, ids):
    tiny.categories = [{"id": ids[0], "name": "cat"}, {"id": ids[1], "name": "dog"}]
    tiny.annotations[0]["category_id"] = ids[0]
    tiny.box(5, 5, 12, 12, category_id=ids[1])
    assert tiny.check().issues == []
    coco = read(tiny.file)
    assert [coco.classes[label] for label in coco.boxes.label] == ["cat", "dog"]
    detections = np.hstack([np.ones((2, 1)), coco.boxes.xywh, np.ones((2, 1)), coco.boxes.label[:, None]])
    assert score(detections, coco).per_class == pytest.approx({"cat": 1, "dog": 1})


@pytest.mark.parametrize("ids", [("b1", "b2"), (2**62, 2**62 + 1), (1.0, 2.0)])
def test_boxes_with_any_ids_are_read_and_duplicates_reported(tiny, ids):
    tiny.annotations[0]["id"] = ids[0]
    tiny.box(5, 5, 12, 12, id=ids[1])
    assert tiny.check().issues == []
    tiny.box(7, 7, 12, 12, id=ids[1])
    assert (
        tiny.only_issue().message
        == f"a.png: box {int(ids[1]) if ids[1] == 2.0 else ids[1]} [7, 7, 12, 12] has the id of another box."
    )


@pytest.mark.parametrize(("width", "height"), [(40.0, 30.0), (40, 30.0)])
def test_sizes_written_as_floats_are_integers(tiny, width, height):
    tiny.images[0] |= {"width": width, "height": height}
    assert tiny.check().issues == []
    assert json.loads(json.dumps(read(tiny.file).images[0])) == [1, "a.png", 40, 30]


@pytest.mark.parametrize("width", [40.5, "40", True, None, 0.0, float("inf")])
def test_a_size_that_is_no_integer_is_an_issue(tiny, width):
    tiny.images[0]["width"] = width
    tiny.image("b.png")
    tiny.box(image_id=2)
    assert tiny.only_issue().code == "image_invalid"


@pytest.mark.parametrize("image_id", [[1], {"a": 1}, 1.5, None, True, "", 2**70])
def test_a_box_whose_image_id_is_no_id_is_an_issue(tiny, image_id):
    tiny.box(image_id=image_id)
    assert tiny.only_issue().code == "image_unknown"
