import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from frs.dataset.coco import CocoFile, read
from frs.evaluation.coco_scores import NAMES, score

BOXES = [(1, [10, 10, 20, 20], 7), (1, [40, 40, 50, 50], 3), (2, [5, 5, 100, 100], 7)]
"""Image, box and category of a small, a medium and a large object."""


def truth(folder: Path, boxes: list[Any] = BOXES) -> CocoFile:
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 120, "height": 120} for i in (1, 2)],
        "categories": [{"id": 7, "name": "later"}, {"id": 3, "name": "first"}],
        "annotations": [
            {"id": i, "image_id": image, "category_id": category, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
            for i, (image, box, category) in enumerate(boxes, 1)
        ],
    }
    (folder / "truth.json").write_text(json.dumps(content))
    return read(folder / "truth.json")


def rows_of(*rows: tuple[int, list[float], float, int]) -> NDArray[np.float64]:
    """Return (image, box, score, label) as rows of detections."""
    return np.array([[image, *box, score, label] for image, box, score, label in rows]).reshape(-1, 7)


def perfect() -> NDArray[np.float64]:
    return rows_of(*((image, box, 0.9, {3: 0, 7: 1}[category]) for image, box, category in BOXES))


def test_labels_index_the_categories_by_ascending_id(tmp_path: Path) -> None:
    scores = score(perfect(), truth(tmp_path))
    assert scores.metrics == dict.fromkeys(NAMES, pytest.approx(1.0))
    assert scores.per_class == {"first": pytest.approx(1.0), "later": pytest.approx(1.0)}


def test_no_detections_score_zero(tmp_path: Path) -> None:
    scores = score(rows_of(), truth(tmp_path))
    assert scores.metrics == dict.fromkeys(NAMES, 0.0)
    assert (scores.images, scores.detections) == (2, 0)


def test_a_size_without_objects_is_null(tmp_path: Path) -> None:
    scores = score(perfect()[:1], truth(tmp_path, BOXES[:1]))
    assert scores.metrics["bbox_mAP_s"] == pytest.approx(1.0)
    assert scores.metrics["bbox_mAP_l"] is None
    assert scores.per_class["first"] is None


@pytest.mark.parametrize("ids", [(0, 1, 2), (-1, 0, 5), (4, 4, 4)])
def test_annotation_ids_do_not_matter(tmp_path: Path, ids: tuple[int, ...]) -> None:
    truth(tmp_path)
    content = json.loads((tmp_path / "truth.json").read_text())
    for annotation, identity in zip(content["annotations"], ids, strict=True):
        annotation["id"] = identity
    (tmp_path / "truth.json").write_text(json.dumps(content))
    assert score(perfect(), read(tmp_path / "truth.json")).metrics == dict.fromkeys(NAMES, pytest.approx(1.0))


def test_the_evaluation_can_be_limited_to_some_images(tmp_path: Path) -> None:
    scores = score(perfect()[:2], truth(tmp_path), images=[1])
    assert (scores.images, scores.mAP) == (1, pytest.approx(1.0))


REFERENCE = """
import json, sys
import numpy as np
import pycocotools._mask  # the compiled module exists only in pycocotools itself
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

truth = COCO(sys.argv[1])
reference = COCOeval(truth, truth.loadRes(np.load(sys.argv[2])), "bbox")
reference.evaluate()
reference.accumulate()
reference.summarize()
print(json.dumps(list(reference.stats[:6])))
"""


def test_the_six_metrics_equal_those_of_pycocotools(tmp_path: Path) -> None:
    """Run pycocotools in another process: in this one, faster-coco-eval is imported under that name."""
    random = np.random.default_rng(0)
    noisy = np.repeat(perfect(), 4, axis=0)
    noisy[:, 1:5] += random.normal(0, 3, (len(noisy), 4))
    noisy[:, 5] = random.random(len(noisy))
    scores = score(noisy, truth(tmp_path))
    rows = noisy.copy()
    rows[:, 6] = np.array([3, 7])[noisy[:, 6].astype(int)]
    np.save(tmp_path / "rows.npy", rows)
    command = [sys.executable, "-c", REFERENCE, str(tmp_path / "truth.json"), str(tmp_path / "rows.npy")]
    reference = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
    assert 0 < reference[0] < 1
    assert list(scores.metrics.values()) == pytest.approx(reference, abs=1e-12)
