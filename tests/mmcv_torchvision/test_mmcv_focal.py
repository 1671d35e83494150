"""Focal losses, called through mmcv's functions and compared with the paper's formula and numerical derivatives."""

from typing import Any

import numpy as np
import pytest
import torch
from mmcv.ops import sigmoid_focal_loss, softmax_focal_loss
from torch import Tensor
from torchvision import ops

CLASSES = 3
TARGET = torch.tensor([0, 2, CLASSES, 1, CLASSES, -1])  # CLASSES is the background
WEIGHT = torch.tensor([0.5, 2.0, 3.0], dtype=torch.float64)


def draw_logits(grad: bool = False) -> Tensor:
    values = torch.randn(len(TARGET), CLASSES, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3
    return values.requires_grad_(grad)


def sigmoid_formula(values: Tensor, gamma: float, alpha: float) -> np.ndarray[Any, Any]:
    """Return the loss of each logit by equation 5 of Lin et al., ICCV 2017."""
    expected = np.zeros(values.shape)
    for row, column in np.ndindex(*values.shape):
        positive = TARGET[row] == column
        p = 1 / (1 + np.exp(-values[row, column].item()))
        right, weight = (p, alpha) if positive else (1 - p, 1 - alpha)
        expected[row, column] = -weight * (1 - right) ** gamma * np.log(right)
    return expected


@pytest.mark.parametrize(("gamma", "alpha"), [(2.0, 0.25), (0.0, 0.5), (1.5, 0.9)])
def test_sigmoid_focal_loss_matches_the_formula(gamma: float, alpha: float) -> None:
    expected = sigmoid_formula(draw_logits(), gamma, alpha)
    np.testing.assert_allclose(sigmoid_focal_loss(draw_logits(), TARGET, gamma, alpha, None, "none"), expected)
    np.testing.assert_allclose(sigmoid_focal_loss(draw_logits(), TARGET, gamma, alpha, None, "sum"), expected.sum())
    mean = sigmoid_focal_loss(draw_logits(), TARGET, gamma, alpha, None, "mean")
    np.testing.assert_allclose(mean, expected.sum() / len(TARGET))  # per row, not per element


def test_sigmoid_focal_loss_weighs_rows_by_their_class() -> None:
    rows = np.array([0.5, 3.0, 1.0, 2.0, 1.0, 1.0])[:, None]
    loss = sigmoid_focal_loss(draw_logits(), TARGET, 2.0, 0.25, WEIGHT, "none")
    np.testing.assert_allclose(loss, sigmoid_formula(draw_logits(), 2.0, 0.25) * rows)


@pytest.mark.parametrize("weight", [None, WEIGHT])
@pytest.mark.parametrize(("gamma", "alpha"), [(2.0, 0.25), (1.5, 0.9)])
def test_the_gradient_of_sigmoid_focal_loss_matches_its_derivative(
    gamma: float, alpha: float, weight: Tensor | None
) -> None:
    for reduction in ("none", "mean", "sum"):
        arguments = (TARGET, gamma, alpha, weight, reduction)
        assert torch.autograd.gradcheck(lambda x, args=arguments: sigmoid_focal_loss(x, *args), draw_logits(grad=True))


def test_sigmoid_focal_loss_is_exact_where_the_sigmoid_saturates() -> None:
    extreme = torch.tensor([[-200.0, 30.0, 200.0]], requires_grad=True)
    one_hot = torch.tensor([[1.0, 0.0, 1.0]])
    loss = sigmoid_focal_loss(extreme, torch.tensor([0]), 2.0, 0.25, None, "none")
    expected = ops.sigmoid_focal_loss(extreme.detach(), one_hot, alpha=0.25, gamma=2.0)
    torch.testing.assert_close(loss[0, :2], expected[0, :2])
    loss.sum().backward()
    torch.testing.assert_close(extreme.grad, torch.tensor([[-0.25, 0.75, 0.75]]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    values = draw_logits().to(dtype).requires_grad_()
    loss = sigmoid_focal_loss(values, TARGET, 2.0, 0.25, None, "none")
    assert loss.dtype == dtype
    expected = sigmoid_formula(values.detach().double(), 2.0, 0.25)
    np.testing.assert_allclose(loss.detach().double(), expected, rtol=torch.finfo(dtype).eps, atol=1e-7)
    loss.sum().backward()
    assert values.grad is not None
    assert values.grad.dtype == dtype


def test_the_loss_of_no_rows_is_0() -> None:
    empty = torch.zeros(0, CLASSES, requires_grad=True)
    loss = sigmoid_focal_loss(empty, TARGET[:0], 2.0, 0.25, None, "sum")
    assert loss.item() == 0
    loss.backward()
    assert empty.grad is not None
    assert empty.grad.shape == (0, CLASSES)


@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_softmax_focal_loss_matches_the_formula_and_its_derivative(weight: Tensor | None) -> None:
    target = torch.tensor([0, 2, 1, 1, 0, -1])  # a negative target is ignored; there is no background
    right = draw_logits().softmax(1)[torch.arange(5), target[:5]].numpy()
    rows = np.ones(5) if weight is None else weight[target[:5]].numpy()
    expected = [*(-0.25 * (1 - right) ** 2 * np.log(right) * rows), 0.0]
    np.testing.assert_allclose(softmax_focal_loss(draw_logits(), target, 2.0, 0.25, weight, "none"), expected)
    arguments = (target, 2.0, 0.25, weight, "sum")
    assert torch.autograd.gradcheck(lambda x: softmax_focal_loss(x, *arguments), draw_logits(grad=True))
