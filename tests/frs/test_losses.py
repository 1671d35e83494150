"""Compare every mask, distance and term with NumPy, on the logit shapes of each head."""

from typing import Any, get_args

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from frs.distillation.losses import (
    channel_divergence,
    cosine_distance,
    divergence,
    inside_boxes,
    richness,
    squared_error,
    standardised_error,
    weighted_mean,
)
from frs.distillation.methods import DISTANCES, MASKS, Distance, build_terms
from frs.distillation.outputs import TeacherLevel
from frs.distillation.term_modules import TERM_MODULES
from frs.distillation_spec import METHODS, DistanceName, Distillation, MaskName, Method, TermModule, TermName

Array = NDArray[np.float64]
CHANNELS = {"gfl": 3, "fcos": 3, "retinanet": 9 * 3, "faster_rcnn": 3 * 1}
HEADS = list(CHANNELS)
BOXES = [[[9.0, 0.0, 30.0, 17.0], [33.0, 25.0, 60.0, 39.0]], []]
"""Boxes of two images of 56 x 40 pixels. The second box extends beyond the image; the second image has no boxes."""


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def cross_entropy(target: Array, prediction: Array) -> Array:
    return -(target * np.log(prediction) + (1 - target) * np.log(1 - prediction))


def expected_richness(z: Array) -> Array:
    return sigmoid(z).max(axis=1, keepdims=True)


def expected_uniform_mask(z: Array) -> Array:
    return np.ones_like(z[:, :1])


def expected_box_mask(z: Array) -> Array:
    """Return 1 for cells of 8 x 8 pixels whose interior overlaps the interior of a box."""
    mask = np.zeros_like(z[:, :1])
    for image, boxes in enumerate(BOXES):
        for left, top, right, bottom in boxes:
            for row, column in np.ndindex(z.shape[2:]):
                across = min(right, 8 * column + 8) > max(left, 8 * column)
                down = min(bottom, 8 * row + 8) > max(top, 8 * row)
                mask[image, 0, row, column] = max(mask[image, 0, row, column], across and down)
    return mask


def expected_union_mask(z: Array) -> Array:
    return np.maximum(expected_richness(z), expected_box_mask(z))


def expected_squared_error(student: Array, teacher: Array) -> Array:
    return (teacher - student) ** 2


def expected_standardised_error(student: Array, teacher: Array) -> Array:
    def standard(x: Array) -> Array:
        return (x - x.mean(axis=(0, 2, 3), keepdims=True)) / (x.std(axis=(0, 2, 3), keepdims=True) + 1e-6)

    return expected_squared_error(standard(student), standard(teacher))


def expected_cosine_distance(student: Array, teacher: Array) -> Array:
    dot = (student * teacher).sum(axis=1, keepdims=True)
    lengths = [np.sqrt((x**2).sum(axis=1, keepdims=True)) for x in (student, teacher)]
    return 1 - dot / (lengths[0] * lengths[1])


def expected_channel_divergence(student: Array, teacher: Array) -> Array:
    """Return the summands of the generalised KL divergence of each channel's softmax, times the locations' number."""

    def softmax(x: Array) -> Array:
        powers = np.exp(x - x.max(axis=(2, 3), keepdims=True))
        return powers / powers.sum(axis=(2, 3), keepdims=True)

    p_s, p_t = softmax(student), softmax(teacher)
    return (p_t * np.log(p_t / p_s) - p_t + p_s).mean(axis=1, keepdims=True) * p_t[0, 0].size


def expected_divergence(student: Array, teacher: Array) -> Array:
    """Return the paper's binary cross-entropy less its minimum."""
    target = sigmoid(teacher)
    return cross_entropy(target, sigmoid(student)) - cross_entropy(target, target)


def expected_weighted_mean(distance: Array, mask: Array) -> float:
    return float((mask * distance).sum() / mask.sum())


