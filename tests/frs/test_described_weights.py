"""An import compares a weights file with the description and the classes that were sent with it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from mmdet.registry import MODELS
from tiny import ARCHITECTURES, described

from frs.detector_spec import ConfigDetector, DescribedDetector
from frs.detectors import builder
from frs.detectors.described_weights import DescribedWeights
from frs.errors import ClassMismatch, InvalidSpec, TeacherWeightsMismatch, UnsupportedDetector

CLASSES = ("circle", "square", "star")


def content(architecture: str = "gfl", names: tuple[str, ...] | None = None, **changes: Any) -> dict[str, Any]:
    """Return a checkpoint of a tiny detector of three classes, with the class names `names`."""
    detector = builder.build(DescribedDetector.model_validate(described(architecture, **changes)), 3, Path())
    return {"state_dict": detector.state_dict()} | ({"meta": {"dataset_meta": {"classes": names}}} if names else {})


def check(checkpoint: dict[str, Any], sent: tuple[str, ...] | None, architecture: str = "gfl", **changes: Any) -> None:
    DescribedWeights(DescribedDetector.model_validate(described(architecture, **changes))).check(checkpoint, sent)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_weights_of_the_description_are_accepted_with_any_knowledge_of_their_classes(architecture: str) -> None:
    for names in (CLASSES, None):
        for sent in (CLASSES, None):
            check(content(architecture, names), sent, architecture)


def test_a_prefix_of_a_wrapper_is_no_difference() -> None:
    checkpoint = content()
    check({"model": {f"module.{key}": tensor for key, tensor in checkpoint["state_dict"].items()}}, CLASSES)


@pytest.mark.parametrize(
    ("architecture", "changes"),
    [
        ("retinanet", {}),
        ("faster_rcnn", {}),
        ("gfl", {"neck_channels": 32}),
        ("gfl", {"stacked_convs": 2}),
        ("gfl", {"backbone": {"depth": 34, "width": 8, "norm": "gn"}}),
        ("gfl", {"backbone": {"depth": 18, "width": 16, "norm": "gn"}}),
    ],
)
def test_weights_of_another_detector_are_refused_naming_the_description(
    architecture: str, changes: dict[str, Any]
) -> None:
    with pytest.raises(TeacherWeightsMismatch, match=r"The file does not match the detector: .* description is gfl\."):
        check(content(architecture, **changes), CLASSES)


@pytest.mark.parametrize(
    ("names", "sent", "message"),
    [
        (
            CLASSES,
            ("circle", "star", "square"),
            "has the classes circle, square, star, its description the classes circle, star, square",
        ),
        (
            CLASSES,
            ("circle", "square", "moon"),
            "circle, square, star, its description the classes circle, square, moon",
        ),
        (CLASSES, ("circle",), "circle, square, star, its description the classes circle"),
        (None, ("circle", "square"), r"gfl_cls.weight has 3 outputs, but 2 classes \(circle, square\) need 2"),
        (None, ("a", "b", "c", "d"), r"gfl_cls.weight has 3 outputs, but 4 classes \(a, b, c, d\) need 4"),
        (("circle", "square"), None, r"gfl_cls.weight has 3 outputs, but 2 classes \(circle, square\) need 2"),
    ],
)
def test_other_classes_are_refused_naming_both(
    names: tuple[str, ...] | None, sent: tuple[str, ...] | None, message: str
) -> None:
    with pytest.raises(ClassMismatch, match=message):
        check(content(names=names), sent)


@pytest.mark.parametrize(
    "name",
    [
        "rtmdet/rtmdet_tiny_8xb32-300e_coco.py",
        "efficientnet/retinanet_effb3_fpn_8xb4-crop896-1x_coco.py",
    ],
)
def test_weights_of_a_stock_config_are_compared_too(name: str) -> None:
    description = ConfigDetector(config=f"mmdet::{name}")
    checkpoint = {"state_dict": MODELS.build(builder.model_config(description, 3)).state_dict()}
    DescribedWeights(description).check(checkpoint, CLASSES)
    with pytest.raises(ClassMismatch, match="outputs, but 2 classes"):
        DescribedWeights(description).check(checkpoint, ("a", "b"))


def test_a_config_that_cannot_be_built_is_unsupported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder, "build_shapes", Mock(side_effect=KeyError("no such layer")))
    with pytest.raises(UnsupportedDetector, match=r"gfl cannot be built: KeyError: 'no such layer'"):
        DescribedWeights(DescribedDetector.model_validate(described()))


def test_a_config_that_mmdet_does_not_have_is_named() -> None:
    with pytest.raises(InvalidSpec, match="mmdet has no config"):
        DescribedWeights(ConfigDetector(config="mmdet::gfl/gfl_r51.py"))


@pytest.mark.parametrize(("architecture", "code"), [("gfl", None), ("fcos", "teacher_weights_mismatch")])
def test_the_command_compares_inside_its_limits(tmp_path: Path, architecture: str, code: str | None) -> None:
    torch.save(content(), tmp_path / "in.pth")
    description = json.dumps(described(architecture))
    options = ["--description", description, "--classes", json.dumps(CLASSES)]
    target = tmp_path / "out" / "w.safetensors"
    command = [sys.executable, "-m", "frs", "import-weights", str(tmp_path / "in.pth"), str(target), *options]
    completed = subprocess.run(command, capture_output=True, text=True, check=False)
    answer = json.loads(completed.stdout)
    assert (answer.get("code"), target.exists()) == (code, code is None)
