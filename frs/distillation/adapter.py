"""The adapter: layers for each pyramid level, from student channels to teacher channels."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from frs.distillation_spec import AdapterName

KEPT_FRACTION = 0.35
"""Probability with which a masked location is kept: 1 - 0.65, the MGD paper's ratio for one-stage detectors."""


class Adapter(nn.Module):
    """Map student features to the teacher's channels for each stride in `strides`."""

    def __init__(self, strides: Iterable[int], student_channels: int, teacher_channels: int, kind: AdapterName):
        super().__init__()
        self.convolutions = nn.ModuleDict(
            {str(stride): _layers(student_channels, teacher_channels, kind) for stride in strides}
        )

    def forward(self, features: dict[int, Tensor]) -> dict[int, Tensor]:
        """Return teacher-sized features by stride: (N, student channels, H, W) -> (N, teacher channels, H, W).

        Levels without a convolution are ignored.
        """
        return {int(stride): convolve(features[int(stride)]) for stride, convolve in self.convolutions.items()}


class RandomMask(nn.Module):
    """Set all channels to 0 at random locations, new ones in each call; a location is kept with `KEPT_FRACTION`."""

    def forward(self, features: Tensor) -> Tensor:
        """Return the masked features, of the same shape (N, C, H, W)."""
        kept = torch.rand(len(features), 1, *features.shape[2:], device=features.device) < KEPT_FRACTION
        return features * kept


def _layers(student_channels: int, teacher_channels: int, kind: AdapterName) -> nn.Module:
    """Return the layers of one level.

    `masked` is the generation block of "Masked Generative Distillation", ECCV 2022, after a 1x1 convolution.
    """
    if kind != "masked":
        size = int(kind[0])
        return nn.Conv2d(student_channels, teacher_channels, size, padding=size // 2)
    return nn.Sequential(
        nn.Conv2d(student_channels, teacher_channels, 1),
        RandomMask(),
        nn.Conv2d(teacher_channels, teacher_channels, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(teacher_channels, teacher_channels, 3, padding=1),
    )
