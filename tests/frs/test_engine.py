import base64
import io
import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tiny import ARCHITECTURES, Train, described, job, of

from frs import events
from frs.dataset.shapes.drawing import draw_dataset
from frs.detectors import weights
from frs.distillation import losses
from frs.distillation.methods import DISTANCES
from frs.engine import stages
from frs.errors import (
    BadDataset,
    CheckpointUnusable,
    ClassMismatch,
    DeviceUnavailable,
    Diverged,
    InvalidSpec,
    PrecisionUnsupported,
    TeacherNotCompetent,
    WeightsNotFound,
)
from frs.evaluation import detections
from frs.resolved import resolve
from frs.spec import JobSpec
from frs.training.stop_request import Interrupted, StopRequest

STEPS_PER_EPOCH = 4  # 14 images, 4 a batch
NOT_COMPARED = ("train/images_per_second", "train/memory_mb")


def series(emitted: list[events.Event]) -> dict[str, list[int]]:
    """Return the steps at which each metric was emitted, in order."""
    steps: dict[str, list[int]] = {}
    for event in of(events.Metrics, emitted):
        for key in event.values:
            steps.setdefault(key, []).append(event.step)
    return steps


def values(emitted: list[events.Event]) -> dict[tuple[int, str], Any]:
    """Return all metrics except rates and memory; a later event of a step replaces an earlier one."""
    return {
        (event.step, key): value
        for event in of(events.Metrics, emitted)
        for key, value in event.values.items()
        if key not in NOT_COMPARED
    }


def facts(emitted: list[events.Event]) -> dict[str, Any]:
    return {key: value for event in of(events.Facts, emitted) for key, value in event.values.items()}


def newest_checkpoint(workdir: Path) -> dict[str, Any]:
    """Return the newest checkpoint without the time that the run took."""
    content = weights.read(sorted((workdir / "checkpoints").glob("*.pth"))[-1])
    del content["memory"]["seconds"]
    return content


