"""One batch seen by teacher and student: what the terms, the calibration and the diagnosis work on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from frs.spec import TermName


class TeacherLevel(NamedTuple):
    """One pyramid level of a batch, as the teacher sees it."""

    features: Tensor
    """(N, C, H, W)"""
    logits: Tensor
    """(N, K, H, W)"""
    boxes: Sequence[Tensor]
    """Of each image, corners (M, 4) in pixels of the network's input."""
    stride: int


@dataclass
class DistillationBatch:
    losses: dict[str, Any]
    """The student's own, of the labelled images."""
    pyramid: tuple[Tensor, ...]
    """The student's features that all gradients pass through; labelled and unlabelled images have tensors of their own."""
    logits: Mapping[int, Tensor]
    """The student's, by stride."""
    teacher_levels: Mapping[int, TeacherLevel]
    """By stride, the levels both have."""
    terms: Mapping[TermName, Tensor]
    """What pulls the student to the teacher, unweighted."""
