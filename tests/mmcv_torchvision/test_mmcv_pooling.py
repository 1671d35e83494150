import pytest
import torch
from mmcv.ops import RoIAlign, RoIPool, roi_align
from torch import Tensor
from torchvision import ops

from mmcv_torchvision import OperatorUnavailable

ROIS = torch.tensor([[0, 1.3, 2.1, 12.7, 9.4], [1, 4.2, 0.6, 7.9, 15.2], [1, 6.0, 6.0, 6.2, 6.1]], dtype=torch.float64)


def draw_features(dtype: torch.dtype = torch.float64, grad: bool = False) -> Tensor:
    values = torch.randn(2, 3, 8, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return values.to(dtype).requires_grad_(grad)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_roi_align_matches_torchvisions_values_and_gradients(sampling_ratio: int, aligned: bool) -> None:
    inputs, reference = draw_features(grad=True), draw_features(grad=True)
    output = RoIAlign((3, 2), 0.5, sampling_ratio, aligned=aligned)(inputs, ROIS)
    expected = ops.roi_align(reference, ROIS, (3, 2), 0.5, sampling_ratio, aligned)
    torch.testing.assert_close(output, expected)
    upstream = torch.rand_like(expected)
    output.backward(upstream)
    expected.backward(upstream)
    torch.testing.assert_close(inputs.grad, reference.grad)


@pytest.mark.parametrize("aligned", [True, False])
def test_roi_align_averages_a_ramp_to_the_centre_of_each_bin(aligned: bool) -> None:
    ramp = torch.arange(10.0).expand(1, 1, 8, 10)  # the value at x is x
    roi = torch.tensor([[0.0, 2.0, 2.0, 6.0, 6.0]])
    columns = roi_align(ramp, roi, (1, 2), 1.0, 2, "avg", aligned)[0, 0, 0]
    expected = torch.tensor([3.0, 5.0]) - (0.5 if aligned else 0.0)
    torch.testing.assert_close(columns, expected)


@pytest.mark.parametrize("aligned", [True, False])
def test_the_gradient_of_roi_align_matches_its_derivative(aligned: bool) -> None:
    inputs = draw_features(grad=True)
    assert torch.autograd.gradcheck(lambda x: roi_align(x, ROIS, 2, 0.5, 0, "avg", aligned), inputs)


def test_roi_align_of_no_rois_has_no_output_and_no_gradient() -> None:
    inputs = draw_features(grad=True)
    output = roi_align(inputs, ROIS[:0], 7, 0.5)
    assert output.shape == (0, 3, 7, 7)
    output.sum().backward()
    assert inputs.grad is not None
    assert not inputs.grad.any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_output_has_the_precision_of_the_input(dtype: torch.dtype) -> None:
    inputs = draw_features(dtype, grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        output = roi_align(inputs, ROIS.float(), 4, 0.5)  # rois stay float32 under autocast
    assert output.dtype == dtype
    expected = ops.roi_align(inputs.detach().float(), ROIS.float(), 4, 0.5, 0, True)
    torch.testing.assert_close(output.float(), expected, atol=0.02, rtol=0.02)
    output.float().sum().backward()
    assert inputs.grad is not None
    assert inputs.grad.dtype == dtype


def test_max_pooling_and_roi_pool_are_refused() -> None:
    with pytest.raises(OperatorUnavailable, match="max"):
        roi_align(draw_features(), ROIS, 2, 0.5, 0, "max")
    with pytest.raises(OperatorUnavailable, match="roi_pool_forward"):
        RoIPool(2)(draw_features(), ROIS)
