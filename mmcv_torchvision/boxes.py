"""Operators on boxes (x1, y1, x2, y2). With `offset` 1 a box is x2 - x1 + 1 wide: its last pixel belongs to it.

Conventions are those of mmcv/ops/csrc/pytorch/cpu/nms.cpp and bbox_overlaps_cpu.cpp.
"""

from ctypes import c_float

import torch
from torch import Tensor
from torchvision import ops

from mmcv_torchvision.precision import at_least_float32

NAIVE, LINEAR, GAUSSIAN = range(3)
"""`mmcv.ops.soft_nms` translates its method to these."""

IOU, IOF = range(2)
"""`mmcv.ops.bbox_overlaps` translates its mode to these: over the union, or over the first box ("foreground")."""


@torch.no_grad()
def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Indices of the boxes kept, by descending score: (N, 4), (N,) -> (K,) int64."""
    boxes, scores = at_least_float32(boxes, scores)
    return ops.nms(_half_open(boxes, offset), scores, _as_float32(iou_threshold))


@torch.no_grad()
def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Writes K boxes with their lowered scores into the first rows of `dets` (N, 5); returns their indices (K,).

    Equal scores: the box that came first is taken first.
    """
    left, scores = at_least_float32(boxes, scores)
    index = torch.arange(len(left), device=left.device)
    kept: list[Tensor] = []
    while len(index):
        best = scores.argmax()
        dets[len(kept)] = torch.cat([left[best], scores[best, None]])
        kept.append(index[best])
        overlap = bbox_matrix(left[best, None], left, offset)[0]
        scores = scores * _decay(overlap, iou_threshold, sigma, method)
        stays = ~(scores < min_score)
        stays[best] = False
        left, scores, index = left[stays], scores[stays], index[stays]
    return torch.stack(kept) if kept else index


@torch.no_grad()
def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Groups of indices into `dets` (N, 5), each a kept box and then those it suppressed, by descending score.

    Here, and only here, an overlap equal to the threshold suppresses.
    """
    (dets,) = at_least_float32(dets)
    order = dets[:, 4].argsort(descending=True, stable=True)
    groups: list[list[int]] = []
    while len(order):
        best, others = order[:1], order[1:]
        overlap = bbox_matrix(dets[best, :4], dets[others, :4], offset=0)[0]
        suppressed = overlap >= _as_float32(iou_threshold)
        groups.append([*best.tolist(), *others[suppressed].tolist()])
        order = others[~suppressed]
    return groups


@torch.no_grad()
def bbox_overlaps(bboxes1: Tensor, bboxes2: Tensor, ious: Tensor, mode: int, aligned: bool, offset: int) -> None:
    """(M, 4), (N, 4) -> `ious` (M, N); aligned: two times (M, 4) -> (M,). No gradient flows, as in mmcv."""
    first, second = at_least_float32(bboxes1, bboxes2)
    if aligned:
        ious.copy_(_overlap(first, second, mode, offset))
    else:
        ious.copy_(bbox_matrix(first, second, offset, mode))


def bbox_matrix(first: Tensor, second: Tensor, offset: int, mode: int = IOU) -> Tensor:
    """Every box with every other: (M, 4), (N, 4) -> (M, N)."""
    return _overlap(first[:, None], second[None], mode, offset)


def _overlap(first: Tensor, second: Tensor, mode: int, offset: int) -> Tensor:
    """(..., 4) and (..., 4), broadcast -> (...). Two boxes without area give NaN, which no threshold catches."""
    top_left = torch.maximum(first[..., :2], second[..., :2])
    bottom_right = torch.minimum(first[..., 2:], second[..., 2:])
    common = (bottom_right - top_left + offset).clamp(min=0).prod(-1)
    area = _area(first, offset)
    return common / (area + _area(second, offset) - common if mode == IOU else area)


def _area(boxes: Tensor, offset: int) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2] + offset).prod(-1)


def _half_open(boxes: Tensor, offset: int) -> Tensor:
    """The same boxes, x2 - x1 wide: torchvision knows no offset."""
    return boxes + boxes.new_tensor([0, 0, offset, offset]) if offset else boxes


def _as_float32(threshold: float) -> float:
    """Mmcv compares in float32, torchvision on the CPU in float64, where an overlap of 0.6f is above 0.6."""
    return c_float(threshold).value


def _decay(overlap: Tensor, iou_threshold: float, sigma: float, method: int) -> Tensor:
    """What a score is multiplied by, given its box's overlap with the box just taken."""
    if method == GAUSSIAN:
        return torch.exp(-overlap.square() / sigma)
    lowered = 1 - overlap if method == LINEAR else torch.zeros_like(overlap)
    return torch.where(overlap >= _as_float32(iou_threshold), lowered, 1.0)
