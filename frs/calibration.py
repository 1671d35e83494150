"""Weights that fit the user's data: each term's gradient at the pyramid is set to a share of the task's.

The paper's weights hold for its COCO recipes; on other classes, widths or teachers they can be off by 10,000. The
measurement waits for the end of the learning-rate warm-up and for an adapter fitted to the features at hand: before,
student features and the adapter's output are noise and mislead by orders of magnitude.
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from frs.distiller import Distiller, Weights
from frs.heads import strides
from frs.losses import feature_term, richness
from frs.taps import tap
from frs.undisturbed import undisturbed

Precision = Callable[[], AbstractContextManager[object]]
SHARES = {"feature": 1.0, "logit": 1.0}
"""Gradient norm of each term at the pyramid over the task's, at the time of calibration."""
FIT_STEPS = 60
FIT_RATE = 1e-2


def calibrate(distiller: Distiller, batches: Iterable[dict[str, Any]], precision: Precision = nullcontext) -> Weights:
    """Weights for the terms that have none yet, from a few raw batches. Fits the adapter; leaves the student as it was.

    `precision()` is the context that training's forward passes run in.
    """
    batches = list(batches)
    with undisturbed(distiller.student):
        if distiller.weights.feature != 0:
            fit_adapter(distiller, batches)
        norms = [gradient_norms(distiller, batch, precision) for batch in batches]
    total = {name: sum(norm[name] for norm in norms) for name in norms[0]}
    chosen = {name: SHARES[name] * total["task"] / max(total[name], 1e-12) for name in SHARES if name in total}
    known = distiller.weights
    return Weights(
        feature=chosen["feature"] if known.feature is None else known.feature,
        logit=chosen["logit"] if known.logit is None else known.logit,
        ramp_from=distiller.step,
    )


def fit_adapter(distiller: Distiller, batches: list[dict[str, Any]]) -> None:
    """A few steps of Adam on the feature term alone, the student's features held fixed."""
    views = [_view(distiller, batch) for batch in batches]
    optimizer = torch.optim.Adam(distiller.adapter.parameters(), lr=FIT_RATE)
    for step in range(FIT_STEPS):
        own, seen, rich = views[step % len(views)]
        adapted = distiller.adapter(own)
        loss = torch.stack([feature_term(adapted[s], seen[s], rich[s]) for s in distiller.strides]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    optimizer.zero_grad()


def gradient_norms(distiller: Distiller, batch: dict[str, Any], precision: Precision = nullcontext) -> dict[str, float]:
    """Norm of the gradient that the task loss and each term send into the student's pyramid, over all levels."""
    with precision():
        lesson = distiller.teach(batch)
    task, _ = distiller.student.parse_losses(lesson.losses)
    return {name: _norm(loss, lesson.pyramid) for name, loss in {"task": task, **lesson.terms}.items()}


def _norm(loss: Tensor, pyramid: tuple[Tensor, ...]) -> float:
    gradients = torch.autograd.grad(loss, pyramid, retain_graph=True, allow_unused=True)
    return float(sum(g.float().square().sum() for g in gradients if g is not None) ** 0.5)


@torch.no_grad()
def _view(distiller: Distiller, batch: dict[str, Any]) -> tuple[Any, Any, Any]:
    seen, logits = distiller.teacher.observe(batch["inputs"])
    pixels = distiller.data_preprocessor({"inputs": batch["inputs"], "data_samples": None}, False)["inputs"]
    with tap(distiller.student.neck) as neck:
        distiller.student.extract_feat(pixels)
    own = dict(zip(strides(distiller.student), neck.output, strict=True))
    return own, seen, {stride: richness(logits[stride]) for stride in distiller.strides}
