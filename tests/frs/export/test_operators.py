"""The operators that replace those which cannot be exported."""

import pytest
import torch
from mmcv.cnn.bricks.conv2d_adaptive_padding import Conv2dAdaptivePadding
from timm.layers.conv2d_same import Conv2dSame
from torch import nn
from torchvision import ops

from frs.export.deformable import deform_conv2d
from frs.export.padding import fix_padding


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("deform_groups", [1, 4])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation"), [(3, 1, 1, 1), (3, 2, 1, 1), (1, 1, 0, 1), (3, 1, 2, 2)]
)
def test_deformable_convolution_equals_torchvisions(
    groups: int, deform_groups: int, kernel: int, stride: int, padding: int, dilation: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 8, 9, 7, generator=generator)
    weight = torch.randn(6, 8 // groups, kernel, kernel, generator=generator)
    shape = nn.functional.conv2d(features, weight, None, stride, padding, dilation, groups).shape
    offset = 3 * torch.randn(2, 2 * deform_groups * kernel**2, *shape[2:], generator=generator)  # also outside
    expected = ops.deform_conv2d(features, offset, weight, None, stride, padding, dilation)
    result = deform_conv2d(features, offset, weight, stride, padding, dilation, groups, deform_groups)
    torch.testing.assert_close(result, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", [Conv2dSame, Conv2dAdaptivePadding])
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_constant_padding_equals_same_padding(kind: type[nn.Conv2d], kernel: int, stride: int) -> None:
    model = nn.Sequential(nn.Sequential(kind(4, 6, kernel, stride=stride, bias=False), nn.ReLU()))
    pixels = torch.randn(1, 4, 16, 24)
    expected = model(pixels)
    fix_padding(model)
    assert not any(isinstance(module, kind) for module in model.modules())
    torch.testing.assert_close(model(pixels), expected)
