"""The adapter: student channels to teacher channels, one convolution for each pyramid level."""

from collections.abc import Iterable
from typing import Literal

from torch import Tensor, nn


class Adapter(nn.Module):
    def __init__(
        self, strides: Iterable[int], student_channels: int, teacher_channels: int, kernel: Literal["1x1", "3x3"]
    ):
        super().__init__()
        size = int(kernel[0])
        self.convolutions = nn.ModuleDict(
            {str(stride): nn.Conv2d(student_channels, teacher_channels, size, padding=size // 2) for stride in strides}
        )

    def forward(self, features: dict[int, Tensor]) -> dict[int, Tensor]:
        """(N, student channels, H, W) -> (N, teacher channels, H, W) at every level it has a convolution for."""
        return {int(stride): convolve(features[int(stride)]) for stride, convolve in self.convolutions.items()}
