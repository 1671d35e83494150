from collections.abc import Callable
from pathlib import Path
from typing import Any

import frs.prelude  # noqa: F401

import pytest

from frs import detectors, engine, events, weights
from frs.dataset.shapes import draw
from frs.resolved import resolve
from frs.spec import DescribedDetector, JobSpec
from frs.stopping import StopRequest
from frs.trainer import quiet

ARCHITECTURES = ("gfl", "retinanet", "fcos", "faster_rcnn")


def described(architecture: str = "gfl", **changes: Any) -> dict[str, Any]:
    tiny = {"backbone": {"depth": 18, "width": 8, "norm": "gn"}, "neck_channels": 16, "head_convs": 1}
    return {"architecture": architecture} | tiny | changes


def job(**changes: Any) -> dict[str, Any]:
    """A spec that distils in a second; `schedule` and `distillation` are merged, the rest replaced."""
    schedule = {"epochs": 2, "batch_size": 4, "image_size": [96, 96], "optimizer": {"name": "adamw"}, "clip_norm": 10}
    distillation = {"feature_weight": 1e-4, "logit_weight": 0.1, "accept_weak_teacher": True}
    base = {"dataset": "tiny", "teacher": described(neck_channels=32), "student": described()}
    merged = {"schedule": schedule | changes.pop("schedule", {})}
    if changes.get("kind", "distill") == "distill":
        merged["distillation"] = distillation | changes.pop("distillation", {})
    return base | merged | changes


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    draw(folder / "tiny", train=14, val=4, size=96)
    return folder


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with `teacher.pth`, a GFL of four classes with random weights."""
    folder = tmp_path_factory.mktemp("models")
    detector = detectors.build(DescribedDetector.model_validate(described(neck_channels=32)), 4, folder)
    classes = ("circle", "square", "triangle", "star")
    content = {"meta": {"dataset_meta": {"classes": classes}}, "state_dict": detector.state_dict()}
    weights.write(content, folder / "teacher.pth")
    return folder


@pytest.fixture(autouse=True, scope="session")
def no_chatter() -> None:
    quiet()


Train = Callable[..., list[events.Event]]


@pytest.fixture
def train(data: Path, models: Path, tmp_path: Path) -> Train:
    """Runs the engine on a spec in `workdir` and returns its events; `stop_at` interrupts after that step."""

    def run(spec: dict[str, Any], workdir: Path = tmp_path / "run", stop_at: int | None = None) -> list[events.Event]:
        told: list[events.Event] = []
        stop = StopRequest()

        def emit(event: events.Event) -> None:
            told.append(event)
            if isinstance(event, events.Metrics) and event.step == stop_at:
                stop.ask()

        workdir.mkdir(exist_ok=True)
        resolved = resolve(JobSpec.model_validate(spec), data, models)
        engine.run(resolved, workdir, emit, stop)
        return told

    return run


def of(kind: type[Any], told: list[events.Event]) -> list[Any]:
    return [event for event in told if isinstance(event, kind)]
