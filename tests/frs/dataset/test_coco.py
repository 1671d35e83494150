import json

import pytest

from frs.dataset.classes import describe_class_difference
from frs.dataset.coco import read
from frs.dataset.issues import IssueCollector


def test_classes_are_ordered_by_ascending_id(tiny):
    tiny.categories = [{"id": 7, "name": "zebra"}, {"id": 3, "name": "yak"}]
    tiny.annotations = []
    tiny.box(category_id=7)
    coco = read(tiny.file)
    assert (coco.classes, coco.category_ids) == (("yak", "zebra"), (3, 7))
    assert coco.boxes.label.tolist() == [1]


def test_the_boxes_of_an_image_keep_the_order_of_the_file(tiny):
    tiny.image("b.png", id=9)
    tiny.image("c.png", id=5)
    for bbox, image_id in (((3, 3, 3, 3), 9), ((4, 4, 4, 4), 1), ((5, 5, 5, 5), 9)):
        tiny.box(*bbox, image_id=image_id)
    coco = read(tiny.file)
    assert [image.id for image in coco.images] == [1, 9, 5]
    assert coco.boxes_of(1).xywh.tolist() == [[3, 3, 3, 3], [5, 5, 5, 5]]
    assert coco.boxes_of(0).id.tolist() == [1, 3]
    assert len(coco.boxes_of(2)) == 0


def test_area_defaults_to_width_times_height(tiny):
    tiny.box(0, 0, 4, 5, area=7.5, iscrowd=1)
    boxes = read(tiny.file).boxes
    assert boxes.area.tolist() == [100, 7.5]
    assert boxes.crowd.tolist() == [False, True]


def test_a_byte_order_mark_is_ignored(tiny):
    file = tiny.file
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert len(read(file).boxes) == 1


def test_a_box_with_a_polygon_is_read(tiny):
    tiny.annotations[0]["segmentation"] = [[1, 2, 3, 4, 5, 6]]
    assert len(read(tiny.file).boxes) == 1


def test_an_invalid_entry_is_omitted_and_reported(tiny):
    tiny.box(1, 2, float("nan"), 4)
    issues = IssueCollector()
    assert len(read(tiny.file, issues).boxes) == 1
    assert issues.counts == {"box_invalid": 1}
    assert issues.image_ids == {1}


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (("cat", "dog"), None),
        (("dog", "cat"), "in another order"),
        (("cat",), "lacks 'dog'"),
        (("cat", "dog", "cow"), "adds 'cow'"),
        (("cat", "dg"), "lacks 'dog' and adds 'dg'"),
    ],
)
def test_a_class_difference_is_described_in_a_sentence(classes, expected):
    text = describe_class_difference(("cat", "dog"), classes, "The validation file")
    assert text is None if expected is None else expected in text


def test_a_difference_of_a_thousand_classes_is_described_in_one_short_sentence():
    text = describe_class_difference([f"c{n}" for n in range(1000)], ["x"], "The validation file")
    assert "and 992 more" in text
    assert len(text) < 400


def test_a_report_serialises_to_json(tiny):
    assert json.loads(tiny.check().model_dump_json())["counts"]["boxes"] == 1
