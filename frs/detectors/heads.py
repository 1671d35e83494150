"""Access to a detector's dense head, the same for one- and two-stage detectors."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from frs.errors import UnsupportedDetector

Detector = Any
"""An mmdet detector: a module with a backbone, a neck, a dense head, `extract_feat`, `loss` and `predict`."""

CLASS_CONVOLUTION = {
    "GFLHead": "gfl_cls",
    "RetinaHead": "retina_cls",
    "FCOSHead": "conv_cls",
    "ATSSHead": "atss_cls",
}
"""Last layer of the classification branch, for heads whose branch is `cls_convs` and one convolution."""
OBJECTNESS_OUTPUT = {"YOLOXHead": 2, "AutoAssignHead": 2}
"""Position of the objectness in a head's outputs, for heads that train class and objectness as one product.

Their class logits alone mean nothing at locations without an object, where only the product is trained.
"""
PROBABILITY_EPSILON = 1e-6
"""Probabilities are clamped to at least this distance from 0 and 1 before they are converted to logits."""


class ClassMap(NamedTuple):
    """The meaning of the K channels of a head's logits. Logits of two heads are comparable if it is equal."""

    anchors: int
    """Number of anchors per location."""
    outputs: int
    """Number of logits per anchor."""
    objectness: bool
    """True for a region proposal network, whose outputs are not classes."""


def dense_head(detector: Detector) -> Any:
    """Return the head whose logits are distilled: the RPN of a two-stage detector, the box head of a one-stage one.

    Raises UnsupportedDetector if there is no neck, no dense head or no sigmoid classification.
    """
    head = getattr(detector, "rpn_head", None) or getattr(detector, "bbox_head", None)
    requirements = {
        f"{type(detector).__name__} has no neck.": isinstance(getattr(detector, "neck", None), nn.Module),
        f"{type(detector).__name__} has no dense head.": isinstance(head, nn.Module),
        f"{type(head).__name__} does not predict at the locations of a feature pyramid: it has no `prior_generator`.": (
            hasattr(head, "prior_generator")
        ),
        f"{type(head).__name__} has no class logits for a sigmoid.": getattr(head, "use_sigmoid_cls", False),
    }
    if missing := [reason for reason, present in requirements.items() if not present]:
        raise UnsupportedDetector(f"Distillation does not support this detector: {missing[0]}")
    return head


def strides(detector: Detector) -> tuple[int, ...]:
    """Return the distance of two locations in pixels for each pyramid level, finest level first."""
    return tuple(int(stride[0]) for stride in dense_head(detector).prior_generator.strides)


def pyramid_channels(detector: Detector) -> int:
    """Return the number of channels of every pyramid level, which the dense head reads.

    A neck need not have it: that of a config may be a sequence. Raises UnsupportedDetector if the levels differ.
    """
    channels = getattr(dense_head(detector), "in_channels", None)
    if not isinstance(channels, int):
        raise UnsupportedDetector(
            f"{type(dense_head(detector)).__name__} does not have one number of channels for all levels."
        )
    return channels


def class_map(detector: Detector) -> ClassMap:
    """Return the meaning of the detector's logit channels."""
    head = dense_head(detector)
    anchors = head.prior_generator.num_base_priors[0]
    return ClassMap(int(anchors), int(head.cls_out_channels), hasattr(head, "rpn_cls"))


def class_logits(detector: Detector, pyramid: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return the class logits (N, K, H, W) of each level for features (N, C, H, W); see `logits_of_outputs`.

    The box branch is skipped for the heads in `CLASS_CONVOLUTION`.
    """
    head = dense_head(detector)
    class_convolution = CLASS_CONVOLUTION.get(type(head).__name__)
    if class_convolution is None:
        return logits_of_outputs(head, head(pyramid))
    branch = nn.Sequential(*head.cls_convs, getattr(head, class_convolution))
    return tuple(branch(features) for features in pyramid)


def logits_of_outputs(head: Any, outputs: Sequence[Sequence[Tensor]]) -> tuple[Tensor, ...]:
    """Return the class logits z (N, K, H, W) of each level from what `head(pyramid)` returned.

    sigmoid(z) is the score of a class: the product of its probability and the objectness for the heads in
    `OBJECTNESS_OUTPUT`, the probability itself for heads that return probabilities, such as TOOD's.
    """
    scores = outputs[0]
    if (position := OBJECTNESS_OUTPUT.get(type(head).__name__)) is not None:
        return tuple(logit_of_product(*level) for level in zip(scores, outputs[position], strict=True))
    if getattr(head.loss_cls, "activated", False):
        return tuple(torch.logit(level.float(), PROBABILITY_EPSILON) for level in scores)
    return tuple(scores)


def logit_of_product(first: Tensor, second: Tensor) -> Tensor:
    """Return z in fp32 with sigmoid(z) = sigmoid(first) x sigmoid(second), for logits of broadcastable shapes.

    With 1 / sigmoid(x) = 1 + exp(-x), z = -log(exp(-first) + exp(-second) + exp(-first - second)), which neither
    overflows nor cancels.
    """
    first, second = first.float(), second.float()
    return -torch.logaddexp(torch.logaddexp(-first, -second), -first - second)
