"""The outputs of teacher and student for one batch: the input of the terms, the calibration and the diagnosis."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from frs.distillation_spec import TermName


class TeacherLevel(NamedTuple):
    """The teacher's outputs at one pyramid level, and the labelled boxes of the batch."""

    features: Tensor
    """Pyramid features (N, C, H, W)."""
    logits: Tensor
    """Class logits (N, K, H, W), K = anchors x classes."""
    boxes: Sequence[Tensor]
    """Ground-truth boxes of each image: corners (M, 4) in pixels of the network's input."""
    stride: int
    """Distance between two locations in pixels of the network's input."""


@dataclass
class DistillationOutputs:
    """The outputs of one forward pass of teacher and student over a batch."""

    losses: dict[str, Any]
    """Losses of the student's own `loss()`, for the labelled images."""
    pyramid: tuple[Tensor, ...]
    """Student features (N, C, H, W), through which all gradients pass. Labelled and unlabelled images have separate
    tensors.
    """
    logits: Mapping[int, Tensor]
    """Student class logits (N, K, H, W), by stride."""
    teacher_levels: Mapping[int, TeacherLevel]
    """Teacher outputs by stride, for the strides that both detectors have."""
    terms: Mapping[TermName, Tensor]
    """Unweighted distillation terms: scalars in fp32."""
