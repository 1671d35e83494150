"""Focal loss (Lin et al., ICCV 2017) and its gradient, each written into a tensor that the caller allocates.

The conventions are those of mmcv/ops/csrc/common/cuda/*_focal_loss_cuda_kernel.cuh, which has no CPU version. `target`
(N,) holds class indices; an index outside 0..C-1 (C is the background) matches no class. `weight` (C,) gives each row
the weight of its target's class; it may be empty. A row without a class has weight 1 (mmcv reads out of bounds there).
"""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from mmcv_torchvision.precision import at_least_float32

SMALLEST = torch.finfo(torch.float32).tiny
"""Lower bound of the logarithm's argument, mmcv's FLT_MIN."""


@torch.no_grad()
def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Write the loss of logits (N, C) into `output` (N, C): -a * (1 - p)**gamma * log(p).

    p is the probability of the correct answer; a is `alpha` for the target class and 1 - `alpha` for the others (Lin et
    al., equation 5). The result is exact at every logit, as in mmdet's CPU version; in mmcv's kernel, -log(p) jumps to
    87 at a logit of about 17, where 1 - p rounds to 0.
    """
    (logits,) = at_least_float32(input)
    positive, factor = _compute_factors(logits, target, weight, alpha)
    margin = torch.where(positive, logits, -logits)
    output.copy_(-factor * torch.sigmoid(-margin) ** gamma * logsigmoid(margin))


@torch.no_grad()
def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Write the loss's derivative by each logit (N, C) into `grad_input` (N, C)."""
    (logits,) = at_least_float32(input)
    positive, factor = _compute_factors(logits, target, weight, alpha)
    margin = torch.where(positive, logits, -logits)
    right, wrong = torch.sigmoid(margin), torch.sigmoid(-margin)
    slope = factor * wrong**gamma * (wrong - gamma * right * logsigmoid(margin))
    grad_input.copy_(torch.where(positive, -slope, slope))


@torch.no_grad()
def softmax_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Write the loss of softmax probabilities (N, C) into `output` (N,); it is 0 where the target is negative."""
    (probabilities,) = at_least_float32(input)
    right = _select_target(probabilities, target)
    loss = -alpha * (1 - right) ** gamma * right.clamp(min=SMALLEST).log()
    output.copy_(loss * _row_weight(loss, target, weight) * (target >= 0))


@torch.no_grad()
def softmax_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, buff: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Write the derivative by the logits before the softmax into `grad_input` (N, C).

    `input` holds the softmax probabilities (N, C); the scratch buffer `buff` (N,) is ignored.
    """
    (probabilities,) = at_least_float32(input)
    right = _select_target(probabilities, target)
    wrong = 1 - right
    slope = alpha * (gamma * wrong ** (gamma - 1) * right * right.clamp(min=SMALLEST).log() - wrong**gamma)
    slope = slope * _row_weight(slope, target, weight) * (target >= 0)
    grad_input.copy_(slope[:, None] * (_is_target(probabilities, target).to(slope) - probabilities))


def _compute_factors(logits: Tensor, target: Tensor, weight: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Return whether each logit belongs to the target class, and the factor of its loss: (N, C) each."""
    positive = _is_target(logits, target)
    factor = torch.where(positive, logits.new_full((), alpha), logits.new_full((), 1 - alpha))
    return positive, factor * _row_weight(logits, target, weight)[:, None]


def _is_target(scores: Tensor, target: Tensor) -> Tensor:
    """Return a mask of the target class of each row: (N, C), (N,) -> (N, C)."""
    return target[:, None] == torch.arange(scores.shape[1], device=scores.device)


def _select_target(probabilities: Tensor, target: Tensor) -> Tensor:
    """Return the target's probability: (N, C), (N,) -> (N,).

    For a negative target, it is the probability of class 0, which the caller masks.
    """
    return probabilities.gather(1, target.clamp(min=0)[:, None])[:, 0]


def _row_weight(like: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Return the weight (N,) of each row's target class; 1 without weights or without a class."""
    if not weight.numel():
        return like.new_ones(len(target))
    has_class = (target >= 0) & (target < len(weight))
    return torch.where(has_class, weight.to(like)[target.clamp(0, len(weight) - 1)], 1.0)
