"""The confusion matrix: which object each detection counts for."""

import json
from pathlib import Path

import numpy as np
import pytest

from frs.dataset import coco
from frs.dataset.coco import CocoFile
from frs.evaluation.confusion import confusion_matrix

CAT, DOG, BACKGROUND = 0, 1, 2
SQUARE, ELSEWHERE = (10, 10, 20, 20), (60, 60, 20, 20)


def truth_of(folder: Path, *objects: tuple[tuple[int, ...], int, int]) -> CocoFile:
    """Return annotations of one image; an object is a box, a class and `iscrowd`."""
    annotations = [
        {"id": i + 1, "image_id": 1, "bbox": box, "category_id": label + 1, "iscrowd": crowd, "area": box[2] * box[3]}
        for i, (box, label, crowd) in enumerate(objects)
    ]
    document = {
        "images": [{"id": 1, "file_name": "1.jpg", "width": 100, "height": 100}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": annotations,
    }
    (folder / "val.json").write_text(json.dumps(document))
    return coco.read(folder / "val.json")


def rows_of(*detections: tuple[tuple[int, ...], float, int]) -> np.ndarray:
    return np.array([[1, *box, score, label] for box, score, label in detections], float).reshape(-1, 7)


@pytest.mark.parametrize(
    ("objects", "detections", "expected"),
    [
        ([(SQUARE, CAT, 0)], [(SQUARE, 0.9, CAT)], {(CAT, CAT): 1}),
        ([(SQUARE, CAT, 0)], [(SQUARE, 0.9, DOG)], {(CAT, DOG): 1}),
        ([(SQUARE, CAT, 0)], [], {(CAT, BACKGROUND): 1}),
        ([(SQUARE, CAT, 0)], [(SQUARE, 0.29, CAT)], {(CAT, BACKGROUND): 1}),
        ([], [(SQUARE, 0.9, DOG)], {(BACKGROUND, DOG): 1}),
        ([(SQUARE, CAT, 0)], [(ELSEWHERE, 0.9, DOG)], {(CAT, BACKGROUND): 1, (BACKGROUND, DOG): 1}),
        ([(SQUARE, CAT, 0)], [(SQUARE, 0.5, CAT), (SQUARE, 0.9, DOG)], {(CAT, DOG): 1, (BACKGROUND, CAT): 1}),
        ([(SQUARE, CAT, 1)], [(SQUARE, 0.5, CAT), (SQUARE, 0.9, DOG)], {}),
        ([(SQUARE, CAT, 1), (SQUARE, DOG, 0)], [(SQUARE, 0.9, DOG)], {(DOG, DOG): 1}),
    ],
)
def test_each_detection_counts_once(tmp_path, objects, detections, expected):
    counts = confusion_matrix(truth_of(tmp_path, *objects), rows_of(*detections), np.array([1]))
    assert {(int(row), int(column)): int(counts[row, column]) for row, column in np.argwhere(counts)} == expected
