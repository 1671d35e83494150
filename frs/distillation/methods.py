"""The terms of a distillation method.

A term is the distance between student and teacher at every location, averaged under a mask and summed over the
pyramid's levels. `feature` compares pyramid features (the student's after the adapter), `logit` compares class
logits. To add a method, add a line to `frs.distillation_spec.METHODS`; a new mask or distance is a function in
`frs.distillation.losses`, a line in `MASKS` or `DISTANCES` and its name in `frs.distillation_spec`. A term that is not
of this form is a module, see `frs.distillation.term_modules`.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from frs.distillation.losses import (
    channel_divergence,
    cosine_distance,
    divergence,
    inside_boxes,
    richness,
    squared_error,
    standardised_error,
)
from frs.distillation.outputs import TeacherLevel
from frs.distillation_spec import DistanceName, MaskName, MethodTerms, TermName

Mask = Callable[[TeacherLevel], Tensor]
"""Return the weights of a level's locations: (N, 1, H, W), not negative, without gradient."""
Distance = Callable[[Tensor, Tensor], Tensor]
"""Return the distance of a student's and a teacher's tensor: (N, C, H, W) each -> (N, 1, H, W)."""


class Term(NamedTuple):
    """A mask over locations and the distance that is averaged under it."""

    mask: Mask
    distance: Distance


def build_terms(terms: MethodTerms) -> dict[TermName, Term]:
    """Return the functions of a method's terms; none if a module computes its term."""
    if terms.module is not None:
        return {}
    distances: Mapping[TermName, Distance] = {"feature": DISTANCES[terms.distance], "logit": divergence}
    return {name: Term(MASKS[terms.mask], distances[name]) for name in terms.names}


def richness_mask(level: TeacherLevel) -> Tensor:
    """Return the teacher's richness S = max over K of sigmoid(z_t): (N, 1, H, W)."""
    return richness(level.logits)


def box_mask(level: TeacherLevel) -> Tensor:
    """Return 1 where a location's cell touches a ground-truth box, else 0: (N, 1, H, W)."""
    return inside_boxes(level.logits, level.boxes, level.stride)


def union_mask(level: TeacherLevel) -> Tensor:
    """Return 1 where a location's cell touches a ground-truth box, elsewhere the richness: (N, 1, H, W)."""
    return torch.maximum(richness_mask(level), box_mask(level))


def uniform_mask(level: TeacherLevel) -> Tensor:
    """Return 1 at every location: (N, 1, H, W)."""
    return torch.ones_like(level.logits[:, :1], dtype=torch.float32)


MASKS: dict[MaskName, Mask] = {
    "richness": richness_mask,
    "boxes": box_mask,
    "union": union_mask,
    "uniform": uniform_mask,
}
DISTANCES: dict[DistanceName, Distance] = {
    "squared": squared_error,
    "standardised": standardised_error,
    "cosine": cosine_distance,
    "channel": channel_divergence,
}
