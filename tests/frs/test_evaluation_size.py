"""A detector is evaluated at the image size that it was trained at, unless the spec has another; the report has it."""

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from mmengine.hub import get_config
from test_engine import facts
from test_plan import planned as planned
from tiny import Train, described, job, of

from frs import events
from frs.cli import report_text
from frs.detectors import weights
from frs.errors import TeacherNotCompetent
from frs.evaluation import report
from frs.facts import RunFacts
from frs.preflight import setup

MMDET_2 = """
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='MultiScaleFlipAug',
        img_scale=(1000, 600),
        flip=False,
        transforms=[dict(type='Resize', keep_ratio=True), dict(type='RandomFlip')])
]
data = dict(train=dict(pipeline=[dict(type='Resize', img_scale=(1333, 800))]))
"""
WITHOUT_SCALE = """
test_pipeline = [
    dict(type='LoadImageFromFile'),
]
train_pipeline = [
    dict(scale=(640, 640), type='Resize'),
]
"""


@pytest.mark.parametrize(
    ("meta", "expected"),
    [
        ({"image_size": (96, 64)}, (96, 64)),
        ({"image_size": [1333, 800], "cfg": MMDET_2}, (1333, 800)),
        ({"config": MMDET_2}, (1000, 600)),
        ({"cfg": "test_pipeline = [dict(type='Resize', scale=(512, 512))]\nx = 1\n"}, (512, 512)),
        ({"cfg": WITHOUT_SCALE}, None),
        ({"cfg": "train_pipeline = [dict(type='Resize', scale=(512, 512))]\n"}, None),
        ({"cfg": "test_pipeline = [dict(type='Resize', scale=(99999, 512))]\n"}, None),
        ({"cfg": b"test_pipeline"}, None),
        ({"image_size": (96.0, 64)}, None),
        ({"image_size": (True, 64)}, None),
        ({"image_size": (8, 64)}, None),
        ({"image_size": "96"}, None),
        ({"image_size": (96, 64, 3)}, None),
        ({}, None),
    ],
)
def test_the_size_is_read_from_the_file_s_own_entry_or_the_test_pipeline_of_its_config(
    meta: dict[str, Any], expected: tuple[int, int] | None
) -> None:
    assert weights.image_size_of({"meta": meta}) == expected


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("mmdet::yolox/yolox_s_8xb8-300e_coco.py", (640, 640)),
        ("mmdet::gfl/gfl_r50_fpn_1x_coco.py", (1333, 800)),
        ("mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py", (640, 640)),
        ("mmdet::ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco.py", (320, 320)),
        ("mmdet::efficientnet/retinanet_effb3_fpn_8xb4-crop896-1x_coco.py", (896, 896)),
    ],
)
def test_the_size_is_read_from_the_config_that_mmengine_saves_in_its_checkpoints(
    config: str, expected: tuple[int, int]
) -> None:
    assert weights.image_size_of({"meta": {"cfg": get_config(config).pretty_text}}) == expected


def test_a_size_that_is_not_json_is_ignored_in_a_safetensors_file(tmp_path: Path) -> None:
    metadata = {"image_size": "large", "classes": json.dumps(["cat"])}
    safetensors.torch.save_file({"a.weight": torch.zeros(2)}, tmp_path / "a", metadata)
    content = weights.read(tmp_path / "a")
    assert weights.image_size_of(content) is None and weights.classes_of(content) == ("cat",)


def teacher_of_size(models: Path, size: tuple[int, int] | None) -> dict[str, Any]:
    """Return a detector whose weights file has this size."""
    content = weights.read(models / "teacher.pth")
    weights.write(content | {"meta": content["meta"] | {"image_size": size}}, models / "sized.pth")
    return described(neck_channels=32, init={"weights": "sized.pth"})


