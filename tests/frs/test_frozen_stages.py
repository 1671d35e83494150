"""`schedule.frozen_stages` keeps the first stages of the student's backbone as they start."""

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from pydantic import ValidationError
from tiny import Train, described, job, of

from frs import events
from frs.detector_spec import ConfigDetector, DescribedDetector
from frs.detectors import builder, weights
from frs.errors import InvalidSpec, UnsupportedDetector
from frs.spec import JobSpec

BACKBONES: list[dict[str, Any]] = [
    {"type": "ResNet", "depth": 18, "width": 8},
    {"type": "RegNet"},
    {"type": "MobileNetV2", "widen_factor": 0.25},
    {"type": "EfficientNet"},
    {"type": "CSPNeXt", "deepen_factor": 0.167, "widen_factor": 0.25},
    {"type": "CSPDarknet", "deepen_factor": 0.33, "widen_factor": 0.25},
]


def frozen_parameters(backbone: dict[str, Any], stages: int) -> tuple[int, int]:
    """Return the number of frozen parameter tensors of a backbone in training, and of all."""
    description = DescribedDetector.model_validate(described(backbone=backbone))
    module = builder.build(description, 2, Path(), frozen_stages=stages).train().backbone
    parameters = list(module.parameters())
    return sum(not p.requires_grad for p in parameters), len(parameters)


@pytest.mark.parametrize("backbone", BACKBONES, ids=lambda backbone: backbone["type"])
def test_more_stages_freeze_more_parameters_and_none_freezes_none(backbone: dict[str, Any]) -> None:
    counts = [frozen_parameters(backbone, stages) for stages in (0, 1, 3)]
    assert counts[0][0] == 0 < counts[1][0] < counts[2][0] < counts[2][1]


def test_a_base_config_keeps_its_frozen_stages_unless_the_schedule_sets_others() -> None:
    description = ConfigDetector(config="mmdet::gfl/gfl_r50_fpn_1x_coco.py")
    frozen = [
        builder.model_config(description, 2, frozen_stages=stages).backbone.get("frozen_stages")
        for stages in (None, 0, 2)
    ]
    assert frozen == [1, None, 2]


def test_a_backbone_that_cannot_freeze_stages_is_refused_by_name() -> None:
    description = DescribedDetector.model_validate(described(backbone={"type": "ghostnet_100"}))
    with pytest.raises(InvalidSpec, match="ghostnet_100 cannot freeze stages") as caught:
        builder.model_config(description, 2, frozen_stages=1)
    assert "`schedule.frozen_stages`" in caught.value.hint
    assert "frozen_stages" not in builder.model_config(description, 2, frozen_stages=0).backbone


def test_more_stages_than_the_backbone_has_are_refused() -> None:
    with pytest.raises(UnsupportedDetector, match=r"cannot be built with `schedule.frozen_stages: 7`"):
        frozen_parameters(BACKBONES[0], 7)


@pytest.mark.parametrize("kind", ["distill", "train"])
def test_random_weights_are_not_frozen(kind: str) -> None:
    spec = job(schedule={"frozen_stages": 1}) if kind == "distill" else train_only(frozen_stages=1)
    with pytest.raises(ValidationError, match=r"`schedule.frozen_stages` would keep random weights"):
        JobSpec.model_validate(spec)
    JobSpec.model_validate(train_only(frozen_stages=0))


def train_only(**schedule: Any) -> dict[str, Any]:
    return job(kind="train", teacher=None, schedule=schedule)


def test_frozen_stages_are_delivered_as_they_started(train: Train, models: Path, tmp_path: Path) -> None:
    student = described(neck_channels=32, init={"weights": "teacher.pth"})
    emitted = train(job(student=student, schedule={"max_steps": 2, "frozen_stages": 2}))
    [file] = [event.path for event in of(events.Checkpoint, emitted) if "last" in event.labels]
    start, end = (weights.read(path)["state_dict"] for path in (models / "teacher.pth", tmp_path / "run" / file))
    kept = {key for key in start if torch.equal(start[key], end[key])}
    assert all(key in kept for key in start if key.startswith(("backbone.conv1", "backbone.layer1", "backbone.layer2")))
    assert not kept & {"backbone.layer3.0.conv1.weight", "bbox_head.gfl_cls.weight"}
    [config] = [event.path for event in of(events.Artifact, emitted) if event.name == "student-config.py"]
    assert Config.fromfile(tmp_path / "run" / config).model.backbone.frozen_stages == 2
