"""Kind `quantize`: a student that trains rounded as its INT8 file will be."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from test_distiller import batch, detector
from tiny import SAMPLED_ARCHITECTURES, Killed, Train, described, job, of
from torch import Tensor
from torch.utils._pytree import tree_leaves

from frs import events
from frs.detector_spec import DescribedDetector
from frs.detectors import builder, weights
from frs.detectors.heads import dense_head
from frs.detectors.loading import load_detector
from frs.distillation.builder import build_distiller
from frs.distillation.teacher import Teacher
from frs.engine import stages
from frs.errors import ClassMismatch, ExportUnsupported
from frs.resolved import ResolvedDetector
from frs.schedule_spec import Optimizer, Schedule
from frs.spec import JobSpec
from frs.training.fake_quantisation import FakeQuantiser
from frs.training.schedule import ResolvedSchedule

STUDENT = described(neck_channels=32, init={"weights": "teacher.pth"})
"""The detector of the models folder, which has weights of the data set's classes."""


def quantize(**changes: Any) -> dict[str, Any]:
    """Return a spec that fine-tunes that detector for 2 epochs of 4 steps."""
    fields = job(kind="quantize", student=STUDENT, **changes)
    return fields if "teacher" in changes else {name: value for name, value in fields.items() if name != "teacher"}


def final_weights(workdir: Path) -> dict[str, Tensor]:
    [file] = (workdir / "student").glob("*.safetensors")
    return weights.read(file)["state_dict"]


def newest_checkpoint(workdir: Path) -> dict[str, Any]:
    return weights.read(sorted((workdir / "checkpoints").glob("step_*.pth"))[-1])


def test_an_absent_schedule_is_short_and_has_a_low_rate() -> None:
    spec = JobSpec.model_validate({"kind": "quantize", "dataset": "tiny", "student": STUDENT})
    schedule = spec.schedule
    assert (schedule.epochs, schedule.optimizer.name, schedule.optimizer.learning_rate) == (3, "adamw", 1e-4)
    assert (schedule.lr_schedule.name, schedule.frozen_stages) == ("cosine", 0)
    assert JobSpec.model_validate(spec.model_dump()) == spec
    assert JobSpec.model_validate_json(spec.model_dump_json()) == spec


def test_a_schedule_that_is_given_is_kept() -> None:
    fields = {"kind": "quantize", "dataset": "tiny", "student": STUDENT}
    spec = JobSpec.model_validate(fields | {"schedule": {"max_steps": 5, "optimizer": {"name": "sgd"}}})
    assert (spec.schedule.epochs, spec.schedule.max_steps) == (None, 5)
    assert (spec.schedule.optimizer.name, spec.schedule.optimizer.learning_rate) == ("sgd", None)
    assert JobSpec.model_validate(fields | {"schedule": spec.schedule}).schedule == spec.schedule


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        ({}, ("adamw", 1e-4)),
        ({"weight_decay": 0.01}, ("adamw", 1e-4)),
        ({"learning_rate": 5e-5}, ("adamw", 5e-5)),
        ({"name": "adamw"}, ("adamw", 1e-4)),
        ({"name": "adamw", "learning_rate": None}, ("adamw", None)),
        ({"name": "sgd"}, ("sgd", None)),
        ({"name": None}, (None, None)),
        (Optimizer(weight_decay=0.01), ("adamw", 1e-4)),
    ],
)
def test_one_field_of_the_optimizer_leaves_the_others(
    optimizer: Any, expected: tuple[str | None, float | None]
) -> None:
    fields = {"kind": "quantize", "dataset": "tiny", "student": STUDENT, "schedule": {"optimizer": optimizer}}
    spec = JobSpec.model_validate(fields)
    assert (spec.schedule.optimizer.name, spec.schedule.optimizer.learning_rate) == expected
    assert JobSpec.model_validate(spec.model_dump()) == spec
    assert JobSpec.model_validate(fields | {"schedule": Schedule.model_validate(fields["schedule"])}) == spec