@pytest.mark.parametrize(
    ("trained", "requested", "expected"),
    [
        ((64, 64), None, [64, 64]),
        ((160, 96), None, [160, 96]),
        ((64, 64), [128, 96], [128, 96]),
        (None, [128, 96], [128, 96]),
        (None, None, [1333, 800]),
    ],
)
def test_an_evaluation_uses_the_size_of_the_training_unless_the_spec_has_one(
    train: Train, models: Path, trained: tuple[int, int] | None, requested: list[int] | None, expected: list[int]
) -> None:
    student = teacher_of_size(models, trained)
    emitted = train(job(kind="evaluate", teacher=None, student=student, schedule={"image_size": requested}))
    assert facts(emitted)["student_image_size"] == expected
    assert any(f"{expected[0]} x {expected[1]}" in log.message for log in of(events.Log, emitted))


def test_a_delivered_student_is_evaluated_at_the_size_of_its_training(
    train: Train, models: Path, tmp_path: Path
) -> None:
    emitted = train(job(kind="train", teacher=None, schedule={"max_steps": 1, "image_size": [128, 96]}))
    assert facts(emitted)["student_image_size"] == [128, 96]
    expected = of(events.Evaluation, emitted)[-1]
    [checkpoint] = [event for event in of(events.Checkpoint, emitted) if event.kind == "student"]
    delivered = tmp_path / "run" / checkpoint.path
    (models / "delivered.pth").write_bytes(delivered.read_bytes())
    (models / "delivered.safetensors").write_bytes(delivered.with_suffix(".safetensors").read_bytes())
    for name in ("delivered.pth", "delivered.safetensors"):
        spec = job(kind="evaluate", teacher=None, student=described(init={"weights": name}))
        evaluated = train(spec | {"schedule": {}}, tmp_path / name)
        assert facts(evaluated)["student_image_size"] == [128, 96]
        assert of(events.Evaluation, evaluated)[-1].metrics == expected.metrics


@pytest.mark.parametrize(
    ("trained", "hint"),
    [
        ((64, 64), "It was trained at 64 x 64: set `schedule.image_size: [64, 64]`. "),
        ((1333, 800), "It was trained at 1333 x 800: set `schedule.image_size: [1333, 800]`. "),
        ((96, 96), ""),
        (None, "If it was not trained at 96 x 96, set `schedule.image_size` to its size. "),
    ],
)
def test_a_teacher_that_fails_at_another_size_than_its_own_gets_a_hint(
    train: Train, models: Path, trained: tuple[int, int] | None, hint: str | None
) -> None:
    with pytest.raises(TeacherNotCompetent, match="validation images at 96 x 96") as raised:
        train(job(teacher=teacher_of_size(models, trained), distillation={"accept_weak_teacher": False}))
    assert raised.value.hint == f"{hint}{TeacherNotCompetent.hint_by_default}"


def test_a_teacher_is_checked_at_its_own_size_with_a_warning_if_the_job_trains_at_another(
    planned: Any, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup, "MIN_TEACHER_MAP", 0.0)
    schedule = {"image_size": None, "train_sizes": [[96, 96]], "batch_size": 1, "max_steps": 1}
    estimate = planned(teacher=teacher_of_size(models, (96, 64)), schedule=schedule)
    [check] = [check for check in estimate.checks if check.code == "teacher_mAP"]
    assert check.level == "warning" and "images at 96 x 64, at which it was trained" in check.message
    assert "at 1333 x 800. To train at the teacher's size, set `schedule.image_size: [96, 64]`" in check.message


def test_the_report_has_the_sizes_of_the_evaluations() -> None:
    scores = report.Scores(metrics=dict.fromkeys(report.NAMES, 0.5), per_class={})
    run_facts = RunFacts(teacher_image_size=(1333, 800), student_image_size=(640, 640))
    result = report.build([scores], scores, [], pairs=0, expects_teacher=True, facts=run_facts)
    assert "evaluated at: teacher 1333 x 800, student 640 x 640" in report_text.conclusion(result)
    assert json.loads(result.model_dump_json())["facts"]["teacher_image_size"] == [1333, 800]
