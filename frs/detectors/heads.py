"""What distillation needs to know of a detector's dense head, the same for one and two stages."""

from typing import Any, NamedTuple

from torch import Tensor, nn

from frs.errors import UnsupportedDetector

Detector = Any
"""An mmdet detector: a module with a backbone, a neck, a dense head, `extract_feat`, `loss` and `predict`."""

CLASS_CONVOLUTION = {"GFLHead": "gfl_cls", "RetinaHead": "retina_cls", "FCOSHead": "conv_cls"}
"""Last layer of the classification branch of heads whose branch is `cls_convs` and one convolution."""


class ClassMap(NamedTuple):
    """The meaning of the K channels of a head's logits; two heads can be compared where it is equal."""

    anchors: int
    outputs: int
    objectness: bool
    """True for a region proposal network: outputs are not classes."""


def dense_head(detector: Detector) -> Any:
    """The head whose logits are distilled: the region proposal network of two stages, the box head of one.

    Raises UnsupportedDetector.
    """
    head = getattr(detector, "rpn_head", None) or getattr(detector, "bbox_head", None)
    neck = getattr(detector, "neck", None)
    if not isinstance(head, nn.Module) or not isinstance(neck, nn.Module):
        raise UnsupportedDetector(f"{type(detector).__name__} has no neck with a dense head.")
    if not getattr(head, "use_sigmoid_cls", False):
        raise UnsupportedDetector(f"{type(head).__name__} does not classify with sigmoids.")
    return head


def strides(detector: Detector) -> tuple[int, ...]:
    """Pixels between two locations of each pyramid level, finest first."""
    return tuple(int(stride[0]) for stride in dense_head(detector).prior_generator.strides)


def class_map(detector: Detector) -> ClassMap:
    head = dense_head(detector)
    anchors = head.prior_generator.num_base_priors[0]
    return ClassMap(int(anchors), int(head.cls_out_channels), hasattr(head, "rpn_cls"))


def class_logits(detector: Detector, pyramid: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Logits (N, K, H, W) of each level from its features (N, C, H, W), without the box branch where it is known."""
    head = dense_head(detector)
    last = CLASS_CONVOLUTION.get(type(head).__name__)
    if last is None:
        return tuple(head(pyramid)[0])
    branch = nn.Sequential(*head.cls_convs, getattr(head, last))
    return tuple(branch(features) for features in pyramid)