@pytest.mark.parametrize(
    ("lr_schedule", "expected"),
    [
        ({"warmup_steps": 3}, "cosine"),
        ({"name": "step"}, "step"),
        ({"name": None}, None),
        ({"milestones": [1, 2]}, None),
    ],
)
def test_one_field_of_the_learning_rate_schedule_leaves_the_others(
    lr_schedule: dict[str, Any], expected: str | None
) -> None:
    fields = {"kind": "quantize", "dataset": "tiny", "student": STUDENT, "schedule": {"lr_schedule": lr_schedule}}
    spec = JobSpec.model_validate(fields)
    assert spec.schedule.lr_schedule.name == expected
    assert JobSpec.model_validate(spec.model_dump()) == spec


def test_a_spec_stored_in_full_keeps_the_optimizer_that_it_had() -> None:
    stored = {"name": None, "learning_rate": 5e-5, "momentum": 0.9, "weight_decay": None}
    fields = {"kind": "quantize", "dataset": "tiny", "student": STUDENT, "schedule": {"optimizer": stored}}
    assert JobSpec.model_validate(fields).schedule.optimizer.model_dump() == stored


@pytest.mark.parametrize("invalid", [5, [1], {"optimizer": 5}, {"lr_schedule": [1]}])
def test_an_invalid_schedule_of_kind_quantize_is_named(invalid: Any) -> None:
    with pytest.raises(ValidationError, match="schedule"):
        JobSpec.model_validate({"kind": "quantize", "dataset": "tiny", "student": STUDENT, "schedule": invalid})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"student": described()}, "needs a trained student"),
        ({"student": described(init={"backbone": "resnet.pth"})}, "needs a trained student"),
        ({"student": {"detector": "registered"}}, "needs a trained student"),
        ({"schedule": {"precision": "bf16"}}, "in fp32"),
        ({"baseline": True}, "belongs to kind `distill`"),
        ({"method": "pkd"}, "need a `teacher`"),
        ({"export": {"formats": ["onnx"]}}, "belongs to kind `export`"),
    ],
)
def test_a_spec_that_cannot_be_run_is_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        JobSpec.model_validate({"kind": "quantize", "dataset": "tiny", "student": STUDENT} | changes)


@pytest.mark.parametrize("teacher", [None, described(neck_channels=32)], ids=["alone", "under a teacher"])
def test_the_delivered_student_is_a_plain_detector(
    train: Train, models: Path, tmp_path: Path, teacher: dict[str, Any] | None
) -> None:
    changes = {"teacher": teacher, "distillation": job()["distillation"]} if teacher else {}
    emitted = train(quantize(**changes))
    [outcome] = of(events.Outcome, emitted)
    assert outcome.status == "succeeded"
    source = weights.read(models / "teacher.pth")["state_dict"]
    delivered = final_weights(tmp_path / "run")
    assert delivered.keys() == source.keys()
    assert any(not torch.equal(delivered[key], source[key]) for key in source)
    [file] = [path for path in (tmp_path / "run" / "student").glob("*.pth") if path.stem in _last_student(emitted)]
    description = DescribedDetector.model_validate(STUDENT)
    classes = weights.classes_of(weights.read(file))
    assert classes is not None
    load_detector(ResolvedDetector(description=description, weights=file), classes, models)


def _last_student(emitted: list[events.Event]) -> str:
    return [event for event in of(events.Checkpoint, emitted) if event.kind == "student"][-1].path


@pytest.mark.parametrize("kill_at", [4, *(pytest.param(step, marks=pytest.mark.slow) for step in (2, 6))])
def test_a_resumed_run_equals_an_uninterrupted_one(train: Train, tmp_path: Path, kill_at: int) -> None:
    spec = quantize(schedule={"checkpoint_every": 1})
    train(spec, tmp_path / "uninterrupted")
    with pytest.raises(Killed):
        train(spec, tmp_path / "resumed", kill_at=kill_at)
    train(spec, tmp_path / "resumed")
    expected, resumed = (final_weights(tmp_path / name) for name in ("uninterrupted", "resumed"))
    assert all(torch.equal(resumed[key], tensor) for key, tensor in expected.items())
    ranges = [newest_checkpoint(tmp_path / name)["memory"]["ranges"] for name in ("uninterrupted", "resumed")]
    assert ranges[0] == ranges[1]
    assert len(ranges[0]) > 50


