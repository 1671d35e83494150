"""A student may start from weights of other classes; its class layers are not loaded, and a warning lists them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from test_engine import facts, newest_checkpoint
from tiny import ARCHITECTURES, Train, described, job, of

from frs import events
from frs.detector_spec import DescribedDetector
from frs.detectors import builder, loading, weights
from frs.errors import CheckpointUnusable, ClassMismatch, TeacherWeightsMismatch
from frs.resolved import ResolvedDetector
from frs.training.stop_request import Interrupted

SHAPES = ("circle", "square", "triangle", "star")
CLASS_LAYERS = {
    "gfl": {"bbox_head.gfl_cls.weight", "bbox_head.gfl_cls.bias"},
    "retinanet": {"bbox_head.retina_cls.weight", "bbox_head.retina_cls.bias"},
    "fcos": {"bbox_head.conv_cls.weight", "bbox_head.conv_cls.bias"},
    "atss": {"bbox_head.atss_cls.weight", "bbox_head.atss_cls.bias"},
    "tood": {"bbox_head.tood_cls.weight", "bbox_head.tood_cls.bias"},
    "vfnet": {"bbox_head.vfnet_cls.weight", "bbox_head.vfnet_cls.bias"},
    "rtmdet": {f"bbox_head.rtm_cls.{level}.{kind}" for level in range(3) for kind in ("weight", "bias")},
    "yolox": {f"bbox_head.multi_level_conv_cls.{level}.{kind}" for level in range(3) for kind in ("weight", "bias")},
    "faster_rcnn": {f"roi_head.bbox_head.fc_{layer}.{kind}" for layer in ("cls", "reg") for kind in ("weight", "bias")},
}


def saved_detector(
    folder: Path, classes: tuple[str, ...] | None, architecture: str = "gfl", outputs: int = 0
) -> ResolvedDetector:
    """Return a detector of `classes` with a weights file in which every number is 0.25."""
    description = DescribedDetector.model_validate(described(architecture, init={"weights": "old.pth"}))
    detector = builder.build(description, outputs or len(classes or ()), folder)
    state = {key: torch.full_like(tensor, 0.25) for key, tensor in detector.state_dict().items()}
    meta = {"dataset_meta": {"classes": classes}} if classes else {}
    weights.write({"meta": meta, "state_dict": state}, folder / "old.pth")
    return ResolvedDetector(description=description, weights=folder / "old.pth")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(
    "classes", [("cat", "dog"), ("cat", "dog", "cow", "hen"), ("star", "triangle", "square", "circle")]
)
def test_all_tensors_except_the_class_layers_are_loaded(
    tmp_path: Path, architecture: str, classes: tuple[str, ...]
) -> None:
    student, excluded = loading.load_student(saved_detector(tmp_path, classes, architecture), SHAPES, tmp_path)
    assert set(excluded) == CLASS_LAYERS[architecture]
    loaded = {key for key, tensor in student.state_dict().items() if tensor.equal(torch.full_like(tensor, 0.25))}
    assert student.state_dict().keys() - loaded == set(excluded)


def test_all_tensors_of_weights_of_the_same_classes_are_loaded(tmp_path: Path) -> None:
    student, excluded = loading.load_student(saved_detector(tmp_path, SHAPES), SHAPES, tmp_path)
    assert not excluded
    assert all((tensor == 0.25).all() for tensor in student.state_dict().values())


@pytest.mark.parametrize("prefix", ["", "module."])
def test_weights_of_a_backbone_are_refused_with_the_field_that_takes_them(tmp_path: Path, prefix: str) -> None:
    """Reported as mmdetection #6407 and #4304: pretrained backbones have no keys of a detector."""
    detector = saved_detector(tmp_path, SHAPES)
    state = weights.read(detector.weights)["state_dict"]
    backbone = {
        f"{prefix}{key.removeprefix('backbone.')}": tensor
        for key, tensor in state.items()
        if key.startswith("backbone.")
    }
    weights.write({"state_dict": backbone | {f"{prefix}fc.bias": torch.zeros(1000)}}, tmp_path / "old.pth")
    with pytest.raises(TeacherWeightsMismatch, match="the tensors of a backbone") as refused:
        loading.load_student(detector, SHAPES, tmp_path)
    assert "`init: {backbone: old.pth}`" in refused.value.hint


