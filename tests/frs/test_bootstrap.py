"""The bootstrap's numbers against the library's: on the images as they are, and on a set with copies of them."""

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
    """Boxes of every size on most images, some crowds, a class that hardly any image has."""
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
    """Noisy copies of the boxes, several a box, and inventions; scores rounded so that many images share one.

    Within an image they differ: which of two equal ones comes first is nobody's rule.
    """
    rows = []
    for box in scene["annotations"]:
        for _ in range(random.integers(0, 4)):
            x, y, w, h = np.array(box["bbox"]) + random.normal(0, 5, 4)
            rows.append([box["image_id"], x, y, w, h, random.random() ** 0.5, box["category_id"] - 1])
    for _ in range(150):
        w, h = random.uniform(5, 120, 2)
        where = random.uniform(0, SIDE - 120, 2)
        rows.append([random.integers(1, IMAGES + 1), *where, w, h, random.random(), random.integers(0, CLASSES)])
    found = np.array(rows)
    found[:, 5] = found[:, 5].round(2)
    return found[np.unique(found[:, [0, 5, 6]], axis=0, return_index=True)[1]]


def copies(scene: Scene, found: NDArray[np.float64], times: NDArray[np.int64]) -> tuple[Scene, NDArray[np.float64]]:
    """The same with image i there `times[i - 1]` times; copies are neighbours, so equal scores keep their order."""
    images, annotations, rows = [], [], []
    for image in scene["images"]:
        for number in range(times[image["id"] - 1]):
            identity = 1000 * image["id"] + number
            images.append(image | {"id": identity})
            annotations += [a | {"image_id": identity} for a in scene["annotations"] if a["image_id"] == image["id"]]
            own = found[found[:, 0] == image["id"]].copy()
            own[:, 0] = identity
            rows.append(own)
    annotations = [annotation | {"id": i} for i, annotation in enumerate(annotations, 1)]
    return scene | {"images": images, "annotations": annotations}, np.concatenate(rows)


def truth(folder: Path, scene: Scene) -> CocoFile:
    (folder / "truth.json").write_text(json.dumps(scene))
    return read(folder / "truth.json")


def matches(truth: CocoFile, found: NDArray[np.float64]) -> list[matching.ClassMatches]:
    images = np.array(sorted(image.id for image in truth.images))
    return matching.match(truth, found, images, lambda done, total: None)


@pytest.mark.parametrize("seed", range(6))
def test_with_every_image_once_the_six_numbers_are_the_librarys(tmp_path: Path, seed: int) -> None:
    random = np.random.default_rng(seed)
    drawn = scene(random)
    found = detections(drawn, random)
    known = truth(tmp_path, drawn)
    expected = score(found, known)
    precisions = bootstrap.each_once(matches(known, found))
    numbers = bootstrap.coco_numbers(precisions)
    assert expected.mAP > 0.05
    for name in NAMES:
        assert numbers[name][0] == pytest.approx(expected.metrics[name], abs=1e-9), name
    assert bootstrap.per_class(precisions) == pytest.approx(list(expected.per_class.values()), abs=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_an_image_that_counts_thrice_is_as_good_as_three_copies_of_it(tmp_path: Path, seed: int) -> None:
    random = np.random.default_rng(seed)
    drawn = scene(random)
    found = detections(drawn, random)
    times = bootstrap.draw_resamples(IMAGES, count=4, seed=seed)
    ours = bootstrap.coco_numbers(bootstrap.average_precisions(matches(truth(tmp_path, drawn), found), times))
    for number, counts in enumerate(times):
        assert counts.max() > 1 and counts.min() == 0
        copied, rows = copies(drawn, found, counts)
        expected = score(rows, truth(tmp_path, copied)).metrics
        for name in NAMES:
            value = None if np.isnan(ours[name][number]) else ours[name][number]
            assert value == pytest.approx(expected[name], abs=1e-9), name


def test_a_class_nobody_drew_is_left_out(tmp_path: Path) -> None:
    """Image 1 alone has class b, and nothing of it is found: drawn, it halves the mean."""
    box = {"bbox": [10, 10, 50, 50], "area": 2500, "iscrowd": 0}
    drawn = scene(np.random.default_rng(0)) | {
        "annotations": [
            box | {"id": 1, "image_id": 1, "category_id": 2},
            box | {"id": 2, "image_id": 2, "category_id": 1},
        ]
    }
    found = np.array([[2, 10, 10, 50, 50, 0.9, 0]], float)
    times = np.zeros((2, IMAGES), int)
    times[0, :2] = times[1, 1] = 1
    values = bootstrap.coco_numbers(bootstrap.average_precisions(matches(truth(tmp_path, drawn), found), times))[
        "bbox_mAP"
    ]
    assert values == pytest.approx([0.5, 1.0])


def test_no_detections_are_zero_and_no_objects_are_no_number(tmp_path: Path) -> None:
    drawn = scene(np.random.default_rng(0))
    numbers = bootstrap.coco_numbers(bootstrap.each_once(matches(truth(tmp_path, drawn), np.zeros((0, 7)))))
    assert numbers["bbox_mAP"][0] == 0.0
    nothing = drawn | {"annotations": []}
    numbers = bootstrap.coco_numbers(bootstrap.each_once(matches(truth(tmp_path, nothing), np.zeros((0, 7)))))
    assert np.isnan(numbers["bbox_mAP"][0]) and bootstrap.interval(numbers["bbox_mAP"]) is None


def test_the_same_draws_every_time_and_each_of_as_many_images() -> None:
    times = bootstrap.draw_resamples(7, count=20)
    assert (times.sum(axis=1) == 7).all() and (times == bootstrap.draw_resamples(7, count=20)).all()


def test_the_interval_leaves_a_fortieth_on_either_side() -> None:
    found = bootstrap.interval(np.append(np.arange(1001.0), np.nan))
    assert found is not None and (found.low, found.high) == pytest.approx((25.0, 975.0))
