"""Compare every part of FGD's term with NumPy, and train its layers."""

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from test_distiller import batch, distiller, optimise
from test_engine import assert_equal, facts, newest_checkpoint
from test_losses import BOXES
from tiny import Train, job

from frs.distillation.calibration import calibrate, measure_gradient_norms
from frs.distillation.distiller import LossWeights
from frs.distillation.focal_global import (
    ATTENTION,
    BACKGROUND,
    GLOBAL,
    TEMPERATURE,
    FocalGlobal,
    Relations,
    attention_error,
    channel_attention,
    focal_error,
    scale_mask,
    spatial_attention,
)
from frs.distillation.outputs import TeacherLevel
from frs.distillation_spec import Distillation
from frs.training.stop_request import Interrupted

Array = NDArray[np.float64]
Error = Callable[[Array, Array], Array]
OVERLAPPING = [[*BOXES[0], [1.0, 1.0, 15.0, 15.0]], BOXES[1]]
"""Boxes of two images of 56 x 40 pixels: the first and the third box overlap, and the second image has none."""
CORNERS = [torch.tensor(boxes).reshape(-1, 4) for boxes in OVERLAPPING]
STRIDE = 8


def softmax(x: Array, axis: int | tuple[int, ...]) -> Array:
    powers = np.exp(x - x.max(axis=axis, keepdims=True))
    return np.asarray(powers / powers.sum(axis=axis, keepdims=True))


def expected_spatial_attention(x: Array) -> Array:
    return softmax(np.abs(x).mean(axis=1, keepdims=True) / 0.5, (2, 3)) * x[0, 0].size


def expected_channel_attention(x: Array) -> Array:
    return softmax(np.abs(x).mean(axis=(2, 3), keepdims=True) / 0.5, 1) * x.shape[1]


