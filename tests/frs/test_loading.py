"""A student may start from weights of other classes; what does not carry over is left out, and said."""

from pathlib import Path
from typing import Any

import pytest
import torch
from test_engine import facts, newest_checkpoint
from tiny import ARCHITECTURES, Train, described, job, of

from frs import events
from frs.detectors import builder, loading, weights
from frs.errors import CheckpointUnusable, ClassMismatch, TeacherWeightsMismatch
from frs.resolved import ResolvedDetector
from frs.spec import DescribedDetector
from frs.training.stop_request import Interrupted

SHAPES = ("circle", "square", "triangle", "star")
CLASS_LAYERS = {
    "gfl": {"bbox_head.gfl_cls.weight", "bbox_head.gfl_cls.bias"},
    "retinanet": {"bbox_head.retina_cls.weight", "bbox_head.retina_cls.bias"},
    "fcos": {"bbox_head.conv_cls.weight", "bbox_head.conv_cls.bias"},
    "faster_rcnn": {f"roi_head.bbox_head.fc_{of}.{kind}" for of in ("cls", "reg") for kind in ("weight", "bias")},
}


def kept(
    folder: Path, classes: tuple[str, ...] | None, architecture: str = "gfl", outputs: int = 0
) -> ResolvedDetector:
    """A detector of these classes in a file, all of its tensors 0.25, as something to start from."""
    description = DescribedDetector.model_validate(described(architecture, init={"weights": "old.pth"}))
    built = builder.build(description, outputs or len(classes or ()), folder)
    state = {key: torch.full_like(tensor, 0.25) for key, tensor in built.state_dict().items()}
    meta = {"dataset_meta": {"classes": classes}} if classes else {}
    weights.write({"meta": meta, "state_dict": state}, folder / "old.pth")
    return ResolvedDetector(description=description, weights=folder / "old.pth")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(
    "classes", [("cat", "dog"), ("cat", "dog", "cow", "hen"), ("star", "triangle", "square", "circle")]
)
def test_all_but_the_class_layers_is_taken_over(tmp_path: Path, architecture: str, classes: tuple[str, ...]) -> None:
    student, left_out = loading.load_student(kept(tmp_path, classes, architecture), SHAPES, tmp_path)
    assert set(left_out) == CLASS_LAYERS[architecture]
    taken = {key for key, tensor in student.state_dict().items() if bool((tensor == 0.25).all())}
    assert student.state_dict().keys() - taken == set(left_out)


def test_weights_of_the_same_classes_are_taken_over_whole(tmp_path: Path) -> None:
    student, left_out = loading.load_student(kept(tmp_path, SHAPES), SHAPES, tmp_path)
    assert not left_out
    assert all((tensor == 0.25).all() for tensor in student.state_dict().values())


@pytest.mark.parametrize(("outputs", "left_out"), [(4, set()), (3, CLASS_LAYERS["gfl"])])
def test_a_file_that_names_no_classes_is_judged_by_its_shapes(tmp_path: Path, outputs: int, left_out: set[str]) -> None:
    found = loading.load_student(kept(tmp_path, None, outputs=outputs), SHAPES, tmp_path)
    assert set(found[1]) == left_out


@pytest.mark.parametrize("change", [{"neck.fpn_convs.0.conv.weight": torch.zeros(1)}, {"unknown": torch.zeros(1)}])
def test_anything_else_that_does_not_fit_is_refused(tmp_path: Path, change: dict[str, torch.Tensor]) -> None:
    wanted = kept(tmp_path, ("cat", "dog"))
    content = weights.read(tmp_path / "old.pth")
    weights.write(content | {"state_dict": content["state_dict"] | change}, tmp_path / "old.pth")
    with pytest.raises(TeacherWeightsMismatch):
        loading.load_student(wanted, SHAPES, tmp_path)


def test_a_detector_that_is_not_to_be_trained_must_have_the_classes(tmp_path: Path) -> None:
    with pytest.raises(ClassMismatch):
        loading.load_detector(kept(tmp_path, ("cat", "dog")), SHAPES, tmp_path)
    with pytest.raises(TeacherWeightsMismatch):
        loading.load_detector(kept(tmp_path, None, outputs=2), SHAPES, tmp_path)


@pytest.mark.parametrize("kind", ["train", "distill"])
def test_what_is_left_out_is_told_and_kept_for_the_report(train: Train, models: Path, kind: str) -> None:
    kept(models, ("cat", "dog"))
    teacher = {} if kind == "distill" else {"teacher": None}
    told = train(job(kind=kind, student=described(init={"weights": "old.pth"}), schedule={"max_steps": 1}, **teacher))
    assert set(facts(told)["weights_left_out"]) == CLASS_LAYERS["gfl"]
    assert any("gfl_cls.weight" in log.message for log in of(events.Log, told) if log.level == "warning")
    assert any("gfl_cls.weight" in warning for warning in facts(told)["warnings"])


def test_an_accepted_weak_teacher_is_still_told_of_after_a_resume(train: Train, tmp_path: Path) -> None:
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
