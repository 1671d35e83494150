"""Distillation methods. A method is a set of terms.

A term is the distance between student and teacher at every location, averaged under a mask and summed over the
pyramid's levels. `feature` compares pyramid features (the student's after the adapter), `logit` compares class
logits. To add a method, add a line to `METHODS` and its name to `frs.spec`; a new mask or distance is a function in
`frs.distillation.losses`.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from frs.distillation.losses import divergence, inside_boxes, richness, squared_error, standardised_error
from frs.distillation.outputs import TeacherLevel
from frs.spec import Method, TermName

Mask = Callable[[TeacherLevel], Tensor]
"""Return the weights of a level's locations: (N, 1, H, W), not negative, without gradient."""
Distance = Callable[[Tensor, Tensor], Tensor]
"""Return the distance of a student's and a teacher's tensor: (N, C, H, W) each -> (N, 1, H, W)."""


class Term(NamedTuple):
    """A mask over locations and the distance that is averaged under it."""

    mask: Mask
    distance: Distance


def richness_mask(level: TeacherLevel) -> Tensor:
    """Return the teacher's richness S = max over K of sigmoid(z_t): (N, 1, H, W)."""
    return richness(level.logits)


def uniform_mask(level: TeacherLevel) -> Tensor:
    """Return 1 at every location: (N, 1, H, W)."""
    return torch.ones_like(level.logits[:, :1], dtype=torch.float32)


def box_mask(level: TeacherLevel) -> Tensor:
    """Return 1 where a location's cell touches a ground-truth box, else 0: (N, 1, H, W)."""
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
"""Terms by method.

`frs`, each of its terms alone, the same terms under other masks (the paper's comparison), PKD, and no distillation.
"""
