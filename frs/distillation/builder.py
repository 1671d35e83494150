"""Build the distiller from a student, a teacher and a job spec."""

import torch
from torch import nn

from frs.detectors.heads import dense_head
from frs.distillation.distiller import Distiller
from frs.distillation.paper_weights import PAPER_WEIGHTS
from frs.distillation.teacher import Teacher
from frs.distillation.weight_schedule import WeightSchedule
from frs.distillation_spec import Distillation, TermName
from frs.errors import InvalidSpec
from frs.facts import LossWeights, RunFacts
from frs.spec import JobSpec
from frs.training.schedule import ResolvedSchedule, resolve_warmup_steps


def build_distiller(student: nn.Module, teacher: Teacher, job: JobSpec, schedule: ResolvedSchedule) -> Distiller:
    """Return the distiller of `student` and `teacher`, with a new adapter.

    The adapter's initial weights depend on the job's seed alone: torch's global random state is restored afterwards.
    Raises InvalidSpec if the spec selects the paper's weights and the paper has none for the student's head.
    """
    weights = initial_weights(job, student)
    ramp_steps = resolve_warmup_steps(job.distillation.warmup_steps, schedule.steps)
    weight_schedule = WeightSchedule(
        ramp_steps, schedule.steps if job.distillation.weight_schedule == "cosine" else None
    )
    diagnose_every = max(1, min(50, schedule.steps // 100))
    with torch.random.fork_rng():
        torch.manual_seed(job.schedule.seed)
        return Distiller(
            student,
            teacher,
            job.distillation,
            weights,
            weight_schedule,
            job.method,
            diagnose_every,
            rounds_head=job.kind == "quantize",
        )


def initial_weights(job: JobSpec, student: nn.Module) -> LossWeights:
    """Return the weights of the terms before calibration: None for `auto`, 0 for a term that the method lacks.

    Raises InvalidSpec if the spec selects the paper's weights and the paper has none for the student's head.
    """

    def resolve(term: TermName) -> float | None:
        weight = job.distillation.weights[term] if term in job.terms.names else 0.0
        if weight == "paper":
            return _paper_weights(student)[term]
        return None if weight == "auto" else float(weight)

    return LossWeights(resolve("feature"), resolve("logit"))


def _paper_weights(student: nn.Module) -> dict[TermName, float]:
    head = type(dense_head(student)).__name__
    if head not in PAPER_WEIGHTS:
        raise InvalidSpec(
            f"The paper has no weights for {head}.",
            "Set `distillation.feature_weight` and `distillation.logit_weight` to `auto` or to numbers.",
        )
    return PAPER_WEIGHTS[head]


def distillation_facts(model: Distiller, distillation: Distillation) -> RunFacts:
    """Return the facts about the distillation; its weights only if none needs calibration."""
    return RunFacts(
        strides=model.strides,
        method_settings=_settings_of(distillation) or None,
        teacher_parameters=sum(parameter.numel() for parameter in model.teacher.detector.parameters()),
        weights_asked=distillation.weights,
        weights_paper=PAPER_WEIGHTS.get(type(dense_head(model.student)).__name__),
        weights_shares={name: model.ratios[name] for name in model.terms if model.weights.of(name) is None},
        weights=model.weights if model.calibrated else None,
    )


def _settings_of(distillation: Distillation) -> dict[str, str]:
    """Return what the spec sets of the terms besides their weights."""
    names = ("mask", "distance", "adapter", "weight_schedule")
    defaults = Distillation()
    return {
        name: value for name in names if (value := getattr(distillation, name)) not in (None, getattr(defaults, name))
    }
