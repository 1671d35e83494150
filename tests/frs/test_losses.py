"""Golden tests: every term against NumPy, on the shapes of each head's logits."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from frs.losses import feature_term, logit_term, richness

Array = NDArray[np.float64]
CHANNELS = {"gfl": 3, "fcos": 3, "retinanet": 9 * 3, "faster_rcnn": 3 * 1}
HEADS = list(CHANNELS)


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def oracle_richness(z: Array) -> Array:
    return sigmoid(z).max(axis=1, keepdims=True)


def oracle_feature(student: Array, teacher: Array, rich: Array) -> float:
    return float((rich * (teacher - student) ** 2).sum() / rich.sum())


def oracle_logit(student: Array, teacher: Array, rich: Array) -> float:
    belief, guess = sigmoid(teacher), sigmoid(student)
    entropy = -(belief * np.log(guess) + (1 - belief) * np.log(1 - guess))
    return float((rich * entropy).sum() / rich.sum())


def tensors(head: str) -> tuple[Array, Array, Array, Array]:
    """Student and teacher logits, student and teacher features of one level."""
    random = np.random.default_rng(len(head))
    logits = random.normal(-2, 3, (2, 2, CHANNELS[head], 5, 7))
    features = random.normal(0, 2, (2, 2, 8, 5, 7))
    return logits[0], logits[1], features[0], features[1]


@pytest.mark.parametrize("head", HEADS)
def test_richness_is_the_highest_score_of_any_channel(head: str) -> None:
    _, teacher, _, _ = tensors(head)
    rich = richness(torch.tensor(teacher, requires_grad=True))
    assert rich.shape == (2, 1, 5, 7)
    assert not rich.requires_grad
    np.testing.assert_allclose(rich.numpy(), oracle_richness(teacher), rtol=1e-5)


@pytest.mark.parametrize("head", HEADS)
def test_feature_term_equals_the_formula(head: str) -> None:
    _, logits, student, teacher = tensors(head)
    term = feature_term(torch.tensor(student), torch.tensor(teacher), richness(torch.tensor(logits)))
    assert term.item() == pytest.approx(oracle_feature(student, teacher, oracle_richness(logits)), rel=1e-5)


@pytest.mark.parametrize("head", HEADS)
def test_logit_term_equals_the_formula(head: str) -> None:
    student, teacher, _, _ = tensors(head)
    term = logit_term(torch.tensor(student), torch.tensor(teacher), richness(torch.tensor(teacher)))
    assert term.item() == pytest.approx(oracle_logit(student, teacher, oracle_richness(teacher)), rel=1e-5)


@pytest.mark.parametrize("head", HEADS)
def test_gradients_equal_the_formulas_derivatives(head: str) -> None:
    z_s, z_t, f_s, f_t = (torch.tensor(array) for array in tensors(head))
    rich = richness(z_t)
    features, logits = f_s.clone().requires_grad_(), z_s.clone().requires_grad_()
    (feature_term(features, f_t, rich) + logit_term(logits, z_t, rich)).backward()
    torch.testing.assert_close(
        features.grad, 2 * rich * (f_s - f_t) / rich.sum(), rtol=1e-5, atol=1e-7, check_dtype=False
    )
    torch.testing.assert_close(
        logits.grad, rich * (z_s.sigmoid() - z_t.sigmoid()) / rich.sum(), rtol=1e-5, atol=1e-7, check_dtype=False
    )


def test_the_teacher_receives_no_gradient() -> None:
    z_s, z_t, f_s, f_t = (torch.tensor(array, requires_grad=True) for array in tensors("gfl"))
    (feature_term(f_s, f_t, richness(z_t)) + logit_term(z_s, z_t, richness(z_t))).backward()
    assert z_t.grad is None and f_t.grad is None


def test_equal_features_cost_nothing() -> None:
    _, logits, features, _ = (torch.tensor(array) for array in tensors("gfl"))
    assert feature_term(features, features, richness(logits)).item() == 0


def test_half_precision_is_summed_in_single() -> None:
    z_s, z_t, f_s, f_t = (torch.tensor(array).bfloat16() for array in tensors("retinanet"))
    rich = richness(z_t)
    assert rich.dtype == feature_term(f_s, f_t, rich).dtype == logit_term(z_s, z_t, rich).dtype == torch.float32


def test_logits_far_out_stay_finite() -> None:
    far = torch.tensor([-1e4, 1e4]).reshape(1, 2, 1, 1)
    assert torch.isfinite(logit_term(-far, far, richness(far)))