EXPECTED_MASKS = {
    "richness": expected_richness,
    "boxes": expected_box_mask,
    "union": expected_union_mask,
    "uniform": expected_uniform_mask,
}
EXPECTED_DISTANCES = {
    "squared": expected_squared_error,
    "standardised": expected_standardised_error,
    "cosine": expected_cosine_distance,
    "channel": expected_channel_divergence,
}
EXPECTED_TERMS: dict[Method, dict[TermName, Any]] = {
    "frs": {"feature": (expected_richness, expected_squared_error), "logit": (expected_richness, expected_divergence)},
    "feature": {"feature": (expected_richness, expected_squared_error)},
    "logit": {"logit": (expected_richness, expected_divergence)},
    "uniform": {
        "feature": (expected_uniform_mask, expected_squared_error),
        "logit": (expected_uniform_mask, expected_divergence),
    },
    "boxes": {
        "feature": (expected_box_mask, expected_squared_error),
        "logit": (expected_box_mask, expected_divergence),
    },
    "pkd": {"feature": (expected_uniform_mask, expected_standardised_error)},
    "cwd": {"feature": (expected_uniform_mask, expected_channel_divergence)},
    "mgd": {"feature": (expected_uniform_mask, expected_squared_error)},
    "none": {},
}


def arrays(head: str) -> tuple[Array, Array, Array, Array]:
    """Return student and teacher logits, then student and teacher features, of one level."""
    random = np.random.default_rng(len(head))
    logits = random.normal(-2, 3, (2, 2, CHANNELS[head], 5, 7))
    features = random.normal(0, 2, (2, 2, 8, 5, 7))
    return logits[0], logits[1], features[0], features[1]


def teacher_level(features: Array, logits: Array, dtype: torch.dtype = torch.float64) -> TeacherLevel:
    boxes = [torch.tensor(corners).reshape(-1, 4) for corners in BOXES]
    return TeacherLevel(torch.tensor(features, dtype=dtype), torch.tensor(logits, dtype=dtype), boxes, stride=8)


@pytest.mark.parametrize("head", HEADS)
def test_richness_is_the_highest_score_of_any_channel(head: str) -> None:
    _, teacher, _, _ = arrays(head)
    rich = richness(torch.tensor(teacher, requires_grad=True))
    assert rich.shape == (2, 1, 5, 7)
    assert not rich.requires_grad
    np.testing.assert_allclose(rich.numpy(), expected_richness(teacher), rtol=1e-5)


def test_a_cell_is_inside_boxes_if_it_touches_one() -> None:
    logits = np.zeros((2, 3, 5, 7))
    mask = inside_boxes(torch.tensor(logits), teacher_level(logits, logits).boxes, 8)
    np.testing.assert_array_equal(mask.numpy(), expected_box_mask(logits))
    assert mask[1].sum() == 0 < mask[0].sum() < 35


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("method", EXPECTED_TERMS)
def test_every_term_of_every_method_equals_its_formula(method: Method, head: str, dtype: torch.dtype) -> None:
    z_s, z_t, f_s, f_t = (torch.tensor(array, dtype=dtype).double().numpy() for array in arrays(head))
    for name, term in build_terms(METHODS[method]).items():
        mask, distance = EXPECTED_TERMS[method][name]
        student, teacher = (f_s, f_t) if name == "feature" else (z_s, z_t)
        distances = term.distance(torch.tensor(student, dtype=dtype), torch.tensor(teacher, dtype=dtype))
        value = weighted_mean(distances, term.mask(teacher_level(f_t, z_t, dtype)))
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(expected_weighted_mean(distance(student, teacher), mask(z_t)), rel=1e-5)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("mask", MASKS)
def test_a_mask_and_a_distance_of_the_spec_replace_those_of_the_method(mask: MaskName, distance: DistanceName) -> None:
    z_s, z_t, f_s, f_t = arrays("gfl")
    terms = build_terms(Distillation(mask=mask, distance=distance).terms("frs"))
    expected_mask = EXPECTED_MASKS[mask](z_t)
    for name, (student, teacher, formula) in {
        "feature": (f_s, f_t, EXPECTED_DISTANCES[distance]),
        "logit": (z_s, z_t, expected_divergence),
    }.items():
        distances = terms[name].distance(torch.tensor(student), torch.tensor(teacher))
        value = weighted_mean(distances, terms[name].mask(teacher_level(f_t, z_t)))
        expected = expected_weighted_mean(formula(student, teacher), expected_mask)
        assert value.item() == pytest.approx(expected, rel=1e-5)


def test_every_method_mask_and_distance_has_an_expected_formula() -> None:
    assert METHODS.keys() == set(get_args(Method))
    assert EXPECTED_TERMS.keys() == {method for method, terms in METHODS.items() if terms.module is None}
    assert TERM_MODULES.keys() == {terms.module for terms in METHODS.values()} - {None} == set(get_args(TermModule))
    assert EXPECTED_MASKS.keys() == MASKS.keys() == set(get_args(MaskName))
    assert EXPECTED_DISTANCES.keys() == DISTANCES.keys() == set(get_args(DistanceName))