def test_accumulation_and_a_moving_average_work(train: Train, tmp_path: Path) -> None:
    train(quantize(schedule={"accumulate": 2, "ema": 0.5}))
    assert final_weights(tmp_path / "run")


def test_images_have_the_size_of_the_students_training(train: Train, models: Path) -> None:
    content = weights.read(models / "teacher.pth")
    content["meta"][weights.IMAGE_SIZE] = (64, 64)
    weights.write(content, models / "small.pth")
    spec = quantize()
    del spec["schedule"]["image_size"]
    spec["student"] = described(neck_channels=32, init={"weights": "small.pth"})
    facts = [event.values for event in of(events.Facts, train(spec)) if "student_image_size" in event.values]
    assert facts[0]["student_image_size"] in ((64, 64), [64, 64])


def test_a_student_of_other_classes_is_refused(train: Train, models: Path) -> None:
    content = weights.read(models / "teacher.pth")
    content["meta"]["dataset_meta"]["classes"] = ("a", "b", "c", "d")
    weights.write(content, models / "others.pth")
    with pytest.raises(ClassMismatch):
        train(quantize() | {"student": described(neck_channels=32, init={"weights": "others.pth"})})


def test_a_student_that_cannot_be_exported_is_refused(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(detector: Any) -> None:
        raise ExportUnsupported("It decodes boxes in another way.")

    monkeypatch.setattr(stages, "check_exportable", refuse)
    with pytest.raises(ExportUnsupported):
        train(quantize())


@pytest.mark.parametrize("architecture", SAMPLED_ARCHITECTURES)
def test_gradients_reach_every_layer_and_batch_norms_keep_their_statistics(architecture: str, models: Path) -> None:
    changes = {"backbone": {"type": "MobileNetV2", "norm": "bn"}}
    detector = builder.build(DescribedDetector.model_validate(described(architecture, **changes)), 4, models)
    expected = layers_with_gradients(detector.eval())
    before = copy.deepcopy([*detector.buffers()])
    FakeQuantiser(detector)
    assert layers_with_gradients(detector.train()) == expected
    assert len(expected) > 50
    assert all(torch.equal(*pair) for pair in zip(before, detector.buffers(), strict=True))


def layers_with_gradients(detector: Any) -> set[str]:
    """Return the names of the parameters that the gradient of the head's outputs reaches."""
    detector.zero_grad(set_to_none=True)
    outputs = tree_leaves(dense_head(detector)(detector.extract_feat(torch.randn(2, 3, 64, 64))))
    torch.stack([output.square().sum() for output in outputs if output.requires_grad]).sum().backward()
    return {name for name, parameter in detector.named_parameters() if parameter.grad is not None}


def test_the_head_is_rounded_on_unlabelled_images_too() -> None:
    spec = JobSpec.model_validate(quantize(teacher=STUDENT, distillation={}))
    schedule = ResolvedSchedule(1, 8, 8, 1, (), "adamw", "cosine", 1e-4, 0.05)
    student, raw = detector(), batch()
    FakeQuantiser(student)
    model = build_distiller(student, Teacher(detector(neck_channels=32)), spec, schedule).train()
    outputs = model.forward_both(raw | {"unlabelled": raw})
    for labelled, unlabelled in (logits.chunk(2) for logits in outputs.logits.values()):
        assert torch.equal(labelled, unlabelled)


def test_in_eval_mode_the_student_computes_in_fp32(models: Path) -> None:
    detector = builder.build(DescribedDetector.model_validate(described()), 4, models).eval()
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = detector.extract_feat(pixels)
        FakeQuantiser(detector)
        plain = detector.extract_feat(pixels)
        rounded = detector.train().extract_feat(pixels)
    assert all(torch.equal(*pair) for pair in zip(expected, plain, strict=True))
    assert all(len(level.unique()) <= 256 for level in rounded)
