"""`evaluation.max_detections` moves detectors, scores, matching and the delivered config together."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.registry import METRICS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from numpy.typing import NDArray
from pydantic import ValidationError
from test_engine import facts
from tiny import ARCHITECTURES, Train, described, job, of

from frs import events
from frs.dataset.check import check_split
from frs.dataset.coco import CocoFile, read
from frs.dataset.report import describe_crowded
from frs.detector_spec import ConfigDetector, DescribedDetector
from frs.detectors import builder
from frs.detectors.weights import SavedFile
from frs.engine.student_files import StudentWriter
from frs.evaluation import bootstrap, matching
from frs.evaluation.coco_scores import NAMES, score
from frs.resolved import SplitFiles
from frs.spec import JobSpec, baseline_of, comparison_of
from frs.training import batches

OBJECTS = 150


def crowded(folder: Path, counts: tuple[int, ...] = (OBJECTS,), **changes: Any) -> Path:
    """Write an annotation file with one image for each number of objects in `counts`, all in rows of 50."""
    boxes = [(image, i) for image, count in enumerate(counts, 1) for i in range(count)]
    content = {
        "images": [{"id": n, "file_name": f"{n}.png", "width": 500, "height": 500} for n in range(1, len(counts) + 1)],
        "categories": [{"id": 1, "name": "cell"}],
        "annotations": [
            {"id": n, "image_id": image, "category_id": 1, "bbox": [10 * (i % 50), 10 * (i // 50), 9, 9]} | changes
            for n, (image, i) in enumerate(boxes, 1)
        ],
    }
    file = folder / "crowded.json"
    file.write_text(json.dumps(content))
    return file


def perfect_detections(truth: CocoFile) -> NDArray[np.float64]:
    ids = np.array([image.id for image in truth.images])[truth.boxes.image]
    scores = np.linspace(0.9, 0.3, len(ids))
    return np.column_stack([ids, truth.boxes.xywh, scores, truth.boxes.label])


@pytest.mark.parametrize("value", [0, -1, 3001, True, 99.5, "many", None])
def test_a_limit_that_is_no_number_from_1_to_3000_is_invalid(value: Any) -> None:
    with pytest.raises(ValidationError, match="max_detections"):
        JobSpec.model_validate(job(evaluation={"max_detections": value}))


def test_baseline_and_comparison_have_the_limit_of_the_student() -> None:
    spec = JobSpec.model_validate(job(evaluation={"max_detections": 300}, baseline=True))
    assert [part.evaluation.max_detections for part in (baseline_of(spec), comparison_of(spec))] == [300, 300]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("limit", [20, 300, 1000])
def test_a_detector_returns_the_limit_and_keeps_candidates_in_proportion(architecture: str, limit: int) -> None:
    test_cfg = builder.model_config(DescribedDetector.model_validate(described(architecture)), 3, limit).test_cfg
    candidates = 1000 * max(1, limit // 100)
    match architecture:
        case "faster_rcnn":
            assert (test_cfg.rpn.nms_pre, test_cfg.rpn.max_per_img) == (candidates, candidates)
            assert test_cfg.rcnn.max_per_img == limit
        case "yolox":  # it has no limit on candidates
            assert test_cfg.nms.max_num == limit
        case "rtmdet":
            assert (test_cfg.nms_pre, test_cfg.max_per_img) == (30_000 * max(1, limit / 300), limit)
        case _:
            assert (test_cfg.nms_pre, test_cfg.max_per_img) == (candidates, limit)


@pytest.mark.parametrize(("limit", "expected"), [(100, (30_000, 300)), (200, (30_000, 200)), (600, (60_000, 600))])
def test_a_base_config_that_returns_more_keeps_its_number_by_default(limit: int, expected: tuple[int, int]) -> None:
    description = ConfigDetector(config="mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py", init="random")
    test_cfg = builder.model_config(description, 3, limit).test_cfg
    assert (test_cfg.nms_pre, test_cfg.max_per_img) == expected


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("limit", [7, 150])
def test_a_built_detector_returns_that_many_detections(architecture: str, limit: int) -> None:
    torch.manual_seed(0)
    detector = builder.build(DescribedDetector.model_validate(described(architecture)), 3, Path(), limit).eval()
    part = detector.roi_head if architecture == "faster_rcnn" else detector.bbox_head
    part.test_cfg.update(score_thr=0.0, min_bbox_size=-1)  # untrained boxes may be empty
    part.test_cfg.nms.iou_threshold = 1.0
    shape = {"img_shape": (128, 128), "ori_shape": (128, 128), "scale_factor": (1.0, 1.0)}
    with torch.no_grad():
        image = {"inputs": [torch.zeros(3, 128, 128)], "data_samples": [DetDataSample(metainfo=shape)]}
        [sample] = detector.test_step(image)
    assert len(sample.pred_instances) == limit


@pytest.mark.parametrize("limit", [1, 5, 50, 100, 149, 150, 300, 3000])
def test_scores_and_matching_count_up_to_the_limit(tmp_path: Path, limit: int) -> None:
    truth = read(crowded(tmp_path))
    rows = perfect_detections(truth)
    scores = score(rows, truth, max_detections=limit)
    recalls = np.linspace(0, 1, 101)
    assert scores.mAP == pytest.approx((recalls <= min(limit, OBJECTS) / OBJECTS + 1e-9).mean())
    assert scores.per_class == {"cell": pytest.approx(scores.mAP)}
    matches = matching.match(truth, rows, np.array([1]), lambda done, total: None, limit)
    metrics = bootstrap.coco_metrics(bootstrap.point_estimate(matches))
    for name in NAMES:
        expected = scores.metrics[name]
        assert metrics[name][0] == pytest.approx(np.nan if expected is None else expected, nan_ok=True), name


@pytest.mark.parametrize("limit", [5, 50, 100, 150, 300])
def test_the_metric_of_the_delivered_config_has_the_same_map(tmp_path: Path, limit: int) -> None:
    file = crowded(tmp_path)
    truth, files = read(file), SplitFiles(images=tmp_path / "val", annotations=file)
    model = builder.model_config(DescribedDetector.model_validate(described()), 1, limit)
    writer = StudentWriter(tmp_path, "student", model, truth.classes, batches.test_pipeline((500, 500)), limit)
    weights = SavedFile(tmp_path / "student.pth", sha256="", bytes=0)
    config = Config.fromfile(writer.config(weights, files).path)
    assert config.model.test_cfg.max_per_img == limit
    metric = METRICS.build(config.test_evaluator | {"ann_file": str(file)})
    metric.dataset_meta = config.metainfo
    rows = perfect_detections(truth)[: max(limit, 100)]  # as the detector returns them; CocoMetric counts 100
    boxes = torch.tensor(rows[:, 1:5])
    boxes[:, 2:] += boxes[:, :2]
    predictions = {"bboxes": boxes, "scores": torch.tensor(rows[:, 5]), "labels": torch.zeros(len(rows), dtype=int)}
    metric.process([], [{"img_id": 1, "ori_shape": (500, 500), "pred_instances": predictions}])
    expected = score(rows, truth, max_detections=limit)
    values = metric.evaluate(1)
    assert values["coco/bbox_mAP"] == pytest.approx(expected.mAP, abs=1e-3)
    assert values["coco/bbox_mAP_50"] == pytest.approx(expected.metrics["bbox_mAP_50"], abs=1e-3)


def test_student_teacher_report_and_delivered_config_have_the_limit_of_the_spec(train: Train, tmp_path: Path) -> None:
    emitted = train(job(evaluation={"max_detections": 300}, schedule={"max_steps": 1}))
    [config] = [event for event in of(events.Artifact, emitted) if event.name == "student-config.py"]
    delivered = Config.fromfile(tmp_path / "run" / config.path)
    assert (delivered.model.test_cfg.max_per_img, delivered.test_evaluator.proposal_nums) == (300, [1, 10, 300])
    assert facts(emitted)["max_detections"] == 300


@pytest.mark.parametrize(
    ("counts", "changes", "warning"),
    [
        ((100, 3), {}, ""),
        ((101,), {}, "1 image has more than 100 objects, up to 101:"),
        ((150, 250, 100), {}, "2 images have more than 100 objects, up to 250:"),
        ((150,), {"iscrowd": 1}, ""),
        ((150,), {"ignore": 1}, ""),
        ((0, 1, 1200), {}, "1 image has more than 100 objects, up to 1,200:"),
    ],
)
def test_the_check_counts_images_with_more_objects_than_detections(
    tmp_path: Path, counts: tuple[int, ...], changes: dict[str, Any], warning: str
) -> None:
    report = check_split(tmp_path, crowded(tmp_path, counts, **changes), read_images=False)
    notes = [note for note in report.notes if "max_detections" in note]
    assert [note[: len(warning)] for note in notes] == ([warning] if warning else [])


@pytest.mark.parametrize(("limit", "warned"), [(100, True), (149, True), (150, False), (3000, False)])
def test_a_job_whose_limit_is_lower_than_its_validation_images_need_is_warned(
    tmp_path: Path, limit: int, warned: bool
) -> None:
    report = check_split(tmp_path, crowded(tmp_path), read_images=False)
    assert bool(describe_crowded(report, limit)) is warned
