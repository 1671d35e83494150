"""RoI align. A roi is (image index, x1, y1, x2, y2); conventions are those of mmcv/ops/csrc/pytorch/roi_align.cpp."""

import torch
import torchvision  # noqa: F401 (registers torch.ops.torchvision)
from torch import Tensor

from mmcv_torchvision.precision import at_least_float32
from mmcv_torchvision.unavailable import OperatorUnavailable, unavailable

AVERAGE = 1
"""`mmcv.ops.roi_align` translates its pool mode to 0 (max) or 1 (avg)."""

OTHER_NUMBERS = "torchvision's RoI pool rounds a roi to whole cells first and mmcv's does not"
roi_pool_forward = unavailable("roi_pool_forward", OTHER_NUMBERS)
roi_pool_backward = unavailable("roi_pool_backward", OTHER_NUMBERS)


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
    """(N, C, H, W), (R, 5) -> `output` (R, C, aligned_height, aligned_width). `argmax_*` are for the max mode."""
    _only_average("roi_align_forward", pool_mode)
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
    """(R, C, aligned_height, aligned_width), (R, 5) -> `grad_input` (N, C, H, W)."""
    _only_average("roi_align_backward", pool_mode)
    grad, boxes = at_least_float32(grad_output, rois)
    grad_input.copy_(
        torch.ops.torchvision._roi_align_backward(
            grad, boxes, spatial_scale, aligned_height, aligned_width, *grad_input.shape, sampling_ratio, aligned
        )
    )


def _only_average(operator: str, pool_mode: int) -> None:
    if pool_mode != AVERAGE:
        raise OperatorUnavailable(operator, "torchvision aligns rois by average only, pool_mode='max' is mmcv's own")
