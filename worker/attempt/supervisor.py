"""Runs one lease to its end: from the job's row to a trainer, from the trainer's lines to rows and files."""

import errno
import threading
import time
from collections.abc import Sequence

import structlog
from sqlalchemy.orm import Session

from frs import events
from frs.errors import FrsError, StorageFull
from frs.events import Artifact, Checkpoint, Event, Log, Outcome, Phase
from frs.resolved import ResolvedSpec
from store.artifacts import unpacking
from store.artifacts.local_files import Abandoned
from store.artifacts.storage import open_artifacts
from store.db import queries, tables
from store.db.database import Database
from store.errors import ArtifactsUnavailable, LeaseLost
from store.jobs.lease import Lease, RequestedAction
from store.jobs.recording import keys_in_use, newest_checkpoints
from store.settings import Settings
from store.states import EndReason
from worker.attempt import finalizer, work_folder
from worker.attempt.finalizer import Finalizer
from worker.attempt.heartbeat import Heartbeat
from worker.attempt.inputs import AttemptInputs
from worker.attempt.recorder import FLUSH_SECONDS, AttemptRecorder
from worker.attempt.resolve import resolve_job
from worker.process.oom_kills import oom_kill_count
from worker.process.output import Output, escape_control
from worker.process.pipes import Line
from worker.process.trainer import COMMAND, TrainerProcess

CANCEL_GRACE_SECONDS = 5.0
"""From SIGTERM to SIGKILL for a trainer nobody wants any more."""
WANTS_STORAGE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS})
"""Errors that pass when somebody sees to the storage; others are tried again as a death is."""
_log = structlog.get_logger()


