"""The bootstrap's metrics against faster-coco-eval: on the original images, and on a set with copies of images."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from frs.dataset.coco import CocoFile, read
from frs.evaluation import bootstrap, matching
from frs.evaluation.coco_scores import score
from frs.evaluation.report import NAMES

IMAGES, CLASSES, SIDE = 12, 3, 400
Scene = dict[str, Any]


def scene(random: np.random.Generator) -> Scene:
    """Return annotations with boxes of all sizes on most images, some crowds, and a class that is rare."""
    annotations = []
    for image in range(1, IMAGES + 1):
        for _ in range(random.integers(0, 7)):
            side = float(random.choice([15, 32, 60, 96, 150])) * random.uniform(0.8, 1.2)
            x, y = random.uniform(0, SIDE - side, 2).round(1)
            category = int(random.choice([1, 2, 3], p=[0.6, 0.35, 0.05]))
            annotations.append(
                {"image_id": image, "category_id": category, "bbox": [x, y, side, side], "area": side * side}
                | {"iscrowd": int(random.random() < 0.1)}
            )
    return {
        "images": [{"id": i, "file_name": f"{i}.png", "width": SIDE, "height": SIDE} for i in range(1, IMAGES + 1)],
        "categories": [{"id": i, "name": name} for i, name in enumerate("abc", 1)],
        "annotations": [{"id": i, **annotation} for i, annotation in enumerate(annotations, 1)],
    }


def detections(scene: Scene, random: np.random.Generator) -> NDArray[np.float64]:
    """Return noisy copies of the boxes, several for each box, and random boxes.

    Scores are rounded, so that several images have equal ones. Within an image they differ, as the order of equal
    scores is not defined.
    """
    rows = []
    for box in scene["annotations"]:
        for _ in range(random.integers(0, 4)):
            x, y, w, h = np.array(box["bbox"]) + random.normal(0, 5, 4)
            rows.append([box["image_id"], x, y, w, h, random.random() ** 0.5, box["category_id"] - 1])
    for _ in range(150):
        w, h = random.uniform(5, 120, 2)
        corner = random.uniform(0, SIDE - 120, 2)
        rows.append([random.integers(1, IMAGES + 1), *corner, w, h, random.random(), random.integers(0, CLASSES)])
    table = np.array(rows)
    table[:, 5] = table[:, 5].round(2)
    return table[np.unique(table[:, [0, 5, 6]], axis=0, return_index=True)[1]]


def repeat_images(
    scene: Scene, rows: NDArray[np.float64], multiplicities: NDArray[np.int64]
) -> tuple[Scene, NDArray[np.float64]]:
    """Return the data with image i repeated `multiplicities[i - 1]` times.

    The copies are adjacent, so equal scores keep their order.
    """
    images, annotations, repeated_rows = [], [], []
    for image in scene["images"]:
        for number in range(multiplicities[image["id"] - 1]):
            image_id = 1000 * image["id"] + number
            images.append(image | {"id": image_id})
            annotations += [a | {"image_id": image_id} for a in scene["annotations"] if a["image_id"] == image["id"]]
            image_rows = rows[rows[:, 0] == image["id"]].copy()
            image_rows[:, 0] = image_id
            repeated_rows.append(image_rows)
    annotations = [annotation | {"id": i} for i, annotation in enumerate(annotations, 1)]
    return scene | {"images": images, "annotations": annotations}, np.concatenate(repeated_rows)


def truth(folder: Path, scene: Scene) -> CocoFile:
    (folder / "truth.json").write_text(json.dumps(scene))
    return read(folder / "truth.json")


def matches(truth: CocoFile, rows: NDArray[np.float64]) -> list[matching.ClassMatches]:
    images = np.array(sorted(image.id for image in truth.images))
    return matching.match(truth, rows, images, lambda done, total: None)


@pytest.mark.parametrize("seed", range(6))
def test_the_metrics_of_the_original_images_equal_the_librarys(tmp_path: Path, seed: int) -> None:
    random = np.random.default_rng(seed)
    annotated = scene(random)
    rows = detections(annotated, random)
    coco_file = truth(tmp_path, annotated)
    expected = score(rows, coco_file)
    precisions = bootstrap.point_estimate(matches(coco_file, rows))
    numbers = bootstrap.coco_metrics(precisions)
    assert expected.mAP > 0.05
    for name in NAMES:
        assert numbers[name][0] == pytest.approx(expected.metrics[name], abs=1e-9), name
    assert bootstrap.class_precisions(precisions) == pytest.approx(list(expected.per_class.values()), abs=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_a_multiplicity_equals_that_many_copies_of_the_image(tmp_path: Path, seed: int) -> None:
    random = np.random.default_rng(seed)
    annotated = scene(random)
    rows = detections(annotated, random)
    multiplicities = bootstrap.draw_resamples(IMAGES, count=4, seed=seed)
    resampled = bootstrap.coco_metrics(
        bootstrap.average_precisions(matches(truth(tmp_path, annotated), rows), multiplicities)
    )
    for number, counts in enumerate(multiplicities):
        assert counts.max() > 1 and counts.min() == 0
        copied, copied_rows = repeat_images(annotated, rows, counts)
        expected = score(copied_rows, truth(tmp_path, copied)).metrics
        for name in NAMES:
            value = None if np.isnan(resampled[name][number]) else resampled[name][number]
            assert value == pytest.approx(expected[name], abs=1e-9), name


def test_a_class_without_objects_in_a_resample_is_excluded(tmp_path: Path) -> None:
    """Only image 1 has class b, without detections: a resample with image 1 has half the mean."""
    box = {"bbox": [10, 10, 50, 50], "area": 2500, "iscrowd": 0}
    annotated = scene(np.random.default_rng(0)) | {
        "annotations": [
            box | {"id": 1, "image_id": 1, "category_id": 2},
            box | {"id": 2, "image_id": 2, "category_id": 1},
        ]
    }
    rows = np.array([[2, 10, 10, 50, 50, 0.9, 0]], float)
    multiplicities = np.zeros((2, IMAGES), int)
    multiplicities[0, :2] = multiplicities[1, 1] = 1
    values = bootstrap.coco_metrics(
        bootstrap.average_precisions(matches(truth(tmp_path, annotated), rows), multiplicities)
    )["bbox_mAP"]
    assert values == pytest.approx([0.5, 1.0])


def test_no_detections_give_zero_and_no_objects_give_nan(tmp_path: Path) -> None:
    annotated = scene(np.random.default_rng(0))
    numbers = bootstrap.coco_metrics(bootstrap.point_estimate(matches(truth(tmp_path, annotated), np.zeros((0, 7)))))
    assert numbers["bbox_mAP"][0] == 0.0
    without_objects = annotated | {"annotations": []}
    numbers = bootstrap.coco_metrics(
        bootstrap.point_estimate(matches(truth(tmp_path, without_objects), np.zeros((0, 7))))
    )
    assert np.isnan(numbers["bbox_mAP"][0]) and bootstrap.interval(numbers["bbox_mAP"]) is None


def test_draws_are_reproducible_and_each_has_as_many_images_as_the_set() -> None:
    multiplicities = bootstrap.draw_resamples(7, count=20)
    assert (multiplicities.sum(axis=1) == 7).all() and (multiplicities == bootstrap.draw_resamples(7, count=20)).all()


def test_the_interval_excludes_2_5_percent_on_either_side() -> None:
    bounds = bootstrap.interval(np.append(np.arange(1001.0), np.nan))
    assert bounds is not None and (bounds.low, bounds.high) == pytest.approx((25.0, 975.0))
