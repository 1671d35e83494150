"""A trainer without a process: it emits the stub's events and writes its files in the thread that reads its lines."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from frs import events
from store.errors import LeaseLost
from worker.attempt.database_retry import TRANSIENT_ERRORS
from worker.attempt.supervisor import Supervisor
from worker.attempt.trainer_run import Interruption
from worker.process.pipes import Line
from worker.process.trainer import TrainerState

STEPS = 3


class ScriptedTrainer:
    """Replacement for the supervisor's trainer. The heartbeat beats at each step, so that faults reach it as well."""

    def __init__(self, supervisor: Supervisor) -> None:
        """Install the trainer in the supervisor."""
        self.exit_code: int | None = None
        self.state, self.fenced = TrainerState.RUNNING, False
        self._supervisor = supervisor
        supervisor.trainer = self  # type: ignore[assignment]

    def start(self) -> None:
        """Do nothing: there is no process."""

    def extend_fence(self, fence_at: float) -> None:
        """Do nothing: there is no process."""

    def stop(self, within: float) -> None:
        """Do nothing: there is no process."""

    def kill(self) -> None:
        """Do nothing: there is no process."""

    def lines(self, timeout: float) -> Iterator[Line | None]:
        """Yield the events as lines, each followed by None, until the end or until the lease is lost."""
        for event in _script(self._supervisor.folder):
            if event.type == "progress":
                self._beat()
            if self._supervisor.interruption is Interruption.LEASE_LOST:
                return
            yield Line("events", event.model_dump_json().encode())
            yield None
        self.exit_code = 0

    def _beat(self) -> None:
        with suppress(*TRANSIENT_ERRORS):
            try:
                self._supervisor.renew()
            except LeaseLost:
                self._supervisor.interrupt(Interruption.LEASE_LOST)


def _script(folder: Path) -> Iterator[events.Event]:
    """Yield the events of a run that resumes from the newest checkpoint in the folder."""
    checkpoints = sorted((folder / "checkpoints").glob("step_*.pth"))
    first = json.loads(checkpoints[-1].read_text())["step"] if checkpoints else 0
    yield events.Phase(phase="training")
    yield events.Rewound(to_step=first)
    for step in range(first + 1, STEPS + 1):
        yield events.Metrics(step=step, epoch=0, values={"train/loss": 1 / step, "train/empty": None})
        yield events.Progress(epoch=0, epochs=1, step=step, steps=STEPS, fraction=step / STEPS)
        yield _checkpoint(folder, "training", step)
    yield events.Facts(values={"parameters": 1})
    scores: dict[str, Any] = {"metrics": {"bbox_mAP": 0.5}, "per_class": {"box": 0.5}, "images": 2, "detections": 3}
    yield events.Evaluation(role="student", step=STEPS, epoch=0, last=True, **scores)
    yield _checkpoint(folder, "student", STEPS)
    yield _artifact(folder)
    yield events.Outcome(status="succeeded", end_reason="completed")


def _checkpoint(folder: Path, kind: str, step: int) -> events.Checkpoint:
    labels = ("best", "last") if kind == "student" else ()
    return events.Checkpoint(
        kind=kind, step=step, epoch=0, labels=labels, **_write_file(folder, f"{kind}_{step}.pth", {"step": step})
    )


def _artifact(folder: Path) -> events.Artifact:
    return events.Artifact(name="config", **_write_file(folder, "config.json", {"a": 1}))


def _write_file(folder: Path, name: str, content: dict[str, int]) -> dict[str, Any]:
    """Write the content as JSON; return the event fields that describe the file."""
    data = json.dumps(content).encode()
    (folder / name).write_bytes(data)
    return {"path": name, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
