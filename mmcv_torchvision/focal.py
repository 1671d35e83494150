"""Focal loss (Lin et al. 2017) and its derivative, each written into a tensor the caller made.

Conventions are those of mmcv/ops/csrc/common/cuda/*_focal_loss_cuda_kernel.cuh, which has no CPU version: `target` (N,)
holds class indices, of which one outside 0..C-1 (C is the background) matches no class, and `weight` (C,) or empty
weighs a row by its target's class. A row without a class has weight 1 (mmcv reads past the end there).
"""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from mmcv_torchvision.precision import at_least_float32

SMALLEST = torch.finfo(torch.float32).tiny
"""mmcv's FLT_MIN: keeps log away from 0."""


@torch.no_grad()
def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Logits (N, C) -> `output` (N, C): -a * (1 - p)**gamma * log(p), p the probability of the right answer.

    Exact at every logit, as mmdet's CPU version; mmcv's kernel jumps to a log of 87 once 1 - p rounds to 0 (at 17).
    """
    (logits,) = at_least_float32(input)
    positive, factor = _sides(logits, target, weight, alpha)
    margin = torch.where(positive, logits, -logits)
    output.copy_(-factor * torch.sigmoid(-margin) ** gamma * logsigmoid(margin))


@torch.no_grad()
def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Logits (N, C) -> `grad_input` (N, C), the loss's derivative by each logit."""
    (logits,) = at_least_float32(input)
    positive, factor = _sides(logits, target, weight, alpha)
    margin = torch.where(positive, logits, -logits)
    right, wrong = torch.sigmoid(margin), torch.sigmoid(-margin)
    slope = factor * wrong**gamma * (wrong - gamma * right * logsigmoid(margin))
    grad_input.copy_(torch.where(positive, -slope, slope))


@torch.no_grad()
def softmax_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Probabilities (N, C), already a softmax -> `output` (N,); 0 where the target is negative."""
    (probabilities,) = at_least_float32(input)
    right = _of_target(probabilities, target)
    loss = -alpha * (1 - right) ** gamma * right.clamp(min=SMALLEST).log()
    output.copy_(loss * _row_weight(loss, target, weight) * (target >= 0))


@torch.no_grad()
def softmax_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, buff: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Probabilities (N, C) -> `grad_input` (N, C), by the logits before the softmax; `buff` (N,) is scratch."""
    (probabilities,) = at_least_float32(input)
    right = _of_target(probabilities, target)
    wrong = 1 - right
    slope = alpha * (gamma * wrong ** (gamma - 1) * right * right.clamp(min=SMALLEST).log() - wrong**gamma)
    slope = slope * _row_weight(slope, target, weight) * (target >= 0)
    grad_input.copy_(slope[:, None] * (_is_target(probabilities, target).to(slope) - probabilities))


def _sides(logits: Tensor, target: Tensor, weight: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """(N, C) each: whether a logit should be high; and what its loss is multiplied by."""
    positive = _is_target(logits, target)
    factor = torch.where(positive, logits.new_full((), alpha), logits.new_full((), 1 - alpha))
    return positive, factor * _row_weight(logits, target, weight)[:, None]


def _is_target(scores: Tensor, target: Tensor) -> Tensor:
    """(N, C), (N,) -> (N, C) bool."""
    return target[:, None] == torch.arange(scores.shape[1], device=scores.device)


def _of_target(probabilities: Tensor, target: Tensor) -> Tensor:
    """(N, C), (N,) -> (N,); class 0 where the target is negative, for the caller to mask."""
    return probabilities.gather(1, target.clamp(min=0)[:, None])[:, 0]


def _row_weight(like: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """(N,), by each row's target; 1 without weights or without a class."""
    if not weight.numel():
        return like.new_ones(len(target))
    has_class = (target >= 0) & (target < len(weight))
    return torch.where(has_class, weight.to(like)[target.clamp(0, len(weight) - 1)], 1.0)
