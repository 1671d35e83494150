"""The check reports what training uses, by reason, and refuses a split of which training can use nothing."""

from pathlib import Path

import numpy as np
import pytest

from frs.dataset.coco import read
from frs.dataset.trainable import labelled_images
from frs.evaluation.coco_scores import score
from frs.training.batches import LoadedImages

EXCLUDED = [
    ({"iscrowd": 1}, "crowd"),
    ({"iscrowd": True}, "crowd"),
    ({"ignore": 1}, "ignored"),
    ({"ignore": True, "iscrowd": 1}, "ignored"),
    ({"bbox": [5, 5, 0.9, 20]}, "below_one_pixel"),
    ({"bbox": [5, 5, 20, 0.5], "area": 0}, "below_one_pixel"),
    ({"bbox": [-1, 5, 1, 20]}, "outside_image"),
    ({"bbox": [40, 5, 1, 20]}, "outside_image"),
]


def record(tiny):
    """Return the instances that mmdet's pipeline receives for the first image."""
    load = {"type": "LoadImageFromFile"}
    return LoadedImages(read(tiny.file), Path("train"), [load], [0]).record(0)["instances"]


@pytest.mark.parametrize(("changes", "reason"), EXCLUDED)
def test_a_box_that_training_does_not_use_is_counted_by_reason(tiny, changes, reason):
    tiny.image("b.png")
    tiny.box(**{"image_id": 2} | changes) if "bbox" not in changes else tiny.box(*changes["bbox"], image_id=2)
    report = tiny.check()
    assert report.issues == []
    assert (report.excluded_boxes, report.excluded_images) == ({reason: 1}, {reason: 1})
    assert (report.labelled_images, labelled_images(read(tiny.file), ())) == (1, [0])


@pytest.mark.parametrize(("changes", "reason"), EXCLUDED)
def test_a_split_of_which_training_can_use_nothing_is_refused(tiny, changes, reason):
    tiny.annotations[0] |= changes
    report = tiny.check()
    assert list(report.issue_counts) == ["boxes_missing"]
    assert not report.accepted(0.99)
    assert report.excluded_boxes == {reason: 1}


def test_images_without_boxes_are_counted(tiny):
    tiny.image("b.png")
    assert tiny.check().excluded_images == {"no_boxes": 1}


@pytest.mark.parametrize("flag", [0, False, None])
def test_flags_that_are_not_set_exclude_nothing(tiny, flag):
    tiny.annotations[0] |= {"iscrowd": flag, "ignore": flag}
    report = tiny.check()
    assert (report.issues, report.excluded_boxes, report.labelled_images) == ([], {}, 1)


def test_an_ignored_box_is_neither_trained_on_nor_counted_against_a_detector(tiny):
    tiny.box(20, 5, 12, 12, ignore=1)
    assert [instance["bbox"] for instance in record(tiny)] == [[1, 2, 11, 12]]
    coco = read(tiny.file)
    rows = np.hstack([np.ones((2, 1)), coco.boxes.xywh, [[0.5], [0.9]], coco.boxes.label[:, None]])
    assert score(rows, coco).mAP == pytest.approx(1)
    assert score(rows[:1], coco).mAP == pytest.approx(1)


@pytest.mark.parametrize("area", [0, 0.0, None])
def test_an_area_that_is_0_or_absent_is_width_times_height(tiny, area):
    tiny.annotations[0]["area"] = area
    assert read(tiny.file).boxes.area.tolist() == [100]
    assert tiny.check().labelled_images == 1


@pytest.mark.parametrize(
    "bbox", [(0.1, 0.2, 0.3, 0.4), (0, 0, 1, 1), (0.5, 0.5, 0.5, 0.5), (0.9, 0.05, 0.1, 0.9), (0.25, 0, 0.75, 1)]
)
def test_boxes_that_are_fractions_of_the_image_are_refused(tiny, bbox):
    tiny.annotations.clear()
    tiny.box(*bbox)
    tiny.box(0.5, 0.25, 0.25, 0.5)
    issue = tiny.only_issue()
    assert issue.code == "boxes_missing"
    assert "fractions of the image size; COCO boxes are in pixels" in issue.message


@pytest.mark.parametrize(
    ("changes", "repeated"), [({}, 1), ({"area": 5}, 1), ({"category_id": 2}, 0), ({"iscrowd": 1}, 0)]
)
def test_a_repeated_box_is_reported_and_trained_once(tiny, changes, repeated):
    tiny.box(**changes)
    report = tiny.check()
    assert (report.issues, report.repeated_boxes, report.counts.boxes) == ([], repeated, 2 - repeated)
    assert len(record(tiny)) == 2 - repeated
    assert ("repeated box left out" in " ".join(report.notes)) is bool(repeated)


def test_perfect_detections_of_repeated_boxes_score_1(tiny):
    tiny.box()
    tiny.box()
    coco = read(tiny.file)
    rows = np.hstack([np.ones((1, 1)), coco.boxes.xywh, [[0.9]], coco.boxes.label[:, None]])
    assert score(rows, coco).mAP == pytest.approx(1)


def test_equal_boxes_of_two_images_are_not_repeated(tiny):
    tiny.image("b.png")
    tiny.box(image_id=2)
    report = tiny.check()
    assert (report.repeated_boxes, report.counts.boxes) == (0, 2)
