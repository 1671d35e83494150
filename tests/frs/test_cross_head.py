"""Compare every part of CrossKD's term with NumPy and with mmdet's own heads, and train its layers."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from test_distiller import batch, detector, distiller, optimise
from test_engine import assert_equal, facts, newest_checkpoint
from test_losses import cross_entropy, sigmoid
from tiny import ARCHITECTURES, Train, described, job

from frs.detectors.head_branches import BOX_CONVOLUTION, branches, decode_boxes
from frs.detectors.heads import dense_head
from frs.distillation.calibration import calibrate, measure_gradient_norms
from frs.distillation.cross_head import CrossHead, giou_distance, quality_focal_loss, side_divergence
from frs.distillation.distiller import Distiller, LossWeights
from frs.distillation.outputs import TeacherLevel
from frs.distillation.teacher import Teacher
from frs.distillation.weight_schedule import WeightSchedule
from frs.distillation_spec import Distillation
from frs.errors import HeadMismatch
from frs.training.stop_request import Interrupted

Array = NDArray[np.float64]
STACKED = ("gfl", "fcos", "atss", "retinanet")
"""Architectures whose heads are branches of stacked convolutions."""


def expected_quality_focal_loss(crossed: Array, teacher: Array) -> Array:
    p, target = sigmoid(crossed), sigmoid(teacher)
    return np.abs(p - target) * cross_entropy(target, p)


def expected_side_divergence(crossed: Array, teacher: Array) -> Array:
    """Return the sum over the four sides of sum_bins p_t log(p_t / p), location by location."""
    images, channels, rows, columns = crossed.shape
    result = np.zeros((images, 1, rows, columns))
    for image, row, column, side in np.ndindex(images, rows, columns, 4):
        bins = slice(side * channels // 4, (side + 1) * channels // 4)
        p, p_t = (np.exp(x[image, bins, row, column]) for x in (crossed, teacher))
        p, p_t = p / p.sum(), p_t / p_t.sum()
        result[image, 0, row, column] += (p_t * np.log(p_t / p)).sum()
    return result


def expected_giou_distance(one: Array, other: Array) -> Array:
    def area(corners: Array) -> Array:
        return np.asarray(np.prod(np.maximum(corners[..., 2:] - corners[..., :2], 0), axis=-1))

    inner = np.concatenate([np.maximum(one, other)[..., :2], np.minimum(one, other)[..., 2:]], axis=-1)
    outer = np.concatenate([np.minimum(one, other)[..., :2], np.maximum(one, other)[..., 2:]], axis=-1)
    union = area(one) + area(other) - area(inner)
    return np.asarray(1 - (area(inner) / union - (area(outer) - union) / area(outer)))


def random_boxes(seed: int) -> Array:
    random = np.random.default_rng(seed)
    corner = random.uniform(0, 30, (6, 2))
    return np.concatenate([corner, corner + random.uniform(5, 40, (6, 2))], axis=1)


def arrays(channels: int) -> tuple[Array, Array]:
    crossed, teacher = np.random.default_rng(3).normal(0, 2, (2, 2, channels, 3, 4))
    return crossed, teacher


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_every_distance_equals_its_formula(dtype: torch.dtype) -> None:
    for distance, expected, (one, other) in (
        (quality_focal_loss, expected_quality_focal_loss, arrays(5)),
        (side_divergence, expected_side_divergence, arrays(4 * 7)),
        (giou_distance, expected_giou_distance, (random_boxes(1), random_boxes(2))),
    ):
        tensors = [torch.tensor(array, dtype=dtype) for array in (one, other)]
        result = distance(*tensors)
        assert result.dtype == torch.float32
        arguments = [tensor.double().numpy() for tensor in tensors]
        np.testing.assert_allclose(result.numpy(), expected(*arguments), rtol=1e-4, atol=1e-6)


def test_the_gradient_of_every_distance_equals_finite_differences() -> None:
    for distance, expected, (initial, teacher) in (
        (quality_focal_loss, expected_quality_focal_loss, arrays(2)),
        (side_divergence, expected_side_divergence, arrays(4 * 3)),
        (giou_distance, expected_giou_distance, (random_boxes(1), random_boxes(2))),
    ):
        student = torch.tensor(initial, requires_grad=True)
        target = torch.tensor(teacher, requires_grad=True)
        distance(student, target).sum().backward()
        differences = np.zeros_like(initial)
        for position in np.ndindex(initial.shape):
            values = []
            for step in (1e-5, -1e-5):
                shifted = initial.copy()
                shifted[position] += step
                values.append(expected(shifted, teacher).sum())
            differences[position] = (values[0] - values[1]) / 2e-5
        np.testing.assert_allclose(student.grad, differences, rtol=1e-3, atol=1e-5)
        assert target.grad is None


def test_the_distance_of_equal_predictions_is_0() -> None:
    for distance, same in (
        (quality_focal_loss, arrays(5)[0]),
        (side_divergence, arrays(4 * 7)[0]),
        (giou_distance, random_boxes(1)),
    ):
        assert distance(torch.tensor(same), torch.tensor(same)).abs().max() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("stacked_convs", [1, 3])
@pytest.mark.parametrize("architecture", STACKED)
def test_both_parts_of_both_branches_are_mmdets_head(architecture: str, stacked_convs: int) -> None:
    model = detector(architecture, stacked_convs=stacked_convs).eval()
    pyramid = model.extract_feat(torch.randn(1, 3, 64, 64))
    head = dense_head(model)
    scores, boxes = head(pyramid)[:2]
    split = branches(model)
    for level, features in enumerate(pyramid):
        classes = split.classes.rest(split.classes.first(features))
        torch.testing.assert_close(classes, scores[level])
        raw = split.boxes.rest(split.boxes.first(features))
        if architecture == "gfl":
            torch.testing.assert_close(head.scales[level](raw), boxes[level])
            continue
        priors = head.prior_generator.grid_priors([x.shape[-2:] for x in pyramid], device="cpu")[level]
        expected = head.bbox_coder.decode(priors, boxes[level].permute(0, 2, 3, 1).reshape(-1, 4))
        torch.testing.assert_close(decode_boxes(model, raw, level)[0], expected)


@pytest.mark.parametrize("architecture", STACKED)
def test_the_term_of_a_student_equal_to_its_teacher_is_0(architecture: str) -> None:
    student = detector(architecture, stacked_convs=2).eval()
    if architecture == "fcos":  # an untrained head predicts boxes without area, whose GIoU is 0
        torch.nn.init.ones_(student.bbox_head.conv_reg.bias)
    teacher = Teacher(copy.deepcopy(student))
    features, logits = teacher.observe(batch()["inputs"])
    levels = {stride: TeacherLevel(features[stride], logits[stride], [], stride) for stride in teacher.strides}
    assert CrossHead(student, teacher)(features, levels).item() == pytest.approx(0, abs=1e-4)


def test_the_term_equals_its_formula_over_all_levels() -> None:
    model = distiller("gfl", LossWeights(0.0, 1.0), Teacher(detector("gfl", stacked_convs=2)), "crosskd").eval()
    features, logits = model.teacher.observe(batch()["inputs"])
    student = {stride: torch.randn_like(level) for stride, level in features.items()}
    levels = {stride: TeacherLevel(features[stride], logits[stride], [], stride) for stride in features}
    assert model.term_module is not None
    head, total, weights = model.teacher.detector.bbox_head, 0.0, 0.0
    for index, stride in enumerate(features):
        crossed, boxes = (convs[-1](student[stride]) for convs in (head.cls_convs, head.reg_convs))
        crossed, boxes = head.gfl_cls(crossed), head.scales[index](head.gfl_reg(boxes))
        target = head.scales[index](head.gfl_reg(head.reg_convs[1](head.reg_convs[0](features[stride]))))
        z, b, z_t, b_t = (x.detach().double().numpy() for x in (crossed, boxes, logits[stride], target))
        richness = sigmoid(z_t).max(axis=1, keepdims=True)
        total += expected_quality_focal_loss(z, z_t).sum() + (richness * expected_side_divergence(b, b_t)).sum()
        weights += richness.sum()
    assert model.term_module(student, levels).item() == pytest.approx(total / weights, rel=1e-4)


@pytest.mark.parametrize("channels", [16, 32])
@pytest.mark.parametrize("architecture", STACKED)
def test_a_step_trains_student_and_adapters_and_leaves_the_teacher_alone(architecture: str, channels: int) -> None:
    teacher = Teacher(detector(architecture, neck_channels=channels, stacked_convs=2))
    model = distiller(architecture, LossWeights(0.0, 1.0, ramp_from=-4), teacher, "crosskd")
    before, fingerprint = copy.deepcopy(model.state_dict()), teacher.fingerprint()
    logs = optimise(model, steps=2)[1]
    assert torch.isfinite(logs["distill_logit"]) and logs["distill_logit"] > 0
    adapters = {"term_module.class_adapter.weight", "term_module.box_adapter.weight"} if channels == 32 else set()
    assert {key for key in before if key.startswith("term_module") and "bias" not in key} == adapters
    assert all(not model.state_dict()[key].equal(before[key]) for key in adapters)
    assert not any("teacher" in key for key in before)
    assert teacher.fingerprint() == fingerprint
    assert all(parameter.grad is None for parameter in teacher.detector.parameters())


def test_the_students_last_convolution_and_predictions_receive_no_gradient_of_the_term() -> None:
    model = Distiller(
        detector("gfl", stacked_convs=2),
        Teacher(detector("gfl", neck_channels=32, stacked_convs=3)),
        Distillation(),
        LossWeights(0.0, 1.0),
        WeightSchedule(4),
        "crosskd",
    )
    model.forward_both(batch()).terms["logit"].backward()
    head = model.student.bbox_head
    for convs in (head.cls_convs, head.reg_convs):
        assert convs[0].conv.weight.grad.abs().max() > 0
        assert convs[1].conv.weight.grad is None
    assert head.gfl_cls.weight.grad is None and head.gfl_reg.weight.grad is None
    assert model.student.neck.lateral_convs[0].conv.weight.grad.abs().max() > 0


def test_a_copy_of_the_distiller_has_the_copied_students_branches_and_the_same_teacher() -> None:
    model = distiller(weights=LossWeights(0.0, 1.0), method="crosskd")
    copied: Any = copy.deepcopy(model)
    assert copied.term_module.teacher is model.teacher
    assert copied.term_module.student_branches.classes.rest[0] is copied.student.bbox_head.cls_convs[0]


@pytest.mark.parametrize("architecture", sorted(set(ARCHITECTURES) - set(STACKED)))
def test_other_heads_are_refused_by_name_with_those_that_fit(architecture: str) -> None:
    with pytest.raises(HeadMismatch, match="not a head of stacked convolutions") as raised:
        distiller(architecture, LossWeights(0.0, 1.0), method="crosskd")
    assert all(name in raised.value.hint for name in STACKED)


def test_the_heads_with_branches_are_those_of_the_architectures_that_the_hint_names() -> None:
    assert {type(dense_head(detector(name))).__name__ for name in STACKED} == BOX_CONVOLUTION.keys()


def test_a_student_of_another_stacked_head_with_the_same_logits_learns_from_the_teachers(train: Train) -> None:
    spec = job(method="crosskd", teacher=described("fcos", neck_channels=32, stacked_convs=2))
    spec["distillation"] = {"accept_weak_teacher": True}
    assert facts(train(spec))["weights"]["logit"] > 0


def test_calibration_gives_the_term_its_target_gradient_ratio() -> None:
    model = distiller(weights=LossWeights(0.0, None), method="crosskd")
    model.weights = calibrate(model, [batch(), batch()], step=0)
    norms = measure_gradient_norms(model, batch())
    assert model.weights.logit is not None
    assert model.weights.logit * norms["logit"] == pytest.approx(norms["task"], rel=0.01)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_resumed_run_equals_an_uninterrupted_one(train: Train, tmp_path: Path) -> None:
    spec = job(method="crosskd", distillation={"feature_weight": "auto", "logit_weight": "auto"})
    whole = train(spec, tmp_path / "whole")
    for stop_at in (1, 5):
        with pytest.raises(Interrupted):
            train(spec, tmp_path / "parts", stop_at=stop_at)
    assert facts(train(spec, tmp_path / "parts"))["weights"] == facts(whole)["weights"]
    assert_equal(newest_checkpoint(tmp_path / "whole"), newest_checkpoint(tmp_path / "parts"))
