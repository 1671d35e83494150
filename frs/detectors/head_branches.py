"""The two branches of a dense head of stacked convolutions, split before the last one, and the boxes it predicts."""

from typing import NamedTuple

from torch import Tensor, nn

from frs.detectors.heads import CLASS_CONVOLUTION, Detector, dense_head
from frs.errors import HeadMismatch

BOX_CONVOLUTION = {
    "GFLHead": "gfl_reg",
    "RetinaHead": "retina_reg",
    "FCOSHead": "conv_reg",
    "ATSSHead": "atss_reg",
}
"""Last layer of the box branch, for the heads in `CLASS_CONVOLUTION`: the branch is `reg_convs` and one convolution."""


class Branch(NamedTuple):
    """The layers of a branch, in order; either part maps features (N, C, H, W) of a level to the same size."""

    first: nn.Sequential
    """The stacked convolutions except the last."""
    rest: nn.Sequential
    """The last stacked convolution, and the one that predicts."""

    @property
    def channels(self) -> int:
        """Number of channels between the two parts."""
        return next(layer.in_channels for layer in self.rest.modules() if isinstance(layer, nn.Conv2d))


class Branches(NamedTuple):
    """The branches of a head, the same for all levels."""

    classes: Branch
    boxes: Branch


def branches(detector: Detector) -> Branches:
    """Return the branches of the detector's head. Raise HeadMismatch if it is none of `BOX_CONVOLUTION`."""
    head = dense_head(detector)
    name = type(head).__name__
    if name not in BOX_CONVOLUTION:
        raise HeadMismatch(
            f"{name} is not a head of stacked convolutions, through which method `crosskd` could pass features.",
            "Use a teacher and a student of `architecture: gfl`, `fcos`, `atss` or `retinanet`, or another method.",
        )
    return Branches(
        _split(head.cls_convs, getattr(head, CLASS_CONVOLUTION[name])),
        _split(head.reg_convs, getattr(head, BOX_CONVOLUTION[name])),
    )


def _split(stacked: nn.ModuleList, prediction: nn.Module) -> Branch:
    return Branch(nn.Sequential(*stacked[:-1]), nn.Sequential(*stacked[-1:], prediction))


def predicts_distributions(detector: Detector) -> bool:
    """Return whether the detector's box branch predicts a distribution for each side of a box, as GFL's does."""
    return hasattr(dense_head(detector), "reg_max")


def scale_outputs(detector: Detector, outputs: Tensor, level: int) -> Tensor:
    """Return the box branch's outputs, times the scale that the head has learned for the level, if it has any."""
    scales = getattr(dense_head(detector), "scales", None)
    return outputs if scales is None else scales[level](outputs)


def decode_boxes(detector: Detector, outputs: Tensor, level: int) -> Tensor:
    """Return the corners (N, H x W x anchors, 4) in pixels that the box branch's outputs (N, 4 x anchors, H, W) mean.

    The order is that of mmdet: anchors fastest, then columns, then rows. `level` is the index in the pyramid.
    """
    head = dense_head(detector)
    images, _, *size = outputs.shape
    outputs = scale_outputs(detector, outputs, level)
    if type(head).__name__ == "FCOSHead":
        stride = head.prior_generator.strides[level][0]
        outputs = outputs.clamp(min=0) * stride if head.norm_on_bbox else outputs.exp()
    priors = head.prior_generator.single_level_grid_priors(tuple(size), level, outputs.dtype, outputs.device)
    by_prior = outputs.permute(0, 2, 3, 1).reshape(-1, 4)
    boxes: Tensor = head.bbox_coder.decode(priors.repeat(images, 1), by_prior)
    return boxes.reshape(images, -1, 4)
