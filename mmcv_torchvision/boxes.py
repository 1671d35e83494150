"""Operators on boxes (x1, y1, x2, y2) in pixels.

With `offset` 1, a box includes its last pixel and is x2 - x1 + 1 wide; with 0 it is x2 - x1 wide. The conventions are
those of mmcv/ops/csrc/pytorch/cpu/nms.cpp and bbox_overlaps_cpu.cpp.
"""

from ctypes import c_float

import torch
from torch import Tensor
from torchvision import ops

from mmcv_torchvision.precision import at_least_float32

NAIVE, LINEAR, GAUSSIAN = range(3)
"""Values of `method`, as `mmcv.ops.soft_nms` passes them."""

IOU, IOF = range(2)
"""Values of `mode`, as `mmcv.ops.bbox_overlaps` passes them: intersection over union, or over the first box's area."""


@torch.no_grad()
def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Return the indices of the boxes kept, by descending score: (N, 4), (N,) -> (K,) int64."""
    boxes, scores = at_least_float32(boxes, scores)
    return ops.nms(_without_offset(boxes, offset), scores, _round_to_float32(iou_threshold))


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
    """Write the K boxes kept, with their decayed scores, into the first rows of `dets` (N, 5); return their indices.

    `boxes` is (N, 4), `scores` (N,), the result (K,). Of boxes with equal scores, the one of lower index is kept first.
    Soft-NMS: Bodla et al., ICCV 2017.
    """
    remaining, scores = at_least_float32(boxes, scores)
    index = torch.arange(len(remaining), device=remaining.device)
    kept: list[Tensor] = []
    while len(index):
        best = scores.argmax()
        dets[len(kept)] = torch.cat([remaining[best], scores[best, None]])
        kept.append(index[best])
        overlap = bbox_matrix(remaining[best, None], remaining, offset)[0]
        scores = scores * _decay(overlap, iou_threshold, sigma, method)
        mask = ~(scores < min_score)
        mask[best] = False
        remaining, scores, index = remaining[mask], scores[mask], index[mask]
    return torch.stack(kept) if kept else index


@torch.no_grad()
def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Return groups of indices into `dets` (N, 5): each kept box, then the boxes it suppressed, by descending score.

    Unlike in the other operators, an overlap equal to the threshold suppresses.
    """
    (dets,) = at_least_float32(dets)
    order = dets[:, 4].argsort(descending=True, stable=True)
    groups: list[list[int]] = []
    while len(order):
        best, others = order[:1], order[1:]
        overlap = bbox_matrix(dets[best, :4], dets[others, :4], offset=0)[0]
        suppressed = overlap >= _round_to_float32(iou_threshold)
        groups.append([*best.tolist(), *others[suppressed].tolist()])
        order = others[~suppressed]
    return groups


@torch.no_grad()
def bbox_overlaps(bboxes1: Tensor, bboxes2: Tensor, ious: Tensor, mode: int, aligned: bool, offset: int) -> None:
    """Write overlaps into `ious`, without gradient as in mmcv.

    Shapes: (M, 4), (N, 4) -> (M, N); with `aligned`, (M, 4), (M, 4) -> (M,).
    """
    first, second = at_least_float32(bboxes1, bboxes2)
    if aligned:
        ious.copy_(_overlap(first, second, mode, offset))
    else:
        ious.copy_(bbox_matrix(first, second, offset, mode))


def bbox_matrix(first: Tensor, second: Tensor, offset: int, mode: int = IOU) -> Tensor:
    """Return the overlap of every box with every other: (M, 4), (N, 4) -> (M, N)."""
    return _overlap(first[:, None], second[None], mode, offset)


def _overlap(first: Tensor, second: Tensor, mode: int, offset: int) -> Tensor:
    """Return overlaps: (..., 4), (..., 4), broadcast -> (...).

    Two boxes without area give NaN, which exceeds no threshold.
    """
    top_left = torch.maximum(first[..., :2], second[..., :2])
    bottom_right = torch.minimum(first[..., 2:], second[..., 2:])
    intersection = (bottom_right - top_left + offset).clamp(min=0).prod(-1)
    area = _area(first, offset)
    return intersection / (area + _area(second, offset) - intersection if mode == IOU else area)


def _area(boxes: Tensor, offset: int) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2] + offset).prod(-1)


def _without_offset(boxes: Tensor, offset: int) -> Tensor:
    """Return the same boxes in torchvision's convention, x2 - x1 wide."""
    return boxes + boxes.new_tensor([0, 0, offset, offset]) if offset else boxes


def _round_to_float32(threshold: float) -> float:
    """Round the threshold to float32.

    mmcv compares in float32. torchvision compares in float64 on the CPU, where an overlap of 0.6f is above 0.6.
    """
    return c_float(threshold).value


def _decay(overlap: Tensor, iou_threshold: float, sigma: float, method: int) -> Tensor:
    """Return the factors of the scores, given the boxes' overlaps with the box kept last: (N,) -> (N,)."""
    if method == GAUSSIAN:
        return torch.exp(-overlap.square() / sigma)
    factor = 1 - overlap if method == LINEAR else torch.zeros_like(overlap)
    return torch.where(overlap >= _round_to_float32(iou_threshold), factor, 1.0)
