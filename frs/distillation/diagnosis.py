"""What tells a user why distillation helps or not: how hard each term pulls, what the teacher looks at, who agrees."""

from collections.abc import Mapping

import torch
from torch import Tensor

from frs.distillation.batch import DistillationBatch
from frs.distillation.losses import richness
from frs.spec import TermName

SCALES = (2.0**16, 1.0, 2.0**-16)
"""Powers of two, exact in every precision: half-precision gradients of a small loss vanish, of a large one overflow."""


def diagnose(outputs: DistillationBatch, task: Tensor, pulls: Mapping[TermName, float]) -> dict[str, Tensor]:
    """Series of one step: `share_<term>`, `coverage_<stride>` and, where logits are compared, `agreement`.

    - share: gradient norm of the term times its `pull` (weight and ramp) at the student's pyramid, over the task loss's
    - coverage: mean richness of a level, 0 to 1
    - agreement: share of all richness that lies where teacher and student have the same highest logit

    Of several processes each looks at its own share of the batch.
    """
    told = shares(outputs, task, pulls)
    with torch.no_grad():
        told |= {f"coverage_{stride}": richness(seen.logits).mean() for stride, seen in outputs.teacher_levels.items()}
        if "logit" in outputs.terms:
            told["agreement"] = agreement(outputs)
    return told


def shares(outputs: DistillationBatch, task: Tensor, pulls: Mapping[TermName, float]) -> dict[str, Tensor]:
    norms = gradient_norms(outputs, task)
    return {f"share_{name}": pull * norms[name] / norms["task"].clamp(1e-12) for name, pull in pulls.items()}


def agreement(outputs: DistillationBatch) -> Tensor:
    rich = {s: richness(seen.logits).squeeze(1) for s, seen in outputs.teacher_levels.items()}
    same = {s: seen.logits.argmax(1) == outputs.logits[s].argmax(1) for s, seen in outputs.teacher_levels.items()}
    agreed = torch.stack([(rich[s] * same[s]).sum() for s in rich]).sum()
    return agreed / torch.stack([level.sum() for level in rich.values()]).sum()


def gradient_norms(outputs: DistillationBatch, task: Tensor) -> dict[str, Tensor]:
    """Norm of the gradient that the task loss ("task") and each term, unweighted, send into the student's pyramid, over
    all its levels. Keeps the graph.
    """
    terms = {str(name): _norm(term, outputs.pyramid) for name, term in outputs.terms.items()}
    return {"task": _norm(task, outputs.pyramid)} | terms


def _norm(loss: Tensor, pyramid: tuple[Tensor, ...]) -> Tensor:
    """0 where no gradient arrives."""
    norm = loss.new_zeros(())
    reached = [level for level in pyramid if level.requires_grad]
    for scale in SCALES if loss.requires_grad and reached else ():
        gradients = torch.autograd.grad(loss * scale, reached, retain_graph=True, allow_unused=True)
        found = [g.float().square().sum() for g in gradients if g is not None]
        norm = torch.stack(found).sum().sqrt() / scale if found else norm
        if torch.isfinite(norm):
            break
    return norm.detach()