def expected_scale(shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Return foreground and scale, cell by cell; the corners of the boxes are rounded outwards to cells and clipped."""
    rows, columns = shape[2:]
    foreground, scale = np.zeros((shape[0], 1, rows, columns)), np.zeros((shape[0], 1, rows, columns))
    for image, boxes in enumerate(OVERLAPPING):
        for row, column in np.ndindex(rows, columns):
            sizes = []
            for left, top, right, bottom in boxes:
                across = range(int(left // STRIDE), min(columns, int(-(-right // STRIDE))))
                down = range(int(top // STRIDE), min(rows, int(-(-bottom // STRIDE))))
                if column in across and row in down:
                    sizes.append(len(across) * len(down))
            if sizes:
                foreground[image, 0, row, column], scale[image, 0, row, column] = 1, 1 / min(sizes)
        outside = foreground[image, 0] == 0
        scale[image, 0][outside] = 1 / outside.sum()
    return foreground, scale


def expected_focal_error(student: Array, teacher: Array) -> Array:
    foreground, scale = expected_scale(student.shape)
    attention = expected_spatial_attention(teacher) * expected_channel_attention(teacher)
    error = scale * attention * (teacher - student) ** 2
    return np.asarray((foreground * error + 0.5 * (1 - foreground) * error).sum(axis=(1, 2, 3)))


def expected_attention_error(student: Array, teacher: Array) -> Array:
    spatial = np.abs(expected_spatial_attention(student) - expected_spatial_attention(teacher)).sum(axis=(1, 2, 3))
    channel = np.abs(expected_channel_attention(student) - expected_channel_attention(teacher)).sum(axis=(1, 2, 3))
    return np.asarray(spatial + channel)


def expected_relations(block: Relations, x: Array) -> Array:
    """Return F + W_v2 ReLU(LN(W_v1 sum_j softmax(W_k F)_j F_j)), with loops over the images."""
    state = {name: tensor.double().numpy() for name, tensor in block.state_dict().items()}
    related = np.empty_like(x)
    for image, features in enumerate(x):
        flat = features.reshape(len(features), -1)
        key = state["key.weight"].reshape(1, -1) @ flat + state["key.bias"]
        context = flat @ softmax(key[0], 0)
        hidden = state["reduce.weight"].reshape(-1, len(features)) @ context + state["reduce.bias"]
        hidden = (hidden - hidden.mean()) / np.sqrt(hidden.var() + block.norm.eps)
        hidden = np.maximum(hidden * state["norm.weight"].ravel() + state["norm.bias"].ravel(), 0)
        added = state["expand.weight"].reshape(len(features), -1) @ hidden + state["expand.bias"]
        related[image] = features + added[:, None, None]
    return related


def arrays(channels: int = 8) -> tuple[Array, Array]:
    """Return the student's and the teacher's features of one level."""
    student, teacher = np.random.default_rng(4).normal(0, 1, (2, 2, channels, 5, 7))
    return student, teacher


def perturbed_relations(channels: int) -> Relations:
    """Return a block whose every weight is random, as after training."""
    block = Relations(channels)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return block


def test_the_constants_are_the_papers() -> None:
    assert TEMPERATURE == 0.5
    assert (BACKGROUND, ATTENTION, GLOBAL) == (5e-4 / 1e-3, 1e-3 / 1e-3, 5e-6 / 1e-3)


def test_a_cell_of_several_boxes_has_the_scale_of_the_smallest_and_an_image_without_boxes_is_all_background() -> None:
    foreground, scale = scale_mask(torch.zeros(2, 3, 5, 7), CORNERS, STRIDE)
    expected_foreground, expected = expected_scale((2, 3, 5, 7))
    np.testing.assert_array_equal(foreground.numpy(), expected_foreground)
    np.testing.assert_allclose(scale.numpy(), expected, rtol=1e-6)
    assert scale[0, 0, 1, 1] == 1 / 4 < scale[0, 0, 0, 0] * 1.0001 and (scale[1] == torch.tensor(1 / 35)).all()


def test_a_box_over_the_whole_image_leaves_no_background() -> None:
    foreground, scale = scale_mask(torch.zeros(1, 3, 2, 2), [torch.tensor([[-5.0, 0.0, 99.0, 16.0]])], STRIDE)
    assert foreground.all() and torch.equal(scale, torch.full((1, 1, 2, 2), 0.25))


def test_the_attentions_equal_their_formulas() -> None:
    features, _ = arrays()
    for attention, expected in (
        (spatial_attention, expected_spatial_attention),
        (channel_attention, expected_channel_attention),
    ):
        np.testing.assert_allclose(attention(torch.tensor(features)).numpy(), expected(features), rtol=1e-6)


def test_the_focal_error_equals_its_formula() -> None:
    student, teacher = arrays()
    errors = focal_error(torch.tensor(student), torch.tensor(teacher), CORNERS, STRIDE)
    np.testing.assert_allclose(errors.numpy(), expected_focal_error(student, teacher), rtol=1e-6)


def test_the_attention_error_equals_its_formula() -> None:
    student, teacher = arrays()
    errors = attention_error(torch.tensor(student), torch.tensor(teacher))
    np.testing.assert_allclose(errors.numpy(), expected_attention_error(student, teacher), rtol=1e-6)


def test_the_relations_equal_their_formula_and_are_the_features_before_training() -> None:
    features, _ = arrays()
    tensor = torch.tensor(features, dtype=torch.float32)
    assert torch.equal(Relations(8)(tensor), tensor)
    block = perturbed_relations(8)
    np.testing.assert_allclose(
        block(tensor).detach().numpy(), expected_relations(block, features), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_term_equals_its_formula(dtype: torch.dtype) -> None:
    student, teacher = (torch.tensor(array, dtype=dtype) for array in arrays())
    module = identity_module()
    expected = expected_term(module, student.double().numpy(), teacher.double().numpy())
    term = module({STRIDE: student}, {STRIDE: level(teacher)})
    assert term.dtype == torch.float32
    assert term.item() == pytest.approx(expected, rel=1e-5)


def test_the_terms_gradient_equals_finite_differences() -> None:
    initial, teacher = (array[:, :2, :3, :3] for array in arrays())
    module = identity_module(channels=2)
    student = torch.tensor(initial, requires_grad=True)
    module({STRIDE: student}, {STRIDE: level(torch.tensor(teacher))}).backward()
    expected = np.zeros_like(initial)
    for position in np.ndindex(initial.shape):
        values = []
        for step in (1e-5, -1e-5):
            shifted = initial.copy()
            shifted[position] += step
            values.append(expected_term(module, shifted, teacher))
        expected[position] = (values[0] - values[1]) / 2e-5
    np.testing.assert_allclose(student.grad, expected, rtol=1e-3, atol=1e-5)


def identity_module(channels: int = 8) -> FocalGlobal:
    """Return the term of one level with an adapter that changes nothing and random relations."""
    module = FocalGlobal([STRIDE], channels, channels, "1x1")
    torch.nn.init.dirac_(module.adapter.convolutions[str(STRIDE)].weight)
    torch.nn.init.zeros_(module.adapter.convolutions[str(STRIDE)].bias)
    for blocks in (module.student_relations, module.teacher_relations):
        blocks[str(STRIDE)] = perturbed_relations(channels)
    return module


def level(features: torch.Tensor) -> TeacherLevel:
    return TeacherLevel(features, features[:, :1], CORNERS, STRIDE)


def expected_term(module: FocalGlobal, student: Array, teacher: Array) -> float:
    """Return the mean over images of focal + gamma attention + lambda relations, all over alpha."""
    blocks = (module.student_relations[str(STRIDE)], module.teacher_relations[str(STRIDE)])
    related = [expected_relations(block, x) for block, x in zip(blocks, (student, teacher), strict=True)]
    relations = ((related[0] - related[1]) ** 2).sum(axis=(1, 2, 3))
    focal, attention = expected_focal_error(student, teacher), expected_attention_error(student, teacher)
    return float((focal + 1.0 * attention + 0.005 * relations).mean())


def test_a_step_trains_the_adapter_and_both_blocks_of_relations_and_leaves_the_teacher_alone() -> None:
    model = distiller(weights=LossWeights(0.01, 0.0, ramp_from=-4), method="fgd")
    before, teacher = copy.deepcopy(model.state_dict()), model.teacher.fingerprint()
    optimise(model, steps=2)
    changed = {key.rpartition(".")[0] for key, tensor in model.state_dict().items() if not tensor.equal(before[key])}
    for part in ("adapter.convolutions.8", "student_relations.8.expand", "teacher_relations.8.expand"):
        assert f"term_module.{part}" in changed
    assert model.teacher.fingerprint() == teacher
    assert {key.split(".")[0] for key in before} == {"student", "term_module"}


def test_calibration_gives_the_term_its_target_gradient_ratio() -> None:
    model = distiller(weights=LossWeights(None, 0.0), method="fgd")
    model.weights = calibrate(model, [batch(), batch()], step=0)
    norms = measure_gradient_norms(model, batch())
    assert model.weights.feature is not None
    assert model.weights.feature * norms["feature"] == pytest.approx(
        Distillation().feature_ratio * norms["task"], rel=0.01
    )


def test_a_resumed_run_equals_an_uninterrupted_one(train: Train, tmp_path: Path) -> None:
    spec = job(method="fgd", distillation={"feature_weight": "auto", "logit_weight": "auto"})
    whole = train(spec, tmp_path / "whole")
    for stop_at in (1, 5):
        with pytest.raises(Interrupted):
            train(spec, tmp_path / "parts", stop_at=stop_at)
    assert facts(train(spec, tmp_path / "parts"))["weights"] == facts(whole)["weights"]
    assert_equal(newest_checkpoint(tmp_path / "whole"), newest_checkpoint(tmp_path / "parts"))
