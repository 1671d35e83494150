"""Deformable convolution, called through mmcv's modules.

Without offsets it equals a convolution; its gradients match numerical derivatives.
"""

from itertools import product

import pytest
import torch
from mmcv.ops import (
    DeformConv2d,
    DeformConv2dPack,
    ModulatedDeformConv2d,
    ModulatedDeformConv2dPack,
    deform_conv2d,
    modulated_deform_conv2d,
)
from torch import Tensor
from torch.nn import functional

GEOMETRIES = [
    {"stride": 1, "padding": 1, "dilation": 1},
    {"stride": (2, 1), "padding": (0, 2), "dilation": (1, 2)},
    {"stride": 1, "padding": 1, "dilation": 1, "groups": 2, "deform_groups": 2},
]


def draw_tensor(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def output_size(inputs: Tensor, weight: Tensor, geometry: dict[str, object]) -> tuple[int, int]:
    plain = {name: value for name, value in geometry.items() if name != "deform_groups"}
    height, width = functional.conv2d(inputs, weight, **plain).shape[2:]
    return height, width


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_without_offsets_both_versions_equal_a_convolution(geometry: dict[str, int]) -> None:
    inputs = draw_tensor(2, 4, 7, 8)
    cells = 9 * geometry.get("deform_groups", 1)
    plain = {name: value for name, value in geometry.items() if name != "deform_groups"}

    version_1 = DeformConv2d(4, 6, 3, **geometry).double()
    size = output_size(inputs, version_1.weight, geometry)
    zero_offset = inputs.new_zeros(2, 2 * cells, *size)
    torch.testing.assert_close(version_1(inputs, zero_offset), functional.conv2d(inputs, version_1.weight, **plain))

    version_2 = ModulatedDeformConv2d(4, 6, 3, **geometry).double()
    version_2.bias.data.normal_()
    mask = inputs.new_full((2, cells, *size), 0.5)
    expected = functional.conv2d(inputs, version_2.weight / 2, version_2.bias, **plain)
    torch.testing.assert_close(version_2(inputs, zero_offset, mask), expected)


@pytest.mark.parametrize(("down", "right"), product([-1, 0, 2], [0, 1]))
def test_an_offset_is_a_pair_of_y_and_x(down: int, right: int) -> None:
    inputs = draw_tensor(1, 1, 9, 9)
    weight = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    offset = torch.tensor([down, right], dtype=torch.float64).view(1, 2, 1, 1).expand(1, 2, 9, 9).contiguous()
    shifted = deform_conv2d(inputs, offset, weight)
    torch.testing.assert_close(shifted[..., 2:6, 2:6], inputs[..., 2 + down : 6 + down, 2 + right : 6 + right])


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_the_gradients_of_version_1_match_numerical_derivatives(geometry: dict[str, int]) -> None:
    inputs, weight = draw_tensor(2, 2, 4, 5), draw_tensor(2, 2 // geometry.get("groups", 1), 3, 3, seed=1)
    size = output_size(inputs, weight, geometry)
    offset = draw_tensor(2, 18 * geometry.get("deform_groups", 1), *size, seed=2)
    tensors = tuple(tensor.requires_grad_() for tensor in (inputs, offset, weight))
    assert torch.autograd.gradcheck(
        lambda *operands: deform_conv2d(*operands, *arguments(geometry)), tensors, fast_mode=True
    )


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_the_gradients_of_version_2_match_numerical_derivatives(geometry: dict[str, int], with_bias: bool) -> None:
    inputs, weight = draw_tensor(2, 2, 4, 5), draw_tensor(2, 2 // geometry.get("groups", 1), 3, 3, seed=1)
    size = output_size(inputs, weight, geometry)
    cells = 9 * geometry.get("deform_groups", 1)
    offset, mask = draw_tensor(2, 2 * cells, *size, seed=2), draw_tensor(2, cells, *size, seed=3)
    bias = draw_tensor(2, seed=4).requires_grad_() if with_bias else None
    tensors = tuple(tensor.requires_grad_() for tensor in (inputs, offset, mask, weight))

    def convolve(*operands: Tensor) -> Tensor:
        return modulated_deform_conv2d(*operands, *([] if with_bias else [None]), *arguments(geometry))

    assert torch.autograd.gradcheck(convolve, (*tensors, bias) if bias is not None else tensors, fast_mode=True)


@pytest.mark.parametrize("layer", [DeformConv2dPack, ModulatedDeformConv2dPack])
def test_a_layer_trains_under_autocast_with_offsets_in_half_precision(layer: type[torch.nn.Module]) -> None:
    module = layer(4, 6, 3, padding=1)
    inputs = draw_tensor(2, 4, 6, 6, dtype=torch.float32).requires_grad_()
    expected = module(inputs)
    with torch.autocast("cpu", torch.bfloat16):
        output = module(inputs)
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output.float(), expected, atol=0.05, rtol=0.05)
    output.float().square().sum().backward()
    gradients = [parameter.grad for parameter in (inputs, *module.parameters())]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    assert inputs.grad is not None
    assert inputs.grad.any()


def arguments(geometry: dict[str, int]) -> tuple[int, ...]:
    """Return the geometry in the order of mmcv's functions."""
    names = ("stride", "padding", "dilation", "groups", "deform_groups")
    return tuple(geometry.get(name, 1) for name in names)
