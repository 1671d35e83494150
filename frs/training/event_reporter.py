"""What the engine tells of its work, with the bookkeeping of who was told what when."""

import time
from pathlib import Path
from typing import Any, Literal

from frs import events
from frs.detectors.weights import SavedFile
from frs.evaluation.coco_scores import Scores
from frs.training.schedule import ResolvedSchedule

PROGRESS_SECONDS = 0.5
KEEPALIVE_SECONDS = 2.0
"""Within long work between steps, such as an evaluation: a watchdog takes long silence for a hang."""


class EventReporter:
    def __init__(self, emit: events.Emit, root: Path) -> None:
        """Files are told by their path below `root`."""
        self.emit, self.root = emit, root
        self._progress = events.Progress(epoch=0, epochs=0, step=0, steps=0, fraction=0.0)
        self._told = time.monotonic()
        self.warnings: list[str] = []
        """Kept in the report."""
        self._seconds_per_step: float | None = None

    def phase(self, name: str) -> None:
        self.emit(events.Phase(phase=name))
        self._progress = self._progress.model_copy(update={"phase_fraction": None})

    def log(self, message: str, level: Literal["info", "warning"] = "info") -> None:
        self.emit(events.Log(level=level, message=message))

    def warn(self, *messages: str) -> None:
        """Logs what was not said before, and keeps it for the report."""
        new = [message for message in messages if message not in self.warnings]
        for message in new:
            self.log(message, "warning")
        self.restore_warnings([*self.warnings, *new])

    def restore_warnings(self, warnings: list[str]) -> None:
        """Warnings of attempts before this one come first."""
        self.warnings = list(dict.fromkeys([*warnings, *self.warnings]))
        if self.warnings:
            self.facts(warnings=self.warnings)

    def facts(self, **values: object) -> None:
        self.emit(events.Facts(values=values))

    def step(self, plan: ResolvedSchedule, step: int, seconds: float, batch_size: int) -> None:
        """A step that took so long is done."""
        before = self._seconds_per_step
        self._seconds_per_step = seconds if before is None else 0.9 * before + 0.1 * seconds
        self._progress = events.Progress(
            epoch=plan.epoch_of(step),
            epochs=plan.epochs,
            step=step,
            steps=plan.steps,
            fraction=step / plan.steps,
            eta_seconds=self._seconds_per_step * (plan.steps - step),
            images_per_second=batch_size / max(self._seconds_per_step, 1e-9),
        )
        if step == plan.steps or time.monotonic() - self._told > PROGRESS_SECONDS:
            self._tell()

    def phase_progress(self, done: int, total: int) -> None:
        """So much of the phase at hand is done."""
        if time.monotonic() - self._told > KEEPALIVE_SECONDS:
            self._progress = self._progress.model_copy(
                update={"phase_fraction": done / max(1, total), "time": time.time()}
            )
            self._tell()

    def evaluation(self, role: events.Role, scores: Scores, *, step: int = 0, epoch: int = 0, last: bool) -> None:
        told: dict[str, Any] = {
            name: getattr(scores, name) for name in ("metrics", "per_class", "images", "detections")
        }
        self.emit(events.Evaluation(role=role, step=step, epoch=epoch, last=last, **told))

    def checkpoint(self, kind: Literal["training", "student"], written: SavedFile, **facts: Any) -> None:
        self.emit(events.Checkpoint(kind=kind, **self._file(written), **facts))

    def artifact(self, name: str, written: SavedFile) -> None:
        self.emit(events.Artifact(name=name, **self._file(written)))

    def _file(self, written: SavedFile) -> dict[str, Any]:
        return {"path": str(written.path.relative_to(self.root)), "sha256": written.sha256, "bytes": written.bytes}

    def _tell(self) -> None:
        self._told = time.monotonic()
        self.emit(self._progress)
