"""The comparison of a file's detections with the student's."""

import numpy as np
import pytest

from frs.dataset.coco import CocoFile
from frs.export import parity


def rows(*detections: tuple[float, ...]) -> np.ndarray:
    """Return detections (image, x, y, width, height, score, label)."""
    return np.array(detections, float).reshape(-1, 7)


STUDENT = rows((1, 0, 0, 10, 10, 0.9, 0), (1, 50, 50, 10, 10, 0.8, 1), (2, 0, 0, 10, 10, 0.7, 0))


def test_equal_detections_are_equal_in_any_order() -> None:
    assert parity.differences(STUDENT, STUDENT[::-1]) == parity.Differences(3, 3, 0, 0.0, 0.0)


def test_a_detection_of_another_class_or_image_is_missing() -> None:
    other_class, other_image = STUDENT.copy(), STUDENT.copy()
    other_class[1, 6], other_image[2, 0] = 0, 3
    assert parity.differences(STUDENT, other_class).missing == 1
    assert parity.differences(STUDENT, other_image).missing == 1
    assert parity.differences(STUDENT, rows()).missing == 3


def test_moved_boxes_and_other_scores_are_measured() -> None:
    file = STUDENT.copy()
    file[0, 1:3] += 1
    file[2, 5] -= 0.1
    assert parity.differences(STUDENT, file) == parity.Differences(3, 1, 0, 1.0, pytest.approx(0.1))


def test_a_box_far_away_does_not_count_as_a_difference_but_as_missing() -> None:
    file = STUDENT.copy()
    file[0, 1] = 500
    assert parity.differences(STUDENT, file) == parity.Differences(3, 2, 1, 0.0, 0.0)


def test_low_scores_are_not_compared() -> None:
    low = rows((1, 0, 0, 10, 10, 0.29, 0))
    assert parity.differences(low, rows()).compared == 0


def test_the_drop_has_an_interval_over_the_images(coco: CocoFile) -> None:
    truth, images = coco, np.array([image.id for image in coco.images])
    perfect = np.array(
        [
            (image.id, *box, 0.9, label)
            for i, image in enumerate(truth.images)
            for box, label in zip(truth.boxes_of(i).xywh, truth.boxes_of(i).label, strict=True)
        ]
    )
    same = parity.drop_interval(perfect, perfect, truth, images, 100)
    worse = parity.drop_interval(perfect, perfect[: len(perfect) // 2], truth, images, 100)
    assert same is not None and worse is not None
    assert (same.low, same.high) == (0, 0)
    assert 0 < worse.low < worse.high <= 1
