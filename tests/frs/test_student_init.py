"""With `init_from_teacher`, the layers of the student's neck and head that agree start from the teacher's weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from test_engine import assert_equal, facts, newest_checkpoint, values
from test_plan import planned as planned
from test_teacher_classes import save
from tiny import ARCHITECTURES, Train, described, job

from frs import events
from frs.cli import report_text
from frs.detector_spec import DescribedDetector
from frs.detectors import builder
from frs.detectors.weights import read
from frs.distillation.student_init import copy_neck_and_head
from frs.engine import delivery, stages
from frs.errors import InitMismatch
from frs.evaluation import report
from frs.facts import RunFacts, TeacherInit
from frs.preflight.estimate import Estimate
from frs.resolved import ResolvedDetector, resolve
from frs.spec import JobSpec, baseline_of, quantisation_of
from frs.training.stop_request import Interrupted, StopRequest

INIT = {"init_from_teacher": True}
AUTO = {"feature_weight": "auto", "logit_weight": "auto"}


def detector(seed: int, architecture: str = "gfl", **changes: Any) -> Any:
    torch.manual_seed(seed)
    return builder.build(DescribedDetector.model_validate(described(architecture, **changes)), 3, Path())


def wider_teacher(**changes: Any) -> dict[str, Any]:
    """Return a teacher whose neck and head have the student's size, on a backbone of twice the width."""
    return described(backbone={"depth": 18, "width": 16, "norm": "gn"}, **changes)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_all_layers_of_a_teacher_of_the_same_description_are_copied_except_the_backbone(architecture: str) -> None:
    student, teacher, before = (detector(seed, architecture) for seed in (1, 2, 1))
    init = copy_neck_and_head(student, teacher)
    assert not init.own and {name.partition(".")[0] for name in init.copied} >= {"neck"}
    own = before.state_dict()
    for key, tensor in student.state_dict().items():
        expected = own[key] if key.startswith("backbone.") else teacher.state_dict()[key]
        assert torch.equal(tensor, expected), key


def test_layers_of_another_shape_keep_their_own_weights() -> None:
    student, before = detector(1), detector(1).state_dict()
    teacher = builder.build(DescribedDetector.model_validate(wider_teacher(stacked_convs=2)), 3, Path())
    init = copy_neck_and_head(student, teacher)
    assert "bbox_head.gfl_cls" in init.copied and "neck.fpn_convs.0.conv" in init.copied
    assert set(init.own) == {f"neck.lateral_convs.{level}.conv" for level in range(3)}
    for key, tensor in student.state_dict().items():
        layer = key.rpartition(".")[0]
        if layer in init.copied:
            assert torch.equal(tensor, teacher.state_dict()[key]), key
        elif layer in init.own:
            assert torch.equal(tensor, before[key]), key


def test_a_teacher_whose_every_convolution_has_another_shape_is_refused_and_nothing_is_copied() -> None:
    student, before = detector(1), detector(1).state_dict()
    with pytest.raises(InitMismatch, match="copies nothing"):
        copy_neck_and_head(student, detector(2, neck_channels=32))
    assert_equal(dict(student.state_dict()), dict(before))


def test_a_run_that_copies_nothing_ends_before_training(train: Train, planned: Any, tmp_path: Path) -> None:
    with pytest.raises(InitMismatch):
        train(job(distillation=INIT))
    assert not (tmp_path / "run" / "checkpoints").exists()
    estimate: Estimate = planned(distillation=INIT)
    assert [check.code for check in estimate.checks if check.level == "error"] == ["init_mismatch"]


def test_method_none_starts_from_the_teachers_layers_and_trains_without_terms(train: Train, tmp_path: Path) -> None:
    spec = job(method="none", teacher=wider_teacher(), schedule={"max_steps": 1}, distillation=AUTO)
    plain = train(spec, tmp_path / "plain")
    emitted = train(spec | {"distillation": spec["distillation"] | INIT}, tmp_path / "init")
    assert "bbox_head.gfl_cls" in facts(emitted)["teacher_init"]["copied"]
    assert "teacher_init" not in facts(plain)
    assert values(emitted)[1, "train/loss"] != values(plain)[1, "train/loss"]
    assert not any("distill" in key for _, key in values(emitted))


