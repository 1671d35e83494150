"""Diagnose a distillation: gradient of each term, richness of the teacher, agreement of teacher and student."""

from collections.abc import Mapping

import torch
from torch import Tensor

from frs.distillation.losses import richness
from frs.distillation.outputs import DistillationOutputs
from frs.distillation_spec import TermName

GRADIENT_SCALES = (2.0**16, 1.0, 2.0**-16)
"""Loss scales, tried in order until the gradient norm is finite.

In half precision the gradients of a small loss underflow and those of a large one overflow. Powers of two are exact in
every precision.
"""


def diagnose(
    outputs: DistillationOutputs, task: Tensor, effective_weights: Mapping[TermName, float]
) -> dict[str, Tensor]:
    """Return the diagnostics of one step: `share_<term>`, `coverage_<stride>` and, with a logit term, `agreement`.

    - share: gradient norm of the term times its effective weight (weight x factor) at the student's pyramid, divided
      by the task loss's gradient norm
    - coverage: mean richness of a level, from 0 to 1
    - agreement: richness-weighted fraction of locations, from 0 to 1, at which the highest logit of teacher and student
      is the same channel

    With several processes, each computes these values on its own part of the batch.
    """
    values = gradient_shares(outputs, task, effective_weights)
    with torch.no_grad():
        values |= {f"coverage_{s}": richness(level.logits).mean() for s, level in outputs.teacher_levels.items()}
        if "logit" in outputs.terms:
            values["agreement"] = agreement(outputs)
    return values


def gradient_shares(
    outputs: DistillationOutputs, task: Tensor, effective_weights: Mapping[TermName, float]
) -> dict[str, Tensor]:
    """Return `share_<term>`: effective weight x gradient norm of the term / gradient norm of the task loss."""
    norms = gradient_norms(outputs, task)
    return {
        f"share_{name}": weight * norms[name] / norms["task"].clamp(1e-12) for name, weight in effective_weights.items()
    }


def agreement(outputs: DistillationOutputs) -> Tensor:
    """Return the richness-weighted fraction of locations at which teacher and student have the same highest logit."""
    levels = outputs.teacher_levels
    rich = {stride: richness(level.logits).squeeze(1) for stride, level in levels.items()}
    same = {stride: level.logits.argmax(1) == outputs.logits[stride].argmax(1) for stride, level in levels.items()}
    agreeing = torch.stack([(rich[stride] * same[stride]).sum() for stride in rich]).sum()
    return agreeing / torch.stack([level.sum() for level in rich.values()]).sum()


def gradient_norms(outputs: DistillationOutputs, task: Tensor) -> dict[str, Tensor]:
    """Return the gradient norms of the task loss ("task") and of each unweighted term at the student's pyramid.

    A norm covers all levels. The autograd graph is retained.
    """
    terms = {str(name): _gradient_norm(term, outputs.pyramid) for name, term in outputs.terms.items()}
    return {"task": _gradient_norm(task, outputs.pyramid)} | terms


def _gradient_norm(loss: Tensor, pyramid: tuple[Tensor, ...]) -> Tensor:
    """Return the norm of the gradient of `loss` at the pyramid; 0 if no gradient reaches it."""
    norm = loss.new_zeros(())
    inputs = [level for level in pyramid if level.requires_grad]
    for scale in GRADIENT_SCALES if loss.requires_grad and inputs else ():
        gradients = torch.autograd.grad(loss * scale, inputs, retain_graph=True, allow_unused=True)
        squares = [gradient.float().square().sum() for gradient in gradients if gradient is not None]
        norm = torch.stack(squares).sum().sqrt() / scale if squares else norm
        if torch.isfinite(norm):
            break
    return norm.detach()