def assert_equal(one: Any, two: Any, where: str = "") -> None:
    """Assert that nested values and tensors are equal; `where` is their path."""
    assert type(one) is type(two), where
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, two), where
    elif isinstance(one, dict):
        assert one.keys() == two.keys(), where
        for key in one:
            assert_equal(one[key], two[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(two), where
        for position, pair in enumerate(zip(one, two, strict=True)):
            assert_equal(*pair, f"{where}[{position}]")
    else:
        assert one == two, where


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_distils_and_emits_every_step(train: Train, architecture: str) -> None:
    emitted = train(job(teacher=described(architecture, neck_channels=32), student=described(architecture)))
    every_step = list(range(1, 2 * STEPS_PER_EPOCH + 1))
    emitted_steps = series(emitted)
    losses = {"train/loss", "train/loss_cls", "train/loss_bbox", "train/distill_feature", "train/distill_logit"}
    for key in losses | {"train/lr", "train/images_per_second", "train/memory_mb"}:
        assert emitted_steps[key] == every_step, key
    for key in ("bbox_mAP", "bbox_mAP_50", "bbox_mAP_75", "bbox_mAP_s", "bbox_mAP_m", "bbox_mAP_l"):
        assert emitted_steps[f"val/{key}"] == [STEPS_PER_EPOCH, 2 * STEPS_PER_EPOCH]
    assert [(e.role, e.last) for e in of(events.Evaluation, emitted)] == [
        ("teacher", True),
        ("student", False),
        ("student", True),
    ]


def test_a_teacher_of_another_architecture_needs_only_common_features(train: Train) -> None:
    emitted = train(job(student=described("faster_rcnn"), distillation={"logit_weight": 0}))
    assert "train/distill_feature" in series(emitted) and "train/distill_logit" not in series(emitted)


def test_auto_weights_are_calibrated_emitted_and_saved(train: Train, tmp_path: Path) -> None:
    emitted = train(job(distillation={"feature_weight": "auto", "logit_weight": "auto"}))
    chosen = facts(emitted)["weights"]
    assert chosen["feature"] > 0 and chosen["logit"] > 0
    assert newest_checkpoint(tmp_path / "run")["memory"]["weights"] == chosen


def test_paper_weights_are_those_of_the_paper(train: Train) -> None:
    emitted = train(job(distillation={"feature_weight": "paper", "logit_weight": "paper"}, schedule={"max_steps": 1}))
    assert facts(emitted)["weights"] == {"feature": 0.1, "logit": 0.05, "ramp_from": 0, "calibrated_at": 0}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    "stops", [(3, 6), pytest.param((1, STEPS_PER_EPOCH), marks=pytest.mark.slow)], ids=["within an epoch", "at an end"]
)
def test_a_resumed_run_equals_an_uninterrupted_one(
    train: Train, tmp_path: Path, stops: tuple[int, ...], workers: int
) -> None:
    spec = job(distillation={"feature_weight": "auto", "logit_weight": "auto"}, resources={"loader_workers": workers})
    uninterrupted = train(spec, tmp_path / "whole")
    for stop_at in stops:
        parts = tmp_path / f"stopped-at-{stop_at}"
        with pytest.raises(Interrupted):
            train(spec, parts, stop_at=stop_at)
        resumed = train(spec, parts)
        assert of(events.Rewound, resumed)[0].to_step == stop_at
        remaining = {key: value for key, value in values(uninterrupted).items() if key[0] > stop_at}
        assert {key: value for key, value in values(resumed).items() if key[0] > stop_at} == remaining
        assert_equal(newest_checkpoint(tmp_path / "whole"), newest_checkpoint(parts))
        assert facts(resumed)["weights"] == facts(uninterrupted)["weights"]


def test_faster_rcnn_resumes_its_random_sampling(train: Train, tmp_path: Path) -> None:
    spec = job(teacher=described("faster_rcnn", neck_channels=32), student=described("faster_rcnn"))
    train(spec, tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(spec, tmp_path / "parts", stop_at=3)
    train(spec, tmp_path / "parts")
    assert_equal(newest_checkpoint(tmp_path / "whole"), newest_checkpoint(tmp_path / "parts"))


def test_a_run_interrupted_at_the_end_of_an_epoch_still_evaluates_it(train: Train, tmp_path: Path) -> None:
    spec = job()
    with pytest.raises(Interrupted):
        train(spec, stop_at=STEPS_PER_EPOCH)
    assert series(train(spec))["val/bbox_mAP"] == [STEPS_PER_EPOCH, 2 * STEPS_PER_EPOCH]


def test_a_run_interrupted_while_it_resumes_ends_before_its_next_step(
    train: Train, data: Path, models: Path, tmp_path: Path
) -> None:
    with pytest.raises(Interrupted):
        train(job(), stop_at=3)
    emitted: list[events.Event] = []
    stop = StopRequest()
    stop.request()
    with pytest.raises(Interrupted):
        stages.run(resolve(JobSpec.model_validate(job()), data, models), tmp_path / "run", emitted.append, stop)
    assert [event.to_step for event in of(events.Rewound, emitted)] == [3] and not of(events.Metrics, emitted)


def test_checkpoints_are_written_every_n_steps_and_two_are_kept(train: Train, tmp_path: Path) -> None:
    emitted = train(job(schedule={"checkpoint_every": 3}))
    assert [e.step for e in of(events.Checkpoint, emitted) if e.kind == "training"] == [3, 4, 6, 8]
    kept = sorted((tmp_path / "run" / "checkpoints").iterdir())
    assert [path.name[:13] for path in kept] == ["step_00000006", "step_00000008"]
    for event in of(events.Checkpoint, emitted)[-2:]:
        assert weights.digest(tmp_path / "run" / event.path) == event.sha256


def test_a_work_folder_of_another_spec_is_rejected(train: Train) -> None:
    train(job(schedule={"max_steps": 1}))
    with pytest.raises(CheckpointUnusable):
        train(job(schedule={"max_steps": 2}))


def test_training_without_a_teacher_trains_the_student_itself(train: Train, tmp_path: Path) -> None:
    emitted = train(job(kind="train", teacher=None))
    assert not any("distill" in key for key in series(emitted))
    assert all(not key.startswith("student.") for key in newest_checkpoint(tmp_path / "run")["model"])


def test_kind_evaluate_evaluates_the_student(train: Train) -> None:
    emitted = train(
        job(kind="evaluate", teacher=None, student=described(neck_channels=32, init={"weights": "teacher.pth"}))
    )
    [evaluation] = of(events.Evaluation, emitted)
    assert (evaluation.role, evaluation.last, evaluation.images) == ("student", True, 4)


def test_detections_are_saved_and_the_richness_is_drawn(train: Train, tmp_path: Path) -> None:
    emitted = train(job(schedule={"epochs": 1}), pictures=True)
    names = [artifact.name for artifact in of(events.Artifact, emitted)]
    assert names[0] == "detections-teacher.npz", "the teacher is evaluated before the first checkpoint"
    assert {"detections-student.npz", "richness.png", "richness.json"} <= set(names)
    for image in json.loads((tmp_path / "run" / "richness.json").read_text())["images"]:
        with Image.open(io.BytesIO(base64.b64decode(image["jpeg"]))) as picture:
            assert picture.size == (image["width"], image["height"])
        for level in image["levels"]:
            assert len(base64.b64decode(level["values"])) == level["rows"] * level["columns"]
            assert level["rows"] * level["stride"] >= image["height"]
    for role in ("teacher", "student"):
        [evaluation] = [event for event in of(events.Evaluation, emitted) if event.role == role and event.last]
        saved = detections.read(tmp_path / "run" / f"detections-{role}.npz")
        assert (len(saved.rows), len(saved.images)) == (evaluation.detections, evaluation.images)


def test_a_baseline_starts_from_the_distilled_students_weights(train: Train, tmp_path: Path) -> None:
    student = described()
    train(job(student=student, schedule={"max_steps": 1}), tmp_path / "a")
    train(job(kind="train", teacher=None, student=student, schedule={"max_steps": 1}), tmp_path / "b")
    # the ramp starts at 0, so the first step is the same as without distillation
    distilled = newest_checkpoint(tmp_path / "a")["model"]
    baseline = newest_checkpoint(tmp_path / "b")["model"]
    for name, tensor in baseline.items():
        assert torch.equal(tensor, distilled[f"student.{name}"]), name


def test_an_incompetent_teacher_is_rejected_before_training(train: Train, tmp_path: Path) -> None:
    with pytest.raises(TeacherNotCompetent, match="accept_weak_teacher"):
        train(job(distillation={"accept_weak_teacher": False}))
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_weights_with_other_classes_are_rejected(train: Train, models: Path) -> None:
    content = weights.read(models / "teacher.pth")
    content["meta"]["dataset_meta"]["classes"] = ("circle", "square", "triangle", "moon")
    weights.write(content, models / "moon.pth")
    with pytest.raises(ClassMismatch, match="lacks 'star'"):
        train(job(teacher=described(neck_channels=32, init={"weights": "moon.pth"})))


def test_a_missing_image_is_an_error_with_its_name(train: Train, data: Path) -> None:
    shutil.copytree(data / "tiny", data / "partial", dirs_exist_ok=True)
    image = sorted((data / "partial" / "train").iterdir())[3]
    image.unlink()
    with pytest.raises(BadDataset, match=image.name):
        train(job(dataset="partial"))
    emitted = train(job(dataset="partial", max_invalid_fraction=0.1, schedule={"max_steps": 1}))
    assert any(image.name in log.message for log in of(events.Log, emitted))


def test_different_classes_in_the_splits_are_rejected(train: Train, data: Path) -> None:
    shutil.copytree(data / "tiny", data / "renamed", dirs_exist_ok=True)
    annotations = data / "renamed" / "annotations" / "instances_val.json"
    content = json.loads(annotations.read_text())
    content["categories"][0]["name"] = "disc"
    annotations.write_text(json.dumps(content))
    with pytest.raises(ClassMismatch, match="disc"):
        train(job(dataset="renamed"))


def test_labels_follow_the_ascending_category_id_not_the_files_order(train: Train, data: Path, tmp_path: Path) -> None:
    shutil.copytree(data / "tiny", data / "shuffled", dirs_exist_ok=True)
    for split in ("train", "val"):
        annotations = data / "shuffled" / "annotations" / f"instances_{split}.json"
        content = json.loads(annotations.read_text())
        content["categories"].reverse()
        annotations.write_text(json.dumps(content))
    spec = job(kind="train", teacher=None)
    expected = values(train(spec, tmp_path / "a"))
    assert values(train(spec | {"dataset": "shuffled"}, tmp_path / "b")) == expected


def test_a_term_that_is_not_finite_stops_the_run_at_that_step_and_is_named(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = itertools.count()

    def not_finite_at_step_3(*tensors: torch.Tensor) -> torch.Tensor:
        # five levels per step, after three probe steps
        return losses.squared_error(*tensors) * (float("nan") if next(calls) == 5 * (3 + 2) else 1)

    monkeypatch.setitem(DISTANCES, "squared", not_finite_at_step_3)
    with pytest.raises(Diverged, match="distill_feature became nan at step 3"):
        train(job(method="feature", distillation={"logit_weight": "auto"}))


def test_fp16_needs_a_gpu(train: Train) -> None:
    with pytest.raises(PrecisionUnsupported):
        train(job(schedule={"precision": "fp16"}, resources={"devices": 0}))


def test_bf16_trains_on_the_cpu(train: Train) -> None:
    emitted = train(job(schedule={"precision": "bf16", "max_steps": 2}, resources={"devices": 0}))
    assert facts(emitted)["precision"] == "bf16"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_an_error(train: Train) -> None:
    with pytest.raises(DeviceUnavailable):
        train(job(resources={"devices": 1}))


def test_an_unknown_config_is_rejected_with_similar_names(train: Train) -> None:
    with pytest.raises(InvalidSpec, match="gfl_r50_fpn_1x_coco.py"):
        train(job(student={"config": "mmdet::gfl/gfl_r50_fpn_1xcoco.py", "init": "random"}))


def test_missing_imagenet_weights_are_an_error(train: Train) -> None:
    with pytest.raises(WeightsNotFound, match="resnet50-"):
        train(job(student={"config": "mmdet::gfl/gfl_r50_fpn_1x_coco.py"}))


def test_an_image_with_an_invalid_box_can_be_excluded(train: Train, data: Path) -> None:
    draw_dataset(data / "boxed", train=6, val=4, size=96)
    annotations = data / "boxed" / "annotations" / "instances_train.json"
    content = json.loads(annotations.read_text())
    content["annotations"][0]["bbox"][2] = 0
    annotations.write_text(json.dumps(content))
    with pytest.raises(BadDataset, match=r"box 1 .*is empty"):
        train(job(dataset="boxed"))
    emitted = train(job(dataset="boxed", max_invalid_fraction=0.2, schedule={"max_steps": 1}))
    assert facts(emitted)["training_images"] == 5
