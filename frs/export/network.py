"""A detector from a batch of one image to its boxes in tensors alone, as `torch.export` needs it.

The results are those of the detector's own `predict`: same thresholds, same candidates, same order. mmdet's code cannot
be traced, because it has lists of samples, and branches on the number of boxes.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import frs.detectors._mmdet_init  # noqa: F401 - before mmdet

import torch
from mmdet.models.dense_heads import YOLOXHead
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.dense_heads.gfl_head import GFLHead
from mmdet.models.dense_heads.tood_head import TOODHead
from mmdet.models.roi_heads import StandardRoIHead
from mmengine.config import ConfigDict
from torch import Tensor, nn
from torchvision.ops import nms, roi_align

from frs.detectors.heads import Detector, dense_head
from frs.errors import ExportUnsupported, UnsupportedDetector


class Boxes(NamedTuple):
    """Boxes of one image before NMS."""

    corners: Tensor
    """(N, 4): x1, y1, x2, y2."""
    scores: Tensor
    """(N,)."""
    groups: Tensor
    """(N,), int64: class or pyramid level; boxes of different groups do not suppress each other."""


class Level(NamedTuple):
    """A pyramid level of a dense head's output for one image of P priors."""

    scores: Tensor
    """(P, K), 0 to 1."""
    boxes: Tensor
    """(P, C): the head's outputs for a box."""
    factors: Tensor | None
    """(P,): factor of the scores, such as centerness."""
    priors: Tensor
    """(P, 4) anchors or (P, 2) points."""
    stride: int
    """Distance of two locations in pixels."""


Decode = Callable[[Any, Tensor, Tensor, int], Tensor]
"""A function (head, priors, boxes, stride) that returns corners (N, 4) in pixels of the network's input."""


def _decode(head: Any, priors: Tensor, boxes: Tensor, stride: int) -> Tensor:
    return head.bbox_coder.decode(priors, boxes)


def _decode_distributions(head: Any, priors: Tensor, boxes: Tensor, stride: int) -> Tensor:
    return head.bbox_coder.decode(head.anchor_center(priors), head.integral(boxes) * stride)


def _scale(head: Any, priors: Tensor, boxes: Tensor, stride: int) -> Tensor:
    return boxes * stride


_DECODE: dict[Any, Decode] = {
    BaseDenseHead._predict_by_feat_single: _decode,
    GFLHead._predict_by_feat_single: _decode_distributions,
    TOODHead._predict_by_feat_single: _scale,
}
"""How boxes are decoded, by the method of mmdet that this module repeats."""
_NMS_SETTINGS = {"type", "iou_threshold", "max_num"}


