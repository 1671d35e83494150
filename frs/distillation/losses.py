"""What the terms of every method are made of: masks over locations, and distances between student and teacher.

Pure functions on the tensors of one pyramid level, all computed in fp32, whatever the precision of their inputs.
Source of richness, feature and logit term: "Distilling Object Detectors with Feature Richness", NeurIPS 2021.
"""

from collections.abc import Sequence

import frs.detectors._mmdet_init  # noqa: F401 - before mmdet

import torch
from mmdet.utils import reduce_mean
from torch import Tensor
from torch.nn.functional import softplus


def richness(teacher_logits: Tensor) -> Tensor:
    """How much the teacher believes *something* is at each location: (N, K, H, W) -> (N, 1, H, W), no gradient.

    S = max over K of sigmoid(z_t), K being anchors x classes.
    """
    return teacher_logits.detach().float().amax(dim=1, keepdim=True).sigmoid()


def inside_boxes(like: Tensor, boxes: Sequence[Tensor], stride: int) -> Tensor:
    """1 where a location's cell touches a box, else 0: (N, 1, H, W) for `like` (N, C, H, W).

    `boxes` of each image as (M, 4) corners in pixels of the network's input; an image may have none.
    """
    mask = torch.zeros(len(like), 1, *like.shape[2:], device=like.device)
    for image, corners in enumerate(boxes):
        low, high = (corners[:, :2] / stride).floor().int(), (corners[:, 2:] / stride).ceil().int()
        for (left, top), (right, bottom) in zip(low.tolist(), high.tolist(), strict=True):
            mask[image, 0, max(0, top) : bottom, max(0, left) : right] = 1
    return mask


def squared_error(student: Tensor, teacher: Tensor) -> Tensor:
    """(F_t - F_s)^2 summed over channels: (N, C, H, W) each -> (N, 1, H, W)."""
    return (teacher.detach().float() - student.float()).square().sum(dim=1, keepdim=True)


def standardised_error(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared error of features whose every channel has mean 0 and deviation 1 over batch and space.

    So only the pattern counts, not the size: "PKD: General Distillation Framework for Object Detectors via Pearson
    Correlation Coefficient", NeurIPS 2022. (N, C, H, W) each -> (N, 1, H, W). Over several processes each takes mean and
    deviation of its own share of the batch, so the term is not exactly one process's.
    """
    return squared_error(standardised(student), standardised(teacher))


def standardised(features: Tensor) -> Tensor:
    features = features.float()
    deviation, mean = torch.std_mean(features, dim=(0, 2, 3), keepdim=True, correction=0)
    return (features - mean) / (deviation + 1e-6)


def divergence(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """KL(p_t || p_s) of the K Bernoullis at each location, summed: logits (N, K, H, W) -> (N, 1, H, W).

    BCE(z_s, p_t) less its floor, the teacher's entropy, written without cancellation of large numbers:
    softplus(z_s) - softplus(z_t) - p_t (z_s - z_t). Its gradient is BCE's, and it is 0 where the two agree.
    """
    z_s, z_t = student_logits.float(), teacher_logits.detach().float()
    return (softplus(z_s) - softplus(z_t) - z_t.sigmoid() * (z_s - z_t)).sum(dim=1, keepdim=True)


def weighted_mean(distance: Tensor, mask: Tensor) -> Tensor:
    """sum(mask * distance) / sum(mask), both (N, 1, H, W); 0 where the mask is 0 everywhere.

    Over several processes the mask is summed over all of them: each returns world size x its own sum / the global sum,
    so that the mean over processes, which is what gradients are averaged by, is the term of the whole batch.
    """
    total = reduce_mean(mask.sum())
    return (mask * distance).sum() / total.clamp(min=torch.finfo(total.dtype).tiny)
