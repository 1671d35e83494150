"""Masks over locations and distances between student and teacher, from which the terms of every method are built.

Pure functions on the tensors of one pyramid level, all computed in fp32, whatever the precision of their inputs.
Source of richness, feature and logit term: "Distilling Object Detectors with Feature Richness", NeurIPS 2021.
"""

from collections.abc import Sequence

import frs.detectors._mmdet_init  # noqa: F401 - before mmdet

import torch
from mmdet.utils import reduce_mean
from torch import Tensor
from torch.nn.functional import cosine_similarity, log_softmax, softplus


def richness(teacher_logits: Tensor) -> Tensor:
    """Return the teacher's highest class score at each location: (N, K, H, W) -> (N, 1, H, W), without gradient.

    Richness S = max over K of sigmoid(z_t), K = anchors x classes.
    """
    return teacher_logits.detach().float().amax(dim=1, keepdim=True).sigmoid()


def inside_boxes(like: Tensor, boxes: Sequence[Tensor], stride: int) -> Tensor:
    """Return 1 where a location's cell touches a box, else 0: (N, 1, H, W) for `like` (N, C, H, W).

    `boxes` holds the corners (M, 4) of each image's boxes in pixels of the network's input; M may be 0. `stride` is the
    size of a cell in the same pixels.
    """
    mask = torch.zeros(len(like), 1, *like.shape[2:], device=like.device)
    for image, corners in enumerate(boxes):
        low, high = (corners[:, :2] / stride).floor().int(), (corners[:, 2:] / stride).ceil().int()
        for (left, top), (right, bottom) in zip(low.tolist(), high.tolist(), strict=True):
            mask[image, 0, max(0, top) : bottom, max(0, left) : right] = 1
    return mask


def squared_error(student: Tensor, teacher: Tensor) -> Tensor:
    """Return (F_t - F_s)^2 summed over channels: (N, C, H, W) each -> (N, 1, H, W)."""
    return (teacher.detach().float() - student.float()).square().sum(dim=1, keepdim=True)


def standardised_error(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the squared error of standardised features: (N, C, H, W) each -> (N, 1, H, W).

    Standardisation removes the scale of a channel and leaves its pattern. Source: "PKD: General Distillation
    Framework for Object Detectors via Pearson Correlation Coefficient", NeurIPS 2022. With several processes, each
    uses mean and deviation of its own part of the batch, so the term differs slightly from that of a single process.
    """
    return squared_error(standardise(student), standardise(teacher))


def standardise(features: Tensor) -> Tensor:
    """Return features whose every channel has mean 0 and deviation 1 over batch and space: (N, C, H, W)."""
    features = features.float()
    deviation, mean = torch.std_mean(features, dim=(0, 2, 3), keepdim=True, correction=0)
    return (features - mean) / (deviation + 1e-6)


def cosine_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Return 1 - the cosine of both feature vectors at each location: (N, C, H, W) each -> (N, 1, H, W), 0 to 2.

    A vector of zeros has cosine 0.
    """
    return 1 - cosine_similarity(student.float(), teacher.detach().float(), dim=1, eps=1e-6).unsqueeze(1)


def channel_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the KL divergence of each channel's softmax over the locations: (N, C, H, W) each -> (N, 1, H, W).

    The value at a location is H x W times p_t log(p_t / p_s) - p_t + p_s, averaged over channels: at least 0, and 0
    where both agree, so that the minimum under any mask is the teacher. The uniform mean is the sum over locations of
    p_t log(p_t / p_s), averaged over channels and images. Source: "Channel-wise Knowledge Distillation for Dense
    Prediction", ICCV 2021, equation 4, with temperature 1.
    """
    shape = (len(student), 1, *student.shape[2:])
    log_s, log_t = (log_softmax(x.float().flatten(2), dim=2) for x in (student, teacher.detach()))
    p_s, p_t = log_s.exp(), log_t.exp()
    return (p_t * (log_t - log_s) - p_t + p_s).mean(dim=1).mul(log_s.shape[2]).reshape(shape)


def divergence(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Return KL(p_t || p_s) of the K Bernoulli variables at each location, summed: (N, K, H, W) each -> (N, 1, H, W).

    This is BCE(z_s, p_t) less its minimum, the teacher's entropy, written without cancellation of large numbers:
    softplus(z_s) - softplus(z_t) - p_t (z_s - z_t). The gradient equals BCE's; the value is 0 where both agree.
    """
    z_s, z_t = student_logits.float(), teacher_logits.detach().float()
    return (softplus(z_s) - softplus(z_t) - z_t.sigmoid() * (z_s - z_t)).sum(dim=1, keepdim=True)


def weighted_mean(distance: Tensor, mask: Tensor) -> Tensor:
    """Return the scalar sum(mask * distance) / sum(mask), both (N, 1, H, W); 0 if the mask is 0 everywhere.

    With several processes, sum(mask) covers all of them: each process returns world size x its own sum / the global
    sum. Gradients are averaged over processes, and the mean of these values is the term of the whole batch.
    """
    total = reduce_mean(mask.sum())
    return (mask * distance).sum() / total.clamp(min=torch.finfo(total.dtype).tiny)