class DetectorNetwork(nn.Module):
    """Predicts the boxes of one image."""

    def __init__(self, detector: Detector) -> None:
        """Raise ExportUnsupported if the detector predicts in a way that this module does not repeat."""
        super().__init__()
        self.detector = detector.eval()
        self.head = _dense_head(detector)
        self.two_stage = getattr(detector, "roi_head", None) is not None
        _check(detector, self.head)

    def forward(self, pixels: Tensor, content: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return corners (D, 4) in pixels of the original image, scores (D,) and labels (D,), highest scores first.

        `pixels` (1, 3, H, W) is normalised and padded, `content` (2,) is the [height, width] of the image in it, and
        `scale` (2,) is the factor that the image was scaled by, [horizontal, vertical].
        """
        pyramid = self.detector.extract_feat(pixels)
        if self.two_stage:
            boxes, config = self._second_stage(pyramid, self._proposals(pyramid, content), content, scale)
        elif isinstance(self.head, YOLOXHead):
            boxes, config = self._yolox_candidates(pyramid, scale), self.head.test_cfg
        else:
            boxes, config = self._candidates(pyramid, content, scale), self.head.test_cfg
        kept = suppress(boxes, config.nms.iou_threshold, config.get("max_per_img", config.nms.get("max_num", -1)))
        return boxes.corners[kept], boxes.scores[kept], boxes.groups[kept]

    def _candidates(self, pyramid: tuple[Tensor, ...], content: Tensor, scale: Tensor) -> Boxes:
        """Return the boxes above the score threshold, at most `nms_pre` a level."""
        config = self.head.test_cfg
        decode = _DECODE[type(self.head)._predict_by_feat_single]
        parts = []
        for level in self._levels(pyramid):
            scores, rows, labels = best_pairs(level.scores, config.score_thr, config.get("nms_pre", -1))
            corners = decode(self.head, level.priors[rows], level.boxes[rows], level.stride)
            if level.factors is not None:
                scores = scores * level.factors[rows]
            parts.append(Boxes(corners, scores, labels))
        boxes = concatenate(parts)
        corners = boxes.corners if decode is _scale else clip(boxes.corners, content)  # TOOD's boxes are not clipped
        return drop_small(boxes._replace(corners=corners / scale.repeat(2)), config.get("min_bbox_size", -1))

    def _levels(self, pyramid: tuple[Tensor, ...]) -> list[Level]:
        outputs = self.head(pyramid)
        factors = outputs[2] if len(outputs) > 2 else [None] * len(outputs[0])
        generator = self.head.prior_generator
        priors = generator.grid_priors([scores.shape[-2:] for scores in outputs[0]], device=pyramid[0].device)
        activated = getattr(self.head.loss_cls, "activated", False)
        levels = []
        for number, (scores, boxes, factor) in enumerate(zip(outputs[0], outputs[1], factors, strict=True)):
            scores = _rows(scores, self.head.cls_out_channels)
            levels.append(
                Level(
                    scores if activated else scores.sigmoid(),
                    _rows(boxes, boxes.shape[1] // generator.num_base_priors[number]),
                    None if factor is None else _rows(factor, 1)[:, 0].sigmoid(),
                    priors[number],
                    generator.strides[number][0],
                )
            )
        return levels

    def _yolox_candidates(self, pyramid: tuple[Tensor, ...], scale: Tensor) -> Boxes:
        """Return the best class of each prior above the score threshold, as `YOLOXHead.predict_by_feat` does."""
        outputs = self.head(pyramid)
        sizes = [scores.shape[-2:] for scores in outputs[0]]
        priors = self.head.prior_generator.grid_priors(sizes, device=pyramid[0].device, with_stride=True)
        scores, boxes, objectness = (
            torch.cat([_rows(level, level.shape[1]) for level in levels]) for levels in outputs
        )
        best, labels = scores.sigmoid().max(dim=1)
        products = best * objectness[:, 0].sigmoid()
        rows = torch.nonzero(products >= self.head.test_cfg.score_thr).squeeze(1)
        corners = self.head._bbox_decode(torch.cat(priors), boxes)[rows]
        return Boxes(corners / scale.repeat(2), products[rows], labels[rows])

    def _proposals(self, pyramid: tuple[Tensor, ...], content: Tensor) -> Tensor:
        """Return the region proposals (R, 4) in pixels of the network's input, as `RPNHead` does."""
        config = self.detector.test_cfg.rpn
        parts = []
        for number, level in enumerate(self._levels(pyramid)):
            scores, rows = level.scores[:, 0].topk(torch.sym_min(config.nms_pre, level.scores.shape[0]))
            corners = clip(_decode(self.head, level.priors[rows], level.boxes[rows], level.stride), content)
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


def _check(detector: Detector, head: Any) -> None:
    """Raise ExportUnsupported unless `DetectorNetwork` repeats all that the detector's `predict` does."""
    roi_head, name = getattr(detector, "roi_head", None), type(detector).__name__
    two_stage = roi_head is not None
    configs = [detector.test_cfg.rpn, detector.test_cfg.rcnn] if two_stage else [head.test_cfg]
    repeated = type(head).__name__ == "RPNHead" if two_stage else _is_repeated(head)
    reasons = {
        "it has more than two stages, or masks": not two_stage or _is_plain(roi_head),
        f"the boxes of {type(head).__name__} are decoded in another way": repeated,
        "its boxes are suppressed in another way than by plain NMS": all(
            config.nms.get("type") == "nms" and set(config.nms) <= _NMS_SETTINGS for config in configs
        ),
    }
    if missing := [reason for reason, supported in reasons.items() if not supported]:
        raise ExportUnsupported(f"{name} cannot be exported: {missing[0]}.")


def _is_plain(roi_head: Any) -> bool:
    if type(roi_head) is not StandardRoIHead or roi_head.with_mask:
        return False
    return not getattr(roi_head.bbox_head, "custom_cls_channels", False)


def _is_repeated(head: Any) -> bool:
    if isinstance(head, YOLOXHead):
        return type(head).predict_by_feat is YOLOXHead.predict_by_feat
    generic = type(head).predict_by_feat in (BaseDenseHead.predict_by_feat, TOODHead.predict_by_feat)
    return generic and type(head)._predict_by_feat_single in _DECODE


def _rows(outputs: Tensor, channels: int) -> Tensor:
    """Return the outputs (1, A x channels, H, W) of one image as (H x W x A, channels), in the order of the priors."""
    return outputs[0].permute(1, 2, 0).reshape(-1, channels)


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
