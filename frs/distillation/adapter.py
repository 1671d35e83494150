"""The adapter: one convolution per pyramid level, from student channels to teacher channels."""

from collections.abc import Iterable
from typing import Literal

from torch import Tensor, nn


class Adapter(nn.Module):
    """Map student features to the teacher's channels with one convolution for each stride in `strides`."""

    def __init__(
        self, strides: Iterable[int], student_channels: int, teacher_channels: int, kernel: Literal["1x1", "3x3"]
    ):
        super().__init__()
        size = int(kernel[0])
        self.convolutions = nn.ModuleDict(
            {str(stride): nn.Conv2d(student_channels, teacher_channels, size, padding=size // 2) for stride in strides}
        )

    def forward(self, features: dict[int, Tensor]) -> dict[int, Tensor]:
        """Return teacher-sized features by stride: (N, student channels, H, W) -> (N, teacher channels, H, W).

        Levels without a convolution are ignored.
        """
        return {int(stride): convolve(features[int(stride)]) for stride, convolve in self.convolutions.items()}
