"""A detector from a batch of one image to its boxes in tensors alone, as `torch.export` needs it.

The results are those of the detector's own `predict`: same thresholds, same candidates, same order. mmdet's code cannot
be traced, because it has lists of samples, and branches on the number of boxes.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import frs.detectors._mmdet_init  # noqa: F401 - before mmdet

import torch
from mmdet.models.roi_heads import StandardRoIHead
from mmengine.config import ConfigDict
from torch import Tensor, nn
from torchvision.ops import nms, roi_align

from frs.detectors.heads import Detector, dense_head
from frs.errors import ExportUnsupported, UnsupportedDetector
from frs.export.levels import UNCLIPPED, Decode, decode_centres, decode_deltas, decoder_of, levels_of


class Boxes(NamedTuple):
    """Boxes of one image before NMS."""

    corners: Tensor
    """(N, 4): x1, y1, x2, y2."""
    scores: Tensor
    """(N,)."""
    groups: Tensor
    """(N,), int64: class or pyramid level; boxes of different groups do not suppress each other."""


_NMS_SETTINGS = {"type", "iou_threshold", "max_num"}


class DetectorNetwork(nn.Module):
    """Predicts the boxes of one image."""

    def __init__(self, detector: Detector) -> None:
        """Raise ExportUnsupported if the detector predicts in a way that this module does not repeat."""
        super().__init__()
        self.detector = detector.eval()
        self.head = _dense_head(detector)
        self.two_stage = getattr(detector, "roi_head", None) is not None
        self.decode = _check(detector, self.head)

    def forward(self, pixels: Tensor, content: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return corners (D, 4) in pixels of the original image, scores (D,) and labels (D,), highest scores first.

        `pixels` (1, 3, H, W) is normalised and padded, `content` (2,) is the [height, width] of the image in it, and
        `scale` (2,) is the factor that the image was scaled by, [horizontal, vertical].
        """
        pyramid = self.detector.extract_feat(pixels)
        if self.two_stage:
            boxes, config = self._second_stage(pyramid, self._proposals(pyramid, content), content, scale)
        elif self.decode is decode_centres:
            boxes, config = self._yolox_candidates(pyramid, scale), self.head.test_cfg
        else:
            boxes, config = self._candidates(pyramid, content, scale), self.head.test_cfg
        kept = suppress(boxes, config.nms.iou_threshold, config.get("max_per_img", config.nms.get("max_num", -1)))
        return boxes.corners[kept], boxes.scores[kept], boxes.groups[kept]

    def _candidates(self, pyramid: tuple[Tensor, ...], content: Tensor, scale: Tensor) -> Boxes:
        """Return the boxes above the score threshold, at most `nms_pre` a level."""
        config = self.head.test_cfg
        parts = []
        for level in levels_of(self.head, pyramid):
            scores, rows, labels = best_pairs(level.scores, config.score_thr, config.get("nms_pre", -1))
            corners = self.decode(self.head, level.priors[rows], level.boxes[rows], level.stride)
            if level.factors is not None:
                scores = scores * level.factors[rows]
            parts.append(Boxes(corners, scores, labels))
        boxes = concatenate(parts)
        corners = boxes.corners if self.decode in UNCLIPPED else clip(boxes.corners, content)
        return drop_small(boxes._replace(corners=corners / scale.repeat(2)), config.get("min_bbox_size", -1))

    def _yolox_candidates(self, pyramid: tuple[Tensor, ...], scale: Tensor) -> Boxes:
        """Return the best class of each prior above the score threshold, as `YOLOXHead.predict_by_feat` does."""
        parts = []
        for level in levels_of(self.head, pyramid):
            best, labels = level.scores.max(dim=1)
            assert level.factors is not None
            corners = self.decode(self.head, level.priors, level.boxes, level.stride)
            parts.append(Boxes(corners, best * level.factors, labels))
        boxes = concatenate(parts)
        rows = torch.nonzero(boxes.scores >= self.head.test_cfg.score_thr).squeeze(1)
        return Boxes(boxes.corners[rows] / scale.repeat(2), boxes.scores[rows], boxes.groups[rows])

    def _proposals(self, pyramid: tuple[Tensor, ...], content: Tensor) -> Tensor:
        """Return the region proposals (R, 4) in pixels of the network's input, as `RPNHead` does."""
        config = self.detector.test_cfg.rpn
        parts = []
        for number, level in enumerate(levels_of(self.head, pyramid)):
            scores, rows = level.scores[:, 0].topk(torch.sym_min(config.nms_pre, level.scores.shape[0]))
            corners = clip(decode_deltas(self.head, level.priors[rows], level.boxes[rows], level.stride), content)
            parts.append(Boxes(corners, scores, torch.full_like(rows, number)))
        boxes = drop_small(concatenate(parts), config.get("min_bbox_size", -1))
        return boxes.corners[suppress(boxes, config.nms.iou_threshold, config.max_per_img)]

    def _second_stage(
        self, pyramid: tuple[Tensor, ...], proposals: Tensor, content: Tensor, scale: Tensor
    ) -> tuple[Boxes, ConfigDict]:
        """Return the boxes of the proposals above the score threshold, as `StandardRoIHead` does, and its settings."""
        roi_head, config = self.detector.roi_head, self.detector.test_cfg.rcnn
        head = roi_head.bbox_head
        logits, deltas = head(pool(roi_head.bbox_roi_extractor, pyramid, proposals))
        scores, rows, labels = best_pairs(logits.softmax(-1)[:, : head.num_classes], config.score_thr, -1)
        deltas = deltas[rows] if head.reg_class_agnostic else deltas.reshape(-1, head.num_classes, 4)[rows, labels]
        corners = clip(head.bbox_coder.decode(proposals[rows], deltas), content)
        return Boxes(corners / scale.repeat(2), scores, labels), config


