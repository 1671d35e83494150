"""The outputs of a dense head by pyramid level, and how its boxes are decoded, in tensors alone."""

from collections.abc import Callable
from typing import Any, NamedTuple

import frs.detectors._mmdet_init  # noqa: F401 - before mmdet

from mmdet.models.dense_heads import YOLOXHead
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.dense_heads.gfl_head import GFLHead
from mmdet.models.dense_heads.tood_head import TOODHead
from torch import Tensor


class Level(NamedTuple):
    """A pyramid level of a dense head's output, for P priors; of a batch, the priors of one image after the other."""

    scores: Tensor
    """(P, K), 0 to 1."""
    boxes: Tensor
    """(P, C): the head's outputs for a box."""
    factors: Tensor | None
    """(P,): factor of the scores, such as centerness."""
    priors: Tensor
    """(P, 4) anchors, (P, 2) points, or of YOLOX (P, 4) points and strides."""
    stride: int
    """Distance of two locations in pixels."""


Decode = Callable[[Any, Tensor, Tensor, int], Tensor]
"""A function (head, priors, boxes, stride) that returns corners (P, 4) in pixels of the network's input."""


def decode_deltas(head: Any, priors: Tensor, boxes: Tensor, stride: int) -> Tensor:
    """Return what the head's box coder makes of its outputs."""
    return head.bbox_coder.decode(priors, boxes)


def decode_distributions(head: Any, priors: Tensor, boxes: Tensor, stride: int) -> Tensor:
    """Return the boxes of GFL's distributions."""
    return head.bbox_coder.decode(head.anchor_center(priors), head.integral(boxes) * stride)


def scale_corners(head: Any, priors: Tensor, boxes: Tensor, stride: int) -> Tensor:
    """Return the boxes of TOOD, which are in units of the stride."""
    return boxes * stride


def decode_centres(head: Any, priors: Tensor, boxes: Tensor, stride: int) -> Tensor:
    """Return the boxes of YOLOX."""
    return head._bbox_decode(priors, boxes)


_DECODE: dict[Any, Decode] = {
    BaseDenseHead._predict_by_feat_single: decode_deltas,
    GFLHead._predict_by_feat_single: decode_distributions,
    TOODHead._predict_by_feat_single: scale_corners,
}
"""How boxes are decoded, by the method of mmdet that `frs.export` repeats."""


UNCLIPPED = (scale_corners, decode_centres)
"""Of these, mmdet does not clip the boxes to the image."""


def decoder_of(head: Any) -> Decode | None:
    """Return how the boxes of a one-stage detector's head are decoded; None if `frs.export` does not repeat it."""
    if isinstance(head, YOLOXHead):
        return decode_centres if type(head).predict_by_feat is YOLOXHead.predict_by_feat else None
    if type(head).predict_by_feat not in (BaseDenseHead.predict_by_feat, TOODHead.predict_by_feat):
        return None
    return _DECODE.get(type(head)._predict_by_feat_single)


def levels_of(head: Any, pyramid: tuple[Tensor, ...]) -> list[Level]:
    """Return the head's outputs for the features of a batch, the finest level first."""
    outputs = head(pyramid)
    factors = outputs[2] if len(outputs) > 2 else [None] * len(outputs[0])
    generator = head.prior_generator
    options = {"with_stride": True} if isinstance(head, YOLOXHead) else {}
    priors = generator.grid_priors([logits.shape[-2:] for logits in outputs[0]], device=pyramid[0].device, **options)
    activated = getattr(head.loss_cls, "activated", False)
    levels = []
    for number, (logits, boxes, factor) in enumerate(zip(outputs[0], outputs[1], factors, strict=True)):
        scores = _rows(logits, head.cls_out_channels)
        levels.append(
            Level(
                scores if activated else scores.sigmoid(),
                _rows(boxes, boxes.shape[1] // generator.num_base_priors[number]),
                None if factor is None else _rows(factor, 1)[:, 0].sigmoid(),
                priors[number].repeat(logits.shape[0], 1),
                generator.strides[number][0],
            )
        )
    return levels


def _rows(outputs: Tensor, channels: int) -> Tensor:
    """Return outputs (B, A x channels, H, W) as (B x H x W x A, channels), in the order of the priors."""
    return outputs.permute(0, 2, 3, 1).reshape(-1, channels)
