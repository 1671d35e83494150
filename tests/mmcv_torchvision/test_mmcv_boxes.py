"""Box operators, called through mmcv's functions and compared with NumPy loops."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from mmcv.ops import batched_nms, bbox_overlaps, nms, nms_match, soft_nms
from torch import Tensor

Array = np.ndarray[Any, Any]


def draw_boxes(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return random boxes (N, 4) and scores (N,)."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=generator) * 60
    boxes = torch.cat([corners, corners + 5 + torch.rand(count, 2, generator=generator) * 40], 1)
    return boxes, torch.rand(count, generator=generator)


def overlap(a: Array, b: Array, offset: int, over_first: bool = False) -> float:
    """Return the intersection over the union, or over the area of `a`."""
    width = max(min(a[2], b[2]) - max(a[0], b[0]) + offset, 0)
    height = max(min(a[3], b[3]) - max(a[1], b[1]) + offset, 0)
    areas = [(box[2] - box[0] + offset) * (box[3] - box[1] + offset) for box in (a, b)]
    intersection = width * height
    return float(intersection / (areas[0] if over_first else sum(areas) - intersection))


def greedy_nms(boxes: Tensor, scores: Tensor, threshold: float, offset: int) -> list[int]:
    """Return the indices of the boxes kept by a greedy loop."""
    kept: list[int] = []
    rows = boxes.double().numpy()
    for index in np.argsort(-scores.numpy(), kind="stable"):
        if all(overlap(rows[index], rows[earlier], offset) <= threshold for earlier in kept):
            kept.append(int(index))
    return kept


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9])
def test_nms_keeps_the_boxes_of_a_greedy_loop(threshold: float, offset: int) -> None:
    boxes, scores = draw_boxes(80)
    detections, kept = nms(boxes, scores, threshold, offset=offset)
    assert kept.tolist() == greedy_nms(boxes, scores, threshold, offset)
    assert torch.equal(detections, torch.cat([boxes, scores[:, None]], 1)[kept])


def test_nms_applies_the_offset() -> None:
    boxes = torch.tensor([[0.0, 0, 9, 9], [0, 5, 9, 14]])
    scores = torch.tensor([0.9, 0.8])
    assert len(nms(boxes, scores, 0.3, offset=0)[1]) == 2  # 4 rows of 14 in common
    assert len(nms(boxes, scores, 0.3, offset=1)[1]) == 1  # 5 rows of 15


def test_nms_compares_with_the_threshold_in_float32() -> None:
    boxes = torch.tensor([[0.0, 0, 5, 1], [0, 0, 3, 1]])  # overlap 0.6
    assert len(nms(boxes, torch.tensor([0.9, 0.8]), 0.6)[1]) == 2


def test_nms_applies_the_score_threshold_and_the_maximum_number() -> None:
    boxes, scores = draw_boxes(40)
    expected = [index for index in greedy_nms(boxes, scores, 0.5, 0) if scores[index] > 0.4][:3]
    assert nms(boxes, scores, 0.5, score_threshold=0.4, max_num=3)[1].tolist() == expected


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_nms_supports_every_precision(dtype: torch.dtype) -> None:
    boxes, scores = draw_boxes(50)
    boxes, scores = boxes.to(dtype), scores.to(dtype)
    detections, kept = nms(boxes, scores.float(), 0.5)  # autocast leaves boxes and scores in two dtypes
    assert kept.tolist() == greedy_nms(boxes, scores.float(), 0.5, 0)
    assert detections.shape == (len(kept), 5)
    assert nms(boxes, scores, 0.5)[0].dtype == dtype


@pytest.mark.parametrize("offset", [0, 1])
def test_nms_of_no_boxes_returns_no_boxes(offset: int) -> None:
    boxes, scores = torch.zeros(0, 4), torch.zeros(0)
    for function in (nms, soft_nms):
        detections, kept = function(boxes, scores, 0.5, offset=offset)
        assert detections.shape == (0, 5)
        assert kept.shape == (0,)
        assert kept.dtype == torch.long
    assert nms_match(torch.zeros(0, 5), 0.5) == []


def test_batched_nms_suppresses_within_each_class() -> None:
    boxes, scores = draw_boxes(60)
    classes = torch.arange(60) % 3
    for options in ({}, {"split_thr": 10}):
        detections, kept = batched_nms(boxes, scores, classes, {"type": "nms", "iou_threshold": 0.4, **options})
        expected = set()
        for label in range(3):
            members = (classes == label).nonzero()[:, 0]
            expected |= {int(members[index]) for index in greedy_nms(boxes[members], scores[members], 0.4, 0)}
        assert set(kept.tolist()) == expected
        assert detections[:, 4].tolist() == sorted(scores[kept].tolist(), reverse=True)


def test_batched_nms_can_ignore_classes() -> None:
    boxes, scores = draw_boxes(30)
    options = {"type": "nms", "iou_threshold": 0.4}
    _, kept = batched_nms(boxes, scores, torch.arange(30), options, class_agnostic=True)
    assert kept.tolist() == greedy_nms(boxes, scores, 0.4, 0)
    empty = batched_nms(boxes[:0], scores[:0], torch.arange(0), options, class_agnostic=True)
    assert empty[0].shape == (0, 5)


DECAYS: dict[str, Callable[[float], float]] = {
    "naive": lambda iou: 0.0 if iou >= 0.3 else 1.0,
    "linear": lambda iou: 1 - iou if iou >= 0.3 else 1.0,
    "gaussian": lambda iou: float(np.exp(-iou * iou / 0.5)),
}


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("method", DECAYS)
def test_soft_nms_decays_scores_after_each_box_kept(method: str, offset: int) -> None:
    boxes, scores = draw_boxes(40)
    remaining = {index: float(score) for index, score in enumerate(scores)}
    expected: list[tuple[int, float]] = []
    while remaining:
        best = max(remaining, key=lambda index: remaining[index])
        expected.append((best, remaining.pop(best)))
        for index in list(remaining):
            remaining[index] *= DECAYS[method](
                overlap(boxes[best].double().numpy(), boxes[index].double().numpy(), offset)
            )
            if remaining[index] < 0.05:
                del remaining[index]
    detections, kept = soft_nms(boxes, scores, 0.3, sigma=0.5, min_score=0.05, method=method, offset=offset)
    assert kept.tolist() == [index for index, _ in expected]
    assert torch.equal(detections[:, :4], boxes[kept])
    np.testing.assert_allclose(detections[:, 4], [score for _, score in expected], rtol=1e-5)


def test_soft_nms_supports_numpy_and_half_precision() -> None:
    boxes, scores = draw_boxes(20)
    detections, kept = soft_nms(boxes.numpy(), scores.numpy())
    assert isinstance(detections, np.ndarray)
    assert len(kept) == len(detections)
    assert soft_nms(boxes.half(), scores.half())[0].dtype == torch.float16


def test_nms_match_groups_each_box_with_the_boxes_it_suppressed() -> None:
    boxes, scores = draw_boxes(40)
    remaining = np.argsort(-scores.numpy(), kind="stable").tolist()
    expected: list[list[int]] = []
    while remaining:
        best = remaining[0]
        group = [i for i in remaining if i == best or overlap(boxes[best].numpy(), boxes[i].numpy(), 0) >= 0.4]
        expected.append(group)
        remaining = [index for index in remaining if index not in group]
    groups = nms_match(torch.cat([boxes, scores[:, None]], 1), 0.4)
    assert [group.tolist() for group in groups] == expected


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("mode", ["iou", "iof"])
def test_bbox_overlaps_match_a_loop(mode: str, offset: int) -> None:
    (first, _), (second, _) = draw_boxes(6, seed=1), draw_boxes(4, seed=2)
    expected = [[overlap(a, b, offset, mode == "iof") for b in second.numpy()] for a in first.numpy()]
    matrix = bbox_overlaps(first, second, mode, offset=offset)
    np.testing.assert_allclose(matrix, expected, rtol=1e-5)
    pairs = bbox_overlaps(first[:4], second, mode, aligned=True, offset=offset)
    np.testing.assert_allclose(pairs, np.diag(expected), rtol=1e-5)


def test_bbox_overlaps_support_no_boxes_and_half_precision() -> None:
    boxes, _ = draw_boxes(3)
    assert bbox_overlaps(boxes[:0], boxes).shape == (0, 3)
    assert bbox_overlaps(boxes[:0], boxes[:0], aligned=True).shape == (0,)
    large = torch.tensor([[0, 0, 900, 900]], dtype=torch.float16, requires_grad=True)  # its area exceeds float16
    overlaps = bbox_overlaps(large, large)
    assert overlaps.item() == 1
    assert not overlaps.requires_grad
