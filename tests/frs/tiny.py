"""Specs and detectors that train in a second, and what reads their events."""

from collections.abc import Callable
from typing import Any

from frs import events

Train = Callable[..., list[events.Event]]
ARCHITECTURES = ("gfl", "retinanet", "fcos", "faster_rcnn")


class Killed(BaseException):
    """Nothing catches it: what is not on disk by then is lost."""


def described(architecture: str = "gfl", **changes: Any) -> dict[str, Any]:
    tiny = {"backbone": {"depth": 18, "width": 8, "norm": "gn"}, "neck_channels": 16, "stacked_convs": 1}
    return {"architecture": architecture} | tiny | changes


def job(**changes: Any) -> dict[str, Any]:
    """A spec that distils in a second; `schedule` and `distillation` are merged, the rest replaced."""
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


def of(kind: type[Any], told: list[events.Event]) -> list[Any]:
    return [event for event in told if isinstance(event, kind)]
