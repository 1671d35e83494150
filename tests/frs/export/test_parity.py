"""The comparison of a file's detections with the student's."""

import numpy as np
import pytest

from frs.dataset.coco import CocoFile
from frs.export import parity


def rows(*detections: tuple[float, ...]) -> np.ndarray:
    """Return detections (image, x, y, width, height, score, label)."""
    return np.array(detections, float).reshape(-1, 7)


def differences(student: np.ndarray, file: np.ndarray) -> parity.Differences:
    return parity.differences(student, file, lambda done, total: None)


STUDENT = rows((1, 0, 0, 10, 10, 0.9, 0), (1, 50, 50, 10, 10, 0.8, 1), (2, 0, 0, 10, 10, 0.7, 0))


def test_equal_detections_are_equal_in_any_order() -> None:
    assert differences(STUDENT, STUDENT[::-1]) == parity.Differences(3, 3, 0, 0.0, 0.0)


def test_a_detection_of_another_class_or_image_is_missing() -> None:
    other_class, other_image = STUDENT.copy(), STUDENT.copy()
    other_class[1, 6], other_image[2, 0] = 0, 3
    assert differences(STUDENT, other_class).missing == 1
    assert differences(STUDENT, other_image).missing == 1
    assert differences(STUDENT, rows()).missing == 3


def test_moved_boxes_and_other_scores_are_measured() -> None:
    file = STUDENT.copy()
    file[0, 1:3] += 1
    file[2, 5] -= 0.1
    assert differences(STUDENT, file) == parity.Differences(3, 1, 0, 1.0, pytest.approx(0.1))


def test_a_box_far_away_does_not_count_as_a_difference_but_as_missing() -> None:
    file = STUDENT.copy()
    file[0, 1] = 500
    assert differences(STUDENT, file) == parity.Differences(3, 2, 1, 0.0, 0.0)


def test_low_scores_are_not_compared() -> None:
    low = rows((1, 0, 0, 10, 10, 0.29, 0))
    assert differences(low, rows()).compared == 0


def test_detections_of_many_images_and_classes_are_compared_within_image_and_class() -> None:
    random = np.random.default_rng(0)
    image, label = random.integers(-2, 40, 3000), random.integers(0, 5, 3000)
    boxes = np.column_stack([random.uniform(0, 100, (3000, 2)), np.full((3000, 2), 20.0)])
    student = np.column_stack([image, boxes, random.uniform(0.3, 1, 3000), label])
    file = random.permutation(student)[:2500]
    groups = np.unique(student[:, [0, 6]], axis=0)
    parts = [
        differences(*(part[(part[:, [0, 6]] == group).all(axis=1)] for part in (student, file))) for group in groups
    ]
    assert differences(student, file) == parity.Differences(
        3000,
        sum(part.equal for part in parts),
        sum(part.missing for part in parts),
        max(part.largest_box_difference for part in parts),
        max(part.largest_score_difference for part in parts),
    )


def test_the_comparison_reports_progress_and_can_be_interrupted(coco: CocoFile) -> None:
    calls: list[tuple[int, int]] = []
    parity.differences(STUDENT, STUDENT, lambda *call: calls.append(call))
    assert calls == [(1, 3), (2, 3), (3, 3)]
    images = np.array([image.id for image in coco.images])
    parity.drop_interval(rows(), rows(), coco, images, 100, lambda *call: calls.append(call))
    classes = len(coco.classes)
    assert calls[3:] == 4 * [(done, classes) for done in range(1, classes + 1)]


def test_the_drop_has_an_interval_over_the_images(coco: CocoFile) -> None:
    truth, images = coco, np.array([image.id for image in coco.images])
    perfect = np.array(
        [
            (image.id, *box, 0.9, label)
            for i, image in enumerate(truth.images)
            for box, label in zip(truth.boxes_of(i).xywh, truth.boxes_of(i).label, strict=True)
        ]
    )
    same = parity.drop_interval(perfect, perfect, truth, images, 100, lambda done, total: None)
    worse = parity.drop_interval(perfect, perfect[: len(perfect) // 2], truth, images, 100, lambda done, total: None)
    assert same is not None and worse is not None
    assert (same.low, same.high) == (0, 0)
    assert 0 < worse.low < worse.high <= 1
