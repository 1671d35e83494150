"""Specs and detectors that train in a second, and a filter for their events."""

from collections.abc import Callable
from typing import Any, get_args

import pytest

from frs import events
from frs.detector_spec import Architecture

Train = Callable[..., list[events.Event]]
ARCHITECTURES: tuple[Architecture, ...] = get_args(Architecture)
SAMPLE = ("retinanet", "gfl", "yolox", "faster_rcnn")
"""Architectures whose heads differ most: many anchors, one, class x objectness, two stages."""
SAMPLED_ARCHITECTURES = [
    name if name in SAMPLE else pytest.param(name, marks=pytest.mark.slow) for name in ARCHITECTURES
]
"""All architectures for tests that take seconds; `make test` runs the sample."""


class Killed(BaseException):
    """Simulated kill of the trainer: nothing catches it, so state that is not on disk is lost."""


def described(architecture: str = "gfl", **changes: Any) -> dict[str, Any]:
    """Return the description of a tiny detector."""
    tiny = {"backbone": {"depth": 18, "width": 8, "norm": "gn"}, "neck_channels": 16, "stacked_convs": 1}
    return {"architecture": architecture} | tiny | changes


def job(**changes: Any) -> dict[str, Any]:
    """Return a spec that distils in a second. `schedule` and `distillation` are merged, other fields are replaced."""
    schedule = {
        "epochs": 2,
        "batch_size": 4,
        "image_size": [96, 96],
        "optimizer": {"name": "adamw"},
        "max_grad_norm": 10,
    }
    distillation = {"feature_weight": 1e-4, "logit_weight": 0.1, "accept_weak_teacher": True}
    base = {"dataset": "tiny", "teacher": described(neck_channels=32), "student": described()}
    merged = {"schedule": schedule | changes.pop("schedule", {})}
    if changes.get("kind", "distill") == "distill":
        merged["distillation"] = distillation | changes.pop("distillation", {})
    return base | merged | changes


def of(kind: type[Any], emitted: list[events.Event]) -> list[Any]:
    """Return the events of one type."""
    return [event for event in emitted if isinstance(event, kind)]
