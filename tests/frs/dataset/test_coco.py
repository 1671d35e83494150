import json

import pytest

from frs.dataset.classes import difference
from frs.dataset.coco import read
from frs.dataset.issues import IssueCollector


def test_classes_come_by_ascending_id(tiny):
    tiny.categories = [{"id": 7, "name": "zebra"}, {"id": 3, "name": "yak"}]
    tiny.annotations = []
    tiny.box(category_id=7)
    coco = read(tiny.file)
    assert (coco.classes, coco.category_ids) == (("yak", "zebra"), (3, 7))
    assert coco.boxes.label.tolist() == [1]


def test_boxes_of_an_image_are_its_own_in_the_order_of_the_file(tiny):
    tiny.image("b.png", id=9)
    tiny.image("c.png", id=5)
    for bbox, image_id in (((3, 3, 3, 3), 9), ((4, 4, 4, 4), 1), ((5, 5, 5, 5), 9)):
        tiny.box(*bbox, image_id=image_id)
    coco = read(tiny.file)
    assert [image.id for image in coco.images] == [1, 9, 5]
    assert coco.boxes_of(1).xywh.tolist() == [[3, 3, 3, 3], [5, 5, 5, 5]]
    assert coco.boxes_of(0).id.tolist() == [1, 3]
    assert len(coco.boxes_of(2)) == 0


def test_area_is_width_times_height_where_the_file_has_none(tiny):
    tiny.box(0, 0, 4, 5, area=7.5, iscrowd=1)
    boxes = read(tiny.file).boxes
    assert boxes.area.tolist() == [100, 7.5]
    assert boxes.crowd.tolist() == [False, True]


def test_a_byte_order_mark_does_no_harm(tiny):
    file = tiny.file
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert len(read(file).boxes) == 1


def test_polygons_are_not_kept(tiny):
    tiny.annotations[0]["segmentation"] = [[1, 2, 3, 4, 5, 6]]
    assert len(read(tiny.file).boxes) == 1


def test_wrong_entries_are_left_out_and_told(tiny):
    tiny.box(1, 2, float("nan"), 4)
    found = IssueCollector()
    assert len(read(tiny.file, found).boxes) == 1
    assert found.counts == {"box_invalid": 1}
    assert found.image_ids == {1}


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (("cat", "dog"), None),
        (("dog", "cat"), "in another order"),
        (("cat",), "lacks 'dog'"),
        (("cat", "dog", "cow"), "adds 'cow'"),
        (("cat", "dg"), "lacks 'dog' and adds 'dg'"),
    ],
)
def test_a_difference_of_classes_is_put_in_words(found, says):
    text = difference(("cat", "dog"), found, "The validation file")
    assert text is None if says is None else says in text


def test_a_thousand_classes_differ_in_one_short_sentence():
    text = difference([f"c{n}" for n in range(1000)], ["x"], "The validation file")
    assert "and 992 more" in text
    assert len(text) < 400


def test_a_report_is_json(tiny):
    assert json.loads(tiny.check().model_dump_json())["counts"]["boxes"] == 1
