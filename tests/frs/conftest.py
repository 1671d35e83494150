from pathlib import Path
from typing import Any

import frs.detectors._mmdet_init  # noqa: F401

import pytest
from tiny import Killed, Train, described

from frs import events
from frs.dataset.shapes.drawing import draw_dataset
from frs.detectors import builder, weights
from frs.engine import stages
from frs.engine.trainer import silence_libraries
from frs.resolved import resolve
from frs.spec import DescribedDetector, JobSpec
from frs.training.stop_request import STOP_FILE, StopRequest


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    draw_dataset(folder / "tiny", train=14, val=4, size=96)
    return folder


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with `teacher.pth`, a GFL detector of four classes with random weights."""
    folder = tmp_path_factory.mktemp("models")
    detector = builder.build(DescribedDetector.model_validate(described(neck_channels=32)), 4, folder)
    classes = ("circle", "square", "triangle", "star")
    content = {"meta": {"dataset_meta": {"classes": classes}}, "state_dict": detector.state_dict()}
    weights.write(content, folder / "teacher.pth")
    return folder


@pytest.fixture(autouse=True, scope="session")
def quiet_libraries() -> None:
    silence_libraries()


@pytest.fixture
def train(data: Path, models: Path, tmp_path: Path) -> Train:
    """Return a function that runs the engine on a spec in `workdir` and returns its events, appended to `emitted`.

    `stop_at` interrupts the run after that step, `stop_early_at` requests an early stop there, and `kill_at` raises an
    exception that is not caught.
    """

    def run(
        spec: dict[str, Any],
        workdir: Path = tmp_path / "run",
        stop_at: int | None = None,
        stop_early_at: int | None = None,
        kill_at: int | None = None,
        emitted: list[events.Event] | None = None,
    ) -> list[events.Event]:
        emitted = [] if emitted is None else emitted
        stop = StopRequest(workdir=workdir)

        def emit(event: events.Event) -> None:
            emitted.append(event)
            if isinstance(event, events.Metrics) and event.step == stop_at:
                stop.request()
            if isinstance(event, events.Metrics) and event.step == stop_early_at:
                (workdir / STOP_FILE).touch()
            if isinstance(event, events.Metrics) and event.step == kill_at:
                raise Killed

        workdir.mkdir(exist_ok=True)
        resolved = resolve(JobSpec.model_validate(spec), data, models)
        reason = stages.run(resolved, workdir, emit, stop)
        emitted.append(events.Outcome(status="succeeded", end_reason=reason))
        return emitted

    return run
