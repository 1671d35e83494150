"""The terms of Feature-Richness Score distillation, as pure functions on the tensors of one pyramid level.

Source: "Distilling Object Detectors with Feature Richness", NeurIPS 2021. All are computed in fp32, whatever the
precision of their inputs.
"""

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits


def richness(teacher_logits: Tensor) -> Tensor:
    """How much the teacher believes *something* is at each location: (N, K, H, W) -> (N, 1, H, W), no gradient.

    S = max over K of sigmoid(z_t), K being anchors x classes.
    """
    return teacher_logits.detach().float().amax(dim=1, keepdim=True).sigmoid()


def feature_term(student: Tensor, teacher: Tensor, richness: Tensor) -> Tensor:
    """sum(S * (F_t - F_s)^2) / sum(S) over batch, channels and space; features (N, C, H, W), richness (N, 1, H, W).

    `student` has been through the adapter, so that both have the teacher's channels.
    """
    distance = (teacher.detach().float() - student.float()).square().sum(dim=1, keepdim=True)
    return weighted_mean(distance, richness)


def logit_term(student_logits: Tensor, teacher_logits: Tensor, richness: Tensor) -> Tensor:
    """sum(S * BCE(z_s, sigmoid(z_t))) / sum(S) over batch, channels and space; logits (N, K, H, W)."""
    belief = teacher_logits.detach().float().sigmoid()
    distance = binary_cross_entropy_with_logits(student_logits.float(), belief, reduction="none")
    return weighted_mean(distance.sum(dim=1, keepdim=True), richness)


def weighted_mean(distance: Tensor, weight: Tensor) -> Tensor:
    """sum(w * d) / sum(w), both (N, 1, H, W). Richness is a sigmoid, so its sum is above 0."""
    return (weight * distance).sum() / weight.sum()
