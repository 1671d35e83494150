"""Methods of distillation, each a handful of terms over one mechanism.

A term is the distance between student and teacher at every location, averaged under a mask and summed over the pyramid's
levels. `feature` compares pyramid features (the student's through the adapter), `logit` the class logits. To add a
method: a function in `frs.distillation.losses` if it needs a new mask or distance, a line in `METHODS`, its name in `frs.spec`.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from frs.distillation.batch import TeacherLevel
from frs.distillation.losses import divergence, inside_boxes, richness, squared_error, standardised_error
from frs.spec import Method, TermName

Mask = Callable[[TeacherLevel], Tensor]
"""-> (N, 1, H, W), 0 or more, no gradient."""
Distance = Callable[[Tensor, Tensor], Tensor]
"""(student's, teacher's) -> (N, 1, H, W)."""


class Term(NamedTuple):
    mask: Mask
    distance: Distance


def richness_mask(level: TeacherLevel) -> Tensor:
    return richness(level.logits)


def uniform_mask(level: TeacherLevel) -> Tensor:
    return torch.ones_like(level.logits[:, :1], dtype=torch.float32)


def box_mask(level: TeacherLevel) -> Tensor:
    return inside_boxes(level.logits, level.boxes, level.stride)


METHODS: dict[Method, Mapping[TermName, Term]] = {
    "frs": {"feature": Term(richness_mask, squared_error), "logit": Term(richness_mask, divergence)},
    "feature": {"feature": Term(richness_mask, squared_error)},
    "logit": {"logit": Term(richness_mask, divergence)},
    "uniform": {"feature": Term(uniform_mask, squared_error), "logit": Term(uniform_mask, divergence)},
    "boxes": {"feature": Term(box_mask, squared_error), "logit": Term(box_mask, divergence)},
    "pkd": {"feature": Term(uniform_mask, standardised_error)},
    "none": {},
}
"""`frs` and its halves; the same terms under other masks, the paper's comparison; PKD; and no distillation at all."""
