"""Student and teacher joined for training, with the weights that the spec asks for."""

import torch
from torch import nn

from frs.detectors.heads import dense_head
from frs.distillation.calibration import SHARES
from frs.distillation.distiller import Distiller, LossWeights
from frs.distillation.paper_weights import PAPER_WEIGHTS
from frs.distillation.teacher import Teacher
from frs.errors import InvalidSpec
from frs.spec import TERMS, Distillation, JobSpec
from frs.training import schedule
from frs.training.schedule import ResolvedSchedule


def build_distiller(student: nn.Module, teacher: Teacher, job: JobSpec, plan: ResolvedSchedule) -> Distiller:
    """Student and teacher joined by a fresh adapter, which draws from a generator of its own."""
    wanted, terms = job.distillation, TERMS[job.method]
    chosen = {"feature": wanted.feature_weight, "logit": wanted.logit_weight}
    if "paper" in chosen.values():
        head = type(dense_head(student)).__name__
        if head not in PAPER_WEIGHTS:
            raise InvalidSpec(f"The paper has no weights for {head}.", "Use `auto` or numbers.")
        chosen = {name: getattr(PAPER_WEIGHTS[head], name) if w == "paper" else w for name, w in chosen.items()}
    given = {name: None if weight == "auto" else float(weight) for name, weight in chosen.items()}
    feature, logit = (given[name] if name in terms else 0.0 for name in given)
    ramp_steps = schedule.warmup(wanted.warmup_steps, plan.steps)
    diagnose_every = max(1, min(50, plan.steps // 100))
    with torch.random.fork_rng():
        torch.manual_seed(job.schedule.seed)
        return Distiller(student, teacher, wanted, LossWeights(feature, logit), ramp_steps, job.method, diagnose_every)


def distillation_facts(model: Distiller, asked: Distillation) -> dict[str, object]:
    """`weights` only where they are given; calibrated ones follow when they are found."""
    paper = PAPER_WEIGHTS.get(type(dense_head(model.student)).__name__)
    return {
        "strides": list(model.strides),
        "teacher_parameters": sum(parameter.numel() for parameter in model.teacher.detector.parameters()),
        "weights_asked": {"feature": asked.feature_weight, "logit": asked.logit_weight},
        "weights_paper": paper._asdict() if paper else None,
        "weights_shares": {name: SHARES[name] for name in model.terms if model.weights.of(name) is None},
        **({"weights": vars(model.weights)} if model.calibrated else {}),
    }