@pytest.mark.parametrize(("outputs", "expected"), [(4, set()), (3, CLASS_LAYERS["gfl"])])
def test_a_file_without_class_names_is_judged_by_its_shapes(tmp_path: Path, outputs: int, expected: set[str]) -> None:
    _, excluded = loading.load_student(saved_detector(tmp_path, None, outputs=outputs), SHAPES, tmp_path)
    assert set(excluded) == expected


def test_class_names_given_at_the_registration_count_for_a_file_without_any(tmp_path: Path) -> None:
    resolved = saved_detector(tmp_path, None, outputs=4).model_copy(update={"classes": SHAPES[::-1]})
    assert set(loading.load_student(resolved, SHAPES, tmp_path)[1]) == CLASS_LAYERS["gfl"]
    with pytest.raises(ClassMismatch, match="another order"):
        loading.load_detector(resolved, SHAPES, tmp_path)


@pytest.mark.parametrize("change", [{"neck.fpn_convs.0.conv.weight": torch.zeros(1)}, {"unknown": torch.zeros(1)}])
def test_any_other_tensor_that_does_not_match_is_refused(tmp_path: Path, change: dict[str, torch.Tensor]) -> None:
    resolved = saved_detector(tmp_path, ("cat", "dog"))
    content = weights.read(tmp_path / "old.pth")
    weights.write(content | {"state_dict": content["state_dict"] | change}, tmp_path / "old.pth")
    with pytest.raises(TeacherWeightsMismatch):
        loading.load_student(resolved, SHAPES, tmp_path)


def test_a_detector_that_is_not_trained_must_have_the_classes_of_the_data_set(tmp_path: Path) -> None:
    with pytest.raises(ClassMismatch):
        loading.load_detector(saved_detector(tmp_path, ("cat", "dog")), SHAPES, tmp_path)
    with pytest.raises(TeacherWeightsMismatch):
        loading.load_detector(saved_detector(tmp_path, None, outputs=2), SHAPES, tmp_path)


@pytest.mark.parametrize("kind", ["train", "distill"])
def test_excluded_layers_are_reported_and_logged_as_a_warning(train: Train, models: Path, kind: str) -> None:
    saved_detector(models, ("cat", "dog"))
    teacher = {} if kind == "distill" else {"teacher": None}
    emitted = train(
        job(kind=kind, student=described(init={"weights": "old.pth"}), schedule={"max_steps": 1}, **teacher)
    )
    assert set(facts(emitted)["weights_left_out"]) == CLASS_LAYERS["gfl"]
    assert any("gfl_cls.weight" in log.message for log in of(events.Log, emitted) if log.level == "warning")
    assert any("gfl_cls.weight" in warning for warning in facts(emitted)["warnings"])


def test_the_warning_about_a_weak_teacher_remains_after_a_resume(train: Train, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(job(), stop_at=3)
    [warning] = facts(train(job()))["warnings"]
    assert "below 0.01" in warning
    assert newest_checkpoint(tmp_path / "run")["memory"]["warnings"] == [warning]


def test_another_file_of_the_same_name_is_another_job(train: Train, models: Path) -> None:
    def spec() -> dict[str, Any]:
        return job(teacher=described(neck_channels=32, init={"weights": "swapped.pth"}), schedule={"max_steps": 1})

    content = weights.read(models / "teacher.pth")
    weights.write(content, models / "swapped.pth")
    train(spec())
    train(spec())
    weights.write(
        content | {"state_dict": {k: v + 1 if v.is_floating_point() else v for k, v in content["state_dict"].items()}},
        models / "swapped.pth",
    )
    with pytest.raises(CheckpointUnusable):
        train(spec())
