"""Deformable convolution from operators that ONNX runtimes have."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import frs.detectors._mmdet_init  # noqa: F401 - before mmdet

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.modules.utils import _pair

NAMES = ("mmcv.ops.deform_conv.deform_conv2d", "mmdet.models.dense_heads.tood_head.deform_conv2d")
"""Where heads of mmdet (TOOD, VFNet) look the function up."""


@contextmanager
def sampled_deform_conv() -> Iterator[None]:
    """Replace mmcv's deformable convolution, which has no ONNX operator in most runtimes, by `deform_conv2d`."""
    with ExitStack() as stack:
        for name in NAMES:
            stack.enter_context(patch(name, deform_conv2d))
        yield


def deform_conv2d(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    deform_groups: int = 1,
    *unused: Any,
) -> Tensor:
    """Return the deformable convolution (N, O, H', W') of `input` (N, C, H, W).

    `offset` (N, 2 x deform_groups x k, H', W') has (y, x) in pixels for each of the k cells of `weight`
    (O, C / groups, kh, kw). "Deformable Convolutional Networks", ICCV 2017, equation 2: the input is sampled bilinearly
    at the shifted cells, which `grid_sample` does, then convolved with a 1 x 1 kernel.
    """
    (stride_y, stride_x), (padding_y, padding_x), (dilation_y, dilation_x) = map(_pair, (stride, padding, dilation))
    batch, channels, height, width = input.shape
    out_channels, _, rows, columns = weight.shape
    out_height, out_width = offset.shape[-2:]
    shifts = offset.reshape(batch * deform_groups, rows * columns, 2, out_height, out_width)
    cells_y = torch.arange(rows, device=input.device).repeat_interleave(columns) * dilation_y - padding_y
    cells_x = torch.arange(columns, device=input.device).repeat(rows) * dilation_x - padding_x
    first_y = torch.arange(out_height, device=input.device) * stride_y
    first_x = torch.arange(out_width, device=input.device) * stride_x
    y = shifts[:, :, 0] + (cells_y[:, None, None] + first_y[None, :, None])
    x = shifts[:, :, 1] + (cells_x[:, None, None] + first_x[None, None, :])
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)
    sampled = functional.grid_sample(
        input.reshape(batch * deform_groups, channels // deform_groups, height, width),
        grid.reshape(batch * deform_groups, rows * columns * out_height, out_width, 2),
        mode="bilinear",
        padding_mode="zeros",
        align_corners=False,
    )
    sampled = sampled.reshape(batch, channels * rows * columns, out_height, out_width)
    return functional.conv2d(sampled, weight.reshape(out_channels, -1, 1, 1), groups=groups)
