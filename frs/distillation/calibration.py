"""Weights that fit the user's data: each term's gradient at the pyramid is set to a share of the task's.

The paper's weights hold for its COCO recipes; on other classes, widths or teachers they can be off by 10,000. The
measurement waits for the end of the learning-rate warm-up and for an adapter fitted to the features at hand: before,
student features and the adapter's output are noise and mislead by orders of magnitude.
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from statistics import geometric_mean
from typing import Any

import torch
from torch import Tensor

from frs.detectors.heads import strides
from frs.distillation.batch import TeacherLevel
from frs.distillation.capture_output import capture_output
from frs.distillation.diagnosis import gradient_norms
from frs.distillation.distiller import Distiller, LossWeights
from frs.distillation.losses import weighted_mean
from frs.spec import TermName
from frs.training.preserve_state import preserve_state
from frs.training.process_group import all_reduce_mean, average_gradients, world_size

Precision = Callable[[], AbstractContextManager[object]]
SHARES: dict[TermName, float] = {"feature": 30.0, "logit": 1.0}
"""Gradient norm of each term at the pyramid over the task's, at the time of calibration.

The feature term's falls to a tenth or less as the student follows; the logit term's does not. Found with seeds and
drawn scenes that no result rests on, GFL, mAP of one run each: drawn shapes 0.268 alone, and 0.283, 0.302, 0.358, 0.425,
0.507, 0.491 with a feature share of 1, 3, 10, 30, 100, 300; blood cells 0.400 alone, and 0.412, 0.429, 0.404, 0.360 with
10, 30, 100, 300. A logit share of 3 was no better with one seed and far worse with another.
"""
TINY = 1e-12
FIT_STEPS = 60
FIT_RATE = 1e-2


def calibrate(
    distiller: Distiller, batches: Iterable[dict[str, Any]], precision: Precision = nullcontext
) -> LossWeights:
    """Weights for the terms that have none yet, from a few raw batches. Fits the adapter; leaves the student as it was.

    `precision()` is the context that training's forward passes run in.
    """
    batches = list(batches)
    with preserve_state(distiller.student):
        if distiller.adapter is not None:
            fit_adapter(distiller, batches)
        norms = [measure(distiller, batch, precision) for batch in batches]
    chosen = {name: SHARES[name] * _typical_ratio(norms, name) for name in distiller.terms}
    known = distiller.weights
    return LossWeights(
        feature=chosen.get("feature") if known.feature is None else known.feature,
        logit=chosen.get("logit") if known.logit is None else known.logit,
        ramp_from=distiller.step,
    )


def _typical_ratio(norms: list[dict[str, float]], term: TermName) -> float:
    """Task's gradient norm over the term's, over batches that differ by factors: their geometric mean."""
    return geometric_mean(max(norm["task"], TINY) / max(norm[term], TINY) for norm in norms)


def fit_adapter(distiller: Distiller, batches: list[dict[str, Any]]) -> None:
    """A few steps of Adam on the feature term alone, the student's features held fixed."""
    assert distiller.adapter is not None
    mask, distance = distiller.terms["feature"]
    views = [_view(distiller, batch) for batch in batches]
    masks = [{s: mask(seen[s]) for s in seen} for _, seen in views]
    optimizer = torch.optim.Adam(distiller.adapter.parameters(), lr=FIT_RATE)
    for step in range(FIT_STEPS):
        (own, seen), weight = views[step % len(views)], masks[step % len(views)]
        adapted = distiller.adapter(own)
        per_level = [weighted_mean(distance(adapted[s], seen[s].features), weight[s]) for s in seen]
        optimizer.zero_grad()
        torch.stack(per_level).sum().backward()
        average_gradients(distiller.adapter.parameters())
        optimizer.step()
    optimizer.zero_grad()


def measure(distiller: Distiller, batch: dict[str, Any], precision: Precision = nullcontext) -> dict[str, float]:
    """Norm of the gradient that the task loss and each term send into the student's pyramid, over all levels.

    It is the whole batch's, of which each process has a share: the loss is the mean of theirs, and the pyramid is theirs
    side by side.
    """
    with precision():
        outputs = distiller.forward_both(batch)
    task, _ = distiller.student.parse_losses(outputs.losses)
    own = gradient_norms(outputs, task)
    if world_size() == 1:
        return {name: float(norm) for name, norm in own.items()}
    whole = (all_reduce_mean(torch.stack([*own.values()]).double().square()) / world_size()).sqrt()
    return dict(zip(own, whole.tolist(), strict=True))


@torch.no_grad()
def _view(distiller: Distiller, batch: dict[str, Any]) -> tuple[dict[int, Tensor], dict[int, TeacherLevel]]:
    features, logits = distiller.teacher.observe(batch["inputs"])
    prepared = distiller.data_preprocessor(batch, False)
    with capture_output(distiller.student.neck) as neck:
        distiller.student.extract_feat(prepared["inputs"])
    own = dict(zip(strides(distiller.student), neck.output, strict=True))
    boxes = [sample.gt_instances.bboxes for sample in prepared["data_samples"]]
    return own, {s: TeacherLevel(features[s], logits[s], boxes, s) for s in distiller.strides}
