"""Calibrate the weights of the terms: scale each term's gradient to a fixed ratio of the task loss's gradient.

The paper's weights hold for its COCO recipes; for other classes, widths or teachers they can be wrong by a factor of
10,000. Calibration runs after the learning-rate warm-up and with an adapter that is fitted to the current features:
before that, student features and adapter output are noise, and the weights would be wrong by orders of magnitude.
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from statistics import geometric_mean
from typing import Any

import torch
from torch import Tensor

from frs.detectors.heads import strides
from frs.distillation.capture_output import capture_output
from frs.distillation.diagnosis import gradient_norms
from frs.distillation.distiller import Distiller
from frs.distillation.losses import weighted_mean
from frs.distillation.outputs import TeacherLevel
from frs.distillation_spec import TermName
from frs.facts import LossWeights
from frs.training.preserve_state import preserve_state
from frs.training.process_group import all_reduce_mean, average_gradients, world_size

PrecisionContext = Callable[[], AbstractContextManager[object]]
MIN_GRADIENT_NORM = 1e-12
ADAPTER_FIT_STEPS = 60
ADAPTER_LEARNING_RATE = 1e-2


def calibrate(
    distiller: Distiller, batches: Iterable[dict[str, Any]], step: int, precision: PrecisionContext = nullcontext
) -> LossWeights:
    """Return the weights of all terms, calibrated on a few raw batches where the spec sets none.

    The first calibration fits the adapter, and the terms ramp up from its `step` on. The student and the random state
    are left unchanged. `precision()` returns the context in which training runs its forward passes.
    """
    batches, first = list(batches), not distiller.calibrated
    with preserve_state(distiller.student):
        if first and distiller.adapter is not None:
            fit_adapter(distiller, batches)
        norms = [measure_gradient_norms(distiller, batch, precision) for batch in batches]
    calibrated = {name: distiller.ratios[name] * _mean_norm_ratio(norms, name) for name in distiller.terms}
    fixed = distiller.fixed_weights
    return LossWeights(
        feature=calibrated.get("feature") if fixed.feature is None else fixed.feature,
        logit=calibrated.get("logit") if fixed.logit is None else fixed.logit,
        ramp_from=step if first else distiller.weights.ramp_from,
        calibrated_at=step,
    )


def fit_adapter(distiller: Distiller, batches: list[dict[str, Any]]) -> None:
    """Fit the adapter with a few steps of Adam on the feature term; the student's features are constant."""
    assert distiller.adapter is not None
    mask_of, distance = distiller.terms["feature"]
    outputs = [_forward_without_gradient(distiller, batch) for batch in batches]
    masks = [{stride: mask_of(levels[stride]) for stride in levels} for _, levels in outputs]
    optimizer = torch.optim.Adam(distiller.adapter.parameters(), lr=ADAPTER_LEARNING_RATE)
    for step in range(ADAPTER_FIT_STEPS):
        (student_features, levels), mask = outputs[step % len(outputs)], masks[step % len(outputs)]
        adapted = distiller.adapter(student_features)
        per_level = [
            weighted_mean(distance(adapted[stride], levels[stride].features), mask[stride]) for stride in levels
        ]
        optimizer.zero_grad()
        torch.stack(per_level).sum().backward()
        average_gradients(distiller.adapter.parameters())
        optimizer.step()
    optimizer.zero_grad()


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

    The ratios of the batches differ by factors, so the geometric mean is the appropriate average.
    """
    return geometric_mean(max(norm["task"], MIN_GRADIENT_NORM) / max(norm[term], MIN_GRADIENT_NORM) for norm in norms)


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
