import copy
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import frs.detectors._mmdet_init  # noqa: F401

import pytest
from mmengine.logging import MessageHub
from tiny import Killed, Train, described

from frs import events
from frs.dataset.shapes.drawing import draw_dataset
from frs.detector_spec import DescribedDetector
from frs.detectors import builder, weights
from frs.distillation import calibration
from frs.engine import delivery, hooks, stages
from frs.engine.trainer import silence_libraries
from frs.resolved import resolve
from frs.spec import JobSpec
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


@pytest.fixture(autouse=True)
def first_epoch() -> None:
    """Set the epoch, which TOOD's loss reads and the training loop sets."""
    MessageHub.get_current_instance().update_info("epoch", 0)


@pytest.fixture(autouse=True, scope="session")
def base_configs_are_read_once() -> Iterator[None]:
    """Read each of mmdet's configs once a session; a run reads four, at 0.1 s each."""
    read = cache(builder.get_config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builder, "get_config", lambda name: copy.deepcopy(read(name)))
        yield


@pytest.fixture
def train(data: Path, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Train:
    """Return a function that runs the engine on a spec in `workdir` and returns its events, appended to `emitted`.

    Calibration takes 2 batches and 6 steps. The richness picture, which takes a third of a run, is drawn on request.
    `stop_at` interrupts the run after that step, `stop_early_at` requests an early stop there, and `kill_at` raises an
    exception that is not caught.
    """

    monkeypatch.setattr(hooks, "CALIBRATION_BATCHES", 2)
    monkeypatch.setattr(calibration, "FIT_STEPS", 6)

    def run(
        spec: dict[str, Any],
        workdir: Path = tmp_path / "run",
        stop_at: int | None = None,
        stop_early_at: int | None = None,
        kill_at: int | None = None,
        emitted: list[events.Event] | None = None,
        pictures: bool = False,
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
        with monkeypatch.context() as patch:
            if not pictures:
                patch.setattr(delivery, "emit_richness", lambda *_: None)
            reason = stages.run(resolved, workdir, emit, stop)
        emitted.append(events.Outcome(status="succeeded", end_reason=reason))
        return emitted

    return run
