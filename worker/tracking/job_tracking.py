"""The trackers of one attempt: what the recorder has written is forwarded to all of them."""

import re
import time
from collections.abc import Callable, Sequence
from typing import BinaryIO

from frs.events import Artifact, Checkpoint, Evaluation, Event, Log, Metrics
from store.settings import Settings
from worker.tracking.forwarder import END_SECONDS, LAST_SECONDS, Forwarder, ResultFile
from worker.tracking.mlflow import MlflowTracker
from worker.tracking.tracker import Point, RunEnd, TrackedRun, Tracker
from worker.tracking.wandb import WandbTracker

_FILE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")
"""Names of the artifacts that the API serves, without those that could name a parent folder."""
_SCORE = re.compile(r"[A-Za-z0-9_.]{1,90}")
"""Names of scores that can be metric keys (`frs.events.MetricKey`)."""


def open_trackers(settings: Settings) -> list[Tracker]:
    """Return the trackers that the operator has set; none by default."""
    trackers: list[Tracker] = []
    if settings.mlflow_url:
        trackers.append(MlflowTracker(settings.mlflow_url, settings.mlflow_token, settings.mlflow_experiment))
    if settings.wandb_project:
        folder = settings.data / "wandb"
        trackers.append(WandbTracker(settings.wandb_project, settings.wandb_url, settings.wandb_api_key, folder))
    return trackers


class JobTracking:
    """Forwards the values and result files of an attempt. Without trackers, every method does nothing.

    Only the supervisor's thread may use it. Nothing is raised; `wait` and `end` block for a bounded time, the other
    methods not at all.
    """

    def __init__(self, trackers: Sequence[Tracker], open_file: Callable[[str], BinaryIO]) -> None:
        """`open_file` opens the artifact of a key."""
        self._trackers, self._open_file = trackers, open_file
        self._forwarders: list[Forwarder] = []

    @property
    def is_used(self) -> bool:
        """Whether there is a tracker."""
        return bool(self._trackers)

    def start(self, run: TrackedRun) -> None:
        """Create the run in the trackers, or continue it."""
        self._forwarders = [Forwarder(tracker, run) for tracker in self._trackers]

    def add_events(self, events: Sequence[Event]) -> None:
        """Forward the values of recorded events."""
        if self._forwarders:
            for event in events:
                if (point := _point(event)) is not None:
                    self._add(point)

    def add_file(self, file: Artifact | Checkpoint, key: str) -> None:
        """Forward a stored result file. Checkpoints stay in the service; the last student is a result file, too."""
        if isinstance(file, Artifact) and _FILE_NAME.fullmatch(file.name):
            self._add(ResultFile(file.name, file.bytes, lambda: self._open_file(key)))

    def take_warnings(self) -> list[Log]:
        """Return the new messages for the job's log."""
        messages = [message for forwarder in self._forwarders for message in forwarder.take_warnings()]
        return [Log(level="warning", message=message) for message in messages]

    def wait(self) -> None:
        """Wait until everything is forwarded, at most `LAST_SECONDS`; what then lacks is a warning."""
        deadline = time.monotonic() + LAST_SECONDS
        for forwarder in self._forwarders:
            if not forwarder.wait(max(0.0, deadline - time.monotonic())):
                forwarder.warn_of_rest()

    def end(self, end: RunEnd | None) -> None:
        """Forward how the attempt ended and close the trackers, after at most `END_SECONDS`.

        None: the attempt has lost its lease, and the run belongs to its successor.
        """
        deadline = time.monotonic() + END_SECONDS
        if end is not None:
            self._add(end)
            for forwarder in self._forwarders:
                forwarder.wait(max(0.0, deadline - time.monotonic()))
        for forwarder in self._forwarders:
            forwarder.close()

    def _add(self, item: Point | ResultFile | RunEnd) -> None:
        for forwarder in self._forwarders:
            forwarder.add(item)


def _point(event: Event) -> Point | None:
    """Return the values of metrics, and of a student's evaluation, under the keys of `GET /jobs/{id}/metrics`."""
    match event:
        case Metrics():
            values = event.values
        case Evaluation(role="student"):
            values = {f"val/{name}": value for name, value in event.metrics.items() if _SCORE.fullmatch(name)}
        case _:
            return None
    return Point(event.step, time.time(), {key: value for key, value in values.items() if value is not None})