def test_class_layers_of_a_teacher_of_other_classes_are_not_copied(train: Train, models: Path) -> None:
    save(models, ("cat", "dog", "bird", "fish"))
    teacher = described(neck_channels=32, init={"weights": "own.pth"})
    spec = job(method="feature", teacher=teacher, student=described(neck_channels=32), distillation=AUTO | INIT)
    init = facts(train(spec))["teacher_init"]
    assert set(init["own"]) == {"bbox_head.gfl_cls"}


def test_a_resumed_run_equals_an_uninterrupted_one(train: Train, tmp_path: Path) -> None:
    spec = job(teacher=wider_teacher(), distillation=AUTO | INIT)
    train(spec, tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(spec, tmp_path / "parts", stop_at=3)
    train(spec, tmp_path / "parts")
    assert_equal(newest_checkpoint(tmp_path / "whole"), newest_checkpoint(tmp_path / "parts"))


def test_the_baseline_is_the_same_student_without_the_teachers_weights() -> None:
    plain = JobSpec.model_validate(job(baseline=True))
    assert baseline_of(JobSpec.model_validate(job(baseline=True, distillation=INIT))) == baseline_of(plain)


@pytest.mark.parametrize("kind", ["quantize", "distill"])
def test_a_student_of_another_job_keeps_its_neck_and_head(
    data: Path, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(delivery, "emit_richness", lambda *_: None)
    settings = {"method": "none", "distillation": AUTO | INIT}
    fields = job(teacher=wider_teacher(neck_channels=32), schedule={"max_steps": 1, "epochs": None}, **settings)
    student = described(neck_channels=32, init={"job": f"job_{'0' * 26}"})
    weights = ResolvedDetector(description=DescribedDetector.model_validate(student), weights=models / "teacher.pth")
    spec = JobSpec.model_validate(fields | {"kind": kind, "student": student})
    resolved = resolve(JobSpec.model_validate(fields), data, models).model_copy(
        update={"job": spec, "student": weights}
    )
    emitted: list[events.Event] = []
    stages.run(resolved, tmp_path, emitted.append, StopRequest(workdir=tmp_path))
    assert "teacher_init" not in facts(emitted)
    assert "keeps its neck and head" in " ".join(facts(emitted)["warnings"])
    [file] = (tmp_path / "student").glob("*.safetensors")
    before, after = (read(path)["state_dict"]["bbox_head.gfl_cls.weight"] for path in (weights.weights, file))
    assert (before - after).abs().max() < 0.01


def test_a_job_that_quantizes_a_student_starts_from_that_student() -> None:
    source = JobSpec.model_validate(job(distillation=INIT | {"mask": "uniform", "warmup_steps": 500}))
    assert quantisation_of(source, f"job_{'0' * 26}").distillation == source.distillation.model_copy(
        update={"init_from_teacher": False, "warmup_steps": "auto"}
    )


@pytest.mark.parametrize("init", [{"weights": "student.pth"}, {"detector": "cells"}])
def test_a_student_with_weights_for_its_neck_and_head_is_refused(init: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="would replace neck and head"):
        JobSpec.model_validate(job(student=described(init=init), distillation=INIT))


def test_the_report_says_which_layers_start_from_the_teacher() -> None:
    scores = report.Scores(metrics=dict.fromkeys(report.NAMES, 0.5), per_class={})
    init = TeacherInit(copied=("bbox_head.gfl_cls",), own=tuple(f"neck.lateral_convs.{n}.conv" for n in range(5)))
    result = report.build([scores], scores, [], pairs=0, expects_teacher=True, facts=RunFacts(teacher_init=init))
    text = report_text.conclusion(result)
    assert "1 of the 6 layers in neck and head start from the teacher's weights." in text
    assert "neck.lateral_convs.3.conv and 1 more have their own." in text
