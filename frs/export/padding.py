"""Convolutions with TensorFlow's "same" padding as plain ones."""

import frs.detectors._mmdet_init  # noqa: F401 - before mmdet

from mmcv.cnn.bricks.conv2d_adaptive_padding import Conv2dAdaptivePadding
from timm.layers.conv2d_same import Conv2dSame
from torch import nn

SAME_PADDING = (Conv2dSame, Conv2dAdaptivePadding)
"""Convolutions that compute their padding from each input's size, as expressions that `torch.export` cannot solve."""


def fix_padding(module: nn.Module) -> None:
    """Replace each convolution in `module` that pads for its input's size by one with constant padding.

    Output sizes are ceil(size / stride). Where a size is a multiple of the stride, which holds for all layers of a
    backbone if the image's sides are multiples of its coarsest stride, the padding is kernel - stride in total; the
    larger half is at the right and at the bottom.
    """
    for name, child in module.named_children():
        if isinstance(child, SAME_PADDING):
            setattr(module, name, _with_constant_padding(child))
        else:
            fix_padding(child)


def _with_constant_padding(source: nn.Conv2d) -> nn.Module:
    sides = zip(source.kernel_size, source.stride, source.dilation, strict=True)
    vertical, horizontal = (max((kernel - 1) * dilation + 1 - stride, 0) for kernel, stride, dilation in sides)
    symmetric = not vertical % 2 and not horizontal % 2
    convolution = nn.Conv2d(
        source.in_channels,
        source.out_channels,
        (source.kernel_size[0], source.kernel_size[1]),
        (source.stride[0], source.stride[1]),
        (vertical // 2, horizontal // 2) if symmetric else 0,
        (source.dilation[0], source.dilation[1]),
        source.groups,
        bias=source.bias is not None,
    )
    convolution.load_state_dict(source.state_dict())
    if symmetric:
        return convolution
    before_x, before_y = horizontal // 2, vertical // 2
    padding = nn.ZeroPad2d((before_x, horizontal - before_x, before_y, vertical - before_y))
    return nn.Sequential(padding, convolution)