@pytest.mark.parametrize(
    "distance", [squared_error, divergence, standardised_error, cosine_distance, channel_divergence]
)
def test_gradients_equal_finite_differences(distance: Distance) -> None:
    random = np.random.default_rng(5)
    initial, teacher = random.normal(0, 2, (2, 2, 3, 4, 3))
    mask = torch.tensor(random.random((2, 1, 4, 3)))
    student = torch.tensor(initial, requires_grad=True)
    weighted_mean(distance(student, torch.tensor(teacher)).double(), mask).backward()
    formula = {
        squared_error: expected_squared_error,
        divergence: expected_divergence,
        standardised_error: expected_standardised_error,
        cosine_distance: expected_cosine_distance,
        channel_divergence: expected_channel_divergence,
    }[distance]
    expected = np.zeros_like(initial)
    for position in np.ndindex(initial.shape):
        values = []
        for step in (1e-5, -1e-5):
            shifted = initial.copy()
            shifted[position] += step
            values.append(expected_weighted_mean(formula(shifted, teacher), mask.numpy()))
        expected[position] = (values[0] - values[1]) / 2e-5
    np.testing.assert_allclose(student.grad, expected, rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize("head", HEADS)
def test_gradients_of_both_frs_terms_equal_the_formulas_derivatives(head: str) -> None:
    z_s, z_t, f_s, f_t = (torch.tensor(array) for array in arrays(head))
    rich = richness(z_t)
    features, logits = f_s.clone().requires_grad_(), z_s.clone().requires_grad_()
    (weighted_mean(squared_error(features, f_t), rich) + weighted_mean(divergence(logits, z_t), rich)).backward()
    tolerance = {"rtol": 1e-5, "atol": 1e-7, "check_dtype": False}
    torch.testing.assert_close(features.grad, 2 * rich * (f_s - f_t) / rich.sum(), **tolerance)
    torch.testing.assert_close(logits.grad, rich * (z_s.sigmoid() - z_t.sigmoid()) / rich.sum(), **tolerance)


@pytest.mark.parametrize("distance", [squared_error, divergence, cosine_distance, channel_divergence])
def test_the_teacher_receives_no_gradient(distance: Distance) -> None:
    student, teacher = (torch.randn(1, 3, 2, 2, requires_grad=True) for _ in range(2))
    distance(student, teacher).sum().backward()
    assert teacher.grad is None and student.grad is not None


@pytest.mark.parametrize(
    "distance", [squared_error, divergence, standardised_error, cosine_distance, channel_divergence]
)
def test_the_distance_of_equal_tensors_is_0(distance: Distance) -> None:
    same = torch.tensor(arrays("gfl")[0])
    assert distance(same, same).abs().max() == pytest.approx(0, abs=1e-6)


def test_the_cosine_of_features_of_zeros_is_0_and_their_gradient_is_finite() -> None:
    student = torch.zeros(1, 3, 2, 2, requires_grad=True)
    distance = cosine_distance(student, torch.randn(1, 3, 2, 2))
    distance.sum().backward()
    assert (distance == 1).all() and student.grad is not None and torch.isfinite(student.grad).all()


def test_the_uniform_mean_of_the_channel_divergence_is_the_kl_divergence_of_the_paper() -> None:
    _, _, student, teacher = (torch.tensor(array) for array in arrays("gfl"))
    p_s, p_t = (x.flatten(2).softmax(2) for x in (student, teacher))
    expected = (p_t * (p_t / p_s).log()).sum(2).mean()
    distances = channel_divergence(student, teacher)
    assert distances.min() >= 0
    assert distances.mean().item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_mask_of_zeros_gives_a_gradient_of_0() -> None:
    student = torch.randn(1, 3, 2, 2, requires_grad=True)
    weighted_mean(squared_error(student, torch.randn(1, 3, 2, 2)), torch.zeros(1, 1, 2, 2)).backward()
    assert student.grad is not None and student.grad.abs().max() == 0


def test_the_divergence_of_extreme_logits_is_finite() -> None:
    far = torch.tensor([-1e4, 1e4]).reshape(1, 2, 1, 1)
    assert torch.isfinite(divergence(-far, far)).all()
