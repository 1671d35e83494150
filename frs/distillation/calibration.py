"""Calibrate the weights of the terms: scale each term's gradient to a fixed ratio of the task loss's gradient.

The paper's weights hold for its COCO recipes; for other classes, widths or teachers they can be wrong by a factor of
10,000. Calibration runs after the learning-rate warm-up and with an adapter, or other layers of a term, that is fitted
to the current features: before that, student features and adapter output are noise, and the weights would be wrong by
orders of magnitude.
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from statistics import geometric_mean
from typing import Any

import torch
from torch import Tensor, nn

from frs.detectors.heads import strides
from frs.distillation.capture_output import capture_output
from frs.distillation.diagnosis import gradient_norms
from frs.distillation.distiller import Distiller
from frs.distillation.losses import weighted_mean
from frs.distillation.outputs import TeacherLevel
from frs.distillation_spec import TermName
from frs.errors import NoGradient
from frs.facts import LossWeights
from frs.training.preserve_state import preserve_state
from frs.training.process_group import all_reduce_mean, average_gradients, world_size

PrecisionContext = Callable[[], AbstractContextManager[object]]
FIT_STEPS = 60
FIT_LEARNING_RATE = 1e-2


def calibrate(
    distiller: Distiller, batches: Iterable[dict[str, Any]], step: int, precision: PrecisionContext = nullcontext
) -> LossWeights:
    """Return the weights of all terms, calibrated on a few raw batches where the spec sets none.

    The first calibration fits the terms' layers, and the terms ramp up from its `step` on. The student and the random
    state are left unchanged. `precision()` returns the context in which training runs its forward passes.

    Raises NoGradient if a term whose weight is open has no gradient in any batch.
    """
    batches, first = list(batches), not distiller.calibrated
    with preserve_state(distiller.student):
        if first and distiller.layers is not None:
            fit_layers(distiller, distiller.layers, batches)
        norms = [measure_gradient_norms(distiller, batch, precision) for batch in batches]
    fixed = distiller.fixed_weights
    calibrated: dict[str, Any] = {
        name: distiller.ratios[name] * _mean_norm_ratio(norms, name)
        for name in distiller.terms
        if fixed.of(name) is None
    }
    ramp_from = step if first else distiller.weights.ramp_from
    return replace(fixed, **calibrated, ramp_from=ramp_from, calibrated_at=step)


def fit_layers(distiller: Distiller, layers: nn.Module, batches: list[dict[str, Any]]) -> None:
    """Fit the layers of the distiller's term with a few steps of Adam; the student's features are constant."""
    if not (parameters := list(layers.parameters())):
        return
    outputs = [_forward_without_gradient(distiller, batch) for batch in batches]
    terms = [_layered_term(distiller, features, levels) for features, levels in outputs]
    optimizer = torch.optim.Adam(parameters, lr=FIT_LEARNING_RATE)
    for step in range(FIT_STEPS):
        optimizer.zero_grad()
        terms[step % len(terms)]().backward()
        average_gradients(parameters)
        optimizer.step()
    optimizer.zero_grad()


def _layered_term(
    distiller: Distiller, features: dict[int, Tensor], levels: dict[int, TeacherLevel]
) -> Callable[[], Tensor]:
    """Return a function that computes the term with layers: the module's, or else the feature term."""
    if distiller.term_module is not None:
        return partial(distiller.term_module, features, levels)
    adapter, (mask_of, distance) = distiller.adapter, distiller.masked_terms["feature"]
    assert adapter is not None
    masks = {stride: mask_of(level) for stride, level in levels.items()}

    def term() -> Tensor:
        adapted = adapter(features)
        per_level = [weighted_mean(distance(adapted[s], level.features), masks[s]) for s, level in levels.items()]
        return torch.stack(per_level).sum()

    return term


def measure_gradient_norms(
    distiller: Distiller, batch: dict[str, Any], precision: PrecisionContext = nullcontext
) -> dict[str, float]:
    """Return the gradient norms of the task loss ("task") and of each unweighted term at the student's pyramid.

    A norm covers all levels and the whole batch over all processes. The loss is the mean of the processes' losses, and
    the pyramid consists of the processes' pyramids, so norm = sqrt(sum over processes of norm^2) / world size.
    """
    with precision():
        outputs = distiller.forward_both(batch)
    task, _ = distiller.student.parse_losses(outputs.losses)
    local = gradient_norms(outputs, task)
    if world_size() == 1:
        return {name: float(norm) for name, norm in local.items()}
    combined = (all_reduce_mean(torch.stack([*local.values()]).double().square()) / world_size()).sqrt()
    return dict(zip(local, combined.tolist(), strict=True))


def _mean_norm_ratio(norms: list[dict[str, float]], term: TermName) -> float:
    """Return the task's gradient norm divided by the term's, as a geometric mean over batches.

    The ratios of the batches differ by factors, so the geometric mean is the appropriate average. A batch without a
    gradient has no ratio: mask `boxes` is 0 everywhere if augmentation has cropped all boxes. Raises NoGradient if no
    batch has one.
    """
    ratios = [norm["task"] / norm[term] for norm in norms if norm["task"] and norm[term]]
    if not ratios:
        raise NoGradient(
            f"None of the {len(norms)} batches of the calibration has a gradient of the task loss and the {term} term.",
            f"Use a larger `schedule.batch_size`, or set `distillation.{term}_weight` to a number.",
        )
    return geometric_mean(ratios)


@torch.no_grad()
def _forward_without_gradient(
    distiller: Distiller, batch: dict[str, Any]
) -> tuple[dict[int, Tensor], dict[int, TeacherLevel]]:
    """Return the student's features (N, C, H, W) and the teacher's outputs, both by stride."""
    features, logits = distiller.teacher.observe(batch["inputs"])
    prepared = distiller.data_preprocessor(batch, False)
    with capture_output(distiller.student.neck) as neck:
        distiller.student.extract_feat(prepared["inputs"])
    student_features = dict(zip(strides(distiller.student), neck.output, strict=True))
    boxes = [sample.gt_instances.bboxes for sample in prepared["data_samples"]]
    levels = {stride: TeacherLevel(features[stride], logits[stride], boxes, stride) for stride in distiller.strides}
    return student_features, levels