class Supervisor:
    """The only writer of its attempt. `run` blocks; `release` may be called from anywhere."""

    def __init__(
        self,
        database: Database,
        settings: Settings,
        lease: Lease,
        command: Sequence[str] = COMMAND,
        gpus: Sequence[str] | None = None,
    ) -> None:
        """`gpus`: the trainer's; None: this host has none to give."""
        self.settings, self.lease, self.gpus = settings, lease, gpus
        self.folder = work_folder.folder_of(settings.work_root, lease)
        self.artifacts = open_artifacts(settings)
        self.trainer = TrainerProcess(
            [*command, "train", "--spec", str(self.folder / work_folder.SPEC), "--workdir", str(self.folder)],
            live_until=time.monotonic() + settings.fence_seconds,
            stall_timeout_seconds=settings.stall_timeout_seconds,
            gpus=gpus,
        )
        self.heartbeat = Heartbeat(database, settings, lease, self.trainer, self._heed_wish)
        self.recorder = AttemptRecorder(
            database, self.artifacts, lease, self.folder, give_up=lambda: self.trainer.fenced
        )
        self.output = Output()
        self.phase = "starting"
        self.outcome: Outcome | None = None
        self._oom_kills = oom_kill_count()
        self._released = threading.Event()

    def release(self) -> None:
        """Gives the job back: the trainer leaves a checkpoint if it can in `grace_seconds`."""
        self._released.set()
        self.trainer.stop(self.settings.grace_seconds)

    def run(self) -> None:
        """When it returns, the trainer is dead and the job has ended, waits in the queue or belongs to another."""
        with structlog.contextvars.bound_contextvars(job_id=self.lease.job_id, attempt=self.lease.attempt):
            try:
                with self.heartbeat:
                    self._run()
            except LeaseLost as error:
                _log.warning("lease lost", said=error.message)
            finally:
                self.trainer.end()
                work_folder.remove(self.folder)

    def _run(self) -> None:
        _log.info("attempt begins")
        ending = self._finalizer()
        self.trainer.end()
        if self.heartbeat.lost:
            raise LeaseLost("Noticed by the heartbeat.")
        _log.info("attempt ends", status=self.recorder.write(ending))

    def _finalizer(self) -> Finalizer:
        try:
            self._prepare()
            self.trainer.start()
            self._follow()
            return self._judge()
        except Abandoned:
            cancelled = self.heartbeat.requested_action is RequestedAction.CANCEL
            return finalizer.cancelled() if cancelled else finalizer.given_back(attempt_counts=False)
        except LeaseLost:
            raise
        except StorageFull as error:
            return finalizer.waiting_for_storage(error.message)
        except FrsError as error:
            return finalizer.refused(error)
        except OSError as error:
            _log.warning("storage", error=str(error))
            if error.errno not in WANTS_STORAGE:
                return finalizer.given_back(attempt_counts=True)
            return finalizer.waiting_for_storage(storage_message(error))
        except Exception as error:
            _log.exception("supervisor failed")
            return finalizer.failed(EndReason.INTERNAL_ERROR, f"The supervisor failed: {type(error).__name__}.")

    def _heed_wish(self, requested_action: RequestedAction) -> None:
        """Called by the heartbeat for as long as it is wished."""
        match requested_action:
            case RequestedAction.CANCEL:
                self.trainer.stop(within=min(CANCEL_GRACE_SECONDS, self.settings.grace_seconds))
            case RequestedAction.PAUSE:
                self.trainer.stop(within=self.settings.grace_seconds)
            case RequestedAction.STOP:
                work_folder.ask_to_stop(self.folder)

    def _prepare(self) -> None:
        work_folder.check_space(self.settings)
        for upload_key in self.recorder.read(self._upload_keys):
            unpacking.unpack_dataset(self.settings, self.artifacts, upload_key, self._is_not_wanted)
        spec, inputs, checkpoints, keys = self.recorder.read(self._look_up)
        if self._is_not_wanted():  # else it might delete what its successor has put
            raise Abandoned
        self.artifacts.keep_only(self.lease.job_id, keys)  # earlier attempts can add no row any more
        work_folder.prepare(self.folder, spec, inputs, checkpoints, self.artifacts, self._is_not_wanted)

    def _upload_keys(self, session: Session) -> list[str]:
        datasets = queries.datasets_of(session, session.get_one(tables.Job, self.lease.job_id))
        return [dataset.upload_key for dataset in datasets if dataset.upload_key]

    def _is_not_wanted(self) -> bool:
        asked_to_go = self._released.is_set() or self.heartbeat.requested_action in (
            RequestedAction.CANCEL,
            RequestedAction.PAUSE,
        )
        return asked_to_go or self.heartbeat.lost or self.trainer.fenced

    def _look_up(self, session: Session) -> tuple[ResolvedSpec, AttemptInputs, list[tables.Checkpoint], set[str]]:
        job, inputs = session.get_one(tables.Job, self.lease.job_id), AttemptInputs(self.folder)
        spec = resolve_job(session, self.settings, job, inputs)
        return spec, inputs, newest_checkpoints(session, job.id), keys_in_use(session, job.id)

    def _follow(self) -> None:
        """Until the trainer is dead. Once the job is lost or cancelled, what it says is nobody's business."""
        for line in self.trainer.lines(FLUSH_SECONDS):
            if self._silenced:
                continue
            if line is None:
                self.recorder.flush()
            else:
                self._take(line)
        if not self._silenced:
            self.recorder.add(*self.output.end())
            self.recorder.flush()

    @property
    def _silenced(self) -> bool:
        return self.heartbeat.lost or self.heartbeat.requested_action is RequestedAction.CANCEL

    def _take(self, line: Line) -> None:
        if line.source == "output":
            self.recorder.add(*self.output.take(line.data))
        else:
            self._heed(_parse(line.data))

    def _heed(self, event: Event) -> None:
        match event:
            case Outcome():
                self.outcome = event
            case Checkpoint() | Artifact():
                self.recorder.keep(event)
            case Phase():
                self.phase = event.phase
                self.trainer.stall_timeout_seconds = self._patience
                self.recorder.add(event)
            case Log():
                self.recorder.add(event.model_copy(update={"message": escape_control(event.message)}))
            case _:
                self.recorder.add(event)

    @property
    def _patience(self) -> float:
        return (
            self.settings.step_stall_timeout_seconds
            if self.phase == "training"
            else self.settings.stall_timeout_seconds
        )

    def _judge(self) -> Finalizer:
        if self.heartbeat.requested_action is RequestedAction.CANCEL:
            return finalizer.cancelled()
        if self.outcome and self.outcome.status == "succeeded" and self.recorder.refused:
            return finalizer.failed_with(EndReason.INTERNAL_ERROR, self.recorder.refused)
        if self.outcome is None and self.trainer.hung:
            return finalizer.stalled(self._patience, self.phase, self.output.tail)
        asked_to_go = (
            self._released.is_set() or self.heartbeat.requested_action is RequestedAction.PAUSE
        )  # perhaps before it could listen
        if self.outcome is None and (self.trainer.killed or asked_to_go):
            return finalizer.given_back(attempt_counts=False)
        killed_for_memory = oom_kill_count() > self._oom_kills
        return finalizer.finalizer_for(self.outcome, self.trainer.exit_code, self.output.tail, killed_for_memory)


def storage_message(error: OSError) -> str:
    if isinstance(error, ArtifactsUnavailable):
        return f"The store of artifacts cannot be used: {error.strerror}."
    return f"A file could not be written: {error.strerror or type(error).__name__}."


def _parse(line: bytes) -> Event:
    try:
        return events.parse(line)
    except ValueError:
        start = line[:200].decode(errors="replace")
        return Log(level="warning", message=f"The trainer sent a line of {len(line)} bytes that is no event: {start}")