def check_exportable(detector: Detector) -> None:
    """Raise ExportUnsupported if the detector predicts in a way that `DetectorNetwork` does not repeat."""
    _check(detector, _dense_head(detector))


def _dense_head(detector: Detector) -> Any:
    try:
        return dense_head(detector)
    except UnsupportedDetector as error:
        raise ExportUnsupported(f"{type(detector).__name__} cannot be exported: it has no such head.") from error


def _check(detector: Detector, head: Any) -> Decode:
    """Return how the boxes of the dense head are decoded.

    Raises ExportUnsupported unless `DetectorNetwork` repeats all that the detector's `predict` does.
    """
    roi_head, name = getattr(detector, "roi_head", None), type(detector).__name__
    two_stage = roi_head is not None
    configs = [detector.test_cfg.rpn, detector.test_cfg.rcnn] if two_stage else [head.test_cfg]
    decode = decoder_of(head) if not two_stage else decode_deltas if type(head).__name__ == "RPNHead" else None
    reasons = {
        "it has more than two stages, or masks": not two_stage or _is_plain(roi_head),
        f"the boxes of {type(head).__name__} are decoded in another way": decode is not None,
        "its boxes are suppressed in another way than by plain NMS": all(
            config.nms.get("type") == "nms" and set(config.nms) <= _NMS_SETTINGS for config in configs
        ),
    }
    if missing := [reason for reason, supported in reasons.items() if not supported]:
        raise ExportUnsupported(f"{name} cannot be exported: {missing[0]}.")
    assert decode is not None
    return decode


def _is_plain(roi_head: Any) -> bool:
    if type(roi_head) is not StandardRoIHead or roi_head.with_mask:
        return False
    return not getattr(roi_head.bbox_head, "custom_cls_channels", False)


def best_pairs(scores: Tensor, threshold: float, limit: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return score, row and column of the pairs above the threshold in scores (P, K), the `limit` highest; -1: all."""
    flat = scores.flatten()
    order = None
    if limit > 0:
        flat, order = flat.topk(torch.sym_min(limit, flat.shape[0]))
    above = torch.nonzero(flat > threshold).squeeze(1)
    pairs = above if order is None else order[above]
    return flat[above], pairs // scores.shape[1], pairs % scores.shape[1]


def concatenate(parts: Sequence[Boxes]) -> Boxes:
    """Return all boxes as one."""
    return Boxes(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


def clip(corners: Tensor, content: Tensor) -> Tensor:
    """Return corners (N, 4) inside the image of size `content`, (2,): height, width."""
    return torch.minimum(corners.clamp(min=0), content.flip(0).repeat(2))


def drop_small(boxes: Boxes, smallest: float) -> Boxes:
    """Return the boxes whose width and height exceed `smallest`; all if it is negative."""
    if smallest < 0:
        return boxes
    sides = boxes.corners[:, 2:] - boxes.corners[:, :2]
    rows = torch.nonzero((sides > smallest).all(dim=1)).squeeze(1)
    return Boxes(*(tensor[rows] for tensor in boxes))


def suppress(boxes: Boxes, iou_threshold: float, limit: int) -> Tensor:
    """Return the rows that NMS within each group keeps, highest scores first, at most `limit` (-1: all).

    Boxes of different groups are shifted apart, as in mmcv's `batched_nms`.
    """
    extent = torch.cat([boxes.corners.flatten(), boxes.corners.new_zeros(1)]).max() + 1
    kept = nms(boxes.corners + (boxes.groups * extent)[:, None], boxes.scores, iou_threshold)
    return kept if limit < 0 else kept[:limit]


def pool(extractor: Any, pyramid: tuple[Tensor, ...], proposals: Tensor) -> Tensor:
    """Return the features (R, C, h, w) of proposals (R, 4), each from the level of its size, by RoI align."""
    rois = torch.cat([torch.zeros_like(proposals[:, :1]), proposals], dim=1)
    levels = extractor.map_roi_levels(rois, extractor.num_inputs)
    height, width = extractor.roi_layers[0].output_size
    pooled = rois.new_zeros(rois.shape[0], extractor.out_channels, height, width)
    for number, layer in enumerate(extractor.roi_layers):
        rows = torch.nonzero(levels == number).squeeze(1)
        features = roi_align(
            pyramid[number], rois[rows], (height, width), layer.spatial_scale, layer.sampling_ratio, layer.aligned
        )
        pooled = pooled.index_copy(0, rows, features)
    return pooled
