"""Deformable convolution, version 1 (offsets) and version 2 (offsets and a mask), both by torchvision's kernel.

Offsets are (y, x) pairs per kernel cell in both libraries. The conventions are those of
mmcv/ops/csrc/pytorch/deform_conv.cpp and modulated_deform_conv.cpp. Their scratch buffers (`columns`, `ones`) and
`im2col_step` are ignored.
"""

from typing import NamedTuple

import torch
import torchvision  # noqa: F401 (registers torch.ops.torchvision)
from torch import Tensor

from mmcv_torchvision.precision import at_least_float32


class Geometry(NamedTuple):
    """Geometry of the convolution, in the order of torchvision's arguments."""

    stride_h: int
    stride_w: int
    pad_h: int
    pad_w: int
    dilation_h: int
    dilation_w: int
    groups: int
    offset_groups: int


class Gradients(NamedTuple):
    """Gradients of the operands, in the order of torchvision's results."""

    input: Tensor
    weight: Tensor
    offset: Tensor
    mask: Tensor
    bias: Tensor


@torch.no_grad()
def deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    output: Tensor,
    columns: Tensor,
    ones: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Write the convolution, version 1, into `output` (N, O, H', W').

    `input` is (N, C, H, W), `weight` (O, C / group, kH, kW), `offset` (N, 2 * deformable_group * kH * kW, H', W').
    """
    geometry = Geometry(dH, dW, padH, padW, dilationH, dilationW, group, deformable_group)
    output.copy_(_convolve(input, weight, offset, None, None, geometry))


@torch.no_grad()
def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradInput: Tensor,
    gradOffset: Tensor,
    weight: Tensor,
    columns: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Write `gradInput` and `gradOffset`, of the shapes of `input` and `offset`."""
    geometry = Geometry(dH, dW, padH, padW, dilationH, dilationW, group, deformable_group)
    gradients = _differentiate(gradOutput, input, weight, offset, None, None, geometry)
    gradInput.copy_(gradients.input)
    gradOffset.copy_(gradients.offset)


@torch.no_grad()
def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradWeight: Tensor,
    columns: Tensor,
    ones: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    scale: float,
    im2col_step: int,
) -> None:
    """Add the weight's gradient, times `scale`, to `gradWeight` (O, C / group, kH, kW).

    The convolution is linear in the weight, so the gradient does not depend on its value, and mmcv does not pass it.
    """
    geometry = Geometry(dH, dW, padH, padW, dilationH, dilationW, group, deformable_group)
    any_weight = torch.zeros_like(gradWeight)
    gradients = _differentiate(gradOutput, input, any_weight, offset, None, None, geometry)
    gradWeight.add_(gradients.weight, alpha=scale)


@torch.no_grad()
def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Write the convolution, version 2, into `output` (N, O, H', W').

    Operands are as in `deform_conv_forward`, with `mask` (N, deformable_group * kernel_h * kernel_w, H', W') and `bias`
    (O,).
    """
    geometry = Geometry(stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, group, deformable_group)
    output.copy_(_convolve(input, weight, offset, mask, bias if with_bias else None, geometry))


@torch.no_grad()
def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Write the gradients into `grad_*`, each of its operand's shape; without bias, `grad_bias` is not changed."""
    geometry = Geometry(stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, group, deformable_group)
    gradients = _differentiate(grad_output, input, weight, offset, mask, bias if with_bias else None, geometry)
    grad_input.copy_(gradients.input)
    grad_weight.copy_(gradients.weight)
    grad_offset.copy_(gradients.offset)
    grad_mask.copy_(gradients.mask)
    if with_bias:
        grad_bias.copy_(gradients.bias)


def _convolve(
    input: Tensor, weight: Tensor, offset: Tensor, mask: Tensor | None, bias: Tensor | None, geometry: Geometry
) -> Tensor:
    operands = _prepare_operands(input, weight, offset, mask, bias)
    return torch.ops.torchvision.deform_conv2d(*operands, *geometry, mask is not None)


def _differentiate(
    grad_output: Tensor,
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    geometry: Geometry,
) -> Gradients:
    grad, *operands = at_least_float32(grad_output, *_prepare_operands(input, weight, offset, mask, bias))
    return Gradients(*torch.ops.torchvision._deform_conv2d_backward(grad, *operands, *geometry, mask is not None))


def _prepare_operands(
    input: Tensor, weight: Tensor, offset: Tensor, mask: Tensor | None, bias: Tensor | None
) -> tuple[Tensor, ...]:
    """Return the operands in torchvision's order and in one dtype; an absent mask or bias becomes zeros."""
    mask = input.new_zeros((len(input), 1)) if mask is None else mask
    bias = input.new_zeros(len(weight)) if bias is None else bias
    return at_least_float32(input, weight, offset, mask, bias)
