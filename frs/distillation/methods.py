"""Methods of distillation, each a handful of terms over one mechanism.

A term is the distance between student and teacher at every location, averaged under a mask and summed over the pyramid's
levels. `feature` compares pyramid features (the student's through the adapter), `logit` the class logits. To add a
method: a function in `frs.distillation.losses` if it needs a new mask or distance, a line in `METHODS`, its name in `frs.spec`.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from frs.distillation.batch import Seen
from frs.distillation.losses import divergence, inside_boxes, richness, squared_error, standardised_error
from frs.spec import Method, TermName

Mask = Callable[[Seen], Tensor]
"""-> (N, 1, H, W), 0 or more, no gradient."""
Distance = Callable[[Tensor, Tensor], Tensor]
"""(student's, teacher's) -> (N, 1, H, W)."""


class Term(NamedTuple):
    mask: Mask
    distance: Distance


def rich(seen: Seen) -> Tensor:
    return richness(seen.logits)


def everywhere(seen: Seen) -> Tensor:
    return torch.ones_like(seen.logits[:, :1], dtype=torch.float32)


def boxed(seen: Seen) -> Tensor:
    return inside_boxes(seen.logits, seen.boxes, seen.stride)


METHODS: dict[Method, Mapping[TermName, Term]] = {
    "frs": {"feature": Term(rich, squared_error), "logit": Term(rich, divergence)},
    "feature": {"feature": Term(rich, squared_error)},
    "logit": {"logit": Term(rich, divergence)},
    "uniform": {"feature": Term(everywhere, squared_error), "logit": Term(everywhere, divergence)},
    "boxes": {"feature": Term(boxed, squared_error), "logit": Term(boxed, divergence)},
    "pkd": {"feature": Term(everywhere, standardised_error)},
    "none": {},
}
"""`frs` and its halves; the same terms under other masks, the paper's comparison; PKD; and no distillation at all."""
