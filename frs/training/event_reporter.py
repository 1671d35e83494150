"""Emit the engine's events and limit the rate of progress events."""

import time
from pathlib import Path
from typing import Any, Literal

from frs import events
from frs.detectors.weights import SavedFile
from frs.evaluation.coco_scores import Scores
from frs.facts import RunFacts
from frs.training.schedule import ResolvedSchedule

PROGRESS_SECONDS = 0.5
"""Minimum interval between two progress events during training, in seconds."""
KEEPALIVE_SECONDS = 2.0
"""Minimum interval between two progress events in a phase without steps, such as an evaluation, in seconds.

Without these events the watchdog would take a long phase for a stalled trainer.
"""


class EventReporter:
    """Emit events with the paths of files relative to `root`."""

    def __init__(self, emit: events.Emit, root: Path) -> None:
        self.emit, self.root = emit, root
        self._progress = events.Progress(epoch=0, epochs=0, step=0, steps=0, fraction=0.0)
        self._emitted_at = time.monotonic()
        self.warnings: list[str] = []
        """All warnings of the run, in order, for the report."""
        self._seconds_per_step: float | None = None

    def phase(self, name: str) -> None:
        """Emit the start of a phase."""
        self.emit(events.Phase(phase=name))
        self._progress = self._progress.model_copy(update={"phase_fraction": None})

    def log(self, message: str, level: Literal["info", "warning"] = "info") -> None:
        """Emit a log message."""
        self.emit(events.Log(level=level, message=message))

    def warn(self, *messages: str) -> None:
        """Log warnings that were not logged before, and add them to the report."""
        new = [message for message in messages if message not in self.warnings]
        for message in new:
            self.log(message, "warning")
        self.warnings += new
        self._report_warnings()

    def add_earlier_warnings(self, warnings: list[str]) -> None:
        """Insert the warnings of earlier attempts before those of this attempt."""
        self.warnings = list(dict.fromkeys([*warnings, *self.warnings]))
        self._report_warnings()

    def _report_warnings(self) -> None:
        if self.warnings:
            self.facts(RunFacts(warnings=tuple(self.warnings)))

    def facts(self, facts: RunFacts) -> None:
        """Emit facts for the report."""
        self.emit(events.Facts(values=facts.model_dump(mode="json")))

    def step(self, schedule: ResolvedSchedule, step: int, seconds: float, images: int) -> None:
        """Record that `step` on `images` images took `seconds`; emit progress if due, and always at the last step."""
        before = self._seconds_per_step
        self._seconds_per_step = seconds if before is None else 0.9 * before + 0.1 * seconds
        self._progress = events.Progress(
            epoch=schedule.epoch_of(step),
            epochs=schedule.epochs,
            step=step,
            steps=schedule.steps,
            fraction=step / schedule.steps,
            eta_seconds=self._seconds_per_step * (schedule.steps - step),
            images_per_second=images / max(self._seconds_per_step, 1e-9),
        )
        if step == schedule.steps or time.monotonic() - self._emitted_at > PROGRESS_SECONDS:
            self._emit_progress()

    def phase_progress(self, done: int, total: int) -> None:
        """Record that `done` of `total` items of the current phase are complete; emit progress if it is due."""
        if time.monotonic() - self._emitted_at > KEEPALIVE_SECONDS:
            self._progress = self._progress.model_copy(
                update={"phase_fraction": done / max(1, total), "time": time.time()}
            )
            self._emit_progress()

    def evaluation(self, role: events.Role, scores: Scores, *, step: int = 0, epoch: int = 0, last: bool) -> None:
        """Emit the scores of a detector."""
        values: dict[str, Any] = {
            name: getattr(scores, name) for name in ("metrics", "per_class", "images", "detections")
        }
        self.emit(events.Evaluation(role=role, step=step, epoch=epoch, last=last, **values))

    def checkpoint(self, kind: Literal["training", "student"], saved: SavedFile, **values: Any) -> None:
        """Emit that a checkpoint was saved."""
        self.emit(events.Checkpoint(kind=kind, **self._file(saved), **values))

    def artifact(self, name: str, saved: SavedFile) -> None:
        """Emit that an artifact was saved."""
        self.emit(events.Artifact(name=name, **self._file(saved)))

    def _file(self, saved: SavedFile) -> dict[str, Any]:
        return {"path": str(saved.path.relative_to(self.root)), "sha256": saved.sha256, "bytes": saved.bytes}

    def _emit_progress(self) -> None:
        self._emitted_at = time.monotonic()
        self.emit(self._progress)
