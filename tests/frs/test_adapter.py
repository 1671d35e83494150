"""The layers that map student features to the teacher's channels."""

from typing import get_args

import pytest
import torch
from torch.nn.functional import conv2d, relu

from frs.distillation.adapter import KEPT_FRACTION, Adapter
from frs.distillation_spec import AdapterName

FEATURES = {8: torch.randn(2, 4, 6, 5), 16: torch.randn(2, 4, 3, 3), 32: torch.randn(2, 4, 2, 2)}


@pytest.mark.parametrize("kind", get_args(AdapterName))
def test_an_adapter_has_layers_for_its_own_strides_and_keeps_the_locations(kind: AdapterName) -> None:
    adapted = Adapter([8, 16], 4, 7, kind)(FEATURES)
    assert {stride: level.shape for stride, level in adapted.items()} == {8: (2, 7, 6, 5), 16: (2, 7, 3, 3)}


def test_the_masked_adapter_generates_features_from_the_kept_locations_alone() -> None:
    adapter = Adapter([8], 4, 7, "masked")
    align, _, first, _, second = adapter.convolutions["8"]
    torch.manual_seed(3)
    adapted = adapter(FEATURES)[8]
    torch.manual_seed(3)
    kept = torch.rand(2, 1, 6, 5) < KEPT_FRACTION
    assert 0 < kept.sum() < kept.numel()
    masked = conv2d(FEATURES[8], align.weight, align.bias) * kept
    hidden = relu(conv2d(masked, first.weight, first.bias, padding=1))
    torch.testing.assert_close(adapted, conv2d(hidden, second.weight, second.bias, padding=1))


def test_the_masked_adapter_draws_other_locations_in_every_call() -> None:
    adapter = Adapter([8], 4, 7, "masked")
    assert not torch.equal(adapter(FEATURES)[8], adapter(FEATURES)[8])
