"""RoI align, with the conventions of mmcv/ops/csrc/pytorch/roi_align.cpp. A RoI is (image index, x1, y1, x2, y2)."""

import torch
import torchvision  # noqa: F401 (registers torch.ops.torchvision)
from torch import Tensor

from mmcv_torchvision.precision import at_least_float32
from mmcv_torchvision.unavailable import OperatorUnavailable, make_stub

AVERAGE = 1
"""Value of `pool_mode` for average pooling, as `mmcv.ops.roi_align` passes it; 0 is max pooling."""

ROUNDING = "torchvision's RoI pool rounds a RoI to whole cells first, and mmcv's does not"
"""Reason why torchvision's RoI pool is not used."""
roi_pool_forward = make_stub("roi_pool_forward", ROUNDING)
roi_pool_backward = make_stub("roi_pool_backward", ROUNDING)


@torch.no_grad()
def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Write pooled features into `output` (R, C, aligned_height, aligned_width).

    `input` is (N, C, H, W), `rois` (R, 5). `argmax_*`, of mmcv's max mode, are ignored. Raises OperatorUnavailable for
    the max mode.
    """
    _require_average("roi_align_forward", pool_mode)
    features, boxes = at_least_float32(input, rois)
    output.copy_(
        torch.ops.torchvision.roi_align(
            features, boxes, spatial_scale, aligned_height, aligned_width, sampling_ratio, aligned
        )
    )


@torch.no_grad()
def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Write the gradient of `grad_output` (R, C, aligned_height, aligned_width) into `grad_input` (N, C, H, W)."""
    _require_average("roi_align_backward", pool_mode)
    grad, boxes = at_least_float32(grad_output, rois)
    grad_input.copy_(
        torch.ops.torchvision._roi_align_backward(
            grad, boxes, spatial_scale, aligned_height, aligned_width, *grad_input.shape, sampling_ratio, aligned
        )
    )


def _require_average(operator: str, pool_mode: int) -> None:
    if pool_mode != AVERAGE:
        raise OperatorUnavailable(operator, "torchvision aligns RoIs by average only, without pool_mode='max'")
